"""Metrics of timelines: cases worked out by hand, the definition as a naive loop, and properties."""

import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openxclip.data.annotations import Annotated, Event
from openxclip.errors import InputError
from openxclip.evaluation.timeline_metrics import (
    CLASS_COLUMNS,
    IOU_THRESHOLDS,
    THRESHOLD_COLUMNS,
    AtThreshold,
    TimelineMetrics,
    average_precision,
    timeline_metrics,
)
from openxclip.reports.table import Table
from openxclip.timelines.segments import Segment

HOUR = 3600.0


def segment(label: str, start: float, end: float, score: float = 1.0) -> Segment:
    return Segment(label=label, start_seconds=start, end_seconds=end, score=score, peak=score)


def annotated(
    *events: tuple[str, float, float],
    duration: float | None = None,
    ignored: Iterable[tuple[float, float]] = (),
) -> Annotated:
    return Annotated(
        duration,
        tuple(Event(*event) for event in events),
        tuple(Event("Ambiguous", *span) for span in ignored),
    )


def at(found: TimelineMetrics, iou: float) -> AtThreshold:
    return next(one for one in found.thresholds if one.iou == iou)


# --- by hand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "num_events", "expected"),
    [
        ("+", 1, 1.0),
        ("-", 1, 0.0),
        ("", 3, 0.0),
        ("+", 2, 1 / 2),  # precision 1 up to recall 1/2, and none beyond
        ("-+", 1, 1 / 2),
        ("+-+", 2, (1 + 2 / 3) / 2),
        ("--++", 2, (1 / 2 + 1 / 2) / 2),  # precision 1/3 at the first hit, but 1/2 at more recall
        ("+-++-", 4, (1 + 3 / 4 + 3 / 4) / 4),  # 2/3 at the second hit, but 3/4 at the third
    ],
)
def test_average_precision_by_hand(hits: str, num_events: int, expected: float) -> None:
    assert average_precision(np.array([hit == "+" for hit in hits], dtype=bool), num_events) == pytest.approx(
        expected, abs=1e-12
    )


TRUTH = {
    "one": annotated(("a", 0, 10), ("a", 20, 30), ("b", 50, 53), duration=100),
    "two": annotated(("a", 0, 10), ("c", 70, 71), duration=200),
}
PREDICTIONS = {
    "one": [
        segment("a", 0, 10, 0.9),  # exact
        segment("a", 40, 50, 0.8),  # a false alarm where nothing happens
        segment("a", 20, 24, 0.6),  # IoU 0.4
        segment("b", 50, 53, 0.1),  # exact
        segment("d", 21, 29, 0.3),  # a label that never occurs, during an event
    ],
    "two": [segment("a", 0, 6, 0.7)],  # IoU 0.6
}
# Label a, best score first: + - + +  at 0.3 and 0.4; + - + -  at 0.5 and 0.6; + - - -  at 0.7; 3 events.
AP_OF_A = [(1 + 3 / 4 + 3 / 4) / 3] * 2 + [(1 + 2 / 3) / 3] * 2 + [1 / 3]


def test_mean_average_precision_by_hand() -> None:
    found = timeline_metrics(PREDICTIONS, TRUTH)
    assert [(row.label, row.num_events) for row in found.classes] == [("a", 3), ("b", 1), ("c", 1)]
    assert found.classes[0].average_precisions == pytest.approx(AP_OF_A, abs=1e-12)
    assert found.classes[1].average_precisions == (1.0,) * 5
    assert found.classes[2].average_precisions == (0.0,) * 5
    expected = [(ap + 1 + 0) / 3 for ap in AP_OF_A]  # d has no event, and does not count
    assert [one.iou for one in found.thresholds] == [0.3, 0.4, 0.5, 0.6, 0.7]
    assert [one.mean_average_precision for one in found.thresholds] == pytest.approx(expected, abs=1e-12)
    assert found.mean_average_precision == pytest.approx(sum(expected) / 5, abs=1e-12)
    assert (found.num_videos, found.num_events, found.num_predictions) == (2, 5, 6)
    assert found.labels_without_events == ("d",)


