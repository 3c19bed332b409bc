"""Video sources of a job: folders, manifests, tar shards, on this machine or in an object store.

Everything is listed through fsspec. Local paths are absolute: a job does not depend on the folder in which it is
started. Needs fsspec and pyarrow.
"""

import csv
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from openxclip.data.manifest import VIDEO_SUFFIXES
from openxclip.errors import InputError, MissingExtraError, VideoError

try:
    import fsspec
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError(str(error.name), "tag") from error

PATH_COLUMNS = ("path", "video", "file", "url", "filename")
"""Names for the path column of a manifest; the first one present is used."""

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
WHOLE_BYTES = (
    256 << 20
)  # a remote file up to this size is fetched at once; a larger one as the decoder reads it


@dataclass(frozen=True, eq=False)
class ManifestRow:
    """The manifest's own columns of one input: a row of an Arrow table, with the types that the manifest gives."""

    columns: Any
    """Arrow table, shared by the rows of a manifest."""
    number: int


@dataclass(frozen=True)
class Source:
    """One input of a job."""

    path: str
    """Path in the output: an absolute path, a URL, or SHARD.tar::MEMBER."""
    offset_bytes: int | None = None
    """Offset of a member in its shard; None for a separate file."""
    size_bytes: int | None = None
    """Of a member."""
    extra: ManifestRow | None = field(default=None, compare=False)
    """Additional columns of the manifest. They are not sent to other processes."""
    problem: str | None = None
    """Why it cannot be read, if known from the listing."""

    def __getstate__(self) -> dict[str, Any]:
        """For pickling: a source without its manifest's table."""
        return {**self.__dict__, "extra": None}

    @property
    def address(self) -> str:
        """Address of the file, or of a member's shard."""
        return self.path if self.offset_bytes is None else _split(self.path)[0]

    def open(self) -> BinaryIO:
        """A seekable file.

        Raises:
            VideoError: it cannot be opened; kind "missing" if it does not exist, "unreadable" otherwise.
        """
        if self.problem is not None:
            raise VideoError(self.path, self.problem)
        try:
            if self.offset_bytes is not None:
                return self._open_member(self.offset_bytes, self.size_bytes or 0)
            if _names_member(self.path):
                return source_at(self.path).open()
            system, name = file_system(self.path)
            if is_remote(self.path) and (system.size(name) or 0) <= WHOLE_BYTES:
                return io.BytesIO(system.cat_file(name))
            return system.open(name, "rb")
        except VideoError:
            raise
        except Exception as error:
            if _is_missing(self.address, error):
                raise VideoError(self.path, "there is no such file", kind="missing") from error
            raise VideoError(self.path, f"it cannot be opened ({_cause(error)})") from error

    def _open_member(self, start: int, size: int) -> BinaryIO:
        system, name = file_system(self.address)
        data = system.cat_file(name, start=start, end=start + size)
        if len(data) < size:
            raise VideoError(self.path, f"its shard ends after {len(data)} of its {size} bytes")
        return io.BytesIO(data)


def _is_missing(address: str, error: Exception) -> bool:
    """Whether an error means that there is no such file. fsspec reports every web server failure that way."""
    if not isinstance(error, FileNotFoundError):
        return False
    if not address.startswith(("http://", "https://")) or error.__cause__ is None:
        return True
    return getattr(error.__cause__, "status", None) in (404, 410)


def _cause(error: Exception) -> str:
    """The cause of an error, as text."""
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def source_at(path: str) -> Source:
    """The source for a path from an output, which may be a member of a shard.

    Raises:
        VideoError: there is no such shard or member.
    """
    if not _names_member(path):
        return Source(path)
    shard, _, member = _split(path)
    try:
        system, name = file_system(shard)
        members = list(_members(system, name, shard))
    except Exception as error:
        kind = "missing" if _is_missing(shard, error) else "unreadable"
        raise VideoError(path, f"its shard cannot be read ({_cause(error)})", kind=kind) from error
    found = next((source for source in members if source.path == path), None)
    if found is not None:
        return found
    if members and members[-1].problem is not None:
        raise VideoError(path, f"its shard: {members[-1].problem}")
    raise VideoError(path, f"its shard holds no {member}", kind="missing")


