"""Manifests: which videos a data set has, and which label each of them carries.

Three forms are read:

    list file           lines of `relative/path label_id`; the labels stand in `labels.csv` beside it
    folder with lists   the same, and `list_name` says which list
    class folders       `class name/clip.mp4`; the labels are the sorted folder names

The media lie beside the list, in `videos/` if there is one, or below a media root, which may be a plain .tar.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from openxclip.data.labels import check_labels, parse_labels, read_label_file, read_lines
from openxclip.errors import InputError, VideoError

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
    ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on


@dataclass(frozen=True, kw_only=True)
class TarMember:
    """A file inside a tar, read by its place there: nothing is extracted and nothing stays open."""

    tar: Path
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Item:
    """One video and its label."""

    path: str
    """The video as the list names it."""
    label: int
    """Index into the labels of the manifest."""
    source: Path | TarMember | None
    """Where the video is; None if the tar has no such member."""

    def open(self) -> Path | bytes:
        """What the decoder reads: the path, or the bytes of a tar member. Safe in any thread and process."""
        if self.source is None:
            raise VideoError(self.path, "the tar holds no such member. Correct the list or the media root")
        if isinstance(self.source, Path):
            return self.source
        try:
            with self.source.tar.open("rb") as file:
                file.seek(self.source.offset_bytes)
                data = file.read(self.source.size_bytes)
        except OSError as error:
            raise VideoError(self.path, f"{self.source.tar} cannot be read ({error.strerror})") from error
        if len(data) < self.source.size_bytes:
            raise VideoError(self.path, f"{self.source.tar} ends in the middle of it. Get the tar again")
        return data

    def is_missing(self) -> bool:
        """Whether there is no such file or tar member."""
        return self.source is None or (isinstance(self.source, Path) and not self.source.is_file())


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Videos with labels. Whether the files are there and can be decoded is not known yet."""

    name: str
    """What messages and reports call it."""
    labels: tuple[str, ...]
    """Class names in the order of their ids."""
    items: tuple[Item, ...]
    """The videos in the order of the list."""

    def __post_init__(self) -> None:
        if not self.items:
            raise InputError(
                f"{self.name} holds no videos. Give a list with at least one line, or folders of videos."
            )
        for item in self.items:
            if not 0 <= item.label < len(self.labels):
                raise InputError(
                    f"{self.name}: {item.path} has label {item.label}, allowed are 0 to "
                    f"{len(self.labels) - 1}. Count ids from 0, and give the labels of this list."
                )

    def fingerprint(self) -> str:
        """Changes with any label, path or assignment; equal lists have equal ones."""
        rows = [[item.path, item.label] for item in self.items]
        return hashlib.sha256(json.dumps([self.labels, rows]).encode()).hexdigest()[:16]

    def missing(self) -> list[str]:
        """Paths, as the list names them, of the videos that are not there. Looks at every file."""
        return [item.path for item in self.items if item.is_missing()]


def read_manifest(
    path: Path,
    *,
    list_name: str | None = None,
    labels: str | Path | None = None,
    media_root: Path | None = None,
) -> Manifest:
    """Read any of the three forms.

    Args:
        path: a list file, or a folder.
        list_name: which list of the folder, e.g. "test.txt".
        labels: what `parse_labels` takes, in place of the `labels.csv` beside the list or the folder names.
        media_root: folder or plain .tar below which the listed paths are.
    """
    given = None if labels is None else parse_labels(str(labels))
    if path.is_dir() and list_name is None and not _has_lists(path):
        return _read_class_folders(path, given, media_root)
    return _read_list(_find_list(path, list_name), given, media_root)


def _has_lists(folder: Path) -> bool:
    return (folder / "labels.csv").is_file() and any(folder.glob("*.txt"))


