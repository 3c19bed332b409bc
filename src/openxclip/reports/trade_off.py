"""A picture of what is gained on trained classes and kept on new ones; importing this needs matplotlib."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path

from openxclip.errors import MissingExtraError
from openxclip.files import atomic_write

try:
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtraError("matplotlib", "train") from error

MeanStd = tuple[float, float | None]
"""Mean and standard deviation, both in 0..1; None where there is no spread."""
Points = Mapping[str, tuple[MeanStd, MeanStd]]
"""Name -> (supervised, zero-shot) top-1."""

FAR = 6.0  # times the median distance from the middle: a point beyond would squeeze all others into a corner


def far_points(points: Points) -> set[str]:
    """The names of those that lie far from the others."""
    places = {name: (supervised[0], zero_shot[0]) for name, (supervised, zero_shot) in points.items()}
    middle = tuple(statistics.median(values) for values in zip(*places.values(), strict=True))
    distances = {name: math.dist(place, middle) for name, place in places.items()}
    limit = FAR * statistics.median(distances.values())
    return {name for name, distance in distances.items() if distance > limit > 0}


def plot_trade_off(path: Path, title: str, points: Points) -> None:
    """Write a PNG with a point for each name, at its (supervised, zero-shot) top-1.

    A point carries its number, and the names stand beside the picture: names at the points would cover each other. Of
    points far from all others the numbers stand beside their names alone.
    """
    far = far_points(points)
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
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
    figure.suptitle(title, fontsize=11, parse_math=False)  # over the names, too: it is wider than the axes
    axes.set_xlabel("supervised: top-1 on trained classes (%)")
    axes.set_ylabel("zero-shot: top-1 on new classes (%)")
    axes.grid(alpha=0.3)
    legend = figure.legend(loc="outside right center", frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