def _split(path: str) -> tuple[str, str, str]:
    """Split SHARD.tar::MEMBER into shard, separator and member; the last two are empty without a separator."""
    end = path.lower().find(".tar::") + len(".tar")
    return (path[:end], "::", path[end + 2 :]) if end >= len(".tar") else (path, "", "")


def _names_member(path: str) -> bool:
    """Whether a path names a shard's member; a local file may also have such a name."""
    return ".tar::" in path.lower() and (is_remote(path) or not os.path.lexists(path))


def is_remote(address: str) -> bool:
    """Whether an address names a file system other than the local one."""
    return "://" in address and not address.startswith(_OF_THIS_MACHINE)


_OF_THIS_MACHINE = ("file://", "local://")


def file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the name there. A path is used as it is: names may contain ::"""
    if is_remote(address):
        return fsspec.core.url_to_fs(address)
    return fsspec.filesystem("file"), _local(address)


def _local(address: str) -> str:
    """The absolute path of a local address."""
    for start in _OF_THIS_MACHINE:
        address = address.removeprefix(start)
    if address.startswith("~") and not os.path.lexists(address):
        address = os.path.expanduser(address)  # noqa: PTH111 keeps names of unknown users unchanged
    return os.path.abspath(address)  # noqa: PTH100 without ..


def absolute(source: Source) -> Source:
    """A source by its absolute path."""
    if is_remote(source.path) or (source.path.startswith("/") and "/." not in source.path):
        return source
    shard, sign, member = _split(source.path)
    path = _local(source.path) if source.offset_bytes is None else f"{_local(shard)}{sign}{member}"
    return _with_path(source, path)


def _with_path(source: Source, path: str) -> Source:
    return Source(path, source.offset_bytes, source.size_bytes, source.extra, source.problem)


class Identities:
    """Canonical names of inputs, independent of how the path is written: symlinked folders are resolved."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def of(self, source: Source) -> str:
        """The name of an input. A symlink to a file is a separate input."""
        if is_remote(source.path):
            return source.path
        folder, _, name = source.path.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder or "/")
        return f"{self._folders[folder]}/{name}"


def list_sources(address: str) -> list[Source]:
    """All inputs of an address, in a deterministic order.

    An unreadable shard or folder is one input with its `problem`, after the readable members.

    Args:
        address: a video, a folder of videos, a manifest (CSV, TSV, JSON lines, Parquet), tar shards (one, a folder, or
            a pattern such as shards/*.tar); a path, or a URL such as s3://bucket/videos.

    Raises:
        InputError: there is nothing at this address, or a manifest cannot be read.
    """
    try:
        system, name = file_system(address)
        sources = list(_listed(system, name, address))
    except (InputError, MissingExtraError):
        raise
    except ImportError as error:
        raise InputError(f"{address}: {error}") from error
    except Exception as error:
        raise InputError(f"{address} cannot be listed ({_cause(error)})") from error
    if not sources:
        raise InputError(f"{address}: no video found; known endings are {', '.join(sorted(VIDEO_SUFFIXES))}")
    return sources


def _listed(system: Any, name: str, address: str) -> Iterator[Source]:
    if any(sign in name for sign in "*?[") and not system.exists(name):
        for found in sorted(system.glob(name)):
            if not system.isdir(found):
                yield from _file(system, found, _address(system, found, address))
            elif "**" not in name:  # `**` also lists the contents of folders
                yield from _folder(system, found, address)
    elif system.isdir(name):
        yield from _folder(system, name, address)
    elif not system.exists(name):
        raise InputError(_why_nothing(system, name, address))
    else:
        yield from _file(
            system, name, text_of(address) if is_remote(address) else _address(system, name, address)
        )


def _folder(system: Any, name: str, address: str) -> Iterator[Source]:
    files, problems = _files_below(name) if not is_remote(address) else (system.find(name), {})
    for found in sorted([*files, *problems]):
        path = PurePosixPath(found)
        if found in problems:
            yield Source(text_of(found), problem=problems[found])
        elif not path.name.startswith(".") and path.suffix.lower() in (*VIDEO_SUFFIXES, ".tar"):
            yield from _file(system, found, _address(system, found, address))


