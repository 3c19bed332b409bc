"""The output of a job: a Parquet data set in parts, and beside them what the job is.

    OUT/part-00000000.parquet   rows of the inputs of a part, in their order
    OUT/_job/job.json           what was asked for; another question is refused
    OUT/_job/inputs.parquet     the inputs and their parts; further inputs get further parts

A part is there whole or not at all, and holds its inputs' rows once: the parts that are there tell what is done.
Readers of data sets pass over names that begin with _. Needs fsspec and pyarrow.
"""

import hashlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from openxclip.errors import InputError, MissingExtraError
from openxclip.tagging.sources import Source, file_system

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError(str(error.name), "tag") from error

JOB, INPUTS = "_job/job.json", "_job/inputs.parquet"


@dataclass(frozen=True)
class Part:
    """Inputs whose rows lie in one file."""

    number: int
    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        """Of the file."""
        return f"part-{self.number:08d}.parquet"


class Output:
    """A folder, on this machine or in an object store."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._system, self._root = file_system(self.address)
        self._is_local = "file" in self._system.protocol

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the output, so that no other job of this machine writes it. In an object store nothing can be held.

        Raises:
            InputError: another job holds it.
        """
        if not self._is_local:
            yield
            return
        path = (
            Path(tempfile.gettempdir())
            / f"openxclip-{hashlib.sha256(self._root.encode()).hexdigest()[:24]}.lock"
        )
        lock = FileLock(path, mode=0o666)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"another job writes {self.address}; wait for it, or stop it") from None
        try:
            yield
        finally:
            lock.release()

    def begin(self, question: dict[str, Any], *, overwrite: bool) -> None:
        """Begin a job, or go on with it.

        Raises:
            InputError: the folder holds another job, or something that is no job.
        """
        self._system.invalidate_cache()
        had_job = any(_is_ours(name) for name in self._names())
        if overwrite:
            self._drop()
        if self._system.exists(self._path(JOB)):
            self._check_same(question)
            return
        others = [name for name in self._names() if not _is_ours(name)]
        if others and not had_job:
            raise InputError(f"{self.address} holds no job, but {others[0]}; give another output")
        if any(name.startswith("part-") for name in self._names()):
            raise InputError(f"{self.address} holds parts without their job; --overwrite drops them")
        self._write(JOB, (json.dumps(question, indent=1) + "\n").encode())

    def _names(self) -> list[str]:
        """What lies in the folder."""
        if not self._system.exists(self._root):
            return []
        return [path.rpartition("/")[2] for path in self._system.ls(self._root, detail=False)]

    def _drop(self) -> None:
        """Remove what jobs wrote, and nothing else."""
        for name in self._names():
            if _is_ours(name):
                self._system.rm(self._path(name), recursive=True)

    def _check_same(self, question: dict[str, Any]) -> None:
        with self._system.open(self._path(JOB), "rb") as file:
            before = json.load(file)
        for name in sorted(question.keys() | before.keys()):
            if question.get(name) != before.get(name):
                raise InputError(
                    f"{self.address} holds another job: its {name} is {_short(before.get(name))}, now it is "
                    f"{_short(question.get(name))}. Give another output, or --overwrite to begin anew"
                )

    def parts(self, sources: Sequence[Source], part_size: int) -> list[Part]:
        """The inputs in parts. Those of before keep theirs; new ones, by path and how often, get parts behind them."""
        known = self._known_inputs()
        seen: dict[str, int] = {}
        for _, source in known:
            seen[source.path] = seen.get(source.path, 0) + 1
        new = []
        for source in sources:
            if seen.get(source.path, 0):
                seen[source.path] -= 1
            else:
                new.append(source)
        first = max((number for number, _ in known), default=-1) + 1
        everything = [*known, *((first + i // part_size, source) for i, source in enumerate(new))]
        if new:
            self._write_inputs(everything)
        by_part: dict[int, list[Source]] = {}
        for number, source in everything:
            by_part.setdefault(number, []).append(source)
        return [Part(number, tuple(members)) for number, members in by_part.items()]

    def done(self) -> set[str]:
        """Names of the parts that are there."""
        self._system.invalidate_cache()
        return {name.rpartition("/")[2] for name in self._system.glob(self._path("part-*.parquet"))}

    def write(self, part: Part, table: Any) -> None:
        """Write a part, whole or not at all."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self._write(part.name, sink.getvalue().to_pybytes())

    def with_errors(self, names: Iterable[str]) -> list[str]:
        """Those of the parts that hold errors."""
        return [name for name in names if self.count([name])[1]]

    def count(self, names: Iterable[str]) -> tuple[int, int]:
        """Rows and errors of these parts, from their ends alone."""
        num_rows = num_errors = 0
        for name in names:
            with self._part(name) as file:
                meta = pq.ParquetFile(file).metadata
            num_rows += meta.num_rows
            num_errors += sum(_num_errors(meta.row_group(i)) for i in range(meta.num_row_groups))
        return num_rows, num_errors

    def read(self, part: Part) -> Any:
        """The table of a part."""
        with self._part(part.name) as file:
            return pq.read_table(file)

    @contextmanager
    def _part(self, name: str) -> Iterator[BinaryIO]:
        with self._system.open(self._path(name), "rb") as file:
            try:
                yield file
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"{self.address}/{name} is damaged ({error}); delete it, and run the command again"
                ) from error

    def _known_inputs(self) -> list[tuple[int, Source]]:
        if not self._system.exists(self._path(INPUTS)):
            return []
        with self._system.open(self._path(INPUTS), "rb") as file:
            rows = pq.read_table(file).to_pylist()
        return [
            (row["part"], Source(row["path"], row["offset"], row["size"], row["extra"] or {})) for row in rows
        ]

    def _write_inputs(self, inputs: Sequence[tuple[int, Source]]) -> None:
        columns = {
            "part": pa.array([number for number, _ in inputs], pa.int64()),
            "path": pa.array([source.path for _, source in inputs], pa.string()),
            "offset": pa.array([source.offset_bytes for _, source in inputs], pa.int64()),
            "size": pa.array([source.size_bytes for _, source in inputs], pa.int64()),
            "extra": pa.array([source.extra or None for _, source in inputs]),
        }
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, compression="zstd")
        self._write(INPUTS, sink.getvalue().to_pybytes())

    def _write(self, name: str, data: bytes) -> None:
        """An object store shows an object once it is whole; here it is renamed."""
        path = self._path(name)
        if not self._is_local:
            self._system.pipe_file(path, data)
            return
        folder, _, last = path.rpartition("/")
        temporary = f"{folder}/.{last}.{uuid.uuid4().hex[:8]}"
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 a path of fsspec
        try:
            with open(temporary, "wb") as file:  # noqa: PTH123
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # the name must not be on the disk before what it names
            os.replace(temporary, path)  # noqa: PTH105
        finally:
            if os.path.exists(temporary):  # noqa: PTH110
                os.remove(temporary)  # noqa: PTH107

    def clean(self) -> None:
        """Remove what a killed job was writing."""
        for name in self._names():
            if _is_ours(name) and name.startswith("."):
                self._system.rm(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _is_ours(name: str) -> bool:
    """A part, one that was being written, or the job's own folder."""
    return (
        name == "_job"
        or re.fullmatch(r"part-\d{8}\.parquet|\.part-\d{8}\.parquet\.[0-9a-f]{8}", name) is not None
    )


def _num_errors(group: Any) -> int:
    columns = [group.column(i) for i in range(group.num_columns)]
    (column,) = [column for column in columns if column.path_in_schema == "error_kind"]
    return group.num_rows - column.statistics.null_count


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
