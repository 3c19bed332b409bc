"""The rows of a tagging job: their schema (documented in docs/scale.md) and construction. Needs pyarrow.

A change of the schema requires a new `SCHEMA_VERSION`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openxclip.errors import InputError, MissingExtraError
from openxclip.tagging.decoding import Facts
from openxclip.tagging.sources import Source, extra_table, unfit_column

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError("pyarrow", "tag") from error

SCHEMA_VERSION = 1

_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("path", pa.string()),
    ("input_number", pa.int64()),
    ("start_seconds", pa.float64()),
    ("end_seconds", pa.float64()),
    ("duration_seconds", pa.float64()),
    ("fps", pa.float64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("codec", pa.string()),
    ("labels", pa.list_(pa.string())),
    ("scores", pa.list_(pa.float32())),
    ("error_kind", pa.string()),
    ("error", pa.string()),
    ("model_id", pa.string()),
    ("label_set_id", pa.string()),
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Columns of the rows of one job."""

    labels: tuple[str, ...]
    model_id: str
    label_set_id: str
    top_k: int
    embed_dim: int | None
    """Size of the embedding; None without one."""
    all_scores: bool
    content_hash: bool
    extra: tuple[tuple[str, Any], ...]
    """Additional columns of the manifest: name and Arrow type."""

    def schema(self) -> Any:
        """Schema of the Parquet files; `path` comes first, the manifest's own columns last."""
        fields = [pa.field(name, kind) for name, kind in _COLUMNS]
        if self.all_scores:
            fields.append(pa.field("all_scores", pa.list_(pa.float32(), len(self.labels))))
        if self.embed_dim is not None:
            fields.append(pa.field("embedding", pa.list_(pa.float16(), self.embed_dim)))
        if self.content_hash:
            fields.append(pa.field("content_hash", pa.string()))
        fields += [pa.field(name, kind) for name, kind in self.extra]
        return pa.schema(fields, metadata={"openxclip_schema_version": str(SCHEMA_VERSION)})


def extra_columns(sources: Sequence[Source]) -> tuple[tuple[str, Any], ...]:
    """Name and type of the manifest's own columns.

    Raises:
        InputError: one has the name of an output column, or a type that Parquet does not support.
    """
    schema = extra_table(sources).schema
    taken = {name for name, _ in _COLUMNS} | {"all_scores", "embedding", "content_hash"}
    if clash := [name for name in schema.names if name in taken]:
        raise InputError(
            f"the manifest's column {clash[0]!r} has the name of a column of the output; rename it"
        )
    for field in schema:
        try:
            pq.write_table(pa.table({field.name: pa.array([], field.type)}), pa.BufferOutputStream())
        except pa.ArrowException as error:
            raise InputError(unfit_column(field.name, error)) from error
    return tuple((field.name, field.type) for field in schema)


def scored_row(
    layout: Layout,
    source: Source,
    facts: Facts,
    window: int,
    scores: np.ndarray,
    embedding: np.ndarray | None,
) -> dict[str, Any]:
    """A row of a window, from probabilities (K,)."""
    best = np.argsort(-scores, kind="stable")[: layout.top_k]
    start, end = facts.windows[window]
    row: dict[str, Any] = {
        "path": source.path,
        "start_seconds": start,
        "end_seconds": end,
        "duration_seconds": facts.duration_seconds,
        "fps": facts.fps,
        "width": facts.width,
        "height": facts.height,
        "codec": facts.codec,
        "labels": [layout.labels[k] for k in best],
        "scores": scores[best].tolist(),
        **_ids(layout),
    }
    if layout.all_scores:
        row["all_scores"] = scores
    if embedding is not None:
        row["embedding"] = embedding.astype(np.float16)
    if layout.content_hash:
        row["content_hash"] = facts.content_hash
    return row


def error_row(layout: Layout, source: Source, kind: str, text: str) -> dict[str, Any]:
    """The single row of an unreadable input."""
    return {"path": source.path, "error_kind": kind, "error": text, **_ids(layout)}


def _ids(layout: Layout) -> Mapping[str, str]:
    return {"model_id": layout.model_id, "label_set_id": layout.label_set_id}


def table(layout: Layout, rows: Mapping[int, Sequence[Mapping[str, Any]]]) -> Any:
    """Rows of the inputs of a part, by the number of the input, as an Arrow table of the layout's schema.

    The manifest's own columns are null: `with_extra` fills them.
    """
    schema = layout.schema()
    numbered = [{**row, "input_number": number} for number in sorted(rows) for row in rows[number]]
    return pa.table({name: [row.get(name) for row in numbered] for name in schema.names}, schema=schema)


def with_extra(layout: Layout, rows: Any, extra: Any) -> Any:
    """Rows of a part with the manifest's own columns, of which `extra` has a row for each input of the part."""
    names = [name for name, _ in layout.extra]
    if not names:
        return rows
    taken = extra.take(rows["input_number"])
    columns = {
        name: taken[name].cast(kind) if name in names else rows[name]
        for name, kind in zip(layout.schema().names, layout.schema().types, strict=True)
    }
    return pa.table(columns, schema=layout.schema())


def by_input(rows: Any) -> dict[int, Any]:
    """Rows of a part -> those of each input, by its number."""
    numbers = rows["input_number"].to_numpy()
    values, starts = np.unique(numbers, return_index=True)
    ends = [*starts[1:], len(numbers)]
    return {int(n): rows.slice(int(a), int(b) - int(a)) for n, a, b in zip(values, starts, ends, strict=True)}