def _why_nothing(system: Any, name: str, address: str) -> str:
    try:
        system.info(name)
    except FileNotFoundError as error:
        if not _is_missing(address, error):
            return f"{address} cannot be read ({_cause(error)})"
    return f"there is no {address}; give a video, a folder, a manifest or tar shards"


def _files_below(folder: str) -> tuple[list[str], dict[str, str]]:
    """Files in a local folder and its subfolders, and folders that cannot be listed with the reason.

    Symlinked folders are entered after the others, and each folder once: links may lead in circles.
    """
    files: list[str] = []
    problems: dict[str, str] = {}
    folders, links = [folder], list[str]()
    entered: set[tuple[int, int]] = set()
    while folders or links:
        here = folders.pop() if folders else links.pop(links.index(min(links)))
        try:
            state = os.stat(here)  # noqa: PTH116
            if (state.st_dev, state.st_ino) in entered:
                continue
            entered.add((state.st_dev, state.st_ino))
            with os.scandir(here) as entries:
                for entry in entries:
                    if not entry.is_dir():
                        files.append(entry.path)
                    else:
                        (links if entry.is_symlink() else folders).append(entry.path)
        except OSError as error:
            if here == folder:
                raise
            problems[here] = f"this folder cannot be listed ({error.strerror or error})"
    return files, problems


def _file(system: Any, name: str, address: str) -> Iterator[Source]:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".tar":
        yield from _shard(system, name, address)
    elif suffix in TABLE_SUFFIXES:
        yield from _rows(system, name, address, suffix)
    else:
        yield Source(address)


def _address(system: Any, name: str, given: str) -> str:
    """A listed name as an address; an absolute path for a local one."""
    return text_of(system.unstrip_protocol(name) if is_remote(given) else name)


def text_of(name: str) -> str:
    """A name that a table can hold: invalid Unicode is escaped. No file exists under such a name."""
    return name.encode("utf-8", "backslashreplace").decode()


def _shard(system: Any, name: str, address: str) -> Iterator[Source]:
    """The members of a shard; a local shard that cannot be opened is an input with a problem."""
    try:
        yield from _members(system, name, address)
    except OSError as error:
        if is_remote(address):
            raise
        yield Source(address, problem=f"this shard cannot be opened ({error.strerror or error})")