@pytest.mark.parametrize(("iou", "num_matched"), [(0.3, 4), (0.4, 4), (0.5, 3), (0.6, 3), (0.7, 2)])
def test_f1_by_hand(iou: float, num_matched: int) -> None:
    one = at(timeline_metrics(PREDICTIONS, TRUTH), iou)
    assert (one.num_matched, one.num_predictions) == (num_matched, 6)
    assert one.precision == pytest.approx(num_matched / 6)
    assert one.recall == pytest.approx(num_matched / 5)
    assert one.f1 == pytest.approx(2 * num_matched / 11)


def test_boundary_errors_by_hand() -> None:
    found = timeline_metrics(PREDICTIONS, TRUTH, stride_seconds=2).boundaries
    # Pairs at IoU 0.5: exact, exact, and one that ends 4 s early.
    assert found.num_pairs == 3
    assert (found.start_mean_seconds, found.start_median_seconds) == (0, 0)
    assert (found.end_mean_seconds, found.end_median_seconds) == (pytest.approx(4 / 3), 0)
    assert found.share_within_stride == pytest.approx(5 / 6)


def test_boundary_errors_are_absolute_and_the_stride_is_within() -> None:
    truth = {"v": annotated(("a", 10, 20), ("a", 40, 50), ("b", 60, 70))}
    mine = {"v": [segment("a", 9, 21.1), segment("a", 42, 49), segment("b", 60.3, 67.5)]}
    found = timeline_metrics(mine, truth, stride_seconds=1.1).boundaries
    assert found.start_mean_seconds == pytest.approx((1 + 2 + 0.3) / 3)
    assert found.start_median_seconds == pytest.approx(1)
    assert found.end_mean_seconds == pytest.approx((1.1 + 1 + 2.5) / 3)
    assert found.end_median_seconds == pytest.approx(1.1)
    assert found.share_within_stride == pytest.approx(4 / 6)  # 21.1 - 20 is more than 1.1 by rounding
    assert timeline_metrics(mine, truth).boundaries == replace(found, share_within_stride=None)


def test_no_pair_has_no_boundary_errors() -> None:
    found = timeline_metrics({}, {"v": annotated(("a", 0, 1))}, stride_seconds=1).boundaries
    assert found.num_pairs == 0
    assert {value for name, value in asdict(found).items() if name != "num_pairs"} == {None}


def test_false_alarms_by_hand() -> None:
    found = timeline_metrics(PREDICTIONS, TRUTH)
    # The second of a, and d, of 300 s; quiet are 100 - 23 and 200 - 11 s.
    assert (found.false_alarms.num, found.quiet_false_alarms.num) == (2, 1)
    assert found.false_alarms.hours == pytest.approx(300 / HOUR)
    assert found.false_alarms.per_hour == pytest.approx(2 / 300 * HOUR)
    assert found.quiet_false_alarms.hours == pytest.approx(266 / HOUR)
    assert found.quiet_false_alarms.per_hour == pytest.approx(1 / 266 * HOUR)
    assert found.quiet_share_labelled == pytest.approx(10 / 266)


def test_a_false_alarm_is_quiet_where_most_of_it_is() -> None:
    truth = {"v": annotated(("a", 100, 110), ("a", 105, 112), duration=HOUR)}
    for start, is_quiet in (
        (90, True),
        (94.5, False),
        (100, False),
        (108, True),
    ):  # of 12 s; busy are 100 to 112
        found = timeline_metrics({"v": [segment("b", start, start + 12)]}, truth)
        assert (found.false_alarms.num, found.quiet_false_alarms.num) == (1, int(is_quiet)), start


def test_a_poor_or_second_match_is_no_false_alarm() -> None:
    truth = {"v": annotated(("a", 100, 110), duration=HOUR)}
    mine = {"v": [segment("a", 109, 300, 0.9), segment("a", 100, 110, 0.5), segment("a", 101, 110, 0.4)]}
    found = timeline_metrics(mine, truth)
    assert found.false_alarms.num == 0
    assert at(found, 0.5).precision == pytest.approx(1 / 3)
    touching = timeline_metrics({"v": [segment("a", 110, 120)]}, truth)
    assert touching.false_alarms.num == 1


