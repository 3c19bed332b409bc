"""Moving shapes as a data set on disk: real .mp4 files, a list and its labels."""

import csv
from collections.abc import Callable
from pathlib import Path

from openxclip.data.items import Manifest
from openxclip.files import atomic_folder

LIST_FILE = "clips.txt"


def write_shapes(manifest: Manifest, folder: Path, on_clip: Callable[[], None] = lambda: None) -> None:
    """Write `videos/`, `clips.txt` and `labels.csv` into a new folder, whole or not at all.

    `read_manifest(folder, list_name="clips.txt")` then gives the same list, from files.
    """
    with atomic_folder(folder) as temporary:
        for item in manifest.items:
            path = temporary / "videos" / item.path
            path.parent.mkdir(parents=True, exist_ok=True)
            data = item.open()
            assert isinstance(data, bytes)  # every clip of the world is rendered
            path.write_bytes(data)
            on_clip()
        lines = [f"{item.path} {item.label}\n" for item in manifest.items]
        (temporary / LIST_FILE).write_text("".join(lines))
        with (temporary / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "name"), *enumerate(manifest.labels)])
