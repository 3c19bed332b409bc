"""Metrics of segments: average precision, F1, boundary errors, false alarms.

A prediction matches an event of its label and video whose intersection over union (IoU) with it reaches a threshold.
As in ActivityNet's evaluation, predictions are matched greedily, the best score first; each takes the free event of
greatest IoU. As in THUMOS'14's, a prediction that matches none and touches an ignored stretch counts as neither right
nor wrong. Labels are compared without regard to case.

Shapes: P predictions, E events, N spans; a span is (start, end) in seconds.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from openxclip.data.annotations import Annotated, Event
from openxclip.errors import InputError
from openxclip.wording import shortened

IOU_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
BOUNDARY_IOU = 0.5
"""Boundary errors are measured on pairs that reach this IoU."""
ROUNDING = 1e-9  # times on a grid often reach a threshold exactly, up to rounding
SECONDS_PER_HOUR = 3600

THRESHOLD_COLUMNS = ("IoU", "mAP", "F1", "precision", "recall")
CLASS_COLUMNS = ("label", "events", "AP, mean over IoU")


class ScoredSegment(Protocol):
    """A prediction, such as a `Segment` of `timeline/`."""

    @property
    def label(self) -> str: ...
    @property
    def start_seconds(self) -> float: ...
    @property
    def end_seconds(self) -> float: ...
    @property
    def score(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class AtThreshold:
    """Metrics at one IoU threshold. Shares in 0..1; None for a share of zero."""

    iou: float
    mean_average_precision: float | None
    """Over the labels that have events."""
    f1: float | None
    precision: float | None
    """Over all labels and videos together, like F1 and recall."""
    recall: float | None
    num_matched: int
    num_predictions: int
    """Without ignored ones."""


@dataclass(frozen=True, kw_only=True)
class ClassPrecision:
    """Average precision of one label."""

    label: str
    num_events: int
    average_precisions: tuple[float, ...]
    """One a threshold."""


@dataclass(frozen=True, kw_only=True)
class BoundaryErrors:
    """Start and end errors of matched predictions; None without a match."""

    num_pairs: int
    start_mean_seconds: float | None
    start_median_seconds: float | None
    end_mean_seconds: float | None
    end_median_seconds: float | None
    share_within_stride: float | None
    """Share of starts and ends together; None if the stride is unknown."""


@dataclass(frozen=True, kw_only=True)
class FalseAlarms:
    """Predictions outside events of their label."""

    num: int
    hours: float | None
    """Time in which they could occur; None if the length of a video is unknown."""
    per_hour: float | None

    @classmethod
    def over(cls, num: int, seconds: float | None) -> "FalseAlarms":
        """False alarms per hour."""
        hours = None if seconds is None else seconds / SECONDS_PER_HOUR
        return cls(num=num, hours=hours, per_hour=num / hours if hours else None)


@dataclass(frozen=True, kw_only=True)
class TimelineMetrics:
    """The results over all videos. `dataclasses.asdict` gives plain values for JSON."""

    num_videos: int
    num_events: int
    num_predictions: int
    mean_average_precision: float | None
    """Mean over the thresholds."""
    thresholds: tuple[AtThreshold, ...]
    classes: tuple[ClassPrecision, ...]
    """Labels that have events."""
    labels_without_events: tuple[str, ...]
    """Predicted labels that never occur: they count in precision and F1, but not in mAP."""
    stride_seconds: float | None
    boundaries: BoundaryErrors
    """At IoU 0.5."""
    false_alarms: FalseAlarms
    quiet_false_alarms: FalseAlarms
    """False alarms that are mostly outside events of any label, per hour of such time."""
    quiet_share_labelled: float | None
    """Share of the time without any event that a prediction covers."""

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Cells of a table under `THRESHOLD_COLUMNS`, in percent: a row for each threshold, then the mean."""
        rows = [
            (f"{at.iou:g}", *map(_percent, (at.mean_average_precision, at.f1, at.precision, at.recall)))
            for at in self.thresholds
        ]
        return (*rows, ("mean", _percent(self.mean_average_precision), "", "", ""))

    def class_rows(self) -> tuple[tuple[str, ...], ...]:
        """Cells of a table under `CLASS_COLUMNS`, in percent."""
        return tuple(
            (row.label, str(row.num_events), _percent(float(np.mean(row.average_precisions))))
            for row in self.classes
        )

    def notes(self) -> tuple[str, ...]:
        """Notes below the table: counts, boundary errors and false alarms."""
        counted = (
            f"{self.num_events} events and {self.num_predictions} predictions in {self.num_videos} videos."
        )
        notes = (counted, self._boundary_note(), self._alarm_note())
        if not self.labels_without_events:
            return notes
        names = shortened(self.labels_without_events)
        return (*notes, f"Predicted labels without any event count in F1 and precision, not in mAP: {names}.")

    def _boundary_note(self) -> str:
        errors = self.boundaries
        if not errors.num_pairs:
            return f"Boundary errors: no prediction matches an event at IoU {BOUNDARY_IOU:g}."
        within = (
            ""
            if errors.share_within_stride is None
            else f"; {errors.share_within_stride:.1%} within one stride ({self.stride_seconds:g} s)"
        )
        return (
            f"Boundary errors of {errors.num_pairs} pairs at IoU {BOUNDARY_IOU:g}: "
            f"start {errors.start_mean_seconds:.2f} s (median {errors.start_median_seconds:.2f} s), "
            f"end {errors.end_mean_seconds:.2f} s (median {errors.end_median_seconds:.2f} s){within}."
        )

    def _alarm_note(self) -> str:
        quiet = _alarms(self.quiet_false_alarms)
        share = self.quiet_share_labelled
        covered = "" if share is None else f"; {share:.1%} of the quiet time is labelled"
        unknown = (
            " The length of some videos is unknown, so there is no rate."
            if self.false_alarms.hours is None
            else ""
        )
        return (
            f"False alarms: {_alarms(self.false_alarms)}; where nothing happens: {quiet}{covered}.{unknown}"
        )