def test_one_long_false_alarm_shows_in_the_share_of_quiet_time() -> None:
    truth = {"v": annotated(("a", 0, 600), duration=HOUR)}
    found = timeline_metrics({"v": [segment("b", 600, 5000), segment("c", 500, 900)]}, truth)
    assert found.quiet_false_alarms.num == 2
    assert found.quiet_false_alarms.hours == pytest.approx(3000 / HOUR)
    assert found.quiet_share_labelled == pytest.approx(1)


def test_measured_lengths_take_precedence() -> None:
    truth = {"v": annotated(("a", 0, 10), duration=100), "w": annotated(duration=None)}
    assert timeline_metrics({}, truth).false_alarms.hours is None
    found = timeline_metrics({}, truth, durations_seconds={"v": HOUR, "w": HOUR})
    assert found.false_alarms.hours == pytest.approx(2)
    assert found.quiet_false_alarms.hours == pytest.approx(2 - 10 / HOUR)
    assert found.false_alarms.per_hour == 0
    assert found.quiet_share_labelled == 0


def test_annotations_that_reach_beyond_the_video_take_no_time_of_it() -> None:
    truth = {"v": annotated(("a", 90, 150), ("a", 200, 300), duration=100)}
    found = timeline_metrics({"v": [segment("b", 80, 400)]}, truth)
    assert found.quiet_false_alarms.hours == pytest.approx(90 / HOUR)
    assert found.quiet_share_labelled == pytest.approx(10 / 90)


# --- the conventions ---------------------------------------------------------------------------------------


def test_the_better_score_chooses_first_and_takes_the_nearest_free_event() -> None:
    truth = {"v": annotated(("a", 0, 10), ("a", 8, 18))}
    mine = {"v": [segment("a", 1, 17, 0.5), segment("a", 0, 10, 0.9)]}
    # The second is exact; the first, IoU 9/17 with either, is left with the other.
    assert at(timeline_metrics(mine, truth), 0.5).num_matched == 2
    turned = {"v": [segment("a", 1, 17, 0.9), segment("a", 0, 10, 0.5)]}
    # Now the long one chooses first, and of equals takes the first event; the exact one has IoU 2/18 with the other.
    found = timeline_metrics(turned, truth)
    assert at(found, 0.5).num_matched == 1
    assert at(found, 0.6).num_matched == 1  # the long one reaches nothing, the exact one its own
    assert found.classes[0].average_precisions[2:4] == (1 / 2, 1 / 4)
    other_order = {"v": annotated(("a", 8, 18), ("a", 0, 10))}
    assert timeline_metrics(turned, other_order) == found


def test_an_event_is_matched_once() -> None:
    truth = {"v": annotated(("a", 0, 10))}
    mine = {"v": [segment("a", 0, 10, 0.9), segment("a", 0, 10, 0.8), segment("a", 0, 9, 0.7)]}
    assert at(timeline_metrics(mine, truth), 0.3).precision == pytest.approx(1 / 3)


def test_labels_and_videos_are_kept_apart_and_case_does_not_matter() -> None:
    truth = {"v": annotated(("Long jump", 0, 10)), "w": annotated(("Diving", 0, 10))}
    mine = {"v": [segment("long jump", 0, 10), segment("diving", 0, 10)], "w": [segment("long jump", 0, 10)]}
    found = timeline_metrics(mine, truth)
    assert [row.label for row in found.classes] == ["Diving", "Long jump"]
    assert at(found, 0.5).num_matched == 1
    assert found.false_alarms.num == 2


def test_a_threshold_is_reached_exactly() -> None:
    truth = {"v": annotated(("a", 0.1, 0.4))}
    mine = {"v": [segment("a", 0.1, 0.31)]}  # 0.21 / 0.3 is less than 0.7 by rounding
    assert (0.31 - 0.1) / (0.4 - 0.1) < 0.7
    assert at(timeline_metrics(mine, truth), 0.7).num_matched == 1


