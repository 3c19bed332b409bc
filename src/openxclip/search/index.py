"""An index of videos: a LanceDB table of windows, which is brought up to date and searched. Needs lancedb.

A search has two stages. The first finds the nearest embeddings to the text's. The second scores these candidates anew
with video-specific prompts (section 3.3): a prompted text depends on the video, so no table can be sorted by it.

Shapes: M candidates, N patches, E joint embedding.
"""

import json
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from openxclip.durations import seconds_of
from openxclip.errors import InputError, MissingExtraError, OpenXCLIPError, VideoError

try:
    import lancedb
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError(str(error.name), "search") from error

from openxclip.inference.engine import Engine
from openxclip.inference.label_set import label_features
from openxclip.inference.views import Views
from openxclip.models import VideoFeatures
from openxclip.search.embedding import IndexRow, index_runner, num_context
from openxclip.steps import finished
from openxclip.tagging.decoding import Piece, Plan, decode
from openxclip.tagging.identity import model_id
from openxclip.tagging.output import JOB
from openxclip.tagging.sources import Source, file_system, is_remote, list_sources, source_at
from openxclip.tagging.workers import Decoders
from openxclip.video.source import VideoLimits

TABLE, META = "windows", "index.json"
INPUTS_AT_ONCE = 64  # inputs whose rows are added together: what an interrupted update does again at most
MIN_ROWS_OF_ANN = (
    2_000_000  # below, comparing with every row takes no second; an index of vectors misses some
)
NUM_PROMPTERS = 16  # videos that a text is prompted by for the first stage
NEAR_DUPLICATE = 0.99  # cosine from which two windows are called near duplicates

FACTS = ("path", "start_seconds", "end_seconds", "duration_seconds", "fps", "width", "height", "codec")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A window that was found."""

    path: str
    start_seconds: float
    end_seconds: float
    duration_seconds: float
    score: float
    """The cosine of the video with the text as it sees it, or with the other video: comparable among the hits of one
    search. Across searches only roughly: some texts lie nearer to all videos than others."""
    is_near_duplicate: bool = False
    """Whether it nearly equals the video that was searched with."""


@dataclass(frozen=True, kw_only=True)
class Update:
    """What an update changed."""

    num_added: int
    num_changed: int
    num_deleted: int
    num_unchanged: int
    num_rows: int
    """Of the whole index, afterwards."""
    errors: dict[str, str]
    """Videos that cannot be read, and why; tried again by the next update."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an index was made with; kept beside it."""

    model: str
    """As it was given to load."""
    model_id: str
    num_frames: int
    embed_dim: int
    num_context: int
    """Numbers that prompts read, of each window; 0 where they are not kept."""
    windows: str | None
    stride: str | None
    version: int = 1


