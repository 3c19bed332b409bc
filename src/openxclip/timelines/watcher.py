"""Watches whole videos with one model and one label set: windows, their scores, and the resulting segments.

Shapes: M windows, V views, K labels.
"""

import hashlib
import json
import math
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from openxclip.checkpoints.source import ModelSource
from openxclip.errors import InputError, VideoError
from openxclip.inference import pipeline
from openxclip.inference.engine import Engine
from openxclip.inference.label_set import LabelSet
from openxclip.inference.options import InferenceOptions
from openxclip.inference.pipeline import Scored
from openxclip.inference.scoring import mean_over_views
from openxclip.inference.views import Views
from openxclip.steps import finished
from openxclip.text.label_texts import LabelTexts
from openxclip.timelines.background import Background
from openxclip.timelines.options import SegmentRules, WindowOptions
from openxclip.timelines.segments import Segment, Segmenter, suppressed
from openxclip.timelines.shots import CutDetector
from openxclip.timelines.thumbnails import Thumbnails
from openxclip.timelines.timeline import Thumbnail, Timeline
from openxclip.timelines.windows import Playing, Span, Unseen, Window, WindowCollector, WindowPlan
from openxclip.video.playback import Break, PlayedFrame, Player
from openxclip.video.source import VideoLimits, VideoSource, source_name

Item = TypeVar("Item")

AHEAD_MARGIN_SECONDS = 1.0  # beyond a window, for reading packets ahead of the decoder
NUM_THUMBNAILS = 60
WINDOWS_AHEAD = 4  # decoded beyond a batch while the model computes

OnSeconds = Callable[[tuple[float, float | None]], None]
"""Called with the seconds of a video seen so far, and its length if known."""
Compute = Callable[[Tensor, LabelSet], Tensor]
"""Views uint8 (B, T, 3, S, S) and a label set -> logits (B, K)."""


def ignore_seconds(step: tuple[float, float | None]) -> None:
    """Nobody looks."""


class FilePlaying(Playing, Protocol):
    """Plays something of known length."""

    @property
    def stated_seconds(self) -> float | None:
        """Length, if known in advance."""

    @property
    def played_seconds(self) -> float:
        """Length, once everything is played."""

    def __iter__(self) -> Iterator[PlayedFrame | Break]:
        """All frames."""

    def close(self) -> None:
        """Close it."""


@runtime_checkable
class Playable(Protocol):
    """Something that can be played without a file."""

    @property
    def name(self) -> str:
        """Name in results."""

    def play(self) -> FilePlaying:
        """Play it from its start."""


@dataclass
class _Seen:
    """The windows seen of a video."""

    spans: list[Span] = field(default_factory=list)
    logits: list[np.ndarray | None] = field(default_factory=list)
    """Logits (V, K) of each window; None if a frame was missing."""
    breaks: list[Break] = field(default_factory=list)
    duration_seconds: float = 0.0
    cuts_seconds: list[float] = field(default_factory=list)
    thumbnails: tuple[Thumbnail, ...] = ()

    def readable(self) -> list[np.ndarray]:
        """Logits of the windows that were seen."""
        return [logits for logits in self.logits if logits is not None]


