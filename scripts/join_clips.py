"""Clips of a list one after the other as long videos, with annotations of what happens when.

python scripts/join_clips.py ../shared/data/ucf8 test.txt joined --clips 30 --seed 1
openxclip evaluate timeline --model runs/ucf8 --data joined/annotations.csv --window 2s --stride 1s --shots
"""

import csv
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import tyro

from openxclip.data.annotations import CSV_COLUMNS
from openxclip.data.manifest import read_manifest
from openxclip.data.media import FileMedia
from openxclip.files import atomic_write

FPS = 25
WIDTH, HEIGHT = 320, 240


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is joined."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="folder of the list and its clips")]
    list_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help="list of the clips")]
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="folder to write")]
    clips: Annotated[int, tyro.conf.arg(help="of each long video")] = 30
    seed: Annotated[int, tyro.conf.arg(help="of their order")] = 1


def main(options: Options) -> None:
    """Write joined-1.mp4 and so on, each clip once, and annotations.csv."""
    manifest = read_manifest(options.data, list_name=options.list_name)
    items = [manifest.items[i] for i in np.random.default_rng(options.seed).permutation(len(manifest.items))]
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, float, float]] = []
    for number, start in enumerate(range(0, len(items) - options.clips + 1, options.clips), start=1):
        name = f"joined-{number}.mp4"
        chosen = items[start : start + options.clips]
        clips = [
            (item.media.path, manifest.labels[item.label])
            for item in chosen
            if isinstance(item.media, FileMedia)
        ]
        rows += [
            (name, *row)
            for row in join([path for path, _ in clips], [label for _, label in clips], options.output / name)
        ]
    with (
        atomic_write(options.output / "annotations.csv") as temporary,
        temporary.open("w", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        writer.writerows(rows)


def join(paths: list[Path], labels: list[str], output: Path) -> list[tuple[str, float, float]]:
    """Write the clips as one video -> label, start and end of each in seconds."""
    rows, number = [], 0
    with atomic_write(output) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for path, label in zip(paths, labels, strict=True):
            first = number
            with av.open(str(path)) as clip:
                for frame in clip.decode(video=0):
                    image = frame.reformat(WIDTH, HEIGHT, "yuv420p")
                    image.pts, image.time_base = number, Fraction(1, FPS)
                    container.mux(stream.encode(image))
                    number += 1
            rows.append((label, first / FPS, number / FPS))
        container.mux(stream.encode(None))
    return rows


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
