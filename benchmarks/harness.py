"""Timing in turns: whatever else the machine does meets every variant alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from openxclip.errors import InputError
from openxclip.progress import progress_bar
from openxclip.reports.table import Table

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one variant took, round by round."""

    seconds: tuple[float, ...]
    """One measurement a round."""

    def __post_init__(self) -> None:
        if not self.seconds or min(self.seconds) <= 0:
            raise InputError(f"a timing is one or more measurements above 0 s, not {self.seconds}")

    @property
    def median_seconds(self) -> float:
        """The middle of the rounds."""
        return statistics.median(self.seconds)

    def speed_against(self, other: "Timing") -> float:
        """How many times as fast as `other` this is, by the medians."""
        return other.median_seconds / self.median_seconds

    def speed_by_rounds(self, other: "Timing") -> float:
        """The same as the median of each round's own ratio: load that comes and goes cancels out."""
        pairs = zip(other.seconds, self.seconds, strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a measurement gives for each variant, by its name."""

    timings: dict[str, Timing]
    outputs: dict[str, list[Any]]
    """What the variant returned in each round."""


def interleave(
    variants: Mapping[str, Callable[[Item], object]], items: Sequence[Item], title: str, num_warmups: int = 1
) -> Run:
    """Run all variants on the first item, then on the second ... (A B A B); each sees every item once.

    Args:
        variants: what to measure, by name.
        items: the inputs, one a round.
        title: of the progress bar.
        num_warmups: unmeasured rounds before, on the first item: caches fill, compilers compile.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    outputs: dict[str, list[Any]] = {name: [] for name in variants}
    rounds = [*[items[0]] * num_warmups, *items]
    with progress_bar() as bar:
        task = bar.add_task(title, total=len(rounds) * len(variants), note="")
        for i, item in enumerate(rounds):
            for name, run in variants.items():
                bar.update(task, note=name)
                started = time.perf_counter()
                output = run(item)
                elapsed = time.perf_counter() - started
                bar.advance(task)
                if i >= num_warmups:
                    seconds[name].append(elapsed)
                    outputs[name].append(output)
    timings = {name: Timing(seconds=tuple(measured)) for name, measured in seconds.items()}
    return Run(timings=timings, outputs=outputs)


def speed_table(
    title: str, suite: str, timings: Mapping[str, Timing], reference: str, notes: Sequence[str] = ()
) -> Table:
    """Medians, extremes, and how many times as fast as `reference` each variant is."""
    against = timings[reference]
    rows = [
        (
            name,
            duration(timing.median_seconds),
            duration(min(timing.seconds)),
            duration(max(timing.seconds)),
            f"{timing.speed_against(against):.2f}x",
            f"{timing.speed_by_rounds(against):.2f}x",
        )
        for name, timing in timings.items()
    ]
    return Table(
        title=f"{title} ({len(against.seconds)} rounds)",
        command=command(suite),
        columns=("variant", "median", "min", "max", f"speed against {reference}", "by rounds"),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def duration(seconds: float) -> str:
    """Three digits with a unit."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def command(suite: str) -> str:
    """What to type for one suite alone."""
    return f"python -m benchmarks {suite}"
