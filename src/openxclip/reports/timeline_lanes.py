"""Content of timeline pictures, independent of the renderer: lanes, curves of bounded length, axis ticks.

Shapes: M windows.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from openxclip.timelines.segments import Segment
from openxclip.timelines.timeline import Thumbnail, Timeline

MAX_LANES = 40  # of labels; the others are only in the list of segments
MAX_POINTS = 500  # per curve: no screen shows more
MAX_TICKS = 8
MAX_CUTS = 1000

_STEPS_SECONDS = (
    0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400,
)  # fmt: skip

Curve = tuple[tuple[float, float], ...]
"""(seconds, score) of consecutive windows, by time."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A stretch of time on a lane."""

    start_seconds: float
    end_seconds: float
    note: str
    """A short description."""
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A row of the picture."""

    kind: Literal["label", "none", "gaps", "cuts"]
    name: str
    number: int = 0
    """Number of the label."""
    stretches: tuple[Stretch, ...] = ()
    curves: tuple[Curve, ...] = ()
    """One for each run of windows without a gap."""


def title_of(timeline: Timeline) -> str:
    """The video's name for the title of a picture."""
    return "standard input" if timeline.path == "-" else Path(timeline.path).name or timeline.path


def lanes_of(timeline: Timeline) -> list[Lane]:
    """A lane for each label with segments, by first start; then none of these, gaps and cuts."""
    of_label: dict[str, list[Segment]] = defaultdict(list)
    for segment in timeline.segments:
        of_label[segment.label].append(segment)
    longest = sorted(of_label, key=lambda label: -sum(segment.seconds for segment in of_label[label]))
    shown = set(longest[:MAX_LANES])
    lanes = [_of_label(timeline, label, of_label[label]) for label in of_label if label in shown]
    if timeline.none is not None:
        lanes.append(Lane(kind="none", name="none of these", curves=curves(timeline, timeline.none)))
    gaps = tuple(
        Stretch(start_seconds=gap.start_seconds, end_seconds=gap.end_seconds, note=gap.reason)
        for gap in timeline.breaks
    )
    if gaps:
        has_jumps = any(gap.kind == "jump" for gap in timeline.breaks)
        lanes.append(Lane(kind="gaps", name="gaps and jumps" if has_jumps else "gaps", stretches=gaps))
    if timeline.cuts_seconds:
        lanes.append(Lane(kind="cuts", name="shot boundaries", stretches=_cuts(timeline)))
    return lanes


def _of_label(timeline: Timeline, label: str, segments: list[Segment]) -> Lane:
    number = timeline.labels.index(label)
    stretches = tuple(
        Stretch(
            start_seconds=segment.start_seconds,
            end_seconds=segment.end_seconds,
            note=f"{label}, score {segment.score:.0%}",
            score=segment.score,
        )
        for segment in segments
    )
    return Lane(
        kind="label",
        name=label,
        number=number,
        stretches=stretches,
        curves=curves(timeline, timeline.scores[:, number]),
    )


def _cuts(timeline: Timeline) -> tuple[Stretch, ...]:
    """At most `MAX_CUTS` cuts: the first of those that a screen cannot tell apart."""
    step = max(timeline.duration_seconds, 1e-9) / MAX_CUTS
    first = {int(cut / step): cut for cut in reversed(timeline.cuts_seconds)}
    return tuple(
        Stretch(start_seconds=cut, end_seconds=cut, note="shot boundary") for cut in sorted(first.values())
    )


def curves(timeline: Timeline, values: np.ndarray) -> tuple[Curve, ...]:
    """Values (M,) of windows over their middles, broken where a window was not seen.

    With more than `MAX_POINTS` windows, the best of each of that many equal groups: peaks are kept.
    """
    if not len(values):
        return ()
    middles = (timeline.starts_seconds + timeline.ends_seconds) / 2
    groups = np.arange(0, len(values), -(-len(values) // MAX_POINTS))
    best = np.fmax.reduceat(np.asarray(values, np.float64), groups)
    counts = np.diff(np.append(groups, len(values)))
    moments = np.add.reduceat(middles, groups) / counts
    edges = [0.0, *((moments[:-1] + moments[1:]) / 2), timeline.duration_seconds]
    is_seen = np.isfinite(best)
    bounds = [0, *(np.flatnonzero(np.diff(is_seen)) + 1), len(best)]
    runs = [(start, end) for start, end in pairwise(bounds) if is_seen[start]]
    return tuple(_curve(moments, best, edges, start, end) for start, end in runs)


def _curve(moments: np.ndarray, best: np.ndarray, edges: list[float], start: int, end: int) -> Curve:
    """From the edge before the first window of a run to the edge after the last one."""
    xs = [edges[start], *moments[start:end], edges[end]]
    ys = [best[start], *best[start:end], best[end - 1]]
    return tuple((float(x), float(y)) for x, y in zip(xs, ys, strict=True))


def thumbnail_cells(timeline: Timeline, max_cells: int) -> tuple[list[Thumbnail | None], list[Thumbnail]]:
    """Thumbnails for equal parts of the time axis, None for a part without one, and the remaining thumbnails."""
    free = list(timeline.thumbnails)
    num_cells = min(max_cells, len(free))
    width = timeline.duration_seconds / max(1, num_cells)
    cells: list[Thumbnail | None] = []
    for number in range(num_cells):
        middle = (number + 0.5) * width
        nearest = min(free, key=lambda thumbnail: abs(thumbnail.seconds - middle), default=None)
        if nearest is None or abs(nearest.seconds - middle) > width:
            cells.append(None)
        else:
            cells.append(nearest)
            free.remove(nearest)
    return cells, free


def ticks_seconds(duration_seconds: float) -> list[float]:
    """Round times from 0, at most `MAX_TICKS` in addition to 0."""
    days = -(-duration_seconds // (MAX_TICKS * 86400)) * 86400
    fitting = (step for step in _STEPS_SECONDS if duration_seconds <= MAX_TICKS * step)
    step = next(fitting, days)
    return [round(i * step, 1) for i in range(int(duration_seconds / step) + 1)]


def clock(seconds: float, num_digits: int = 0) -> str:
    """M:SS, or H:MM:SS from an hour on, with decimals of a second."""
    units = round(seconds * 10**num_digits)
    whole, fraction = divmod(units, 10**num_digits)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    text = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
    return f"{text}.{fraction:0{num_digits}}" if num_digits else text


def tick_clock(seconds: float, ticks: list[float]) -> str:
    """The text of a tick, with a decimal of a second if the ticks need one."""
    return clock(seconds, int(any(tick % 1 for tick in ticks)))
