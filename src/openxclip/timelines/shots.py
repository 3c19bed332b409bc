"""Detects shot boundaries: hard cuts, from the frames that are already decoded for the model.

A frame is represented by 64 x 36 of its samples, taken directly from its planes. The distance of two frames is the
geometric mean of two differences. One is between samples at the same position: cuts and fast motion change these. The
other is between histograms (the earth mover's distance) and between colours: motion changes these little.

At a cut, every frame before is far from every frame after, compared with the distances of frames around it and with
the contrast of the picture. After a flash the old picture returns, and in a fade or a dissolve all steps are about
equal: these are not cuts.

Shapes: N samples of brightness, M samples of colour.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from openxclip.video.playback import Break, PlayedFrame

COLUMNS, ROWS = 64, 36
"""Grid of the samples; half as many in each direction for colour."""
NUM_FRAMES = 3  # of the new shot that are required, and of the old one that they are compared with
MIN_SHOT_SECONDS = 0.3
HISTORY_SECONDS = 0.6
MIN_HISTORY, MAX_HISTORY = 6, 64  # minimum and maximum number of frames in it
MOTION_RATIO = 1.8  # ratio of a cut to the largest step around it
LEAST_MOTION = 1.0  # in grey levels of 256, if nothing moves
CONTRAST_SHARE = (
    0.25  # share of the contrast that a cut must reach: cuts reach 0.33 and more, jumps and jolts 0.2
)
GRAY = np.full(2 * (COLUMNS // 2) * (ROWS // 2), 128, np.float32)  # colour of greyscale frames


class CutDetector:
    """Detects the hard cuts of a video as it is played.

    It stores four frames of 64 x 36 samples, independent of the video's length.
    """

    def __init__(self) -> None:
        self.cuts_seconds: list[float] = []
        """Time of the first frame of each new shot; known two frames later. For an endless stream, the caller may
        remove times from this list."""
        self._sample = _Sampler()
        self._recent: deque[_Seen] = deque(maxlen=NUM_FRAMES + 1)
        self._steps: deque[tuple[float, float]] = deque(maxlen=MAX_HISTORY)
        """For earlier frames that are not cuts: time, and distance between the frames before and after."""
        self._shot_start = 0.0

    def watch(self, played: Iterable[PlayedFrame | Break]) -> Iterator[PlayedFrame | Break]:
        """The same frames and breaks. A break is not a cut, and frames after it are not compared with those before."""
        for item in played:
            if isinstance(item, Break):
                self._recent.clear()
            else:
                self._look_at(item)
            yield item

    def _look_at(self, played: PlayedFrame) -> None:
        """Compare a frame with the previous ones; this decides about the frame two frames ago."""
        if not self._recent:
            self._shot_start = played.seconds
        samples = self._sample(played.image)
        self._recent.append(_Seen(played.seconds, samples, self._distances(samples)))
        if len(self._recent) == NUM_FRAMES + 1:
            self._decide(*self._recent)

    def _distances(self, samples: "_Samples") -> tuple[float, ...]:
        """Distances to the last three frames; the second and third are infinite if no cut can be near."""
        before = list(self._recent)[: -NUM_FRAMES - 1 : -1]
        if not before:
            return 0.0, math.inf, math.inf
        step = samples.distance(before[0].samples)
        is_near = max(step, *(seen.distances[0] for seen in before[:2])) >= MOTION_RATIO * LEAST_MOTION
        further = [samples.distance(seen.samples) for seen in before[1:]] if is_near else []
        return (step, *further, math.inf, math.inf)[:NUM_FRAMES]

    def _decide(self, last: "_Seen", first: "_Seen", second: "_Seen", third: "_Seen") -> None:
        """Whether a new shot begins with `first`."""
        across = min(*first.distances, second.distances[1], third.distances[2])
        behind = min(second.distances[0], third.distances[0], third.distances[1])
        is_cut = (
            first.seconds - self._shot_start >= MIN_SHOT_SECONDS
            and across >= MOTION_RATIO * (LEAST_MOTION + behind)
            and across >= MOTION_RATIO * (LEAST_MOTION + self._largest_step(first.seconds))
            and across >= CONTRAST_SHARE * max(last.samples.contrast, first.samples.contrast)
        )
        if is_cut:
            self.cuts_seconds.append(first.seconds)
            self._shot_start = first.seconds
        else:
            self._steps.append((first.seconds, across))

    def _largest_step(self, seconds: float) -> float:
        """Amount of motion in the last frames."""
        return max(
            (
                step
                for i, (moment, step) in enumerate(reversed(self._steps))
                if i < MIN_HISTORY or moment > seconds - HISTORY_SECONDS
            ),
            default=0.0,
        )


@dataclass(frozen=True, slots=True)
class _Samples:
    """Samples of a frame, in grey levels of 256."""

    brightness: np.ndarray
    """(N,) float32."""
    cumulative: np.ndarray
    """(256,) float32: the number of samples not brighter than each level."""
    colour: np.ndarray
    """(M,) float32."""

    @property
    def contrast(self) -> float:
        """Standard deviation of the brightness."""
        return float(self.brightness.std())

    def distance(self, other: "_Samples") -> float:
        """Distance of two frames, in grey levels: 0 for the same picture, 20 to 60 across most cuts."""
        in_place = _difference(self.brightness, other.brightness) / len(self.brightness)
        of_histograms = _difference(self.cumulative, other.cumulative) / len(self.brightness)
        of_colours = _difference(self.colour, other.colour) / len(self.colour)
        return math.sqrt(in_place * (of_histograms + of_colours))


@dataclass(frozen=True, slots=True)
class _Seen:
    """A past frame."""

    seconds: float
    samples: _Samples
    distances: tuple[float, ...]
    """Distances to the first, second and third frame before it."""


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).sum())


class _Sampler:
    """Reads the samples of frames of any format, directly from their planes if these are simple."""

    def __init__(self) -> None:
        self._kind: tuple[Any, ...] = ()
        self._layout: _Layout | None = None
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> _Samples:
        planes = frame.planes
        kind = (frame.format.name, frame.width, frame.height, *[plane.line_size for plane in planes])
        if kind != self._kind:
            self._kind = kind
            self._layout = _layout_of(frame) if _is_plain(frame) else None
        if self._layout is not None:
            return self._layout.read(planes)
        point = Interpolation.POINT
        small = self._reformatter.reformat(frame, COLUMNS, ROWS, "yuv420p", interpolation=point, threads=1)
        return _layout_of(small).read(small.planes)


@dataclass(frozen=True, slots=True)
class _Channel:
    """Memory layout of a channel's samples."""

    plane: int
    dtype: str
    shift: int
    """Number of bits beyond eight."""
    places: np.ndarray
    """(samples,): offsets in values from the beginning of the plane."""

    def read(self, planes: Any) -> np.ndarray:
        """(samples,) uint8."""
        values = np.frombuffer(planes[self.plane], self.dtype).take(self.places)
        return (values >> self.shift).astype(np.uint8) if self.shift else values