def timeline_metrics(
    predictions: Mapping[str, Sequence[ScoredSegment]],
    truth: Mapping[str, Annotated],
    *,
    stride_seconds: float | None = None,
    durations_seconds: Mapping[str, float] | None = None,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> TimelineMetrics:
    """Compare predictions with annotations.

    Args:
        predictions: video id -> its segments in any order. A video without segments counts: its events are missed.
        truth: video id -> what happens in it.
        stride_seconds: stride of the windows, for the share of boundary errors within it.
        durations_seconds: video id -> measured length; the annotations' lengths are used for other videos.
        thresholds: of IoU, above 0.

    Raises:
        InputError: predictions for a video without annotations, or without a finite time or score; no threshold, or
            one outside 0..1.
    """
    _check(predictions, truth, thresholds)
    groups = _groups(predictions, truth)
    classes = _classes(groups, thresholds)
    at = tuple(
        _at_threshold(groups, iou, [row.average_precisions[i] for row in classes])
        for i, iou in enumerate(thresholds)
    )
    videos = [
        _Video(truth[name], predictions.get(name, ()), (durations_seconds or {}).get(name))
        for name in sorted(truth)
    ]
    mean_precisions = [one.mean_average_precision for one in at if one.mean_average_precision is not None]
    return TimelineMetrics(
        num_videos=len(truth),
        num_events=sum(len(group.events) for group in groups),
        num_predictions=sum(len(group.spans) for group in groups),
        mean_average_precision=_mean(mean_precisions),
        thresholds=at,
        classes=classes,
        labels_without_events=_without_events(groups),
        stride_seconds=stride_seconds,
        boundaries=_boundary_errors(groups, stride_seconds),
        false_alarms=FalseAlarms.over(
            sum(int(video.is_alarm.sum()) for video in videos),
            _total(video.counted_seconds for video in videos),
        ),
        quiet_false_alarms=FalseAlarms.over(
            sum(int((video.is_alarm & video.is_quiet).sum()) for video in videos),
            _total(video.quiet_seconds for video in videos),
        ),
        quiet_share_labelled=_labelled_share(videos),
    )


def average_precision(hits: np.ndarray, num_events: int) -> float:
    """Area under the interpolated precision-recall curve, as in ActivityNet and VOC 2011.

    Args:
        hits: bool (P,): whether each prediction, the best score first, matches an event.
        num_events: 1 or more.
    """
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / num_events)  # recall rises by 1 / num_events with each hit


@dataclass(frozen=True, eq=False)
class _Group:
    """The predictions and events of one label in one video."""

    label: str
    """Label as written in the annotations, if the event occurs."""
    spans: np.ndarray
    """(P, 2), the best score first."""
    scores: np.ndarray
    """(P,)"""
    events: np.ndarray
    """(E, 2)"""
    is_ignored: np.ndarray
    """(P,) whether it touches an ignored stretch."""

    @cached_property
    def ious(self) -> np.ndarray:
        """(P, E)."""
        both = _overlaps(self.spans, self.events)
        either = _lengths(self.spans)[:, None] + _lengths(self.events) - both
        return both / np.maximum(either, ROUNDING)

    def matches(self, iou: float) -> np.ndarray:
        """(P,) the event that each prediction matches, -1 for none."""
        free = self.ious.copy()
        found = np.full(len(self.spans), -1)
        for p, candidates in enumerate(free):
            if candidates.size and candidates.max() >= iou - ROUNDING:
                found[p] = candidates.argmax()
                free[:, found[p]] = -1
        return found


