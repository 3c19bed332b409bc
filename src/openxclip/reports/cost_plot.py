"""Accuracy against cost as a picture; importing this raises MissingExtraError where matplotlib is not installed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openxclip.errors import MissingExtraError
from openxclip.files import atomic_write

try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtraError("matplotlib", "train") from error


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model."""

    name: str
    """Written beside the point."""
    gmacs: float
    """10⁹ multiply-adds of all views of a video."""
    top1: float
    """Percent."""


def plot_costs(path: Path, title: str, ours: Sequence[Point], others: Sequence[Point]) -> None:
    """Write a PNG with a point for each model, cost on a logarithmic axis; ours are filled and joined."""
    figure = Figure(figsize=(8.6, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ours = sorted(ours, key=lambda point: point.gmacs)
    axes.plot(*_xy(ours), "o-", color="#c2410c", label="X-CLIP: cost counted by us, accuracy published")
    axes.plot(*_xy(others), "o", color="#64748b", markerfacecolor="none", label="others, as published")
    for point in ours:  # above and to the left, where their own line does not run
        _write_name(axes, point, "#c2410c", offset=(-6, 5), align="right")
    for point in others:
        _write_name(axes, point, "#475569", offset=(6, -10 if _is_below_another(point, others) else 4))
    axes.set_xscale("log")
    axes.margins(x=0.2, y=0.08)
    axes.set_title(title, parse_math=False)
    axes.set_xlabel("multiply-adds of all views of a video (G)")
    axes.set_ylabel("top-1 on Kinetics-400 (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _xy(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.gmacs for point in points], [point.top1 for point in points]


def _is_below_another(point: Point, points: Sequence[Point]) -> bool:
    """Whether a name above this point would run into that of a point close above it."""
    return any(
        0 < other.top1 - point.top1 < 0.4 and abs(math.log10(other.gmacs / point.gmacs)) < 0.1
        for other in points
    )


def _write_name(
    axes: Axes, point: Point, color: str, offset: tuple[float, float], align: str = "left"
) -> None:
    axes.annotate(
        point.name,
        (point.gmacs, point.top1),
        xytext=offset,
        textcoords="offset points",
        horizontalalignment=align,
        fontsize=7.5,
        color=color,
        parse_math=False,
    )
