"""All plots of results. Importing this raises MissingExtraError if matplotlib is not installed."""

import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from openxclip.errors import MissingExtraError
from openxclip.files import atomic_write

try:
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import fontManager, get_font
    from matplotlib.ft2font import FT2Font
    from matplotlib.image import imsave
    from matplotlib.legend import Legend
except ImportError as error:
    raise MissingExtraError("matplotlib", "train") from error


def new_figure(width: float, height: float, **settings: Any) -> Figure:
    """An empty figure of this size in inches; needs no display."""
    figure = Figure(figsize=(width, height), **settings)
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write a figure atomically."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def plain_legend(legend: Legend) -> None:
    """Show names literally: a dollar sign in a class name does not start a formula."""
    for text in legend.get_texts():
        text.set_parse_math(False)


XY = tuple[float, float]

MAX_POINTS = 400  # per curve: more than its picture has pixel columns

# More are not legible, and drawing a picture large enough for 400 of them took 12 GB of memory.
MAX_NAMES = 100
MAX_NUMBERS = 30
MAX_CHARACTERS = 32  # of a class name next to a plot
CLASS_INCHES, MAX_INCHES = 0.03, 26.0  # side of a class without a name, of the whole picture

# Families with Chinese, Japanese and Korean characters: free ones, then those of macOS and Windows.
MORE_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Source Han Sans", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo",
    "Arial Unicode MS", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
)  # fmt: skip


def drawable_fonts() -> dict[str, FT2Font]:
    """Installed font families for names, matplotlib's own first."""
    installed = {entry.name: entry.fname for entry in fontManager.ttflist}
    families = ("DejaVu Sans", *MORE_FONTS)
    return {family: get_font(installed[family]) for family in families if family in installed}


def short_name(label: str, class_id: int, fonts: Mapping[str, FT2Font]) -> str:
    """A class name for a plot: at most `MAX_CHARACTERS`; the id if no font has one of the characters."""
    label = " ".join(label.split())
    if any(not any(font.get_char_index(ord(char)) for font in fonts.values()) for char in label):
        return f"class {class_id}"
    if len(label) <= MAX_CHARACTERS:
        return label
    # The id distinguishes names with the same beginning.
    number = f" ({class_id})"
    return label[: MAX_CHARACTERS - len(number) - 1].rstrip() + "…" + number


