"""The LanceDB table of an index: columns, opening and locking. Needs lancedb."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from openxclip.errors import MissingExtraError, OpenXCLIPError

try:
    import lancedb
    import pyarrow as pa
except ImportError as error:
    raise MissingExtraError(str(error.name), "search") from error

from openxclip.files import held
from openxclip.search.embedding import IndexRow
from openxclip.search.settings import Settings, unreachable
from openxclip.tagging.sources import file_system

TABLE, LOCK = "windows", ".update.lock"
PATHS_AT_ONCE = 500  # per condition


@contextmanager
def alone(address: str) -> Iterator[None]:
    """Lock an index against other processes of this machine. Object stores have no lock.

    Raises:
        InputError: another process holds the lock.
    """
    system, folder = file_system(address)
    if "file" not in system.protocol:
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with held(Path(folder) / LOCK, f"another update of {address} is running; wait for it, or stop it"):
        yield


def open_table(address: str) -> Any | None:
    """The table; None if it does not exist.

    Raises:
        OpenXCLIPError: it cannot be opened.
    """
    with readable(address):
        try:
            return _connect(address).open_table(TABLE)
        except (ValueError, FileNotFoundError):
            return None


def make_table(address: str, settings: Settings) -> Any:
    """Create an empty table.

    Raises:
        OpenXCLIPError: it cannot be written.
    """
    with readable(address):
        return _connect(address).create_table(TABLE, schema=schema(settings))


def _connect(address: str) -> Any:
    system, name = file_system(address)
    if "file" in system.protocol:
        return lancedb.connect(name)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    plain = {"allow_http": "true"} if endpoint.startswith("http://") else None
    return lancedb.connect(address, storage_options=plain)


@contextmanager
def readable(address: str) -> Iterator[None]:
    """Turn LanceDB's errors into one line: a damaged table, a full disk, a store that does not respond.

    Raises:
        OpenXCLIPError: LanceDB raised an error.
    """
    try:
        yield
    except OpenXCLIPError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        raise unreachable(address, error) from error


def schema(settings: Settings) -> Any:
    """The columns."""
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


def batch_of(rows: Sequence[IndexRow], settings: Settings) -> Any:
    """Rows as one Arrow batch."""
    columns = []
    for column in schema(settings):
        values = [row[column.name] for row in rows]
        if pa.types.is_fixed_size_list(column.type):
            flat = pa.array(np.concatenate(values).astype(np.float16))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, column.type.list_size))
        else:
            columns.append(pa.array(values, column.type))
    return pa.record_batch(columns, schema=schema(settings))


def rows_of(table: Any, columns: Sequence[str], where: str | None = None, *, numbered: bool = False) -> Any:
    """All rows that meet a condition, as an Arrow table of some columns; `numbered` adds `_rowid`."""
    found = table.search()
    found = (found if where is None else found.where(where)).select(list(columns)).with_row_id(numbered)
    return found.limit(max(1, table.count_rows())).to_arrow()


def drop_others(table: Any, kept: Mapping[str, str]) -> None:
    """Delete the rows of these paths whose fingerprint differs from the given one."""
    paths = list(kept)
    for start in range(0, len(paths), PATHS_AT_ONCE):
        chunk = paths[start : start + PATHS_AT_ONCE]
        marks = (quoted(f"{kept[path]} {path}") for path in chunk)
        table.delete(
            f"path in ({', '.join(map(quoted, chunk))}) and concat(fingerprint, ' ', path) not in ({', '.join(marks)})"
        )


def drop_paths(table: Any, paths: Sequence[str]) -> None:
    """Delete all rows of these paths."""
    for start in range(0, len(paths), PATHS_AT_ONCE):
        table.delete(f"path in ({', '.join(map(quoted, paths[start : start + PATHS_AT_ONCE]))})")


def drop_copies(table: Any) -> None:
    """Delete duplicate rows, which two processes can write at the same time in a store without locks."""
    rows = rows_of(table, ["path", "start_seconds", "fingerprint"], numbered=True)
    names = ("path", "start_seconds", "fingerprint", "_rowid")
    seen, copies = set(), []
    for *key, number in zip(*(rows[name].to_pylist() for name in names), strict=True):
        if tuple(key) in seen:
            copies.append(str(number))
        seen.add(tuple(key))
    for start in range(0, len(copies), PATHS_AT_ONCE):
        table.delete(f"_rowid in ({', '.join(copies[start : start + PATHS_AT_ONCE])})")


def quoted(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