class Index:
    """An open index and the model that it was made with."""

    def __init__(
        self, address: str, engine: Engine, settings: Settings, limits: VideoLimits | None = None
    ) -> None:
        self.address, self.engine, self.settings = address.rstrip("/"), engine, settings
        self.limits = limits or VideoLimits()
        self._table = _open_table(self.address, settings)

    @classmethod
    def open(
        cls,
        address: str,
        engine: Engine,
        model_name: str,
        *,
        windows: str | None = None,
        stride: str | None = None,
        keep_context: bool = True,
        limits: VideoLimits | None = None,
    ) -> Self:
        """Open an index for updates, or make it.

        Args:
            address: folder of the index; a path, or an address of an object store.
            engine: the model.
            model_name: how it was named, for `read_settings`.
            windows: length of a window, such as "4s"; None for whole videos.
            stride: from one window to the next.
            keep_context: keep what prompts read; without it a search decodes its candidates again.
            limits: videos beyond them are left out.

        Raises:
            InputError: the index was made with another model or other windows.
        """
        wanted = Settings(
            model=model_name,
            model_id=model_id(model_name, engine.model),
            num_frames=engine.model.config.num_frames,
            embed_dim=engine.model.config.embed_dim,
            num_context=num_context(engine) if keep_context else 0,
            windows=windows,
            stride=stride,
        )
        found = read_settings(address)
        if found is None:
            _write_settings(address, wanted)
        elif found != wanted:
            raise InputError(
                f"{address} was made {_difference(found, wanted)}. Ask the same, or make another index"
            )
        return cls(address, engine, wanted, limits)

    @property
    def num_rows(self) -> int:
        """Windows in the index."""
        return self._table.count_rows()

    # --- bringing it up to date -----------------------------------------------------------------------------------

    def update(self, inputs: str, num_decoders: int | None = None) -> Update:
        """Add new videos, read changed ones again, drop those that are gone from `inputs`.

        Raises:
            InputError: there are no inputs.
        """
        return finished(self.update_in_steps(inputs, num_decoders))

    def update_in_steps(
        self, inputs: str, num_decoders: int | None = None
    ) -> Generator[tuple[int, int], None, Update]:
        """`update` as a generator that yields (done, all) after each video, for a progress bar."""
        root = inputs if is_remote(inputs) else str(Path(inputs).absolute())
        of_root = self._known(f"root = {_quoted(root)}")
        sources = list({source.path: source for source in self._listed(root, bool(of_root))}.values())
        prints = {source.path: _fingerprint(source) for source in sources}
        gone = [path for path in of_root if path not in prints]
        known = self._known(None)  # a video of two roots stands in the index once
        changed = [path for path in prints if path in known and known[path] != prints[path]]
        self._delete([*gone, *changed])
        to_read = [source for source in sources if known.get(source.path) != prints[source.path]]
        errors: dict[str, str] = {}
        if to_read:
            with Decoders(self._plan(), num_decoders or os.cpu_count() or 1, 300.0) as decoders:
                for start in range(0, len(to_read), INPUTS_AT_ONCE):
                    chunk = to_read[start : start + INPUTS_AT_ONCE]
                    yield from self._add_chunk(decoders, chunk, root, prints, errors, start, len(to_read))
            self._optimise()
        return Update(
            num_added=len(to_read) - len(changed) - sum(path not in changed for path in errors),
            num_changed=len(changed),
            num_deleted=len(gone),
            num_unchanged=len(sources) - len(to_read),
            num_rows=self.num_rows,
            errors=errors,
        )

    def _add_chunk(
        self,
        decoders: Decoders,
        chunk: Sequence[Source],
        root: str,
        prints: dict[str, str],
        errors: dict[str, str],
        first: int,
        total: int,
    ) -> Iterator[tuple[int, int]]:
        """Rows of some inputs, added together: an input's rows are all there or none of them."""
        runner = index_runner(self.engine, decoders, with_context=self.settings.num_context > 0)
        rows: list[IndexRow] = []
        for done, one in enumerate(runner.run(chunk), start=1):
            source = chunk[one.number]
            if one.error is not None:
                errors[source.path] = one.error
            rows += [{**row, "root": root, "fingerprint": prints[source.path]} for row in one.rows]
            yield first + done, total
        self.add_rows(rows)

    def update_from_tags(self, output: str) -> Update:
        """Add what `openxclip tag --embedding` wrote, part by part; parts that changed are taken anew.

        Prompts need more than a tag output holds: the index must be made with `keep_context=False`.

        Raises:
            InputError: the output holds no embeddings, or those of another model; or the index keeps context.
        """
        if self.settings.num_context:
            raise InputError(
                "a tag output holds no context for prompts; make the index without it (--no-context)"
            )
        system, folder = file_system(output.rstrip("/"))
        parts = sorted(system.glob(f"{folder}/part-*.parquet"))
        if not parts:
            raise InputError(f"{output} holds no parts of a tag output")
        with system.open(f"{folder}/{JOB}", "rb") as file:
            job = json.load(file)
        if (job["windows"], job["stride"]) != (self.settings.windows, self.settings.stride):
            raise InputError(
                f"{output} has windows {job['windows']} and stride {job['stride']}, the index {self.settings.windows} "
                f"and {self.settings.stride}; make the index with those of the output"
            )
        root = f"tags {system.unstrip_protocol(folder)}"
        prints = {name: f"{name.rpartition('/')[2]} {_print_of(system.info(name))}" for name in parts}
        column = self._table.search().where(f"root = {_quoted(root)}").select(["fingerprint"])
        known = set(column.limit(max(1, self.num_rows)).to_arrow()["fingerprint"].to_pylist())
        stale = known - set(prints.values())
        for fingerprint in stale:
            self._table.delete(f"root = {_quoted(root)} and fingerprint = {_quoted(fingerprint)}")
        before, num_errors = self.num_rows, 0
        for name in (name for name in parts if prints[name] not in known):
            rows, errors = self._tag_rows(system, name)
            num_errors += errors
            self.add_rows([{**row, "root": root, "fingerprint": prints[name]} for row in rows])
        self._optimise()
        return Update(
            num_added=self.num_rows - before,
            num_changed=0,
            num_deleted=len(stale),
            num_unchanged=len(known) - len(stale),
            num_rows=self.num_rows,
            errors={output: f"{num_errors} rows are errors"} if num_errors else {},
        )

    def _tag_rows(self, system: Any, name: str) -> tuple[list[IndexRow], int]:
        """Rows of a part, and how many of them are errors."""
        with system.open(name, "rb") as file:
            table = pq.read_table(file)
        if "embedding" not in table.column_names:
            raise InputError(f"{name} holds no embeddings; tag with --embedding")
        rows = table.to_pylist()
        good = [row for row in rows if row["error_kind"] is None]
        if other := {row["model_id"] for row in good} - {self.settings.model_id}:
            raise InputError(
                f"{name} was tagged with {other.pop()}, the index is of {self.settings.model_id}"
            )
        kept = [{**{key: row[key] for key in FACTS}, "embedding": np.array(row["embedding"])} for row in good]
        return kept, len(rows) - len(good)

    def add_rows(self, rows: Sequence[IndexRow]) -> None:
        """Add rows as `index_runner` makes them, with `root` and `fingerprint`."""
        if rows:
            self._table.add(_arrow(rows, self.settings))

    def _listed(self, root: str, was_indexed: bool) -> list[Source]:
        """The videos of a root; of one that was indexed and is now empty none."""
        try:
            return list_sources(root)
        except InputError:
            if was_indexed and Path(root).is_dir():
                return []
            raise

    def _known(self, where: str | None) -> dict[str, str]:
        """Path -> fingerprint."""
        found = self._table.search()
        found = (found if where is None else found.where(where)).select(["path", "fingerprint"])
        table = found.limit(max(1, self.num_rows)).to_arrow()
        return dict(zip(table["path"].to_pylist(), table["fingerprint"].to_pylist(), strict=True))

    def _delete(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), 500):
            names = ", ".join(_quoted(path) for path in paths[start : start + 500])
            self._table.delete(f"path in ({names})")

    def _optimise(self) -> None:
        """Merge small files; beyond `MIN_ROWS_OF_ANN` rows build an index of vectors."""
        self._table.optimize()
        if self.num_rows >= MIN_ROWS_OF_ANN and not self._table.list_indices():
            self.build_ann()

    def _num_probes(self) -> int:
        """Partitions that a search looks into, where there is an index of vectors: a tenth of them."""
        return max(20, round(self.num_rows**0.5 / 10))

    def build_ann(self) -> None:
        """Build an index of vectors, so that a search need not look at every row."""
        partitions = max(1, round(self.num_rows**0.5))
        self._table.create_index(
            metric="cosine",
            vector_column_name="embedding",
            index_type="IVF_FLAT",
            num_partitions=partitions,
            replace=True,
        )

    # --- searching ------------------------------------------------------------------------------------------------

    def search(self, text: str, *, top_k: int = 10, rerank: int = 100, where: str | None = None) -> list[Hit]:
        """Windows that show what the text says, best first.

        Args:
            text: in your own words.
            top_k: how many.
            rerank: how many candidates are scored with prompts; 0 for none.
            where: an SQL condition on the columns, such as "duration_seconds < 30 and path like '%cam2%'".

        Raises:
            InputError: a number or the condition cannot be used.
        """
        feature = self._text_feature(text)
        query = self._query(feature) if rerank else feature[0].numpy()
        found = self._nearest(query, max(top_k, rerank), where, with_context=rerank > 0)
        if rerank and len(found) and self.engine.model.prompting is not None:
            scores = self._prompted(found, feature)
        else:
            scores = 1 - found["_distance"].to_numpy()
        return _hits(found, scores, top_k)

    def similar(self, video: str, *, top_k: int = 10, where: str | None = None) -> list[Hit]:
        """Windows that look like a video, best first.

        Raises:
            VideoError: the video cannot be read.
            InputError: the condition cannot be used.
        """
        feature = self._read(source_at(video), None)["embedding"]
        found = self._nearest(feature, top_k, where, with_context=False)
        return _hits(found, 1 - found["_distance"].to_numpy(), top_k, near_duplicate=NEAR_DUPLICATE)

    @torch.inference_mode()
    def _text_feature(self, text: str) -> Tensor:
        """(1, E), as the model gives it, on the CPU in float32."""
        model = self.engine.model
        tokens = self.engine.tokenizer([text]).to(model.logit_scale.device)
        return label_features(model, tokens, [1]).float().cpu()

    @torch.inference_mode()
    def _query(self, text: Tensor) -> np.ndarray:
        """What the first stage looks for (E,): the mean direction of the text as some videos of the index see it.

        A model with prompting learned to compare videos with prompted texts; the bare text lies elsewhere. Without
        context the bare text has to do.
        """
        if not self.settings.num_context or self.engine.model.prompting is None:
            return text[0].numpy()
        some = self._table.search().select(["context"]).limit(NUM_PROMPTERS).to_arrow()
        if not len(some):
            return text[0].numpy()
        weight = self.engine.model.logit_scale
        patches = torch.from_numpy(_matrix(some["context"])).to(weight.device, weight.dtype)
        patches = patches.unflatten(1, (-1, self.settings.embed_dim))
        prompted = self.engine.model.prompting(text.to(weight.device, weight.dtype), patches)[:, 0]  # (M, E)
        return torch.nn.functional.normalize(prompted.float(), dim=-1).mean(dim=0).cpu().numpy()

    def _nearest(self, vector: np.ndarray, count: int, where: str | None, *, with_context: bool) -> Any:
        """Rows as an Arrow table, nearest first."""
        if count < 1:
            raise InputError(f"top_k must be at least 1, got {count}")
        columns = [*FACTS, "embedding", *(["context"] if with_context and self.settings.num_context else [])]
        query = self._table.search(np.asarray(vector, np.float32), vector_column_name="embedding")
        query = (
            query.distance_type("cosine")
            .nprobes(self._num_probes())
            .select([*columns, "_distance"])
            .limit(count)
        )
        try:
            return (query if where is None else query.where(f"({where})", prefilter=True)).to_arrow()
        except (ValueError, RuntimeError, OSError) as error:
            if where is None:
                raise
            known = ", ".join(FACTS)
            raise InputError(f"the filter {where!r} cannot be used: {error}. Columns are {known}") from error

    @torch.inference_mode()
    def _prompted(self, found: Any, text: Tensor) -> np.ndarray:
        """Cosine of each candidate with the text as it sees it."""
        if self.settings.num_context:
            embedding, context = (_matrix(found[name]) for name in ("embedding", "context"))
        else:
            places = list(zip(found["path"].to_pylist(), found["start_seconds"].to_pylist(), strict=True))
            readable = {
                i: row for i, place in enumerate(places) if (row := self._read_again(*place)) is not None
            }
            if not readable:
                return np.full(len(found), -np.inf)
            rows = [readable.get(i, next(iter(readable.values()))) for i in range(len(places))]
            embedding, context = (np.stack([row[name] for row in rows]) for name in ("embedding", "context"))
        model = self.engine.model
        dtype, device = model.logit_scale.dtype, model.logit_scale.device
        videos, flat = (torch.from_numpy(values).to(device, dtype) for values in (embedding, context))
        patches = flat.unflatten(1, (-1, self.settings.embed_dim))  # (M, N, E)
        logits = model.logits(VideoFeatures(videos, patches), text.to(device, dtype))[:, 0].float()
        bias = 0.0 if model.logit_bias is None else float(model.logit_bias)
        scores = ((logits - bias) / model.logit_scale.float().exp()).cpu().numpy()
        if not self.settings.num_context:
            scores[[i for i in range(len(scores)) if i not in readable]] = -np.inf
        return scores

    def _read_again(self, path: str, start_seconds: float) -> IndexRow | None:
        """A candidate, decoded; None where it is gone since: the next update drops it."""
        try:
            return self._read(source_at(path), start_seconds)
        except (VideoError, IndexError):
            return None

    def _read(self, source: Source, start_seconds: float | None) -> IndexRow:
        """A window of a video, computed now; None for the whole video.

        Raises:
            VideoError: it cannot be read.
        """
        plan = self._plan(whole=start_seconds is None)
        number = 0
        if start_seconds is not None and plan.stride_seconds:
            number = round(start_seconds / plan.stride_seconds)
        pixels, _ = decode(Piece(number=0, source=source, first_window=number, max_windows=1), plan)
        video = self.engine.encode(torch.from_numpy(pixels[0]))
        patches = torch.empty(0) if video.patches is None else video.patches[0]
        context = patches.float().flatten().cpu().numpy()
        return {"embedding": video.video[0].float().cpu().numpy(), "context": context}

    def _plan(self, *, whole: bool = False) -> Plan:
        windows = None if whole else self.settings.windows
        length = None if windows is None else seconds_of("windows", windows)
        stride = length if self.settings.stride is None else seconds_of("stride", self.settings.stride)
        return Plan(
            preprocess=self.engine.preprocess,
            num_frames=self.settings.num_frames,
            views=Views(),
            window_seconds=length,
            stride_seconds=None if length is None else stride,
            content_hash=False,
            limits=self.limits,
        )


