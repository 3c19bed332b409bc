"""Timelines of a server: each runs in its own thread, and its batches take turns with other requests.

Only the model's thread computes. A long video therefore delays others by only one batch at a time.
"""

import itertools
import math
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, cast

from torch import Tensor

from openxclip.durations import seconds_of
from openxclip.errors import InputError, VideoError
from openxclip.inference.engine import Engine
from openxclip.inference.label_set import LabelSet
from openxclip.inference.online import Online
from openxclip.serving.options import ServeOptions
from openxclip.serving.problems import Problem
from openxclip.serving.schemas import TimelineFields
from openxclip.serving.uploads import GuardedFile
from openxclip.steps import finished
from openxclip.timelines.options import SegmentRules, WindowOptions
from openxclip.timelines.timeline import Timeline
from openxclip.timelines.watcher import Watcher
from openxclip.video.source import VideoLimits

MAX_OVERLAP = 32  # overlapping windows: their frames are in memory together
MIN_STRIDE_SECONDS = 0.04  # one frame at 25 per second: a video may state any frame rate
POLL_SECONDS = 0.25  # between checks whether the request is over


@dataclass(frozen=True, kw_only=True)
class TimelineWish:
    """Settings of a requested timeline."""

    windows: WindowOptions
    rules: SegmentRules
    is_own_background: bool
    thumbnails: bool


@dataclass(frozen=True)
class Progress:
    """How much of a video was processed."""

    seconds_seen: float = 0.0
    seconds_total: float | None = None
    """None if the video does not state it."""

    @property
    def share(self) -> float | None:
        """0 to 1."""
        if not self.seconds_total:
            return None
        return min(1.0, self.seconds_seen / self.seconds_total)


class Watching:
    """A timeline in progress."""

    def __init__(self, video: GuardedFile, wish: TimelineWish) -> None:
        self.video, self.wish = video, wish
        self.progress = Progress()
        """Updated by the worker thread."""
        self.future: Future[Timeline]


class Timelines:
    """Computes timelines, as many at a time as the options allow."""

    def __init__(
        self,
        engine: Engine,
        online: Online,
        model_id: str,
        options: ServeOptions,
        on_batch: Callable[[int, float], None],
    ) -> None:
        self._engine, self._online, self._model_id = engine, online, model_id
        self._options, self._on_batch = options, on_batch
        self._limits = VideoLimits(max_seconds=options.max_seconds, max_frame_px=options.max_frame_px)
        self._threads = ThreadPoolExecutor(options.max_timelines, "timeline")

    def start(self, video: GuardedFile, labels: LabelSet, wish: TimelineWish) -> Watching:
        """Start a timeline; it ends soon after the video's request has ended.

        The future raises VideoError, or Problem if the video has too many windows.
        """
        watching = Watching(video, wish)
        watching.future = self._threads.submit(self._watch, watching, labels)
        return watching

    def close(self) -> None:
        """Wait for timelines in progress."""
        self._threads.shutdown(wait=True)

    def _watch(self, watching: Watching, labels: LabelSet) -> Timeline:
        video, wish = watching.video, watching.wish
        limits = replace(self._limits, is_over=video.is_over)
        watcher = Watcher(
            self._engine,
            labels,
            windows=wish.windows,
            rules=wish.rules,
            limits=limits,
            model=self._model_id,
            compute=partial(self._compute, video),
        )
        watcher.is_own_background = wish.is_own_background
        numbers = itertools.count(1)

        def check(step: tuple[float, float | None]) -> None:
            progress = Progress(*step)
            limits.check_seconds(video.name, progress.seconds_seen)  # its header may state less
            self._check_windows(next(numbers), progress, wish)
            watching.progress = progress  # only now: a timeline that is refused at once has not started

        try:
            return finished(watcher.watch_in_steps(cast(BinaryIO, video), thumbnails=wish.thumbnails), check)
        except InputError as error:  # no window could be read, and the video is its own background
            raise VideoError(video.name, str(error)) from error

    def _check_windows(self, num_seen: int, progress: Progress, wish: TimelineWish) -> None:
        """Refuse too many windows, at once if the video states its length."""
        stated = (progress.seconds_total or 0.0) / wish.windows.stride_seconds
        num_windows = max(num_seen, math.floor(stated))
        if num_windows > (most := self._options.max_windows):
            raise Problem(
                "too-many-windows",
                f"{num_windows} windows are more than this server's {most}; use a longer stride",
                limit=most,
            )

    def _compute(self, video: GuardedFile, pixels: Tensor, labels: LabelSet) -> Tensor:
        """Logits (B, K) of a batch of windows, from the model's thread."""
        future = self._online.call(partial(self._logits, pixels, labels))
        while not wait([future], timeout=POLL_SECONDS).done:
            if video.is_over():
                future.cancel()
                raise VideoError(video.name, "its request is over")
        return future.result()

    def _logits(self, pixels: Tensor, labels: LabelSet) -> Tensor:
        started = time.perf_counter()
        logits = self._engine.logits(pixels, labels).cpu()
        self._on_batch(len(pixels), time.perf_counter() - started)
        return logits


def timeline_wish(fields: TimelineFields, options: ServeOptions) -> TimelineWish:
    """The requested windows and rules, within the limits.

    Raises:
        Problem: a length cannot be read or is too long, windows overlap too much, or a threshold is invalid.
    """
    try:
        window, stride = seconds_of("window", fields.window), seconds_of("stride", fields.stride)
        rules = SegmentRules(
            enter=fields.enter,
            leave=fields.leave,
            min_seconds=fields.min_seconds,
            close_gap_seconds=fields.close_gap_seconds,
            suppress=fields.suppress,
        )
        rules.check()
    except InputError as error:
        raise Problem("invalid-request", _of_fields(str(error))) from error
    if max(window, stride) > options.max_seconds:
        detail = f"window and stride may be {options.max_seconds:g} s, as long as a video; send shorter ones"
        raise Problem("invalid-request", detail, limit=options.max_seconds)
    if stride < MIN_STRIDE_SECONDS:
        detail = f"a stride of {stride:g} s is below {MIN_STRIDE_SECONDS:g} s; use a longer one"
        raise Problem("invalid-request", detail, limit=MIN_STRIDE_SECONDS)
    if window > MAX_OVERLAP * stride:
        detail = f"a window of {window:g} s is more than {MAX_OVERLAP} strides of {stride:g} s; use a longer stride"
        raise Problem("invalid-request", detail, limit=MAX_OVERLAP)
    windows = WindowOptions(window=fields.window, stride=fields.stride, shots=fields.shots)
    return TimelineWish(
        windows=windows,
        rules=rules,
        is_own_background=fields.background == "self",
        thumbnails=fields.thumbnails,
    )


def _of_fields(message: str) -> str:
    """Rename options of a command to form fields."""
    return re.sub(r"--([a-z][a-z-]*)", lambda option: option[1].replace("-", "_"), message)