def test_ignored_stretches_count_neither_way() -> None:
    truth = {"v": annotated(("a", 0, 10), ("a", 50, 60), duration=100, ignored=[(20, 30), (25, 40)])}
    mine = [segment("a", 22, 24, 0.9), segment("b", 39, 45, 0.8), segment("a", 50, 60, 0.7)]
    found = timeline_metrics({"v": mine}, truth)
    assert (at(found, 0.5).num_predictions, at(found, 0.5).precision) == (1, 1.0)
    assert found.classes[0].average_precisions == (1 / 2,) * 5
    assert found.false_alarms.num == 0
    assert found.false_alarms.hours == pytest.approx(80 / HOUR)
    assert found.quiet_false_alarms.hours == pytest.approx(60 / HOUR)
    # A prediction that only borders on one counts, and so does one that matches.
    bordering = timeline_metrics({"v": [*mine, segment("a", 40, 44, 0.95)]}, truth)
    assert bordering.classes[0].average_precisions == (1 / 4,) * 5
    matching = timeline_metrics({"v": [segment("a", 0, 21)]}, truth)
    assert (at(matching, 0.3).num_matched, at(matching, 0.5).num_predictions) == (1, 0)
    assert matching.classes[0].average_precisions == (1 / 2, 1 / 2, 0, 0, 0)


def test_events_without_a_length_are_missed() -> None:
    truth = {"v": annotated(("a", 0, 0))}
    found = timeline_metrics({"v": [segment("a", 0, 5), segment("a", 0, 0)]}, truth, thresholds=(0.01,))
    assert found.thresholds[0].recall == 0


def test_nothing_predicted_and_nothing_to_find() -> None:
    missed = timeline_metrics({}, {"v": annotated(("a", 0, 1))})
    assert (missed.mean_average_precision, at(missed, 0.5).f1, at(missed, 0.5).precision) == (0, 0, None)
    quiet = timeline_metrics({"v": [segment("a", 0, 60)]}, {"v": annotated(duration=HOUR)})
    assert (quiet.mean_average_precision, at(quiet, 0.5).recall, at(quiet, 0.5).f1) == (None, None, 0)
    assert quiet.quiet_false_alarms.per_hour == 1
    nothing = timeline_metrics({}, {"v": annotated(duration=HOUR)})
    assert (at(nothing, 0.5).f1, nothing.false_alarms.per_hour) == (None, 0)


@pytest.mark.parametrize("thresholds", [(), (0.0,), (0.5, 1.1), (math.nan,)])
def test_thresholds_are_checked(thresholds: Sequence[float]) -> None:
    with pytest.raises(InputError, match="thresholds of IoU"):
        timeline_metrics({}, {"v": annotated(("a", 0, 1))}, thresholds=thresholds)


@pytest.mark.parametrize(
    "wrong", [segment("a", 2, 1), segment("a", 0, math.inf), segment("a", 0, 1, math.nan)], ids=str
)
def test_predictions_are_checked(wrong: Segment) -> None:
    with pytest.raises(InputError, match=r"^v: 'a' from .* is not a segment"):
        timeline_metrics({"v": [segment("a", 0, 1), wrong]}, {"v": annotated(("a", 0, 1))})


def test_predictions_need_annotations() -> None:
    with pytest.raises(InputError, match=r"no annotations for x\.mp4"):
        timeline_metrics({"x.mp4": []}, {"x": annotated(("a", 0, 1))})


# --- properties --------------------------------------------------------------------------------------------

# Times on a coarse grid, and few scores, so that ties and IoUs that reach a threshold exactly are frequent.
starts, lengths = (st.integers(low, 24).map(lambda number: number / 2) for low in (0, 1))
labels = st.sampled_from("abc")
spans = st.builds(lambda label, start, length: (label, start, start + length), labels, starts, lengths)
segments = st.builds(lambda span, score: segment(*span, score / 4), spans, st.integers(1, 4))
truths = st.dictionaries(
    st.sampled_from("vwx"),
    st.lists(spans, max_size=5).map(lambda events: annotated(*events, duration=20.0)),
    min_size=1,
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, list[Segment]], dict[str, Annotated]]:
    truth = draw(truths)
    return {name: draw(st.lists(segments, max_size=7)) for name in truth}, truth


