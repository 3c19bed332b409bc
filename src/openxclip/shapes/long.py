"""A long video of the world: hours of a quiet stage on which something happens now and then.

Frames are rendered when they are looked at, so that hours need no file. Each event shows a thing in its motion, which
takes two seconds, as in a clip, and begins anew as long as the event lasts. Some events overlap. Others pass by that
are none of the labels: things of another colour and shape, and small dull ones. Light and camera noise never rest.

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
LIGHT = 0.04  # how far it goes up and down
LIGHT_SECONDS = 97.0
SMALL = 0.3  # size of a dull passer-by, in sizes of a thing


@dataclass(frozen=True, kw_only=True)
class LongEvent:
    """Something that is to be seen for a while."""

    label: str
    start_seconds: float
    end_seconds: float
    is_labelled: bool
    """Whether it is one of the labels."""
    scene: Scene

    def moment(self, seconds: float) -> float:
        """Where its motion stands, 0 to 1."""
        return (seconds - self.start_seconds) / CYCLE_SECONDS % 1


@dataclass(frozen=True, kw_only=True)
class LongVideo:
    """One long video; equal ones show the same."""

    key: str
    """The seed."""
    seconds: float
    labels: tuple[str, ...]
    share_overlapping: float = 0.2
    """Of events, that begin while another one lasts."""
    share_others: float = 0.3
    """As many as events, that are none of the labels."""
    quiet_seconds: float = 30.0
    """Mean of the quiet stretches between events."""
    with_events: bool = True
    """False for footage without any: for the background. What is none of the labels passes by all the same."""

    @property
    def name(self) -> str:
        """What results call it."""
        return f"moving-shapes/{self.key}"

    def quiet(self, seconds: float) -> "LongVideo":
        """Footage of the same camera in which none of the labels happens."""
        return replace(self, seconds=seconds, with_events=False)

    @cached_property
    def events(self) -> tuple[LongEvent, ...]:
        """All that happens, those that are none of the labels among them; in order of time."""
        return tuple(sorted(self._events(), key=lambda event: event.start_seconds))

    @property
    def truth(self) -> tuple[LongEvent, ...]:
        """The events that are labels."""
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
        """What is to be seen at a moment, uint8 (S, S, 3)."""
        canvas = stage(self._stage, side_px)
        for event in self.events:
            if event.start_seconds <= seconds < event.end_seconds:
                canvas = paint_scene(canvas, event.scene, event.moment(seconds))
        light = 1 + LIGHT * np.sin(2 * np.pi * seconds / LIGHT_SECONDS)
        noise = np.random.default_rng(round(seconds * 1000)).standard_normal(canvas.shape, dtype=np.float32)
        return (light * canvas + NOISE * noise).round().clip(0, 255).astype(np.uint8)

    @cached_property
    def _stage(self) -> Scene:
        """The camera's view where nothing happens: a background and small still things."""
        return draw_scene(ALL_CLASSES[0], self._rng("stage"), USUAL_BACKGROUNDS)

    def _rng(self, purpose: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.key}/{purpose}".encode()).digest()
        return np.random.default_rng(list(digest))

    def play(self) -> "RenderedPlayer":
        """Frame by frame, without a file."""
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
    """A long video as `Player` plays a file."""

    frame_rate = Fraction(FRAMES_PER_SECOND)

    def __init__(self, video: LongVideo) -> None:
        self._video = video
        self._num_frames = round(video.seconds * FRAMES_PER_SECOND)

    @property
    def end_seconds(self) -> float:
        """Of the last frame."""
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
        """For `Player`: no file is open."""

    def __iter__(self) -> Iterator[PlayedFrame]:
        """All frames; their pixels are rendered on demand."""
        for number in range(self._num_frames):
            yield PlayedFrame(None, number / FRAMES_PER_SECOND)

    def pixels(self, frame: PlayedFrame, size: FrameSize) -> np.ndarray:
        """uint8 (3, S, S)."""
        side_px = size.short_side_px or VIDEO_SIDE_PX
        return self._video.frame(frame.seconds, side_px).transpose(2, 0, 1)


def usual_labels() -> tuple[str, ...]:
    """Twelve trained classes, each of a colour and a shape of its own, whose motions take turns."""
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
    """The same, small and dull."""
    thing = event.scene.thing
    red, green, blue = (0.4 * level + 50 for level in thing.colour)
    thing = replace(thing, radius=SMALL * thing.radius, colour=(red, green, blue))
    return replace(event, scene=replace(event.scene, thing=thing))
