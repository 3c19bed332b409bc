"""Pictures of results; importing this raises MissingExtraError where matplotlib is not installed."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openxclip.errors import MissingExtraError
from openxclip.files import atomic_write

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.image import imsave
except ImportError as error:
    raise MissingExtraError("matplotlib", "train") from error


XY = tuple[float, float]

MAX_POINTS = 400  # of a curve: more than its picture has columns of pixels for

# More are not legible, and a picture that had room for 400 of them took 12 GB of memory to draw.
MAX_NAMES = 100
MAX_NUMBERS = 30


def plot_confusion(confusion: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """Write a confusion matrix (row: true class, column: predicted) as a PNG; of many classes the ids only."""
    side = max(4.0, 0.22 * min(len(labels), MAX_NAMES) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= MAX_NAMES:
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(len(labels)), labels, fontsize=8, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(labels) <= MAX_NUMBERS:
        for y, row in enumerate(confusion):
            for x, count in enumerate(row):
                if count:
                    axes.text(
                        x,
                        y,
                        str(count),
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if shares[y][x] > 0.5 else "black",
                    )
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart."""

    points: Sequence[XY]
    """(x, y), x ascending."""
    name: str = ""
    """Shown where a chart has several."""
    is_faint: bool = False
    """Drawn thin and pale, for what stands behind another curve."""


def thin(points: Sequence[XY], max_points: int = MAX_POINTS) -> list[XY]:
    """Means of equal stretches of a curve, at most `max_points` of them; a short curve stays as it is."""
    size = max(1, -(-len(points) // max_points))
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(x for x, _ in stretch) / len(stretch), sum(y for _, y in stretch) / len(stretch))
        for stretch in stretches
    ]


def draw_curves(x_label: str, curves: Sequence[Curve]) -> bytes:
    """A chart as a PNG without background, in colours that are legible on white and on black."""
    figure = Figure(figsize=(4.4, 2.5), layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor="none")
    for curve in curves:
        xs, ys = zip(*thin(curve.points), strict=True)
        width, alpha = (0.8, 0.45) if curve.is_faint else (1.8, 1.0)
        marker = "o" if len(xs) == 1 else ""  # a line through one point is nothing
        axes.plot(xs, ys, color="#3b82f6", label=curve.name, marker=marker, linewidth=width, alpha=alpha)
    axes.set_xlabel(x_label, color="#808080", fontsize=8)
    axes.tick_params(colors="#808080", labelsize=8)
    axes.grid(color="#808080", alpha=0.25, linewidth=0.6)
    for side in axes.spines.values():
        side.set_visible(False)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor="#808080")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """A photograph, uint8 RGB (H, W, 3), as the bytes of a file."""
    buffer = io.BytesIO()
    imsave(buffer, pixels, format="jpeg", pil_kwargs={"quality": 85})
    return buffer.getvalue()
