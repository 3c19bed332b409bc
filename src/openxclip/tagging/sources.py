"""Where the videos of a job come from: folders, manifests, tar shards, on this machine or in an object store.

Everything is listed through fsspec, whose local file system is one among others. Needs fsspec and pyarrow.
"""

import csv
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from openxclip.data.manifest import VIDEO_SUFFIXES
from openxclip.errors import InputError, MissingExtraError, VideoError

try:
    import fsspec
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError(str(error.name), "tag") from error

PATH_COLUMNS = ("path", "video", "file", "url", "filename")
"""The column of a manifest that says where the video is: the first of these that it has."""

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
WHOLE_BYTES = (
    256 << 20
)  # a remote file up to this size is fetched at once; of a larger one what the decoder asks for


@dataclass(frozen=True)
class Source:
    """One input of a job."""

    path: str
    """As it stands in the output: an address, or SHARD.tar::MEMBER."""
    offset_bytes: int | None = None
    """Where a member of a shard begins; None for a file of its own."""
    size_bytes: int | None = None
    """Of a member."""
    extra: dict[str, Any] = field(default_factory=dict, compare=False)
    """Further columns of the manifest."""

    @property
    def address(self) -> str:
        """Of the file; of a member that of its shard."""
        return self.path if self.offset_bytes is None else self.path.rpartition("::")[0]

    def open(self) -> BinaryIO:
        """A seekable file.

        Raises:
            VideoError: it cannot be opened; kind "missing".
        """
        try:
            system, name = file_system(self.address)
            if self.offset_bytes is not None:
                start, size = self.offset_bytes, self.size_bytes or 0
                return io.BytesIO(system.cat_file(name, start=start, end=start + size))
            if is_remote(self.address) and (system.size(name) or 0) <= WHOLE_BYTES:
                return io.BytesIO(system.cat_file(name))
            return system.open(name, "rb")
        except FileNotFoundError as error:
            raise VideoError(self.path, "there is no such file", kind="missing") from error
        except Exception as error:
            raise VideoError(self.path, f"it cannot be opened ({type(error).__name__}: {error})") from error


def source_at(path: str) -> Source:
    """The source of a path as it stands in an output; of a shard's member where it lies there.

    Raises:
        VideoError: there is no such shard or member.
    """
    shard, sign, member = path.rpartition("::")
    if not sign or not shard.lower().endswith(".tar") or _exists(path):
        return Source(path)
    try:
        system, name = file_system(shard)
        found = next((source for source in _members(system, name, shard) if source.path == path), None)
    except (OSError, tarfile.TarError) as error:
        raise VideoError(path, f"its shard cannot be read ({error})", kind="missing") from error
    if found is None:
        raise VideoError(path, f"its shard holds no {member}", kind="missing")
    return found


def is_remote(address: str) -> bool:
    """Whether an address names another file system than this machine's."""
    return "://" in address and not address.startswith(("file://", "local://"))


def file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the name there. A path is taken as it is: its names may hold ::"""
    if "://" in address:
        return fsspec.core.url_to_fs(address)
    return fsspec.filesystem("file"), os.path.abspath(Path(address).expanduser())  # noqa: PTH100 without ..


def _exists(path: str) -> bool:
    """Whether this machine has such a file."""
    return not is_remote(path) and Path(path).is_file()


def list_sources(address: str) -> list[Source]:
    """All inputs that an address stands for, in an order that is the same each time.

    Args:
        address: a video, a folder of videos, a manifest (CSV, TSV, JSON lines, Parquet), tar shards (one, a folder, or
            a pattern such as shards/*.tar); a path, or an address such as s3://bucket/videos.

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
        raise InputError(f"{address} cannot be listed ({type(error).__name__}: {error})") from error
    if not sources:
        raise InputError(f"{address}: no video found; known endings are {', '.join(sorted(VIDEO_SUFFIXES))}")
    return _numbered(sources)


def _listed(system: Any, name: str, address: str) -> Iterator[Source]:
    if any(sign in name for sign in "*?[") and not system.exists(name):
        for found in sorted(system.glob(name)):
            yield from _file(system, found, _address(system, found, address))
        return
    if system.isdir(name):
        for found in sorted(system.find(name)):
            path = PurePosixPath(found)
            if not path.name.startswith(".") and path.suffix.lower() in (*VIDEO_SUFFIXES, ".tar"):
                yield from _file(system, found, _address(system, found, address))
        return
    if not system.exists(name):
        raise InputError(f"there is no {address}; give a video, a folder, a manifest or tar shards")
    yield from _file(system, name, address)


def _file(system: Any, name: str, address: str) -> Iterator[Source]:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".tar":
        yield from _members(system, name, address)
    elif suffix in TABLE_SUFFIXES:
        yield from _rows(system, name, address, suffix)
    else:
        yield Source(address)


def _address(system: Any, name: str, given: str) -> str:
    """A listed name as an address, relative where the given one was."""
    # A name that is no text cannot stand in a table: it is shown escaped, and its row says that it is missing.
    name = name.encode("utf-8", "backslashreplace").decode()
    if is_remote(given):
        return system.unstrip_protocol(name)
    if any(sign in given for sign in "*?[") and not system.exists(file_system(given)[1]):
        return name if given.startswith("/") else os.path.relpath(name)
    root = file_system(given)[1]
    return given.rstrip("/") + name[len(root.rstrip("/")) :]


def _members(system: Any, name: str, address: str) -> Iterator[Source]:
    with system.open(name, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.isfile() and PurePosixPath(member.name).suffix.lower() in VIDEO_SUFFIXES:
                yield Source(f"{address}::{member.name}", member.offset_data, member.size)


def _rows(system: Any, name: str, address: str, suffix: str) -> Iterator[Source]:
    with system.open(name, "rb") as file:
        rows = list(_table(file, suffix, address))
    if not rows:
        raise InputError(f"{address} has no rows")
    column = next((column for column in PATH_COLUMNS if column in rows[0]), None)
    if column is None:
        raise InputError(
            f"{address} needs a column that says where the videos are: one of {', '.join(PATH_COLUMNS)}; it has "
            f"{', '.join(map(str, rows[0]))}"
        )
    folder = address.rpartition("/")[0]
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise InputError(f"{address}, row {number}: it has more values than the header has names")
        if not isinstance(path := row.get(column), str) or not path:
            raise InputError(
                f"{address}, row {number}: {column} is {path!r}; it must be a path or an address"
            )
        is_whole = "://" in path or path.startswith("/") or not folder
        extra = {name: value for name, value in row.items() if name != column}
        yield Source(path if is_whole else f"{folder}/{path}", extra=extra)


def _table(file: BinaryIO, suffix: str, address: str) -> Iterable[dict[str, Any]]:
    if suffix == ".parquet":
        return pq.read_table(file).to_pylist()
    text = file.read().decode("utf-8-sig")
    if suffix in (".jsonl", ".ndjson"):
        lines = enumerate(text.split("\n"), start=1)
        return [_json_object(line, f"{address}, line {number}") for number, line in lines if line.strip()]
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ","))


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place}: it is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f'{place}: it must be an object such as {{"path": "a.mp4"}}')
    return value


def _numbered(sources: list[Source]) -> list[Source]:
    """Refuse a path that stands twice in a listing of files; a manifest may name a video as often as it likes."""
    counts = Counter(source.path for source in sources if source.offset_bytes is not None)
    if repeated := [path for path, count in counts.items() if count > 1]:
        raise InputError(f"{repeated[0]} stands twice in its shard; give each member a name of its own")
    return sources