def naive_average_precision(
    predictions: dict[str, list[Segment]], truth: dict[str, Annotated], label: str, iou: float
) -> float:
    """The definition: over recalls 1/E, 2/E, ... the mean of the best precision at this recall or more."""
    free = [(name, event) for name, video in truth.items() for event in video.events if event.label == label]
    num_events, hits = len(free), []
    ranked = [(name, one) for name, found in predictions.items() for one in found if one.label == label]
    ranked.sort(key=lambda pair: (-pair[1].score, pair[1].start_seconds, pair[1].end_seconds))
    for name, one in ranked:
        own = [(other, event) for other, event in free if other == name]
        own.sort(key=lambda pair: (pair[1].start_seconds, pair[1].end_seconds))
        best = max(own, key=lambda pair: one.overlap(segment(label, *span_of(pair[1]))), default=None)
        hits.append(best is not None and one.overlap(segment(label, *span_of(best[1]))) >= iou - 1e-9)
        if hits[-1]:
            free.remove(best)
    total = 0.0
    for k in range(1, num_events + 1):
        total += max((sum(hits[:n]) / n for n in range(1, len(hits) + 1) if sum(hits[:n]) >= k), default=0)
    return total / num_events


def span_of(event: Event) -> tuple[float, float]:
    return event.start_seconds, event.end_seconds


@settings(deadline=None)
@given(cases())
def test_average_precision_is_that_of_the_definition(case: tuple) -> None:
    predictions, truth = case
    found = timeline_metrics(predictions, truth)
    names = sorted({event.label for video in truth.values() for event in video.events})
    assert [row.label for row in found.classes] == names
    for row in found.classes:
        # Of equal score and time, which video comes first may differ; then the definition has no one answer.
        ordered = {name: predictions[name] for name in sorted(truth)}
        expected = [naive_average_precision(ordered, truth, row.label, iou) for iou in IOU_THRESHOLDS]
        assert row.average_precisions == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(truths, st.randoms(use_true_random=False))
def test_perfect_predictions(truth: dict, rng: random.Random) -> None:
    predictions = {
        name: [segment(event.label, *span_of(event), rng.random()) for event in video.events]
        for name, video in truth.items()
    }
    found = timeline_metrics(predictions, truth, stride_seconds=0)
    if found.num_events:
        assert found.mean_average_precision == pytest.approx(1, abs=1e-12)
        assert {(one.f1, one.precision, one.recall) for one in found.thresholds} == {(1.0, 1.0, 1.0)}
        assert (found.boundaries.start_mean_seconds, found.boundaries.end_mean_seconds) == (0, 0)
        assert found.boundaries.share_within_stride == 1
    assert (found.false_alarms.num, found.quiet_false_alarms.num) == (0, 0)
    assert found.quiet_share_labelled in (0, None)


