"""`openxclip render`: write moving shapes as video files."""

import sys
from pathlib import Path
from typing import Annotated

import tyro


def render(
    list_name: Annotated[
        str,
        tyro.conf.arg(
            name="list", help="which list of moving-shapes, e.g. test-novel; a wrong name lists all"
        ),
    ],
    output: Annotated[Path, tyro.conf.arg(help="folder to write; must not exist")],
) -> int:
    """Write a list of moving shapes as .mp4 files with clips.txt and labels.csv, for any command or program."""
    from openxclip.data.moving_shapes import shapes_manifest, write_shapes
    from openxclip.errors import InputError
    from openxclip.progress import progress_bar

    manifest = shapes_manifest(list_name)
    if output.exists():
        raise InputError(f"{output} exists; choose another folder, or remove it first")
    with progress_bar() as bar:
        task = bar.add_task("rendering", total=len(manifest.items), note="")
        write_shapes(manifest, output, lambda: bar.advance(task))
    print(f"{len(manifest.items)} clips of {len(manifest.labels)} classes: {output}", file=sys.stderr)
    return 0