def _find_list(path: Path, list_name: str | None) -> Path:
    if not path.exists():
        raise InputError(
            f"There is no {path}. Give a list of videos, or a folder with lists or class folders."
        )
    if path.is_file():
        if list_name is not None:
            raise InputError(f"{path} is a list already; leave {list_name} out, or give the folder.")
        return path
    if list_name is None or not (path / list_name).is_file():
        problem = "Say which list" if list_name is None else f"There is no list {list_name}"
        found = ", ".join(sorted(file.name for file in path.glob("*.txt"))) or "none"
        raise InputError(f"{problem} of {path} to read. Lists found there: {found}.")
    return path / list_name


def _read_list(path: Path, labels: list[str] | None, media_root: Path | None) -> Manifest:
    if labels is None:
        labels = _labels_beside(path)
    root = _media_root(path.parent, media_root)
    members = _tar_members(root) if root.is_file() else None
    items = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        fields = line.rsplit(maxsplit=1)  # from the right: a path may hold spaces
        if len(fields) != 2 or not fields[1].isdecimal():
            raise InputError(f"{path}, line {number}: expected `relative/path label_id`, got {line!r}.")
        name = fields[0].strip()
        source = root / name if members is None else members.get(_member_key(name))
        items.append(Item(path=name, label=int(fields[1]), source=source))
    return Manifest(
        name=f"{path.resolve().parent.name}/{path.name}", labels=tuple(labels), items=tuple(items)
    )


def _labels_beside(path: Path) -> list[str]:
    beside = path.with_name("labels.csv")
    if not beside.is_file():
        raise InputError(
            f"{path} needs class names: put labels.csv (id,name) beside it, or give a label set."
        )
    return read_label_file(beside)


def _media_root(folder: Path, media_root: Path | None) -> Path:
    if media_root is None:
        return folder / "videos" if (folder / "videos").is_dir() else folder
    if not media_root.exists():
        raise InputError(
            f"There is no media root {media_root}. Give the folder or .tar that holds the videos."
        )
    return media_root


def _member_key(name: str) -> str:
    return str(PurePosixPath(name))  # tars made with `tar cf x.tar .` write ./name


def _tar_members(tar: Path) -> dict[str, TarMember]:
    """Where each regular file of a tar lies. Reads the headers only, once per manifest."""
    try:
        with tarfile.open(tar, "r:") as archive:
            return {
                _member_key(info.name): TarMember(
                    tar=tar, offset_bytes=info.offset_data, size_bytes=info.size
                )
                for info in archive
                if info.isreg() and not info.issparse()
            }
    except (OSError, tarfile.TarError) as error:
        raise InputError(
            f"Media root {tar} is neither a folder nor a plain .tar: {error}. Unpack it if it is compressed."
        ) from error


def _read_class_folders(path: Path, labels: list[str] | None, media_root: Path | None) -> Manifest:
    root = _media_root(path, media_root)
    if root.is_file():
        raise InputError(f"Media root {root} is no folder; a .tar needs a list of its members. Give one.")
    folders = _visible(folder for folder in root.iterdir() if folder.is_dir())
    if not folders:
        raise InputError(
            f"{root} has no class folders (class/clip.mp4), and {path} has no labels.csv with a list. "
            "Give a list file, or a folder of one of these forms."
        )
    if labels is None and (path / "labels.csv").is_file():
        labels = read_label_file(path / "labels.csv")
    if labels is None:
        labels = check_labels([folder.name for folder in folders], f"class folders of {root}")
    if unknown := [folder.name for folder in folders if folder.name not in labels]:
        raise InputError(
            f"{root} has folders that are no label: {', '.join(unknown)}. Rename or remove them."
        )
    items = [
        Item(path=f"{folder.name}/{file.name}", label=labels.index(folder.name), source=file)
        for folder in folders
        for file in _visible(folder.iterdir())
        if file.suffix.lower() in VIDEO_SUFFIXES
    ]
    return Manifest(name=path.resolve().name, labels=tuple(labels), items=tuple(items))


def _visible(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if not path.name.startswith("."))
