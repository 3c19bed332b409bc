"""Turns the scores of windows into segments: when a label begins and ends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openxclip.timelines.options import SegmentRules


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A label and the time span in which it occurs."""

    label: str
    start_seconds: float
    end_seconds: float
    score: float
    """Mean score of its windows."""
    peak: float
    """Best score of its windows."""

    @property
    def seconds(self) -> float:
        """Length of the segment."""
        return self.end_seconds - self.start_seconds

    def overlap(self, other: "Segment") -> float:
        """Intersection over union in time, 0 to 1."""
        both = min(self.end_seconds, other.end_seconds) - max(self.start_seconds, other.start_seconds)
        return max(0.0, both) / max(1e-9, self.seconds + other.seconds - max(0.0, both))


@dataclass
class _Run:
    """Consecutive cells of one label with scores of at least `leave`."""

    start_seconds: float
    end_seconds: float = math.inf
    """Infinite while the run continues."""
    total: float = 0.0
    count: int = 0
    peak: float = 0.0

    def add(self, score: float) -> None:
        """Another cell."""
        self.total += score
        self.count += 1
        self.peak = max(self.peak, score)

    def joined(self, following: "_Run") -> "_Run":
        """This run joined with a later one, including the gap between them."""
        return _Run(
            self.start_seconds,
            following.end_seconds,
            self.total + following.total,
            self.count + following.count,
            max(self.peak, following.peak),
        )


class Segmenter:
    """Takes the scores of consecutive cells of time, and returns segments as soon as they are certain.

    A cell lasts until the next one begins. A segment consists of cells that reach `leave`, one of which reaches
    `enter`: a threshold with hysteresis, so that a score that fluctuates around one value gives one segment, not many.
    """

    def __init__(self, labels: Sequence[str], rules: SegmentRules) -> None:
        rules.check()
        self._labels, self._rules = tuple(labels), rules
        self._runs: list[_Run | None] = [None] * len(labels)
        self._ended: list[_Run | None] = [None] * len(labels)
        """Per label, a finished run that the next one may join."""

    def add(self, start_seconds: float, scores: np.ndarray | None) -> list[Segment]:
        """Start a cell with these scores (K,), or None if nothing was seen -> segments that are certain now."""
        segments: list[Segment] = []
        for k in range(len(self._labels)):
            score = 0.0 if scores is None else float(scores[k])
            if score >= self._rules.leave:
                run = self._runs[k] = self._runs[k] or _Run(start_seconds)
                run.add(score)
                segments += self._flush(k, run.start_seconds)
            else:
                segments += self._end(k, start_seconds)
                segments += self._flush(k, start_seconds)
        return segments

    def cut(self, seconds: float) -> list[Segment]:
        """End all segments at this moment."""
        return [
            segment
            for k in range(len(self._labels))
            for segment in (*self._end(k, seconds), *self._flush(k, math.inf))
        ]

    def close(self, end_seconds: float) -> list[Segment]:
        """End of the video -> the last segments."""
        return sorted(self.cut(end_seconds), key=lambda segment: segment.start_seconds)

    def is_open(self, k: int) -> bool:
        """Whether a segment of label k is open."""
        run = self._runs[k]
        return run is not None and run.peak >= self._rules.enter

    def _end(self, k: int, seconds: float) -> list[Segment]:
        """End the run of a label."""
        run, self._runs[k] = self._runs[k], None
        if run is None or run.peak < self._rules.enter:
            return []
        run.end_seconds = seconds
        before, self._ended[k] = self._ended[k], run
        if before is None:
            return []
        if run.start_seconds - before.end_seconds <= self._rules.close_gap_seconds:
            self._ended[k] = before.joined(run)
            return []
        return self._segment(k, before)

    def _flush(self, k: int, seconds: float) -> list[Segment]:
        """Segments that no later run can join."""
        ended = self._ended[k]
        if ended is None or seconds - ended.end_seconds <= self._rules.close_gap_seconds:
            return []
        self._ended[k] = None
        return self._segment(k, ended)

    def _segment(self, k: int, run: _Run) -> list[Segment]:
        if run.end_seconds - run.start_seconds < max(self._rules.min_seconds, 1e-9):
            return []
        return [
            Segment(
                label=self._labels[k],
                start_seconds=run.start_seconds,
                end_seconds=run.end_seconds,
                score=run.total / run.count,
                peak=run.peak,
            )
        ]


def suppressed(segments: Sequence[Segment], overlap: float | None) -> list[Segment]:
    """Segments by time, without those that overlap with a better one of another label; None keeps all."""
    kept: list[Segment] = []
    for segment in sorted(segments, key=lambda segment: segment.score, reverse=True):
        others = (better for better in kept if better.label != segment.label)
        if overlap is None or all(segment.overlap(better) <= overlap for better in others):
            kept.append(segment)
    return sorted(kept, key=lambda segment: (segment.start_seconds, segment.label))
