"""A long video of moving shapes: hours of a quiet stage with occasional events.

Frames are rendered on demand, so that hours need no file. Each event shows an object in its motion, which takes two
seconds, as in a clip, and repeats as long as the event lasts. Some events overlap. Unlabelled objects also pass by:
some of another colour and shape, and small dull ones. Light and camera noise vary all the time.

Shapes: S side in pixels.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import numpy as np

from openxclip.files import atomic_write
from openxclip.shapes.clip import FRAMES_PER_SECOND, NUM_FRAMES, VIDEO_SIDE_PX
from openxclip.shapes.render import paint_scene, stage
from openxclip.shapes.scene import USUAL_BACKGROUNDS, Scene, draw_scene
from openxclip.shapes.splits import shapes_list
from openxclip.shapes.words import ALL_CLASSES, MOTIONS, ShapesClass
from openxclip.video.convert import FrameSize
from openxclip.video.playback import PlayedFrame

NUM_LABELS = 12

CYCLE_SECONDS = NUM_FRAMES / FRAMES_PER_SECOND
EVENT_SECONDS = (4.0, 12.0)
NOISE = 2.0  # standard deviation, in levels of 255
LIGHT = 0.04  # amplitude of brightness changes
LIGHT_SECONDS = 97.0
SMALL = 0.3  # size of a dull passer-by, relative to an object


@dataclass(frozen=True, kw_only=True)
class LongEvent:
    """An event that is visible for a while."""

    label: str
    start_seconds: float
    end_seconds: float
    is_labelled: bool
    """Whether it is one of the labels."""
    scene: Scene

    def moment(self, seconds: float) -> float:
        """Phase of its motion, 0 to 1."""
        return (seconds - self.start_seconds) / CYCLE_SECONDS % 1


@dataclass(frozen=True, kw_only=True)
class LongVideo:
    """One long video; equal values show the same."""

    key: str
    """The seed."""
    seconds: float
    labels: tuple[str, ...]
    share_overlapping: float = 0.2
    """Share of events that begin during another one."""
    share_others: float = 0.3
    """Number of unlabelled passers-by, as a share of the number of events."""
    quiet_seconds: float = 30.0
    """Mean length of the quiet stretches between events."""
    with_events: bool = True
    """False for footage without events, for the background. Unlabelled objects still pass by."""

    @property
    def name(self) -> str:
        """Name in results."""
        return f"moving-shapes/{self.key}"

    def quiet(self, seconds: float) -> "LongVideo":
        """Footage of the same camera in which none of the labels happens."""
        return replace(self, seconds=seconds, with_events=False)

    @cached_property
    def events(self) -> tuple[LongEvent, ...]:
        """All events by time, including unlabelled ones."""
        return tuple(sorted(self._events(), key=lambda event: event.start_seconds))

    @property
    def truth(self) -> tuple[LongEvent, ...]:
        """The labelled events."""
        return tuple(event for event in self.events if event.is_labelled)

    def _events(self) -> Iterator[LongEvent]:
        rng = self._rng(f"events {self.with_events}")
        kinds = [kind for kind in ALL_CLASSES if kind.name in self.labels]
        pairs = {(kind.colour, kind.shape) for kind in kinds}
        others = [kind for kind in ALL_CLASSES if (kind.colour, kind.shape) not in pairs]
        now = rng.exponential(self.quiet_seconds)
        while now + EVENT_SECONDS[1] < self.seconds:
            event = _event(kinds[rng.integers(len(kinds))], now, rng, is_labelled=True)
            if self.with_events:
                yield event
            if rng.random() < self.share_overlapping:
                start = rng.uniform(event.start_seconds, event.end_seconds)
                beside = _event(kinds[rng.integers(len(kinds))], start, rng, is_labelled=True)
                if self.with_events and beside.label != event.label and beside.end_seconds < self.seconds:
                    yield beside
            if rng.random() < self.share_others:
                start = rng.uniform(0, self.seconds - EVENT_SECONDS[1])
                yield _event(others[rng.integers(len(others))], start, rng, is_labelled=False)
                yield _small(_event(others[rng.integers(len(others))], start + 20.0, rng, is_labelled=False))
            now = event.end_seconds + rng.exponential(self.quiet_seconds)

    def frame(self, seconds: float, side_px: int) -> np.ndarray:
        """The frame at a moment, uint8 (S, S, 3)."""
        canvas = stage(self._stage, side_px)
        for event in self.events:
            if event.start_seconds <= seconds < event.end_seconds:
                canvas = paint_scene(canvas, event.scene, event.moment(seconds))
        light = 1 + LIGHT * np.sin(2 * np.pi * seconds / LIGHT_SECONDS)
        noise = np.random.default_rng(round(seconds * 1000)).standard_normal(canvas.shape, dtype=np.float32)
        return (light * canvas + NOISE * noise).round().clip(0, 255).astype(np.uint8)

    @cached_property
    def _stage(self) -> Scene:
        """The camera's view without events: a background and small still objects."""
        return draw_scene(ALL_CLASSES[0], self._rng("stage"), USUAL_BACKGROUNDS)

    def _rng(self, purpose: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.key}/{purpose}".encode()).digest()
        return np.random.default_rng(list(digest))

    def play(self) -> "RenderedPlayer":
        """Play it frame by frame, without a file."""
        return RenderedPlayer(self)

    def write(self, path: Path, side_px: int = VIDEO_SIDE_PX) -> None:
        """As an .mp4 file (H.264)."""
        with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "20"})
            stream.width = stream.height = side_px
            stream.pix_fmt = "yuv420p"
            for item in self.play():
                image = av.VideoFrame.from_ndarray(self.frame(item.seconds, side_px), format="rgb24")
                container.mux(stream.encode(image))
            container.mux(stream.encode(None))


