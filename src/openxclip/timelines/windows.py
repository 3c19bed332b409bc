"""Windows over a video that is played once: the frames of each, and their pixels as they are decoded.

A video is divided by a grid of its frame rate. A window uses the frames that `predict` would take from a video of the
window's length; with uneven frame times, those on screen at these moments. A frame is converted once, even if many
windows use it.

Shapes: V views, T frames, S input side.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from openxclip.inference.views import Views
from openxclip.video.convert import FrameSize
from openxclip.video.playback import Break, PlayedFrame
from openxclip.video.transforms import Preprocessor

MANY_TICKS = 1000  # a frame on screen for longer counts as used; long times are processed in such steps


@dataclass(frozen=True, kw_only=True)
class Span:
    """Start and end of a window."""

    number: int
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, kw_only=True)
class Window(Span):
    """A window and its pixels for the model."""

    pixels: Tensor = field(repr=False)
    """uint8 (V, T, 3, S, S)."""


@dataclass(frozen=True, kw_only=True)
class Unseen(Span):
    """A window with a missing frame."""


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """Settings for dividing a video into windows."""

    window_seconds: float
    stride_seconds: float
    num_frames: int
    """Frames of a clip, T."""
    views: Views = field(default_factory=Views)


@dataclass
class _Open:
    """A window that waits for frames."""

    number: int
    begin: int
    end: int
    ticks: tuple[int, ...]
    """num_clips * T ticks, not always in order."""
    last: int
    """The last tick."""
    num_missing: int = 0


class Playing(Protocol):
    """The player's interface for `WindowCollector`."""

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second."""

    @property
    def end_seconds(self) -> float | None:
        """End of the last frame; None until known."""

    def pixels(self, frame: PlayedFrame, size: FrameSize) -> np.ndarray:
        """A frame upright and scaled, uint8 (3, H, W)."""


class WindowCollector:
    """Takes frames in order and yields windows as soon as they are complete.

    A tick is an interval of the grid. Its frame is the one on screen in the middle of it.
    """

    def __init__(self, player: Playing, plan: WindowPlan, preprocess: Preprocessor) -> None:
        self._player, self._plan, self._preprocess = player, plan, preprocess
        self._rate = float(player.frame_rate)
        self._size = preprocess.frame_size(plan.views.num_crops)
        self._num_opened = 0
        self._num_given = 0
        self._reaches_end = False
        self._open: list[_Open] = []
        self._done = -1  # last tick whose frame is known
        self._shown: PlayedFrame | None = None
        self._num_planned = 0
        self._looked_at: set[int] = set()
        """Ticks used by the first `_num_planned` windows, the latest of them."""
        self._crops: dict[int, np.ndarray] = {}
        """Tick -> its frame (crops, 3, S, S)."""

    def is_wanted(self, start_seconds: float, end_seconds: float) -> bool:
        """Whether a window uses the frame on screen between two moments, neither far behind the present."""
        first, last = (self._tick_before(seconds) for seconds in (start_seconds, end_seconds))
        if last - first > MANY_TICKS:
            return True
        return any(self._is_looked_at(tick) for tick in range(first + 1, last + 1))

    def _is_looked_at(self, tick: int) -> bool:
        """Whether a window that begins up to this tick uses it."""
        step, size = self._step_and_size()
        self._num_planned = max(self._num_planned, math.floor((tick - MANY_TICKS - size) / step))
        while round(self._num_planned * step) <= tick:
            self._looked_at |= set(self._window(self._num_planned).ticks)
            self._num_planned += 1
        if len(self._looked_at) > MANY_TICKS + 2 * size:
            self._looked_at = {known for known in self._looked_at if known > tick - MANY_TICKS}
        return tick in self._looked_at

    def windows(self, played: Iterable[PlayedFrame | Break]) -> Iterator[Window | Unseen | Break]:
        """Windows in order; breaks as they come."""
        for item in played:
            if isinstance(item, Break):
                yield from self._advance(item.start_seconds)
                yield from self._pass_over(item.end_seconds)
                yield item
            else:
                yield from self._advance(item.seconds)
                self._shown = item
        if self._shown is not None:
            yield from self._finish(self._shown)

    def _advance(self, seconds: float) -> Iterator[Window | Unseen]:
        """Keep the current frame on screen up to now."""
        if self._shown is None:
            return
        crops: np.ndarray | None = None
        for last in self._ticks_up_to(seconds):
            self._open_up_to(last)
            wanted = {tick for window in self._open for tick in window.ticks if self._done < tick <= last}
            if wanted:
                crops = self._crops_of(self._shown) if crops is None else crops
                self._crops.update(dict.fromkeys(wanted, crops))
            self._done = last
            yield from self._complete()

    def _pass_over(self, seconds: float) -> Iterator[Window | Unseen]:
        """Mark the time up to now as missing."""
        for last in self._ticks_up_to(seconds):
            self._open_up_to(last)
            for window in self._open:
                window.num_missing += sum(self._done < tick <= last for tick in window.ticks)
            self._done = last
            yield from self._complete()

    def _ticks_up_to(self, seconds: float) -> Iterator[int]:
        """The last tick before now, and some on the way to it: windows over days without frames exceed the memory."""
        last = self._tick_before(seconds)
        yield from range(self._done + MANY_TICKS, last, MANY_TICKS)
        if last > self._done:
            yield last

    def _finish(self, shown: PlayedFrame) -> Iterator[Window | Unseen]:
        """Keep the last frame on screen up to the end or, if that is unknown, in windows already mostly seen."""
        if self._player.end_seconds is not None:
            yield from self._advance(self._player.end_seconds)
            return
        self._open_up_to(0)
        self._reaches_end = True
        mostly_seen = [window for window in self._open if self._share_seen(window) > 0.5]
        self._open = self._open[:1] if self._num_given == 0 and not mostly_seen else mostly_seen
        for window in self._open:
            window.end = min(window.end, self._tick_before(shown.seconds) + 2)
        if self._open:
            yield from self._advance((self._open[-1].last + 1) / self._rate)

    def _share_seen(self, window: _Open) -> float:
        return sum(tick <= self._done for tick in window.ticks) / len(window.ticks)

    def _tick_before(self, seconds: float) -> int:
        """The last tick whose middle is before this moment."""
        return math.ceil(seconds * self._rate - 0.5) - 1

    def _open_up_to(self, last: int) -> None:
        """Open the windows that begin up to this tick, but none after one that reaches the end."""
        step, _ = self._step_and_size()
        while not self._reaches_end and round(self._num_opened * step) <= last:
            window = self._window(self._num_opened)
            self._open.append(window)
            self._num_opened += 1
            total = self._num_ticks()
            self._reaches_end = total is not None and window.end >= total

    def _step_and_size(self) -> tuple[float, float]:
        """Ticks per stride and per window. No two windows begin at the same tick."""
        return (
            max(1.0, self._plan.stride_seconds * self._rate),
            self._plan.window_seconds * self._rate,
        )

    def _window(self, number: int) -> _Open:
        """A window, cut off at the end of the video if that is known."""
        step, size = self._step_and_size()
        begin = round(number * step)
        end, total = max(begin + 1, round(number * step + size)), self._num_ticks()
        if total is not None:
            end = min(end, max(begin + 1, total))
        ticks = begin + self._plan.views.indices(end - begin, self._plan.num_frames).reshape(-1)
        return _Open(number, begin, end, tuple(ticks.tolist()), int(ticks.max()))

    def _num_ticks(self) -> int | None:
        """Ticks of the whole video, once known."""
        end = self._player.end_seconds
        return None if end is None else max(1, round(end * self._rate))

    def _complete(self) -> Iterator[Window | Unseen]:
        """The windows whose frames are all known."""
        if not self._open or self._open[0].last > self._done:
            return
        while self._open and self._open[0].last <= self._done:
            yield self._closed(self._open.pop(0))
        first = self._open[0].begin if self._open else self._done + 1
        self._crops = {tick: crops for tick, crops in self._crops.items() if tick >= first}

    def _closed(self, window: _Open) -> Window | Unseen:
        self._num_given += 1
        start, end = window.begin / self._rate, window.end / self._rate
        if window.num_missing:
            return Unseen(number=window.number, start_seconds=start, end_seconds=end)
        # With NumPy: torch's threads would compete with the decoder.
        frames = np.stack([self._crops[tick] for tick in window.ticks])  # (clips * T, crops, 3, S, S)
        clips = frames.reshape(self._plan.views.num_clips, -1, *frames.shape[1:])
        views = np.ascontiguousarray(np.moveaxis(clips, 2, 1))  # (clips, crops, T, 3, S, S)
        pixels = torch.from_numpy(views.reshape(-1, *views.shape[2:]))
        return Window(number=window.number, start_seconds=start, end_seconds=end, pixels=pixels)

    def _crops_of(self, frame: PlayedFrame) -> np.ndarray:
        """(crops, 3, S, S)."""
        pixels = np.ascontiguousarray(self._player.pixels(frame, self._size))
        return self._preprocess.crops(pixels[None], self._plan.views.num_crops)[:, 0].numpy()