class Watcher:
    """A model, a label set, and settings for timelines."""

    def __init__(
        self,
        engine: Engine,
        labels: LabelTexts | LabelSet | Sequence[str],
        *,
        windows: WindowOptions | None = None,
        rules: SegmentRules | None = None,
        limits: VideoLimits | None = None,
        model: str = "",
        compute: Compute | None = None,
    ) -> None:
        """
        Args:
            engine: the model.
            labels: class names, `LabelTexts` for templates and descriptions, or a set encoded by the engine.
            windows: settings of the windows.
            rules: rules for segments.
            limits: limits of a video; by default the length is unlimited.
            model: name of the model in results.
            compute: scores a batch of windows; by default `engine.logits`, in the caller's thread.
        """
        self.engine, self.model = engine, model
        self.options, self.rules = windows or WindowOptions(), rules or SegmentRules()
        self.options.check()
        self.rules.check()
        self.limits = limits or VideoLimits(max_seconds=math.inf)
        self.label_set = _encoded(engine, labels)
        self.conditions = _conditions(engine, labels, self.options)
        """Sentences, views and precision in short: what a background depends on besides labels and window."""
        self._compute: Compute = compute or engine.logits
        self.background: Background | None = None
        """The calibration of "none of these"; see `calibrate`."""
        self.is_own_background = False
        """Whether each video is its own background, as it is mostly quiet."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names."""
        return self.label_set.labels

    def plan(self) -> WindowPlan:
        """The windows, and the frames to sample in each."""
        return WindowPlan(
            window_seconds=self.options.window_seconds,
            stride_seconds=self.options.stride_seconds,
            num_frames=self.engine.model.config.num_frames,
            views=Views.parse(self.options.views),
        )

    # --- files ----------------------------------------------------------------------------------------------------

    def watch(self, video: VideoSource | Playable, *, thumbnails: bool = False) -> Timeline:
        """Find what happens when in a file.

        Raises:
            VideoError: it cannot be opened, or not one frame can be decoded.
        """
        return finished(self.watch_in_steps(video, thumbnails=thumbnails))

    def watch_in_steps(
        self, video: VideoSource | Playable, *, thumbnails: bool = False
    ) -> Generator[tuple[float, float | None], None, Timeline]:
        """`watch` as a generator that yields (seconds seen, length of the video if known), for a progress bar."""
        self.check_labels()
        seen = yield from self._see(video, thumbnails=thumbnails)
        background = (
            Background.of_mostly_quiet(_means(seen.readable()), self.conditions)
            if self.is_own_background
            else self.background
        )
        scores = self._scores(seen, background)
        segments = self._segments(seen, scores)
        return Timeline(
            path=video.name if isinstance(video, Playable) else source_name(video),
            labels=self.labels,
            model=self.model,
            duration_seconds=seen.duration_seconds,
            window_seconds=self.options.window_seconds,
            stride_seconds=self.options.stride_seconds,
            starts_seconds=np.array([span.start_seconds for span in seen.spans]),
            ends_seconds=np.array([span.end_seconds for span in seen.spans]),
            scores=scores,
            segments=tuple(segments),
            breaks=tuple(seen.breaks),
            cuts_seconds=tuple(seen.cuts_seconds),
            thumbnails=seen.thumbnails,
            background=background,
        )

    def check_labels(self) -> None:
        """Refuse a single label without a background.

        Raises:
            InputError: there is only one label, and no background.
        """
        if len(self.labels) == 1 and self.background is None and not self.is_own_background:
            raise InputError(
                f"{self.labels[0]!r} is a single label, with nothing to compare it to: every window would score 100 %. "
                "Give a background, or more labels"
            )

    def calibrate_with(self, sources: Sequence[str], on_seconds: OnSeconds = ignore_seconds) -> None:
        """Calibrate "none of these" from a command line's sources: footage, an earlier .json, "self", or nothing.

        Raises:
            InputError: the .json is for other labels or another model, or sources of different kinds are mixed.
            VideoError: a video cannot be read.
        """
        kinds = {"self" if name == "self" else Path(name).suffix == ".json" for name in sources}
        if len(kinds) > 1 or (len(sources) > 1 and kinds != {False}):
            raise InputError(f"--background {' '.join(sources)}: give videos, or one .json, or self")
        if kinds == {"self"}:
            self.is_own_background = True
        elif kinds == {True}:
            self.background = self._stored_background(Path(sources[0]))
        elif sources:
            self.calibrate(sources, on_seconds)

    def _stored_background(self, path: Path) -> Background:
        """The background of a timeline that was written as .json."""
        try:
            values = json.loads(path.read_bytes())
            labels, model = tuple(values["labels"]), values["model"]
            background = Background.from_dict(values["background"])
            window_seconds = float(values["window_seconds"])
        except (OSError, ValueError, TypeError, KeyError, InputError) as error:
            raise InputError(
                f"{path} is not a timeline with a background ({type(error).__name__}: {error}); create one with "
                "--background FOOTAGE --output FOLDER --formats json"
            ) from error
        if (labels, model) != (self.labels, self.model):
            raise InputError(f"{path} was calibrated with other labels, or with {model}; calibrate again")
        if not math.isclose(window_seconds, self.options.window_seconds, abs_tol=1e-3):
            raise InputError(
                f"{path} was calibrated with --window {window_seconds:g}s; give the same, or calibrate again"
            )
        if background.conditions != self.conditions:
            raise InputError(
                f"{path} was calibrated with other sentences, views or another precision ({background.conditions}; "
                f"now {self.conditions}); give the same, or calibrate again"
            )
        return background

    def calibrate(
        self, videos: Sequence[VideoSource | Playable], on_seconds: OnSeconds = ignore_seconds
    ) -> Background:
        """Calibrate "none of these" on footage in which none of the labels happens, and store the result.

        Raises:
            InputError: there is no footage that can be read.
            VideoError: a video cannot be read.
        """
        logits = [window for video in videos for window in finished(self._see(video), on_seconds).readable()]
        self.background = Background.of_footage(_means(logits), self.conditions)
        return self.background

    def _see(
        self, video: VideoSource | Playable, *, thumbnails: bool = False
    ) -> Generator[tuple[float, float | None], None, _Seen]:
        seen = _Seen()
        plan = self.plan()
        with closing(self._player(video, plan)) as player:
            detector, strip = CutDetector(), Thumbnails(player, NUM_THUMBNAILS)
            played: Iterable[PlayedFrame | Break] = player
            if self.options.shots:
                played = detector.watch(played)
            if thumbnails:
                played = strip.watch(played)
            collector = WindowCollector(player, plan, self.engine.preprocess)
            if isinstance(player, Player) and not self.options.shots:  # a cut may be at any frame
                player.skip_unless(collector.is_wanted)
            with closing(
                _ahead(collector.windows(played), self.engine.flow.batch_size + WINDOWS_AHEAD)
            ) as items:
                for item, logits in self._scored(items):
                    if isinstance(item, Break):
                        seen.breaks.append(item)
                        continue
                    seen.spans.append(item)
                    seen.logits.append(logits)
                    yield item.end_seconds, player.stated_seconds
            seen.duration_seconds = player.played_seconds
            seen.cuts_seconds = detector.cuts_seconds
            seen.thumbnails = strip.pictures() if thumbnails else ()
        return seen

    def _player(self, video: VideoSource | Playable, plan: WindowPlan) -> FilePlaying:
        if isinstance(video, Playable):
            return video.play()
        ahead_seconds = plan.window_seconds + AHEAD_MARGIN_SECONDS
        return Player.of_file(video, ahead_seconds=ahead_seconds, limits=self.limits)

    def _scored(
        self, items: Iterable[Window | Unseen | Break]
    ) -> Iterator[tuple[Span | Break, np.ndarray | None]]:
        """All items in order; each seen window with its logits (V, K)."""

        def compute(pixels: Tensor) -> Tensor:
            return self._compute(pixels, self.label_set)

        for outcome in pipeline.run(items, _pixels, compute, self.engine.flow):
            logits = outcome.scores.float().numpy() if isinstance(outcome, Scored) else None
            yield _without_pixels(outcome.item), logits

    # --- scores and segments --------------------------------------------------------------------------------------

    def probabilities(self, logits: np.ndarray, background: Background | None) -> np.ndarray:
        """Logits (V, K) of a window -> probabilities (K,); with a background, the rest is "none of these"."""
        if background is not None:
            if len(background.ceilings) != len(self.labels):
                raise InputError(
                    f"the background was calibrated with {len(background.ceilings)} labels, but there are "
                    f"{len(self.labels)}; calibrate again"
                )
            return background.probabilities(logits)
        return mean_over_views(torch.from_numpy(logits)).numpy()

    def _scores(self, seen: _Seen, background: Background | None) -> np.ndarray:
        """(M, K) float32."""
        scores = np.full((len(seen.spans), len(self.labels)), np.nan, np.float32)
        for row, logits in zip(scores, seen.logits, strict=True):
            if logits is not None:
                row[:] = self.probabilities(logits, background)
        return scores

    def _segments(self, seen: _Seen, scores: np.ndarray) -> list[Segment]:
        # In a video shorter than the minimum segment length, a segment over all of it is long enough.
        shortest = min(self.rules.min_seconds, seen.duration_seconds)
        segmenter = Segmenter(self.labels, replace(self.rules, min_seconds=shortest))
        found: list[Segment] = []
        for cell in cells(seen.spans, seen.cuts_seconds):
            if cell.is_cut:
                found += segmenter.cut(cell.start_seconds)
            row = None if cell.window is None else scores[cell.window]
            found += segmenter.add(cell.start_seconds, None if row is None or np.isnan(row).any() else row)
        found += segmenter.close(seen.duration_seconds)
        return suppressed(found, self.rules.suppress)