def _groups(
    predictions: Mapping[str, Sequence[ScoredSegment]], truth: Mapping[str, Annotated]
) -> list[_Group]:
    """A group for each video and each label predicted or annotated in it, ordered by video name."""
    groups = []
    for name in sorted(truth):
        segments: dict[str, list[ScoredSegment]] = defaultdict(list)
        events: dict[str, list[Event]] = defaultdict(list)
        for segment in predictions.get(name, ()):
            segments[segment.label.casefold()].append(segment)
        for event in truth[name].events:
            events[event.label.casefold()].append(event)
        ignored = _merged(_spans(truth[name].ignored))
        groups += [_group(segments[label], events[label], ignored) for label in sorted({*segments, *events})]
    return groups


def _group(segments: Sequence[ScoredSegment], events: Sequence[Event], ignored: np.ndarray) -> _Group:
    ordered = sorted(segments, key=lambda one: (-one.score, one.start_seconds, one.end_seconds))
    spans = _spans(ordered)
    return _Group(
        label=(events or segments)[0].label,
        spans=spans,
        scores=np.array([segment.score for segment in ordered], dtype=np.float64),
        events=_spans(sorted(events, key=_times)),
        is_ignored=_overlaps(spans, ignored).sum(axis=1) > ROUNDING,
    )


def _classes(groups: Sequence[_Group], thresholds: Sequence[float]) -> tuple[ClassPrecision, ...]:
    """Average precision of each label that has events, over all videos."""
    return tuple(
        ClassPrecision(
            label=next(group.label for group in of_label if len(group.events)),
            num_events=num_events,
            average_precisions=tuple(
                average_precision(_ranked_hits(of_label, iou), num_events) for iou in thresholds
            ),
        )
        for of_label in _by_label(groups)
        if (num_events := sum(len(group.events) for group in of_label))
    )


def _without_events(groups: Sequence[_Group]) -> tuple[str, ...]:
    """Predicted labels that never occur."""
    return tuple(
        of_label[0].label
        for of_label in _by_label(groups)
        if not any(len(group.events) for group in of_label)
    )


def _by_label(groups: Iterable[_Group]) -> list[list[_Group]]:
    """Groups by label, in order of the labels."""
    by_label: dict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        by_label[group.label.casefold()].append(group)
    return [by_label[label] for label in sorted(by_label)]


def _ranked_hits(groups: Sequence[_Group], iou: float) -> np.ndarray:
    """Bool (P,) of the predictions of a label in all videos, the best score first; ignored ones are left out."""
    hits = np.concatenate([group.matches(iou) >= 0 for group in groups])
    counts = hits | ~np.concatenate([group.is_ignored for group in groups])
    spans = np.concatenate([group.spans for group in groups])
    scores = np.concatenate([group.scores for group in groups])
    order = np.lexsort((spans[:, 1], spans[:, 0], -scores))  # for equal scores, the earliest first
    return hits[order][counts[order]]


def _at_threshold(groups: Sequence[_Group], iou: float, average_precisions: Sequence[float]) -> AtThreshold:
    hits = [group.matches(iou) >= 0 for group in groups]
    num_matched = sum(int(hit.sum()) for hit in hits)
    num_predictions = sum(
        int((hit | ~group.is_ignored).sum()) for hit, group in zip(hits, groups, strict=True)
    )
    num_events = sum(len(group.events) for group in groups)
    return AtThreshold(
        iou=iou,
        mean_average_precision=_mean(average_precisions),
        f1=_share(2 * num_matched, num_predictions + num_events),
        precision=_share(num_matched, num_predictions),
        recall=_share(num_matched, num_events),
        num_matched=num_matched,
        num_predictions=num_predictions,
    )


def _boundary_errors(groups: Sequence[_Group], stride_seconds: float | None) -> BoundaryErrors:
    pairs = [np.zeros((0, 2))]
    for group in groups:
        found = group.matches(BOUNDARY_IOU)
        pairs.append(np.abs(group.spans[found >= 0] - group.events[found[found >= 0]]))
    errors = np.concatenate(pairs)  # (pairs, 2)
    if not len(errors):
        return BoundaryErrors(
            num_pairs=0,
            start_mean_seconds=None,
            start_median_seconds=None,
            end_mean_seconds=None,
            end_median_seconds=None,
            share_within_stride=None,
        )
    means, medians = errors.mean(axis=0).tolist(), np.median(errors, axis=0).tolist()
    within = None if stride_seconds is None else float((errors <= stride_seconds + ROUNDING).mean())
    return BoundaryErrors(
        num_pairs=len(errors),
        start_mean_seconds=means[0],
        start_median_seconds=medians[0],
        end_mean_seconds=means[1],
        end_median_seconds=medians[1],
        share_within_stride=within,
    )