def read_settings(address: str) -> Settings | None:
    """What an index was made with; None where there is none.

    Raises:
        InputError: the file beside it is no such file.
    """
    path = f"{address.rstrip('/')}/{META}"
    system, name = file_system(path)
    if not system.exists(name):
        return None
    try:
        return Settings(**json.loads(system.cat_file(name)))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is no settings of an index ({error}); make the index anew") from error


def _write_settings(address: str, settings: Settings) -> None:
    system, name = file_system(f"{address.rstrip('/')}/{META}")
    system.makedirs(name.rpartition("/")[0], exist_ok=True)
    system.pipe_file(name, (json.dumps(asdict(settings), indent=1) + "\n").encode())


def _difference(found: Settings, wanted: Settings) -> str:
    before, now = asdict(found), asdict(wanted)
    return "; ".join(
        f"with {name} {before[name]!r}, now it is {now[name]!r}" for name in now if before[name] != now[name]
    )


def _open_table(address: str, settings: Settings) -> Any:
    database = lancedb.connect(address)
    try:
        return database.open_table(TABLE)
    except (ValueError, FileNotFoundError, OpenXCLIPError):
        return database.create_table(TABLE, schema=_schema(settings))


def _schema(settings: Settings) -> Any:
    fields = [
        ("path", pa.string()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("duration_seconds", pa.float64()),
        ("fps", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("codec", pa.string()),
        ("root", pa.string()),
        ("fingerprint", pa.string()),
        ("embedding", pa.list_(pa.float16(), settings.embed_dim)),
    ]
    if settings.num_context:
        fields.append(("context", pa.list_(pa.float16(), settings.num_context)))
    return pa.schema(fields)


def _arrow(rows: Sequence[IndexRow], settings: Settings) -> Any:
    schema = _schema(settings)
    columns = []
    for field in schema:
        values = [row[field.name] for row in rows]
        if pa.types.is_fixed_size_list(field.type):
            flat = pa.array(np.concatenate(values).astype(np.float16))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, field.type.list_size))
        else:
            columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _fingerprint(source: Source) -> str:
    """Changes with the contents of a file, as far as its file system tells."""
    system, name = file_system(source.address)
    try:
        facts = system.info(name)
    except FileNotFoundError:
        return "missing"
    return f"{_print_of(facts)} {source.offset_bytes} {source.size_bytes}"


def _print_of(facts: dict[str, Any]) -> str:
    when = facts.get("ETag") or facts.get("mtime") or facts.get("LastModified") or facts.get("created")
    return f"{facts.get('size')} {when}"


def _matrix(column: Any) -> np.ndarray:
    """A column of lists of equal length -> (M, length)."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1).astype(np.float32)


def _hits(found: Any, scores: np.ndarray, top_k: int, near_duplicate: float = np.inf) -> list[Hit]:
    """The best rows; a score from `near_duplicate` on says that they are."""
    best = np.argsort(-scores, kind="stable")[:top_k]
    best = best[np.isfinite(scores[best])]
    facts = found.select(["path", "start_seconds", "end_seconds", "duration_seconds"]).take(best).to_pylist()
    return [
        Hit(**row, score=float(score), is_near_duplicate=bool(score >= near_duplicate))
        for row, score in zip(facts, scores[best], strict=True)
    ]


def _quoted(text: str) -> str:
    """As a string of SQL."""
    return "'" + text.replace("'", "''") + "'"