@dataclass(frozen=True)
class Cell:
    """A stretch of time represented by one window; it lasts until the next one begins."""

    start_seconds: float
    window: int | None
    """None without a window: a shot shorter than a stride."""
    is_cut: bool = False


def cells(spans: Sequence[Span], cuts_seconds: Sequence[float] = ()) -> Iterator[Cell]:
    """The cells of windows: the times nearest to the middle of each window, up to the next cut."""
    if not spans:
        return
    middles = [(span.start_seconds + span.end_seconds) / 2 for span in spans]
    first, last = middles[0], middles[-1]
    early = [cut for cut in cuts_seconds if cut <= first]
    yield Cell(0.0, None if early else 0)
    yield from _cells_at(early, 0)
    for number, (before, after) in enumerate(pairwise(middles), start=1):
        between = [cut for cut in cuts_seconds if before < cut <= after]
        yield from _cells_at(between, number)
        if not between:
            yield Cell((before + after) / 2, number)
    yield from _cells_at([cut for cut in cuts_seconds if cut > last], None)


def _cells_at(cuts_seconds: Sequence[float], window: int | None) -> Iterator[Cell]:
    """Cells that begin at cuts; the last one is represented by this window, the others are shots without one."""
    for position, cut in enumerate(cuts_seconds, start=1):
        yield Cell(cut, window if position == len(cuts_seconds) else None, is_cut=True)


