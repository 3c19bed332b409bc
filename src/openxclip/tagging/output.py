"""The output of a job: a Parquet dataset in parts, and metadata of the job.

    OUT/part-00000000.parquet   rows of the inputs of a part, in their order
    OUT/_job/job.json           the job's settings; other settings are refused
    OUT/_job/inputs.parquet     the inputs and their parts; new inputs get new parts
    OUT/_job/lock               lock of the writing job, where files can be locked

A part is written atomically and holds its inputs' rows once: the existing parts show what is done. The list of inputs
is written before the settings and deleted after the parts: parts or settings without it are refused.
Dataset readers ignore names that begin with _. Needs fsspec and pyarrow.
"""

import functools
import json
import os
import re
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from openxclip.errors import InputError, MissingExtraError, OpenXCLIPError
from openxclip.files import held
from openxclip.tagging.sources import Identities, ManifestRow, Source, extra_table, file_system

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError(str(error.name), "tag") from error

JOB, INPUTS, LOCK = "_job/job.json", "_job/inputs.parquet", "_job/lock"
VERSION_KEY = b"openxclip_schema_version"
"""Marker in the metadata of every part written by a job."""

GROUP_BYTES = 32 << 20
"""Size of a row group before compression."""

_EXTRA = "extra."
"""Prefix of the manifest's columns in the list of inputs."""

