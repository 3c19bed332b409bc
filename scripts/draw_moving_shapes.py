"""Draw the picture of docs/moving-shapes.md: one clip of each motion, eight frames in a row beside the class name."""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from openxclip.files import atomic_write
from openxclip.shapes.clip import ShapesClip
from openxclip.shapes.words import COLOURS, MOTIONS, SHAPES, ShapesClass
from openxclip.video.sampling import centred

PICTURE = Path(__file__).parents[1] / "docs" / "moving_shapes.png"
NUM_FRAMES = 8
SIDE_PX = 96
GAP_PX = 6  # white, to the right of each frame


def kinds() -> list[ShapesClass]:
    """A class of each motion; the steps go through all colours and shapes."""
    colours = list(COLOURS)
    return [
        ShapesClass(colours[3 * i % len(colours)], SHAPES[(i + 1) % len(SHAPES)], motion)
        for i, motion in enumerate(MOTIONS)
    ]


def strip(kind: ShapesClass) -> np.ndarray:
    """Frames of a clip side by side: uint8 (S, T * (S + gap), 3)."""
    frames = ShapesClip(kind=kind, key="picture").frames(lambda length: centred(length, NUM_FRAMES), SIDE_PX)
    with_gaps = np.pad(frames, ((0, 0), (0, 0), (0, GAP_PX), (0, 0)), constant_values=255)
    return np.concatenate(list(with_gaps), axis=1)


def draw(output: Path) -> None:
    """Write the picture as a PNG."""
    figure = Figure(figsize=(8, 9.4), dpi=70)
    FigureCanvasAgg(figure)
    for row, kind in enumerate(kinds(), start=1):
        axes = figure.add_subplot(len(MOTIONS), 1, row)
        axes.imshow(strip(kind))
        axes.axis("off")
        axes.text(-2 * GAP_PX, SIDE_PX / 2, kind.name, ha="right", va="center", fontsize=9)
    figure.subplots_adjust(left=0.30, right=0.995, top=0.995, bottom=0.005, hspace=0.05)
    with atomic_write(output) as temporary:
        figure.savefig(temporary, format="png")


def main() -> None:
    """Read from the command line where the picture goes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=PICTURE, help="the .png to write")
    draw(parser.parse_args().output)


if __name__ == "__main__":
    main()
