"""Evaluates timelines of annotated videos: watches each video and compares segments with annotations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from openxclip.data.annotations import Annotated, Event, match_files, read_annotations
from openxclip.data.manifest import VIDEO_SUFFIXES
from openxclip.errors import InputError, VideoError
from openxclip.evaluation.timeline_metrics import TimelineMetrics, timeline_metrics
from openxclip.shapes.long import LongVideo, usual_labels
from openxclip.steps import finished
from openxclip.timelines.timeline import Timeline
from openxclip.timelines.watcher import OnSeconds, Playable, Watcher, ignore_seconds

LEAST_SECONDS = 60.0  # of moving shapes
CAMERA_SECONDS = 3600.0  # of moving shapes: each camera has its own stage
FOOTAGE_SECONDS = 1200.0  # of moving shapes: quiet footage of each camera


@dataclass(frozen=True)
class Case:
    """A video and what happens in it."""

    name: str
    video: Path | Playable
    truth: Annotated
    footage: Playable | None = None
    """Quiet footage of the same camera, to calibrate "none of these" first; None leaves it as it is."""


@dataclass(frozen=True)
class TimelineEvaluation:
    """Results of an evaluation."""

    metrics: TimelineMetrics
    timelines: dict[str, Timeline]
    unreadable: dict[str, str]
    """Unreadable videos, and why."""


def annotated_cases(annotations: Path, videos: Path | None = None, subset: str | None = None) -> list[Case]:
    """The annotated videos of a folder; see `read_annotations` for the formats.

    Raises:
        InputError: annotations cannot be read, or no video of the folder is annotated.
    """
    truth = read_annotations(annotations, subset)
    folder = videos or (annotations if annotations.is_dir() else annotations.parent)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    matched = match_files(truth, files)
    found = [Case(name, path, truth[name]) for name, path in matched.files.items()]
    # Missing ones are reported when they are watched.
    return [*found, *(Case(name, folder / name, truth[name]) for name in matched.missing)]


def shapes_cases(hours: float, seed: int, *, only_events: bool = False) -> list[Case]:
    """Long videos of moving shapes, at most an hour per camera.

    Args:
        hours: of all cameras together.
        seed: which cameras.
        only_events: only events on a quiet stage: none overlap, and no unlabelled object passes by.
    """
    if not LEAST_SECONDS <= hours * 3600 < math.inf:
        raise InputError(f"--hours must be {LEAST_SECONDS / 3600:g} (a minute) or more, got {hours:g}")
    cases: list[Case] = []
    left = hours * 3600
    while left >= 1:
        seconds = min(left, CAMERA_SECONDS)
        video = LongVideo(
            key=f"{seed}-{len(cases) + 1}",
            seconds=seconds,
            labels=usual_labels(),
            share_overlapping=0.0 if only_events else 0.2,
            share_others=0.0 if only_events else 0.3,
        )
        events = tuple(Event(one.label, one.start_seconds, one.end_seconds) for one in video.truth)
        cases.append(Case(video.name, video, Annotated(seconds, events), video.quiet(FOOTAGE_SECONDS)))
        left -= seconds
    return cases


def evaluate_timelines(
    watcher: Watcher,
    cases: Sequence[Case],
    progress: Callable[[str], OnSeconds] = lambda what: ignore_seconds,
) -> TimelineEvaluation:
    """Watch each video and compute metrics. A video that cannot be read is left out.

    Args:
        watcher: the model, the labels and the rules.
        cases: the videos to watch.
        progress: description of the current video -> callback for its seconds.

    Raises:
        InputError: no video can be read.
    """
    timelines: dict[str, Timeline] = {}
    unreadable: dict[str, str] = {}
    for case in cases:
        try:
            if case.footage is not None:
                watcher.calibrate([case.footage], progress(f"calibrating {case.name}"))
            timelines[case.name] = finished(watcher.watch_in_steps(case.video), progress(case.name))
        except VideoError as error:
            unreadable[case.name] = error.reason
    if not timelines:
        raise InputError(
            f"none of the {len(cases)} videos can be read; the first: {next(iter(unreadable.items()))}"
        )
    metrics = timeline_metrics(
        {name: found.segments for name, found in timelines.items()},
        {case.name: case.truth for case in cases if case.name in timelines},
        stride_seconds=watcher.options.stride_seconds,
        durations_seconds={name: found.duration_seconds for name, found in timelines.items()},
    )
    return TimelineEvaluation(metrics, timelines, unreadable)
