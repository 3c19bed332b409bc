"""Packed folders: training shards with an index, which is read without opening the shards.

    packing.json        what was packed and how
    labels.csv          class names
    index.jsonl         one line per video, in the order of the shards; written last: it exists only if all is complete
    left_out.csv        videos that could not be packed, and why
    shards/00000.tar    plain tar files of .mp4 files

`packing.py` writes them.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from openxclip.data.media import Item, Manifest, TarMember
from openxclip.errors import InputError, VideoError
from openxclip.files import read_json, read_lines
from openxclip.text.labels import read_label_file

PACKING, LABELS, INDEX, LEFT_OUT, SHARDS = (
    "packing.json",
    "labels.csv",
    "index.jsonl",
    "left_out.csv",
    "shards",
)


@dataclass(frozen=True, kw_only=True)
class PackedVideo:
    """A line of the index."""

    member: str
    """Its name in the shard."""
    path: str
    """Path as written in the lists."""
    shard: int
    offset_bytes: int
    """Offset of the file in the shard."""
    size_bytes: int
    sha256: str
    num_frames: int
    lists: dict[str, list[list[int]]]
    """Name of a list -> [position in it, label id], once or more."""

    def media(self, folder: Path) -> TarMember:
        """The video in its shard."""
        return TarMember(
            name=self.path,
            tar=shard_path(folder, self.shard),
            offset_bytes=self.offset_bytes,
            size_bytes=self.size_bytes,
            sha256=self.sha256,
        )


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / SHARDS / f"{number:05d}.tar"


def is_packed(path: Path) -> bool:
    """Whether a folder is packed, finished or not."""
    return (path / PACKING).is_file()


def packed_lists(folder: Path) -> list[str]:
    """Names of the lists that were packed."""
    lists = read_json(folder / PACKING).get("lists")
    if not isinstance(lists, list) or not all(isinstance(name, str) for name in lists):
        raise InputError(f"{folder / PACKING} names no lists. Pack the videos again.")
    return lists


def read_packed(
    folder: Path, list_name: str | None, labels: list[str] | None = None, media_root: Path | None = None
) -> Manifest:
    """A list of a packed folder, without the videos that could not be packed.

    Args:
        folder: the packed folder.
        list_name: which list, by its original name; not needed if there is only one.
        labels: other names of the classes.
        media_root: must be None: the videos are in the folder.
    """
    if media_root is not None:
        raise InputError(f"{folder} is packed and holds its own videos; leave the media root out.")
    lists = packed_lists(folder)
    if list_name is None and len(lists) != 1:
        raise InputError(f"Say which list of {folder} to read: {', '.join(lists)}.")
    name = list_name or lists[0]
    if name not in lists:
        raise InputError(f"There is no list {name} in {folder}. Its lists: {', '.join(lists)}.")
    items = [
        (place, Item(path=video.path, label=label, media=video.media(folder)))
        for video in read_index(folder)
        for place, label in video.lists.get(name, ())
    ]
    items.sort(key=lambda placed: placed[0])
    return Manifest(
        name=f"{folder.resolve().name}/{name}",
        labels=tuple(read_label_file(folder / LABELS) if labels is None else labels),
        items=tuple(item for _, item in items),
    )


def read_index(folder: Path) -> list[PackedVideo]:
    """All videos in the order of the shards.

    Raises:
        InputError: the folder is not a finished packing, or the index is damaged.
    """
    path = folder / INDEX
    if not is_packed(folder):
        raise InputError(
            f"{folder} is not a packed folder: it has no {PACKING}. Give one that `openxclip pack` wrote."
        )
    if not path.is_file():
        raise InputError(f"The packing of {folder} is not finished. Run `openxclip pack` again to resume it.")
    videos = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line:
            continue
        try:
            videos.append(PackedVideo(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}, line {number} is damaged ({error}). Pack the videos again.") from error
    return videos


def read_left_out(folder: Path) -> list[tuple[str, str]]:
    """Path and reason of each video that could not be packed."""
    with (folder / LEFT_OUT).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [(row[0], row[1]) for row in list(csv.reader(file))[1:]]


def damage(folder: Path, video: PackedVideo) -> str | None:
    """The problem with the bytes of a video, if any; reads and verifies all of them."""
    try:
        video.media(folder).open()
    except VideoError as error:
        return str(error)
    return None
