"""Checks of training clips before a training run starts."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from pathlib import Path
from typing import cast

from openxclip.data.media import Item, Manifest
from openxclip.errors import InputError
from openxclip.wording import shortened

logger = logging.getLogger(__name__)


def check_training_clips(clips: Manifest) -> None:
    """Warn about clips that appear under two labels.

    Raises:
        InputError: all clips are of one class, so nothing can be learned.
    """
    labels = {item.label for item in clips.items}
    if len(labels) == 1:
        name = clips.labels[labels.pop()]
        raise InputError(
            f"{clips.name}: all {len(clips.items)} clips are of one class, {name!r}, which leaves nothing to learn. "
            "Give clips of two classes or more."
        )
    twice = sorted({_described(group, clips.labels) for group in _same_clips(clips.items) if _differ(group)})
    if twice:
        logger.warning(
            "%d clips of %s appear under two labels: %s", len(twice), clips.name, shortened(twice, limit=3)
        )


def _same_clips(items: Collection[Item]) -> Iterator[list[Item]]:
    """Groups of items with the same video: the same location, or files with the same content."""
    # Media are frozen values, which the protocol cannot express.
    yield from _groups(items, lambda item: cast(Hashable, item.media))
    files = {item: file for item in items if (file := _file(item)) is not None}
    for group in _groups(files, lambda item: files[item].stat().st_size):
        if _differ(group):  # few files have exactly the same size, so few are read
            yield from _groups(group, lambda item: _digest(files[item]))


def _groups(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def _differ(group: list[Item]) -> bool:
    return len({item.label for item in group}) > 1


def _file(item: Item) -> Path | None:
    """The file of this video, unless it is part of another file."""
    file = item.media.facts().get("file")
    return Path(file) if file is not None and Path(file).is_file() else None


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _described(group: list[Item], labels: tuple[str, ...]) -> str:
    first, other = group[0], next(item for item in group if item.label != group[0].label)
    return f"{first.path} ({labels[first.label]}) and {other.path} ({labels[other.label]})"