class RenderedPlayer:
    """Plays a long video as `Player` plays a file."""

    frame_rate = Fraction(FRAMES_PER_SECOND)

    def __init__(self, video: LongVideo) -> None:
        self._video = video
        self._num_frames = round(video.seconds * FRAMES_PER_SECOND)

    @property
    def end_seconds(self) -> float:
        """Time of the last frame."""
        return self._num_frames / FRAMES_PER_SECOND

    @property
    def stated_seconds(self) -> float:
        """See `Player`."""
        return self.end_seconds

    @property
    def played_seconds(self) -> float:
        """See `Player`."""
        return self.end_seconds

    def close(self) -> None:
        """Does nothing: no file is open."""

    def __iter__(self) -> Iterator[PlayedFrame]:
        """All frames; their pixels are rendered on demand."""
        for number in range(self._num_frames):
            yield PlayedFrame(None, number / FRAMES_PER_SECOND)

    def pixels(self, frame: PlayedFrame, size: FrameSize) -> np.ndarray:
        """uint8 (3, S, S)."""
        side_px = size.short_side_px or VIDEO_SIDE_PX
        return self._video.frame(frame.seconds, side_px).transpose(2, 0, 1)


def usual_labels() -> tuple[str, ...]:
    """Twelve training classes, each with its own colour and shape, with alternating motions."""
    kinds = sorted({row.clip.kind for row in shapes_list("test-base").rows}, key=lambda kind: kind.name)
    pairs = sorted({(kind.colour, kind.shape) for kind in kinds})
    chosen = pairs[:: len(pairs) // NUM_LABELS][:NUM_LABELS]
    return tuple(
        ShapesClass(colour, shape, MOTIONS[i % len(MOTIONS)]).name for i, (colour, shape) in enumerate(chosen)
    )


def _event(kind: ShapesClass, start: float, rng: np.random.Generator, *, is_labelled: bool) -> LongEvent:
    return LongEvent(
        label=kind.name,
        start_seconds=start,
        end_seconds=start + rng.uniform(*EVENT_SECONDS),
        is_labelled=is_labelled,
        scene=draw_scene(kind, rng, USUAL_BACKGROUNDS),
    )


def _small(event: LongEvent) -> LongEvent:
    """The same object, small and dull."""
    thing = event.scene.thing
    red, green, blue = (0.4 * level + 50 for level in thing.colour)
    thing = replace(thing, radius=SMALL * thing.radius, colour=(red, green, blue))
    return replace(event, scene=replace(event.scene, thing=thing))