_Method = TypeVar("_Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Part:
    """Inputs whose rows are in one file."""

    number: int
    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"part-{self.number:08d}.parquet"


def _in_one_line(method: _Method) -> _Method:
    """Turn errors of an object store into errors of the output; each store has its own."""

    @functools.wraps(method)
    def wrapped(self: "Output", *words: Any, **named: Any) -> Any:
        try:
            return method(self, *words, **named)
        except (OpenXCLIPError, OSError):
            raise
        except Exception as error:
            if self.is_local:
                raise
            raise InputError(
                f"the output {self.address} cannot be used ({type(error).__name__}: {error})"
            ) from error

    return wrapped  # type: ignore[return-value]


class Output:
    """A folder, on this machine or in an object store.

    Raises:
        InputError: no file system is known for the address.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/") or address
        try:
            self._system, self._root = file_system(self.address)
        except Exception as error:  # each store has its own errors
            raise InputError(
                f"{address} cannot be used as output ({error}); give a folder, or a URL such as s3://bucket/tags"
            ) from error
        self.is_local = "file" in self._system.protocol
        self._question: dict[str, Any] = {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the output against other jobs of this machine. Object stores have no lock.

        Raises:
            InputError: another job holds the lock, or the folder holds something other than a job.
        """
        if not self.is_local:
            yield
            return
        self._check_free()
        os.makedirs(self._path("_job"), exist_ok=True)  # noqa: PTH103 a path of fsspec
        with held(Path(self._path(LOCK)), f"another job writes {self.address}; wait for it, or stop it"):
            yield

    @_in_one_line
    def begin(self, question: dict[str, Any], *, overwrite: bool) -> None:
        """Start a job, or resume it. `parts` records it.

        Raises:
            InputError: the folder holds another job, something other than a job, or a job without its inputs.
        """
        self._system.invalidate_cache()
        self._check_free()
        parts = self._part_names()
        if overwrite:
            self._drop(parts)
        elif self._exists(JOB):
            if not self._exists(INPUTS):
                raise InputError(
                    f"{self.address} has lost the list of its inputs, {INPUTS}: the remaining work is unknown. "
                    "Restore it, give another output, or --overwrite to start over"
                )
            self._check_same(question)
        elif parts:
            raise InputError(f"{self.address} holds parts without their job; --overwrite deletes them")
        elif self._exists(INPUTS):
            self._remove(
                INPUTS
            )  # of a job that was killed before it started, or after its parts were deleted
        self._question = question

    def _check_free(self) -> None:
        """Refuse a folder that holds something else."""
        names = self._names()
        if "_job" in names and any(self._exists(name) for name in (JOB, INPUTS, LOCK)):
            return
        foreign = [name for name in names if not _is_temporary(name) and not self._is_our_part(name)]
        if "_job" in foreign and all(_is_temporary(name) for name in self._names("/_job")):
            foreign.remove("_job")
        if foreign:
            raise InputError(f"{self.address} holds no job, but {min(foreign)}; give another output")

    def _names(self, folder: str = "") -> list[str]:
        """The files in the folder, or in one of its subfolders."""
        path = self._root + folder
        if not self._system.exists(path):
            return []
        return [name.rpartition("/")[2] for name in self._system.ls(path, detail=False)]

    def _part_names(self) -> list[str]:
        """Names of the existing parts, in order."""
        return sorted(name for name in self._names() if _PART.fullmatch(name))

    def _is_our_part(self, name: str) -> bool:
        """Whether a job wrote this file."""
        if not _PART.fullmatch(name):
            return False
        try:
            with self._system.open(self._path(name), "rb") as file:
                return VERSION_KEY in (pq.ParquetFile(file).metadata.metadata or {})
        except (pa.ArrowException, OSError):
            return False

    def _drop(self, parts: Sequence[str]) -> None:
        """Remove only files written by jobs. If killed between steps, the rest is refused or started over."""
        if foreign := [name for name in parts if not self._is_our_part(name)]:
            raise InputError(
                f"{self.address}/{foreign[0]} is damaged, or was not written by a job; delete it or move it away, and "
                "run the command again"
            )
        for name in (JOB, *parts, INPUTS):
            if self._exists(name):
                self._remove(name)

    def _exists(self, name: str) -> bool:
        return bool(self._system.exists(self._path(name)))

    def _remove(self, name: str) -> None:
        self._system.rm(self._path(name))

    def _check_same(self, question: dict[str, Any]) -> None:
        with self._system.open(self._path(JOB), "rb") as file:
            content = file.read()
        try:
            before = json.loads(content)
            names = sorted(question.keys() | before.keys())
        except (ValueError, AttributeError) as error:
            raise InputError(self._damaged(JOB, error)) from error
        for name in names:
            if question.get(name) == before.get(name):
                continue
            if name == "columns":
                raise InputError(
                    f"{self.address} holds another job: {_difference(before.get(name) or [], question.get(name) or [])}"
                    ". Give the manifest's columns their former names and types (a Parquet manifest states its types, "
                    "others are inferred from their values), or another output, or --overwrite to start over"
                )
            raise InputError(
                f"{self.address} holds another job: its {name} is {_short(before.get(name))}, now it is "
                f"{_short(question.get(name))}. Give another output, or --overwrite to start over"
            )

    def _damaged(self, name: str, error: Exception) -> str:
        return (
            f"{self.address}/{name} is damaged ({error}). Restore it, give another output, or --overwrite to start "
            "over"
        )

    @_in_one_line
    def parts(self, sources: Sequence[Source], part_size: int) -> list[Part]:
        """The inputs in parts. Known inputs keep theirs; new ones, by path and repetition, get later parts.

        A known input takes its current values from the listing, such as a corrected column of the manifest; they apply
        if the input is computed or retried.

        Raises:
            InputError: the list of inputs is damaged, or there are unknown parts.
        """
        before = self._read_inputs()
        known = _inputs_of(before)
        new = _merge(known, sources)
        first = max((number for number, _ in known), default=-1) + 1
        everything = [*known, *((first + i // part_size, source) for i, source in enumerate(new))]
        by_part: dict[int, list[Source]] = {}
        for number, source in everything:
            by_part.setdefault(number, []).append(source)
        parts = [Part(number, tuple(members)) for number, members in by_part.items()]
        if strange := sorted(self.done() - {part.name for part in parts}):
            raise InputError(
                f"{self.address}/{strange[0]} is not a part of this job: its list of inputs, {INPUTS}, lacks it. "
                "Move it away, or restore the correct list"
            )
        table = _table_of(everything)
        if before is None or not table.equals(before):
            self._write(INPUTS, _parquet(table))
        if not self._exists(JOB):
            self._write(JOB, (json.dumps(self._question, indent=1) + "\n").encode())
        return parts

    def done(self) -> set[str]:
        """Names of the existing parts."""
        self._system.invalidate_cache()
        return set(self._part_names())

    @_in_one_line
    def write(self, part: Part, table: Any) -> None:
        """Write a part atomically."""
        self._write(part.name, _parquet(table))

    @contextmanager
    def writing(self, part: Part, schema: Any) -> Iterator["PartWriter"]:
        """Write a part from the tables of its inputs, as they come; it appears at the end, atomically."""
        with self._temporary(part.name) as temporary:
            with (
                open(temporary, "wb") as sink,  # noqa: PTH123
                pq.ParquetWriter(sink, schema, compression="zstd") as file,
            ):
                writer = PartWriter(file, schema)
                yield writer
                writer.finish()
            if not self.is_local:
                self._put(temporary, part.name)

    @_in_one_line
    def _put(self, temporary: str, name: str) -> None:
        self._system.put_file(temporary, self._path(name))

    @contextmanager
    def _temporary(self, name: str) -> Iterator[str]:
        """A temporary file that replaces the file of this name in a local folder; for an object store just a file."""
        if not self.is_local:
            with tempfile.NamedTemporaryFile() as file:
                yield file.name
            return
        path = self._path(name)
        folder, _, last = path.rpartition("/")
        temporary = f"{folder}/.{last}.{uuid.uuid4().hex[:8]}"
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 a path of fsspec
        try:
            yield temporary
            with open(temporary, "rb") as file:  # noqa: PTH123
                os.fsync(file.fileno())  # the name must not reach the disk before the contents
            os.replace(temporary, path)  # noqa: PTH105
        finally:
            if os.path.exists(temporary):  # noqa: PTH110
                os.remove(temporary)  # noqa: PTH107

    @_in_one_line
    def with_errors(self, names: Iterable[str]) -> list[str]:
        """The parts that contain errors."""
        return [name for name in names if self.count([name])[1]]

    @_in_one_line
    def count(self, names: Iterable[str]) -> tuple[int, int]:
        """Number of rows and errors in these parts, from their footers only."""
        num_rows = num_errors = 0
        for name in names:
            meta = self._end_of(name)
            num_rows += meta.num_rows
            num_errors += sum(_num_errors(meta.row_group(i)) for i in range(meta.num_row_groups))
        return num_rows, num_errors

    @_in_one_line
    def check_complete(self, parts: Sequence[Part]) -> None:
        """Refuse parts that hold fewer inputs than listed.

        Raises:
            InputError: a part is missing, or does not hold exactly its inputs.
        """
        done = self.done()
        for part in parts:
            if part.name not in done:
                raise InputError(f"{self.address}: {part.name} is missing; run the command again")
            if (found := _num_inputs(self._end_of(part.name))) != len(part.sources):
                raise InputError(
                    f"{self.address}/{part.name} holds {found} inputs instead of {len(part.sources)}. Delete "
                    "it, and run the command again"
                )

    @_in_one_line
    def read(self, part: Part) -> Any:
        """The table of a part."""
        with self._part(part.name) as file:
            return pq.read_table(file)

    def _end_of(self, name: str) -> Any:
        """Metadata of a part."""
        with self._part(name) as file:
            meta = pq.ParquetFile(file).metadata
        if VERSION_KEY not in (meta.metadata or {}):
            raise InputError(f"{self.address}/{name} was not written by a job; move it away")
        return meta

    @contextmanager
    def _part(self, name: str) -> Iterator[BinaryIO]:
        with self._system.open(self._path(name), "rb") as file:
            try:
                yield file
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise InputError(
                    f"{self.address}/{name} is damaged ({error}); delete it, and run the command again"
                ) from error

    def _read_inputs(self) -> Any:
        """The table of known inputs; None if there are none yet."""
        if not self._exists(INPUTS):
            return None
        with self._system.open(self._path(INPUTS), "rb") as file:
            try:
                table = pq.read_table(file)
                table.select(list(_INPUT_FIELDS))
            except (pa.ArrowException, OSError, KeyError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise InputError(self._damaged(INPUTS, error)) from error
        return table

    def _write(self, name: str, data: Any) -> None:
        """Write a file atomically: by renaming locally; object stores show only complete objects."""
        if not self.is_local:
            self._system.pipe_file(self._path(name), bytes(data))
            return
        with self._temporary(name) as temporary, open(temporary, "wb") as file:  # noqa: PTH123
            file.write(data)

    @_in_one_line
    def clean(self) -> None:
        """Remove temporary files of a killed job."""
        for folder in ("", "/_job"):
            for name in self._names(folder):
                if _is_temporary(name):
                    self._system.rm(f"{self._root}{folder}/{name}")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


class PartWriter:
    """Writes the tables of a part's inputs in the order of their numbers, in any order of arrival.

    Few of them are buffered: the windows of a day of video take more memory than all decoders.
    """

    def __init__(self, file: Any, schema: Any) -> None:
        self._file, self._schema = file, schema
        self._later: dict[int, Any] = {}
        self._next = 0
        self._group: list[Any] = []
        self._group_bytes = 0

    def add(self, number: int, rows: Any) -> None:
        """Add the rows of an input; each number from 0 must come once."""
        self._later[number] = rows
        while self._next in self._later:
            rows = self._later.pop(self._next)
            self._next += 1
            self._group.append(rows if rows.schema.equals(self._schema) else rows.cast(self._schema))
            self._group_bytes += rows.nbytes
            if self._group_bytes >= GROUP_BYTES:
                self._write_group()

    def _write_group(self) -> None:
        self._file.write_table(pa.concat_tables(self._group))
        self._group, self._group_bytes = [], 0

    def finish(self) -> None:
        """Write the rest."""
        assert not self._later  # all inputs came
        if self._group:
            self._write_group()


_PART = re.compile(r"part-\d{8,}\.parquet")


def _is_temporary(name: str) -> bool:
    """Whether this is a temporary file of a job."""
    names = r"\.(part-\d{8,}\.parquet|job\.json|inputs\.parquet)\.[0-9a-f]{8}"
    return re.fullmatch(names, name) is not None


_INPUT_FIELDS = {
    "part": pa.int64(),
    "path": pa.string(),
    "offset": pa.int64(),
    "size": pa.int64(),
    "problem": pa.string(),
}


def _inputs_of(table: Any) -> list[tuple[int, Source]]:
    """Inputs and the numbers of their parts, from the stored table."""
    if table is None:
        return []
    names = [name for name in table.column_names if name.startswith(_EXTRA)]
    columns = table.select(names).rename_columns([name.removeprefix(_EXTRA) for name in names])
    number, path, offset, size, problem = (table[name].to_pylist() for name in _INPUT_FIELDS)
    return [
        (
            number[i],
            Source(path[i], offset[i], size[i], ManifestRow(columns, i) if names else None, problem[i]),
        )
        for i in range(table.num_rows)
    ]


def _table_of(inputs: Sequence[tuple[int, Source]]) -> Any:
    """The table to store, with inputs and the numbers of their parts."""
    sources = [source for _, source in inputs]
    values = {
        "part": [number for number, _ in inputs],
        "path": [source.path for source in sources],
        "offset": [source.offset_bytes for source in sources],
        "size": [source.size_bytes for source in sources],
        "problem": [source.problem for source in sources],
    }
    columns = {name: pa.array(values[name], kind) for name, kind in _INPUT_FIELDS.items()}
    extra = extra_table(sources)
    return pa.table(columns | {_EXTRA + name: extra[name] for name in extra.column_names})


def _merge(known: list[tuple[int, Source]], sources: Sequence[Source]) -> list[Source]:
    """Update known inputs from the listing -> the new ones."""
    identities = Identities()
    places: dict[str, deque[int]] = {}
    for i, (_, source) in enumerate(known):
        places.setdefault(identities.of(source), deque()).append(i)
    repeated = {name for name, found in places.items() if len(found) > 1}
    new = []
    for source in sources:
        name = identities.of(source)
        if not places.get(name):
            new.append(source)
            continue
        i = places[name].popleft()
        if name not in repeated:  # repeated inputs cannot be matched: they stay as they are
            number, before = known[i]
            path = before.path
            known[i] = (
                number,
                Source(path, source.offset_bytes, source.size_bytes, source.extra, source.problem),
            )
    return new


def _parquet(table: Any) -> Any:
    """An Arrow table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _column(group: Any, name: str) -> Any:
    columns = [group.column(i) for i in range(group.num_columns)]
    return next(column for column in columns if column.path_in_schema == name)


def _num_errors(group: Any) -> int:
    return group.num_rows - _column(group, "error_kind").statistics.null_count


def _num_inputs(meta: Any) -> int:
    """Number of inputs of a part: they are numbered from 0, and each has a row."""
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    highest = [_column(group, "input_number").statistics.max for group in groups if group.num_rows]
    return min(meta.num_rows, 1 + max(highest, default=-1))


def _difference(before: Sequence[Any], now: Sequence[Any]) -> str:
    """How columns differ, each given as name and type."""
    old, new = dict(map(tuple, before)), dict(map(tuple, now))
    for name, kind in new.items():
        if name not in old:
            return f"the manifest's column {name!r} is new"
        if old[name] != kind:
            return f"the manifest's column {name!r} was of type {old[name]}, now its values are {kind}"
    if gone := [name for name in old if name not in new]:
        return f"the manifest's column {gone[0]!r} is missing"
    return "the manifest's columns are in another order"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