def plot_confusion(confusion: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """Write a confusion matrix (row: true class, column: predicted) as a PNG.

    Long names are cut; names that no installed font can draw, or too many names, are replaced by ids.
    """
    num_classes, has_names = len(labels), len(labels) <= MAX_NAMES
    side = 0.22 * num_classes + 2 if has_names else CLASS_INCHES * num_classes + 2
    side = min(max(4.0, side), MAX_INCHES)
    figure = new_figure(side, side, layout="constrained")
    axes = figure.add_subplot()
    shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
    # Without smoothing: with many classes, each is only a few pixels wide.
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if has_names:
        fonts = drawable_fonts()
        names = [short_name(label, i, fonts) for i, label in enumerate(labels)]
        family = list(fonts)
        axes.set_xticks(
            range(num_classes), names, rotation=90, fontsize=8, parse_math=False, fontfamily=family
        )
        axes.set_yticks(range(num_classes), names, fontsize=8, parse_math=False, fontfamily=family)
    axes.set_xlabel("predicted" if has_names else "predicted: class id, counted from 0")
    axes.set_ylabel("true" if has_names else "true: class id, counted from 0")
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
    save_png(figure, path)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart."""

    points: Sequence[XY]
    """(x, y), x ascending."""
    name: str = ""
    """Shown if a chart has several lines."""
    is_faint: bool = False
    """Drawn thin and pale, as the background of another curve."""


def thinned(points: Sequence[XY], max_points: int = MAX_POINTS) -> list[XY]:
    """Means over equal stretches of a curve, at most `max_points` of them; a short curve stays as it is."""
    size = max(1, -(-len(points) // max_points))
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(x for x, _ in stretch) / len(stretch), sum(y for _, y in stretch) / len(stretch))
        for stretch in stretches
    ]


def draw_curves(x_label: str, curves: Sequence[Curve]) -> bytes:
    """A chart as a PNG with a transparent background, in colours legible on white and on black."""
    figure = new_figure(4.4, 2.5, layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    for curve in curves:
        xs, ys = zip(*thinned(curve.points), strict=True)
        width, alpha = (0.8, 0.45) if curve.is_faint else (1.8, 1.0)
        marker = "o" if len(xs) == 1 else ""  # a line through one point is invisible
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


# Lines with error bars

Point = tuple[float | str, float, float | None]
"""x (a number, or the name of a step), mean and standard deviation, both in 0..1; None if there is no spread."""

MAX_NAME_WIDTH = 14  # characters per line: names of steps are side by side below the axis


def plot_lines(
    path: Path,
    title: str,
    x_label: str,
    series: Mapping[str, Sequence[Point]],
    y_label: str = "top-1 (%)",
) -> None:
    """Write a PNG with a line for each series; x is on a logarithmic scale if each number doubles the last."""
    figure = new_figure(6.4, 4.2, layout="constrained")
    axes = figure.add_subplot()
    for name, points in series.items():
        xs, means, stds = zip(*points, strict=True)
        axes.errorbar(
            [fill(x, MAX_NAME_WIDTH) if isinstance(x, str) else x for x in xs],
            [100 * mean for mean in means],
            yerr=[100 * (std or 0.0) for std in stds],
            marker="o",
            capsize=3,
            label=name,
        )
    ticks = list(dict.fromkeys(x for points in series.values() for x, _, _ in points))
    if _doubles(ticks):
        axes.set_xscale("log", base=2)
    if all(isinstance(x, int | float) for x in ticks):
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.set_title(title, parse_math=False)
    axes.set_xlabel(x_label, parse_math=False)
    axes.set_ylabel(y_label, parse_math=False)
    axes.grid(alpha=0.3)
    if len(series) > 1:
        plain_legend(axes.legend(frameon=False))
    save_png(figure, path)


def _doubles(ticks: Sequence[float | str]) -> bool:
    """Whether these are numbers such as 2, 4, 8, 16, which crowd at the left of a linear axis."""
    numbers = [x for x in ticks if isinstance(x, int | float)]
    if len(numbers) < max(3, len(ticks)) or numbers[0] <= 0:
        return False
    return all(after == 2 * before for before, after in pairwise(numbers))


# Gained against kept

MeanStd = tuple[float, float | None]
"""Mean and standard deviation, both in 0..1; None if there is no spread."""
Points = Mapping[str, tuple[MeanStd, MeanStd]]
"""Name -> (supervised, zero-shot) top-1."""

FAR = 6.0  # times the median distance from the middle: a farther point would squeeze all others into a corner


def far_points(points: Points) -> set[str]:
    """The names of outliers."""
    places = {name: (supervised[0], zero_shot[0]) for name, (supervised, zero_shot) in points.items()}
    middle = tuple(statistics.median(values) for values in zip(*places.values(), strict=True))
    distances = {name: math.dist(place, middle) for name, place in places.items()}
    limit = FAR * statistics.median(distances.values())
    return {name for name, distance in distances.items() if distance > limit > 0}


def plot_trade_off(path: Path, title: str, points: Points) -> None:
    """Write a PNG with a point for each name, at its (supervised, zero-shot) top-1.

    Points are numbered, and the names are next to the plot: names at the points would overlap. Outliers are not drawn;
    their values are given with their names.
    """
    far = far_points(points)
    figure = new_figure(8.6, 4.6, layout="constrained")
    axes = figure.add_subplot()
    for number, (name, (supervised, zero_shot)) in enumerate(points.items(), start=1):
        (x, x_std), (y, y_std) = supervised, zero_shot
        colour = colormaps["tab10"]((number - 1) % 10)
        label = f"{number}  {name}"
        if name in far:
            label, x, y = f"{label}:\n     outside, at {100 * x:.1f}, {100 * y:.1f}", math.nan, math.nan
        axes.errorbar(
            100 * x,
            100 * y,
            xerr=100 * (x_std or 0.0),
            yerr=100 * (y_std or 0.0),
            fmt="o",
            color=colour,
            capsize=2,
            elinewidth=0.7,
            label=label,
        )
        if name not in far:
            axes.annotate(str(number), (100 * x, 100 * y), (5, 5), textcoords="offset points", color=colour)
    figure.suptitle(title, fontsize=11, parse_math=False)  # wider than the axes: also above the names
    axes.set_xlabel("supervised: top-1 on trained classes (%)")
    axes.set_ylabel("zero-shot: top-1 on new classes (%)")
    axes.grid(alpha=0.3)
    plain_legend(figure.legend(loc="outside right center", frameon=False, fontsize=9))
    save_png(figure, path)
