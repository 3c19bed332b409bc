"""Lines with error bars as a picture; importing this raises MissingExtraError where matplotlib is not installed."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import fill

from openxclip.errors import MissingExtraError
from openxclip.files import atomic_write

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtraError("matplotlib", "train") from error

Point = tuple[float | str, float, float | None]
"""x (a number, or the name of a step), mean and standard deviation, both in 0..1; None where there is no spread."""

MAX_NAME_WIDTH = 14  # characters of a line: names of steps stand side by side below the axis


def plot_lines(
    path: Path,
    title: str,
    x_label: str,
    series: Mapping[str, Sequence[Point]],
    y_label: str = "top-1 (%)",
) -> None:
    """Write a PNG with a line for each series; numbers x stand at their logarithm if each doubles the last."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
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
        legend = axes.legend(frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _doubles(ticks: Sequence[float | str]) -> bool:
    """Whether these are numbers such as 2, 4, 8, 16, which crowd at the left of a linear axis."""
    numbers = [x for x in ticks if isinstance(x, int | float)]
    if len(numbers) < max(3, len(ticks)) or numbers[0] <= 0:
        return False
    return all(after == 2 * before for before, after in pairwise(numbers))