def _encoded(engine: Engine, labels: LabelTexts | LabelSet | Sequence[str]) -> LabelSet:
    if isinstance(labels, LabelSet):
        return labels
    return engine.label_set(labels if isinstance(labels, LabelTexts) else LabelTexts(labels=labels))


def _conditions(engine: Engine, labels: LabelTexts | LabelSet | Sequence[str], options: WindowOptions) -> str:
    texts = labels if isinstance(labels, LabelTexts) else LabelTexts(labels=_names(labels))
    digest = hashlib.sha256(json.dumps(texts.sentences()).encode()).hexdigest()[:8]
    precision = str(engine.model.logit_scale.dtype).removeprefix("torch.")
    return f"sentences {digest}, views {options.views}, {precision}"


def _names(labels: LabelSet | Sequence[str]) -> Sequence[str]:
    return labels.labels if isinstance(labels, LabelSet) else labels


def _pixels(item: Window | Unseen | Break) -> Tensor:
    if isinstance(item, Window):
        return item.pixels
    raise VideoError("", "nothing was seen")


def _without_pixels(item: Window | Unseen | Break) -> Span | Break:
    """Drop references to the frames, which would stay in memory."""
    if isinstance(item, Break):
        return item
    return Span(number=item.number, start_seconds=item.start_seconds, end_seconds=item.end_seconds)


def _means(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Logits (V, K) of windows -> (M, K)."""
    return np.array([of_window.mean(axis=0) for of_window in logits])


def _ahead(items: Iterator[Item], size: int) -> Generator[Item]:
    """The same items, prefetched by a thread, at most `size` ahead of the consumer."""
    waiting: queue.Queue[Item | BaseException | None] = queue.Queue(size)
    is_over = threading.Event()

    def put(item: Item | BaseException | None) -> bool:
        while not is_over.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def take() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 raised again in the consumer
            put(error)

    thread = threading.Thread(target=take, name="play", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        is_over.set()
        thread.join()


def timeline(
    video: VideoSource,
    labels: LabelTexts | Sequence[str],
    model: str | ModelSource = "microsoft/xclip-base-patch32",
    *,
    background: Sequence[str] = (),
    windows: WindowOptions | None = None,
    rules: SegmentRules | None = None,
    inference: InferenceOptions | None = None,
    limits: VideoLimits | None = None,
) -> Timeline:
    """Find what happens when in a video. For many videos, build a `Watcher` once.

    Args:
        video: a path, bytes or a file.
        labels: class names, or `LabelTexts` for templates and descriptions.
        model: what `openxclip.load` takes.
        background: footage in which none of the labels happens, or "self"; see `Watcher.calibrate_with`.
        windows: settings of the windows.
        rules: rules for segments.
        inference: how the model runs.
        limits: limits of the video; by default the length is unlimited.

    Raises:
        VideoError: the video cannot be opened, or not one frame can be decoded.
        InputError: settings are invalid.
    """
    source = model if isinstance(model, ModelSource) else ModelSource(source=str(model))
    engine = Engine.load(source, inference)
    watcher = Watcher(engine, labels, windows=windows, rules=rules, limits=limits, model=source.source)
    watcher.calibrate_with(background)
    return watcher.watch(video)
