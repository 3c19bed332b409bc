"""Moving shapes as a dataset: its lists as manifests, and as real .mp4 files."""

import csv
from collections.abc import Callable
from pathlib import Path

from openxclip.data.media import Item, Manifest
from openxclip.files import atomic_folder
from openxclip.shapes.clip import ShapesClip
from openxclip.shapes.splits import WORLD, shapes_list

LIST_FILE = "clips.txt"


def is_world(path: Path) -> bool:
    """Whether a data path means moving shapes; a local file or folder of that name takes precedence."""
    return str(path) == WORLD and not path.exists()


def shapes_manifest(list_name: str | None) -> Manifest:
    """A list of moving shapes by name; its clips are rendered when they are read.

    Raises:
        InputError: there is no such list.
    """
    clips = shapes_list(list_name)
    items = tuple(Item(path=path, label=label, media=clip) for path, label, clip in clips.rows)
    return Manifest(name=clips.name, labels=clips.labels, items=items)


def write_shapes(manifest: Manifest, folder: Path, on_clip: Callable[[], None] = lambda: None) -> None:
    """Write `videos/`, `clips.txt` and `labels.csv` of rendered clips into a new folder, atomically.

    `read_manifest(folder, list_name="clips.txt")` then gives the same list, from files.
    """
    with atomic_folder(folder) as temporary:
        for item in manifest.items:
            assert isinstance(item.media, ShapesClip), "only rendered clips can be written"
            path = temporary / "videos" / item.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(item.media.encode())
            on_clip()
        lines = [f"{item.path} {item.label}\n" for item in manifest.items]
        (temporary / LIST_FILE).write_text("".join(lines))
        with (temporary / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "name"), *enumerate(manifest.labels)])
