"""A measured curve: time against one quantity, the laws it follows, as a table and as a picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.harness import Timing, command, duration, interleave
from benchmarks.laws import Law
from openxclip.errors import InputError, MissingExtraError
from openxclip.files import atomic_write
from openxclip.reports.table import Table

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtraError("matplotlib", "train") from error

NUM_PLOTTED = 100  # points of a law's line, which is no straight one on logarithmic axes

Task = Callable[[int], object]
"""What is measured; the argument is the round and means nothing."""
Points = Mapping[int, Timing]
"""x -> how long it took."""
Fit = Callable[[Sequence[float], Sequence[float]], Law]
"""`fit_line` or `fit_power`."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Time of one or several things against the same x."""

    key: str
    """Short name, for files and measurements."""
    title: str
    """What was measured."""
    symbol: str
    """Of x, in the laws."""
    x_name: str
    """What x is."""
    series: Mapping[str, Points]
    """Name of a line -> its points; all lines have the same x."""
    fits: Mapping[str, Fit] = field(default_factory=dict)
    """Name of a line -> how its law is fitted; lines that follow none are left out."""
    is_logarithmic: bool = False
    """Whether the picture has logarithmic axes."""
    notes: tuple[str, ...] = ()
    """What a reader has to know."""

    def __post_init__(self) -> None:
        if len({tuple(points) for points in self.series.values()}) != 1:
            raise InputError(f"curve {self.key!r}: give all lines at the same x, and at least one line")
        if unknown := self.fits.keys() - self.series.keys():
            raise InputError(f"curve {self.key!r}: no line {sorted(unknown)}; fit {sorted(self.series)}")

    @property
    def xs(self) -> tuple[int, ...]:
        """Where it was measured."""
        return tuple(next(iter(self.series.values())))

    def seconds(self, name: str) -> list[float]:
        """Medians of a line."""
        return [timing.median_seconds for timing in self.series[name].values()]

    def laws(self) -> dict[str, Law]:
        """Name of a line -> the law it follows."""
        return {name: fit(self.xs, self.seconds(name)) for name, fit in self.fits.items()}

    def timings(self) -> dict[str, Timing]:
        """Every measurement, for the JSON file."""
        return {
            f"{self.key}: {name}, {self.symbol} = {x}": timing
            for name, points in self.series.items()
            for x, timing in points.items()
        }

    def table(self, suite: str) -> Table:
        """A row for each x, and the laws below."""
        laws = [
            f"{name}: {law.formula(self.symbol)}, at most {law.largest_error(self.xs, self.seconds(name)):.0%} off."
            for name, law in self.laws().items()
        ]
        num_rounds = {len(timing.seconds) for points in self.series.values() for timing in points.values()}
        return Table(
            title=f"{self.title}: medians of {max(num_rounds)} rounds",
            command=command(suite),
            columns=(self.x_name, *self.series),
            rows=tuple(
                (x, *(duration(points[x].median_seconds) for points in self.series.values())) for x in self.xs
            ),
            notes=(*laws, *self.notes),
        )

    def draw(self, path: Path) -> None:
        """Write a PNG: the measurements as points, the laws as lines."""
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        laws = self.laws()
        for name in self.series:
            style = "o" if name in laws else "o:"
            (line,) = axes.plot(
                self.xs, [1000 * seconds for seconds in self.seconds(name)], style, label=name
            )
            if name in laws:
                xs = np.geomspace(min(self.xs), max(self.xs), NUM_PLOTTED)
                axes.plot(xs, [1000 * laws[name].at(x) for x in xs], "-", color=line.get_color())
        if self.is_logarithmic:
            axes.set_xscale("log")
            axes.set_yscale("log")
        axes.set_xticks(self.xs, [f"{x:,}" for x in self.xs], minor=False)
        axes.set_title(self.title, parse_math=False)
        axes.set_xlabel(self.x_name, parse_math=False)
        axes.set_ylabel("milliseconds")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def each_round(run: Callable[..., object], *arguments: object) -> Task:
    """The same call in every round."""
    return lambda _: run(*arguments)


def measure_series(
    tasks: Mapping[str, Mapping[int, Task]], num_rounds: int, title: str
) -> dict[str, dict[int, Timing]]:
    """Name of a line -> x -> what to measure, all in turns -> the points of each line."""
    variants = {f"{name}, {x}": task for name, points in tasks.items() for x, task in points.items()}
    timings = interleave(variants, range(num_rounds), title).timings
    return {name: {x: timings[f"{name}, {x}"] for x in points} for name, points in tasks.items()}
