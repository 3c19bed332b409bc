"""Clips to decode, made on the spot: ten seconds of a moving camera over a textured scene, in four kinds."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

from openxclip.progress import progress_bar

WIDTH_PX, HEIGHT_PX = 640, 360
NUM_FRAMES, FRAMES_PER_SECOND = 300, 30
SCENE_PX = (1024, 2048)  # height and width of what the camera moves over


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A codec and how it lays out its frames."""

    name: str
    """For the report."""
    codec: str
    """FFmpeg's encoder."""
    options: dict[str, str] = field(default_factory=dict)
    """Of the encoder."""


KINDS = (
    Kind(name="H.264", codec="libx264"),
    Kind(name="H.264, open GOP", codec="libx264", options={"x264-params": "keyint=60:open-gop=1"}),
    Kind(name="HEVC", codec="libx265", options={"preset": "fast", "x265-params": "log-level=error"}),
    Kind(name="VP9", codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "g": "128"}),
)
"""Encoders at their own settings where nothing is said: groups of up to 250 frames, B-frames where they know them."""


def write_clips(folder: Path, num_frames: int = NUM_FRAMES) -> dict[str, Path]:
    """One clip of each kind -> name of the kind to its file."""
    paths = {kind.name: folder / f"{i}.mp4" for i, kind in enumerate(KINDS)}
    with progress_bar() as bar:
        task = bar.add_task("clips", total=len(KINDS) * num_frames, note="")
        for kind in KINDS:
            bar.update(task, note=kind.name)
            for _ in write_clip(paths[kind.name], kind, num_frames):
                bar.advance(task)
    return paths


def write_clip(
    path: Path, kind: Kind, num_frames: int, size_px: tuple[int, int] = (HEIGHT_PX, WIDTH_PX), seed: int = 0
) -> Iterator[None]:
    """Encode one clip of this height and width, frame by frame."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(kind.codec, rate=FRAMES_PER_SECOND, options=kind.options)
        (stream.height, stream.width), stream.pix_fmt = size_px, "yuv420p"
        for picture in pictures(num_frames, size_px, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            yield
        container.mux(stream.encode(None))


def pictures(
    num_frames: int, size_px: tuple[int, int] = (HEIGHT_PX, WIDTH_PX), seed: int = 0
) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8: the camera drifts over a scene, a block crosses it, the sensor is a little noisy."""
    rng = np.random.default_rng(seed)
    height, width = size_px
    scene = _scene(rng)
    for i in range(num_frames):
        top, left = 2 * i % (SCENE_PX[0] - height), 3 * i % (SCENE_PX[1] - width)
        picture = scene[top : top + height, left : left + width] + rng.normal(0, 3, (height, width, 1))
        x = 7 * i % (width - 60)
        picture[150:210, x : x + 60] = (230, 40, 60)
        yield picture.clip(0, 255).astype(np.uint8)


def _scene(rng: np.random.Generator) -> np.ndarray:
    """Texture (H, W, 3) at several scales, as nature has it."""
    scene = np.full((*SCENE_PX, 3), 128.0)
    for size_px in (4, 16, 64, 256):
        cells = rng.normal(0, 20, (SCENE_PX[0] // size_px, SCENE_PX[1] // size_px, 3))
        scene += cells.repeat(size_px, axis=0).repeat(size_px, axis=1)
    return scene
