"""A rendered clip: a scene by name, as frames or as a real video file."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import av
import numpy as np

from openxclip.shapes.render import render
from openxclip.shapes.scene import OTHER_BACKGROUNDS, USUAL_BACKGROUNDS, Scene, draw_scene
from openxclip.shapes.words import ShapesClass
from openxclip.video.convert import FrameSize
from openxclip.video.source import VideoLimits

NUM_FRAMES = 32
FRAMES_PER_SECOND = 16
VIDEO_SIDE_PX = 128


@dataclass(frozen=True, kw_only=True)
class ShapesClip:
    """One clip of moving shapes; equal clips show the same."""

    kind: ShapesClass
    """The class of the clip."""
    key: str
    """Identifies the clip within its class; the seed of its scene."""
    other_background: bool = False
    """Whether the background is of a kind that never occurs in training."""

    def scene(self) -> Scene:
        """The scene that the clip shows."""
        digest = hashlib.sha256(f"{self.kind.name}/{self.key}".encode()).digest()
        backgrounds = OTHER_BACKGROUNDS if self.other_background else USUAL_BACKGROUNDS
        return draw_scene(self.kind, np.random.default_rng(list(digest)), backgrounds)

    def read(
        self,
        choose: Callable[[int], np.ndarray],
        size: FrameSize,
        *,
        num_threads: int = 1,
        limits: VideoLimits | None = None,
    ) -> np.ndarray:
        """Frames uint8 (T, 3, S, S), rendered at the requested size: no file is written or decoded.

        Threads and limits are for files; a rendered clip is small and needs neither.
        """
        frames = self.frames(choose, size.short_side_px or VIDEO_SIDE_PX)
        return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))

    def source(self) -> bytes:
        """The clip as an .mp4 file."""
        return self.encode()

    def is_missing(self) -> bool:
        """False: a rendered clip always exists."""
        return False

    def facts(self) -> dict[str, Any]:
        """The clip as plain values: `from_dict(ShapesClip, facts["clip"])` is the inverse."""
        return {"file": None, "clip": asdict(self)}

    def frames(self, choose: Callable[[int], np.ndarray], side_px: int) -> np.ndarray:
        """Frames uint8 (T, S, S, 3) at the indices that `choose` picks from the clip's length."""
        return render(self.scene(), (choose(NUM_FRAMES) + 0.5) / NUM_FRAMES, side_px)

    def encode(self) -> bytes:
        """The clip as an .mp4 file (H.264)."""
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "20"})
            stream.width = stream.height = VIDEO_SIDE_PX
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1  # another number of threads gives different bytes
            for frame in self.frames(np.arange, VIDEO_SIDE_PX):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        return file.getvalue()