def _members(system: Any, name: str, address: str) -> Iterator[Source]:
    """The videos of a shard, followed by the shard itself if it is damaged. A second file of one name gets #2."""
    counts: Counter[str] = Counter()
    with system.open(name, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    path = PurePosixPath(member.name)
                    is_video = path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")
                    if not is_video or not member.isfile():
                        continue
                    counts[member.name] += 1
                    number = "" if counts[member.name] == 1 else f"#{counts[member.name]}"
                    shown = text_of(f"{member.name}{number}")
                    yield Source(f"{address}::{shown}", member.offset_data, member.size)
                # tarfile treats an unreadable header as the end.
                file.seek(tar.offset)
                is_damaged = any(file.read(tarfile.BLOCKSIZE))
        except (tarfile.TarError, EOFError, ValueError) as error:
            yield Source(address, problem=f"this shard is damaged ({error})")
            return
    if is_damaged:
        yield Source(address, problem="this shard is damaged: there is invalid data after its last member")


def _rows(system: Any, name: str, address: str, suffix: str) -> Iterator[Source]:
    with system.open(name, "rb") as file:
        paths, columns = _table(file, suffix, address)
    shards: dict[str, dict[str, Source]] = {}
    for number, path in enumerate(paths):
        if not isinstance(path, str) or not path:
            raise InputError(f"{address}, row {number + 1}: the path is {path!r}; it must be a path or a URL")
        source = _entry(path, address, shards)
        extra = ManifestRow(columns, number) if columns.num_columns else None
        yield Source(source.path, source.offset_bytes, source.size_bytes, extra, source.problem)


def _entry(path: str, manifest: str, shards: dict[str, dict[str, Source]]) -> Source:
    """The input of a manifest's row: a file, or the member of a shard."""
    path = text_of(path)
    if "://" not in path and not path.startswith("/"):
        beside = f"{manifest.rpartition('/')[0]}/{path}"
        is_home = path.startswith("~/") and not os.path.lexists(beside)
        path = os.path.expanduser(path) if is_home else beside  # noqa: PTH111
    if not is_remote(path):
        path = _local(path)
    if not _names_member(path):
        return Source(path)
    shard = _split(path)[0]
    if shard not in shards:
        try:
            system, name = file_system(shard)
            shards[shard] = {source.path: source for source in _members(system, name, shard)}
        except Exception:  # noqa: BLE001 its inputs are tried later, and become errors then
            shards[shard] = {}
    return shards[shard].get(path, Source(path))


def _table(file: BinaryIO, suffix: str, address: str) -> tuple[list[Any], Any]:
    """The paths of a manifest, and an Arrow table of its other columns."""
    if suffix == ".parquet":
        table = pq.read_table(file)
    else:
        table = _guessed(list(_records(file.read().decode("utf-8-sig"), suffix, address)))
    names = table.column_names
    if not table.num_rows:
        raise InputError(f"{address} has no rows")
    column = next((column for column in PATH_COLUMNS if column in names), None)
    if column is None:
        raise InputError(
            f"{address} needs a column with the paths of the videos: one of {', '.join(PATH_COLUMNS)}; it has "
            f"{', '.join(names)}"
        )
    if len(set(names)) < len(names):
        raise InputError(f"{address} has several columns with the same name: {', '.join(names)}; rename them")
    return table[column].to_pylist(), _plain(table.drop_columns([column]))


def _plain(table: Any) -> Any:
    """A table without dictionaries, whose codes differ between parts, and without the writer's metadata."""
    columns = {
        name: column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return pa.table(columns)


def _records(text: str, suffix: str, address: str) -> Iterator[dict[str, Any]]:
    if suffix in (".jsonl", ".ndjson"):
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _json_object(line, f"{address}, line {number}")
        return
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ",")
    for number, row in enumerate(reader, start=1):
        if None in row:
            raise InputError(f"{address}, row {number}: it has more values than the header has names")
        yield row


def _guessed(records: Sequence[dict[str, Any]]) -> Any:
    """Records as an Arrow table: each column has the type that fits all its values; text if it has none."""
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        values = [record.get(name) for record in records]
        if name in PATH_COLUMNS and all(isinstance(value, str | None) for value in values):
            columns[name] = pa.array(values, pa.string())
            continue
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, OverflowError) as error:
            raise InputError(unfit_column(name, error)) from error
        if pa.types.is_null(columns[name].type):
            columns[name] = columns[name].cast(pa.string())
    return pa.table(columns)


def unfit_column(name: str, error: Exception) -> str:
    """The error message for a column that cannot be kept."""
    return (
        f"the manifest's column {name!r} cannot be kept: {error}. Give all its rows values of one type, or leave it "
        "out"
    )


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: invalid JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f'{place}: it must be an object such as {{"path": "a.mp4"}}')
    return _as_text(value)


def _as_text(value: Any) -> Any:
    """A JSON value with valid strings: JSON can escape lone surrogates, which tables cannot hold."""
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if isinstance(value, dict):
        return {text_of(name): _as_text(item) for name, item in value.items()}
    return value


def extra_table(sources: Sequence[Source]) -> Any:
    """The manifests' own columns as an Arrow table, a row for each source; null if a source has none.

    Raises:
        InputError: several manifests give a column incompatible types.
    """
    rows = [source.extra for source in sources]
    tables = {id(row.columns): row.columns for row in rows if row is not None}
    if not tables:
        return pa.table({})
    starts, start = dict[int, int](), 0
    for key, table in tables.items():
        starts[key] = start
        start += table.num_rows
    try:
        whole = pa.concat_tables(list(tables.values()), promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"the columns of the manifests are incompatible: {error}") from error
    numbers = [None if row is None else starts[id(row.columns)] + row.number for row in rows]
    return whole.take(pa.array(numbers, pa.int64()))