class _Video:
    """False alarms of one video, and the time in which they could occur."""

    def __init__(
        self, truth: Annotated, predictions: Sequence[ScoredSegment], duration_seconds: float | None
    ) -> None:
        self._spans = _spans(predictions)
        self._ignored = _merged(_spans(truth.ignored))
        self._busy = _merged(_spans([*truth.events, *truth.ignored]))
        self._duration = truth.duration_seconds if duration_seconds is None else duration_seconds
        overlaps = _overlaps(self._spans, _spans(truth.events)) > ROUNDING
        same = [[p.label.casefold() == event.label.casefold() for event in truth.events] for p in predictions]
        found = (overlaps & np.array(same, dtype=bool).reshape(overlaps.shape)).any(axis=1)
        self.is_alarm: np.ndarray = ~found & (_overlaps(self._spans, self._ignored).sum(axis=1) <= ROUNDING)
        """(P,)"""

    @property
    def is_quiet(self) -> np.ndarray:
        """(P,) whether most of each prediction is outside events of any label."""
        return _overlaps(self._spans, self._busy).sum(axis=1) < _lengths(self._spans) / 2

    @property
    def counted_seconds(self) -> float | None:
        """The length without ignored stretches; None if unknown."""
        return self._without(self._ignored)

    @property
    def quiet_seconds(self) -> float | None:
        """Time without any event."""
        return self._without(self._busy)

    @property
    def labelled_quiet_seconds(self) -> float | None:
        """Time without any event that a prediction covers."""
        if self._duration is None:
            return None
        covered, busy = (np.clip(spans, 0, self._duration) for spans in (_merged(self._spans), self._busy))
        return max(0.0, float(_lengths(covered).sum() - _overlaps(covered, busy).sum()))

    def _without(self, spans: np.ndarray) -> float | None:
        if self._duration is None:
            return None
        return self._duration - float(_lengths(np.clip(spans, 0, self._duration)).sum())


def _labelled_share(videos: Sequence[_Video]) -> float | None:
    labelled = _total(video.labelled_quiet_seconds for video in videos)
    quiet = _total(video.quiet_seconds for video in videos)
    return labelled / quiet if labelled is not None and quiet else None


def _check(
    predictions: Mapping[str, Sequence[ScoredSegment]],
    truth: Mapping[str, Annotated],
    thresholds: Sequence[float],
) -> None:
    if not thresholds or not all(0 < iou <= 1 for iou in thresholds):
        raise InputError(
            f"thresholds of IoU must be above 0 and at most 1, got {list(thresholds)}; give one or more"
        )
    if unknown := [name for name in predictions if name not in truth]:
        raise InputError(f"there are no annotations for {shortened(unknown)}; leave these predictions out")
    for name, segments in predictions.items():
        for one in segments:
            times = (one.start_seconds, one.end_seconds, one.score)
            if not all(map(math.isfinite, times)) or one.end_seconds < one.start_seconds:
                raise InputError(
                    f"{name}: {one.label!r} from {one.start_seconds:g} s to {one.end_seconds:g} s with the score "
                    f"{one.score:g} is not a segment; times and score must be finite, and the end not before the start"
                )


def _times(one: ScoredSegment | Event) -> tuple[float, float]:
    return one.start_seconds, one.end_seconds


def _spans(segments: Iterable[ScoredSegment | Event]) -> np.ndarray:
    """(N, 2)."""
    return np.array([_times(one) for one in segments], dtype=np.float64).reshape(-1, 2)


def _lengths(spans: np.ndarray) -> np.ndarray:
    """(N, 2) -> (N,) seconds."""
    return spans[:, 1] - spans[:, 0]


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spans (P, 2) and (E, 2) -> seconds of overlap (P, E)."""
    ends, starts = np.minimum(first[:, None, 1], second[:, 1]), np.maximum(first[:, None, 0], second[:, 0])
    return (ends - starts).clip(min=0)


def _merged(spans: np.ndarray) -> np.ndarray:
    """The same time as spans (N, 2) that are disjoint and in order."""
    merged: list[list[float]] = []
    for start, end in sorted(spans.tolist()):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return np.array(merged, dtype=np.float64).reshape(-1, 2)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _total(values: Iterable[float | None]) -> float | None:
    """The sum; None if a value is unknown."""
    known = list(values)
    return None if None in known else float(sum(value for value in known if value is not None))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"[:-1]


def _alarms(alarms: FalseAlarms) -> str:
    if alarms.per_hour is None:
        return str(alarms.num)
    return f"{alarms.num} in {alarms.hours:.2f} hours, {alarms.per_hour:.2f} per hour"