@settings(deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_no_order_matters(case: tuple, rng: random.Random) -> None:
    predictions, truth = case

    def shuffled(values: Iterable) -> list:
        return rng.sample(list(values), len(list(values)))

    other_truth = {
        name: replace(truth[name], events=tuple(shuffled(truth[name].events))) for name in shuffled(truth)
    }
    other = {name: shuffled(predictions[name]) for name in shuffled(predictions)}
    assert timeline_metrics(predictions, truth) == timeline_metrics(other, other_truth)


@settings(deadline=None)
@given(cases())
def test_a_higher_threshold_is_never_easier(case: tuple) -> None:
    predictions, truth = case
    found = timeline_metrics(predictions, truth, thresholds=(0.1, 0.25, 0.3, 0.5, 0.75, 1.0))
    for low, high in zip(found.thresholds, found.thresholds[1:], strict=False):
        assert low.num_matched >= high.num_matched
    for row in found.classes:
        assert all(np.diff(row.average_precisions) <= 1e-12)


@settings(deadline=None)
@given(cases())
def test_a_last_wrong_prediction_costs_precision_only(case: tuple) -> None:
    predictions, truth = case
    before = timeline_metrics(predictions, truth)
    name = min(truth)
    worse = {**predictions, name: [*predictions[name], segment("a", 100, 101, 0.01)]}
    after = timeline_metrics(worse, truth)
    assert after.classes == before.classes
    assert after.false_alarms.num == before.false_alarms.num + 1
    for one, other in zip(after.thresholds, before.thresholds, strict=True):
        assert (one.recall, one.num_predictions) == (other.recall, other.num_predictions + 1)


@settings(deadline=None)
@given(cases())
def test_false_alarms_are_those_of_counted_half_seconds(case: tuple) -> None:
    """All times lie on a grid of half seconds: what happens in each of its 40 cells."""
    predictions, truth = case
    num = num_quiet = quiet_cells = labelled_cells = 0
    for name, video in truth.items():
        busy = {cell for event in video.events for cell in cells(event)}
        quiet = set(range(40)) - busy
        quiet_cells += len(quiet)
        labelled_cells += len(quiet & {cell for one in predictions[name] for cell in cells(one)})
        for one in predictions[name]:
            mine = cells(one)
            if not any(mine & cells(event) for event in video.events if event.label == one.label):
                num += 1
                num_quiet += len(mine - busy) > len(mine) / 2
    found = timeline_metrics(predictions, truth)
    assert (found.false_alarms.num, found.quiet_false_alarms.num) == (num, num_quiet)
    assert found.quiet_false_alarms.hours == pytest.approx(quiet_cells / 2 / HOUR)
    if quiet_cells:
        assert found.quiet_share_labelled == pytest.approx(labelled_cells / quiet_cells)


def cells(one: Event | Segment) -> set[int]:
    return set(range(int(one.start_seconds * 2), int(one.end_seconds * 2)))


# --- for people and for JSON -------------------------------------------------------------------------------


def test_plain_values() -> None:
    found = timeline_metrics(PREDICTIONS, TRUTH, stride_seconds=2)
    values = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert values["thresholds"][2]["iou"] == 0.5
    assert values["boundaries"]["num_pairs"] == 3
    assert values["false_alarms"]["per_hour"] == pytest.approx(24)
    assert values["classes"][0]["label"] == "a"


def test_table() -> None:
    found = timeline_metrics(PREDICTIONS, TRUTH, stride_seconds=2)
    table = Table(
        title="timeline", command="x", columns=THRESHOLD_COLUMNS, rows=found.rows(), notes=found.notes()
    )
    assert table.text().split("\n") == [
        "timeline",
        "",
        "IoU    mAP    F1  precision  recall",
        "0.3   61.1  72.7       66.7    80.0",
        "0.4   61.1  72.7       66.7    80.0",
        "0.5   51.9  54.5       50.0    60.0",
        "0.6   51.9  54.5       50.0    60.0",
        "0.7   44.4  36.4       33.3    40.0",
        "mean  54.1",
        "",
        "5 events and 6 predictions in 2 videos.",
        "",
        "Boundary errors of 3 pairs at IoU 0.5: start 0.00 s (median 0.00 s), end 1.33 s (median 0.00 s); "
        "83.3% within one stride (2 s).",
        "",
        "False alarms: 2 in 0.08 hours, 24.00 per hour; where nothing happens: 1 in 0.07 hours, 13.53 per hour; "
        "3.8% of the quiet time is labelled.",
        "",
        "Predicted labels without any event count in F1 and precision, not in mAP: d.",
    ]
    classes = Table(title="labels", command="x", columns=CLASS_COLUMNS, rows=found.class_rows())
    assert classes.text().split("\n")[3:] == [
        "a           3               62.2",
        "b           1              100.0",
        "c           1                0.0",
    ]


def test_table_of_what_is_not_known() -> None:
    found = timeline_metrics({}, {"v": annotated()})
    assert found.rows()[0] == ("0.3", "-", "-", "-", "-")
    assert found.notes() == (
        "0 events and 0 predictions in 1 videos.",
        "Boundary errors: no prediction matches an event at IoU 0.5.",
        "False alarms: 0; where nothing happens: 0. The length of some videos is unknown, so there is no rate.",
    )
