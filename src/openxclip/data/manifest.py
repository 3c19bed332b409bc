"""Manifests: the videos of a dataset and their labels.

Three forms are read, as well as packed folders (`packed.py`) and the datasets' own files (`official.py`):

    list file           lines of `relative/path label_id`; the labels are in `labels.csv` next to it
    folder with lists   the same, and `list_name` selects the list
    class folders       `class name/clip.mp4`; the labels are the sorted folder names

The media are next to the list, in `videos/` if it exists, or under a media root, which may be a plain .tar.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from openxclip.data.media import FileMedia, Item, Manifest, find_media, find_media_root
from openxclip.data.moving_shapes import is_world, shapes_manifest
from openxclip.data.official import official_lists, recognise
from openxclip.data.packed import is_packed, packed_lists, read_packed
from openxclip.errors import InputError
from openxclip.files import read_lines
from openxclip.text.labels import check_labels, parse_labels, read_label_file
from openxclip.wording import shortened

logger = logging.getLogger(__name__)

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
    ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on


def read_manifest(
    path: Path,
    *,
    list_name: str | None = None,
    labels: str | Path | None = None,
    media_root: Path | None = None,
) -> Manifest:
    """Read any of the three forms, a packed folder, or a dataset's own files.

    Args:
        path: a list file, a folder, or "moving-shapes" for the rendered dataset.
        list_name: which list of the folder, e.g. "test.txt", or of the dataset, e.g. "test1".
        labels: what `parse_labels` takes, instead of the `labels.csv` next to the list or the folder names.
        media_root: folder or plain .tar that the listed paths are relative to.
    """
    if is_world(path):
        if labels is not None or media_root is not None:
            raise InputError(f"{path} is rendered and has its own labels; leave labels and media root out.")
        return shapes_manifest(list_name)
    given = None if labels is None else parse_labels(str(labels))
    if list_name is not None and (path / list_name).is_file():
        path, list_name = path / list_name, None
    if is_packed(path):
        return read_packed(path, list_name, given, media_root)
    if (read_official := recognise(path)) is not None:
        return read_official(path, list_name, given, media_root)
    if path.is_dir() and list_name is None and not _has_lists(path):
        return _read_class_folders(path, given, media_root)
    return _read_list(_find_list(path, list_name), given, media_root)


def list_names(path: Path) -> Sequence[str | None]:
    """Names of the lists that `read_manifest` finds there; None if one is read without a name."""
    if is_packed(path):
        return packed_lists(path)
    if (official := official_lists(path)) is not None:
        return official
    if path.is_dir() and _has_lists(path):
        return sorted(file.name for file in path.glob("*.txt"))
    return [None]


def _has_lists(folder: Path) -> bool:
    return (folder / "labels.csv").is_file() and any(folder.glob("*.txt"))


def _find_list(path: Path, list_name: str | None) -> Path:
    if not path.exists():
        raise InputError(
            f"There is no {path}. Give a list of videos, or a folder with lists or class folders."
        )
    if path.is_file():
        if list_name is not None:
            raise InputError(f"{path} is already a list; leave {list_name} out, or give the folder.")
        return path
    problem = "Say which list" if list_name is None else f"There is no list {list_name}"
    found = ", ".join(sorted(file.name for file in path.glob("*.txt"))) or "none"
    raise InputError(f"{problem} of {path} to read. Lists found there: {found}.")


def _read_list(path: Path, labels: list[str] | None, media_root: Path | None) -> Manifest:
    if labels is None:
        labels = _labels_beside(path)
    media = find_media(path.parent, media_root)
    items = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        fields = line.rsplit(maxsplit=1)  # from the right: a path may contain spaces
        if len(fields) != 2 or not fields[1].isdecimal():
            raise InputError(f"{path}, line {number}: expected `relative/path label_id`, got {line!r}.")
        name = fields[0].strip()
        items.append(Item(path=name, label=int(fields[1]), media=media.media(name)))
    return Manifest(
        name=f"{path.resolve().parent.name}/{path.name}", labels=tuple(labels), items=tuple(items)
    )


def _labels_beside(path: Path) -> list[str]:
    beside = path.with_name("labels.csv")
    if not beside.is_file():
        raise InputError(
            f"{path} needs class names: put labels.csv (id,name) next to it, or give a label set."
        )
    return read_label_file(beside)


def _read_class_folders(path: Path, labels: list[str] | None, media_root: Path | None) -> Manifest:
    root = find_media_root(path, media_root)
    if root.is_file():
        raise InputError(f"Media root {root} is not a folder; a .tar needs a list of its members. Give one.")
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
            f"{root} has folders that are not labels: {', '.join(unknown)}. Rename or remove them."
        )
    items = [
        Item(path=f"{folder.name}/{file.name}", label=labels.index(folder.name), media=FileMedia(file))
        for folder in folders
        for file in _videos(folder)
    ]
    _report_empty([folder for folder in folders if not any(_videos(folder))], root, bool(items))
    return Manifest(name=path.resolve().name, labels=tuple(labels), items=tuple(items))


def _report_empty(folders: list[Path], root: Path, has_others: bool) -> None:
    """Warn about class folders without a video, and say why.

    Raises:
        InputError: no class folder has one.
    """
    if not folders:
        return
    reasons = shortened([f"{folder.name} ({_why_empty(folder)})" for folder in folders], limit=3)
    if not has_others:
        raise InputError(
            f"No class folder of {root} holds a video: {reasons}. Put the videos directly into the class folders, in a "
            f"common format: {', '.join(sorted(VIDEO_SUFFIXES))}."
        )
    logger.warning("%d class folders of %s hold no video: %s", len(folders), root, reasons)


def _why_empty(folder: Path) -> str:
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    if not files:
        return "empty"
    if any(file.suffix.lower() in VIDEO_SUFFIXES for file in files):
        return "its videos are in subfolders"
    return f"files that end in {shortened(sorted({file.suffix or file.name for file in files}), limit=3)}"


def _videos(folder: Path) -> list[Path]:
    return [file for file in _visible(folder.iterdir()) if file.suffix.lower() in VIDEO_SUFFIXES]


def _visible(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if not path.name.startswith("."))