@dataclass(frozen=True, slots=True)
class _Layout:
    """The channels of a frame format."""

    brightness: _Channel
    """Luma, or green."""
    colours: tuple[_Channel, ...]
    """Both chromas; red, green and blue; or nothing."""

    def read(self, planes: Any) -> _Samples:
        """The samples of a frame."""
        brightness = self.brightness.read(planes)
        return _Samples(
            brightness.astype(np.float32),
            np.bincount(brightness, minlength=256).cumsum().astype(np.float32),
            self._colour([channel.read(planes).astype(np.float32) for channel in self.colours]),
        )

    def _colour(self, channels: list[np.ndarray]) -> np.ndarray:
        """(M,): RGB scaled approximately to chroma."""
        if not channels:
            return GRAY
        if len(channels) == 3:
            red, green, blue = channels
            channels = [128 + (blue - green) / 2, 128 + (red - green) / 2]
        return np.concatenate(channels)


def _is_plain(frame: Any) -> bool:
    """Whether every sample is a value of one or two bytes at a regular offset, with lines from top to bottom."""
    format, components = frame.format, frame.format.components
    if format.has_palette or format.is_bit_stream or any(plane.line_size <= 0 for plane in frame.planes):
        return False
    if _is_packed(format):
        return {c.bits for c in components} == {8} and format.padded_bits_per_pixel in (24, 32)
    has_own_plane = len({c.plane for c in components}) == len(components)
    return has_own_plane and all(8 <= c.bits <= 16 for c in components)


def _is_packed(format: Any) -> bool:
    """Whether red, green and blue of a pixel are interleaved."""
    return format.is_rgb and not format.is_planar


def _layout_of(frame: Any) -> _Layout:
    shown = [i for i, component in enumerate(frame.format.components) if not component.is_alpha]
    if frame.format.is_rgb:  # the components come in this order in any layout
        return _Layout(_channel(frame, 1), tuple(_channel(frame, i, 2) for i in shown))
    return _Layout(_channel(frame, 0), tuple(_channel(frame, i, 2) for i in shown[1:]))


def _channel(frame: Any, i: int, coarser: int = 1) -> _Channel:
    """The samples of component `i`: a grid over the picture, coarser than that of brightness by a factor."""
    component, format = frame.format.components[i], frame.format
    step, first = 1, 0
    if _is_packed(format):  # argb, bgr24: the name gives the order
        step, first = format.padded_bits_per_pixel // 8, format.name.index("rgb"[i])
    num_bytes = 1 if component.bits == 8 else 2
    rows = _spread(component.height, ROWS // coarser) * (frame.planes[component.plane].line_size // num_bytes)
    columns = first + step * _spread(component.width, COLUMNS // coarser)
    return _Channel(
        plane=component.plane,
        dtype=f"{'>' if format.is_big_endian else '<'}u{num_bytes}",
        shift=component.bits - 8,
        places=(rows[:, None] + columns).reshape(-1),
    )


def _spread(size: int, num_places: int) -> np.ndarray:
    """The centres (num_places,) of that many equal parts of a side."""
    return ((np.arange(num_places) + 0.5) * size / num_places).astype(np.intp)
