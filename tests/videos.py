"""Writes small test videos: every frame differs from every other; codec, container and GOP can be chosen."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def moving_frames(num_frames: int, width: int = 64, height: int = 48, seed: int = 0) -> list[np.ndarray]:
    """(H, W, 3) uint8 frames: a smooth background that drifts and a bright block that moves."""
    phase = np.random.default_rng(seed).uniform(0, 6, size=3)
    y, x = np.mgrid[:height, :width]
    frames = []
    for i in range(num_frames):
        waves = [
            np.sin(x / 9 + i / 7 + phase[0]),
            np.cos(y / 7 - i / 5 + phase[1]),
            np.sin((x + y) / 11 + i / 3),
        ]
        frame = (127 + 90 * np.stack(waves, axis=-1)).astype(np.uint8)
        left = (5 * i) % (width - 8)
        frame[8:16, left : left + 8] = (255, (37 * i) % 256, 40)
        frames.append(frame)
    return frames


@contextmanager
def usual_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1 does to the thread that calls it as root: real-time priority, above everything else.

    Every process started later would inherit it, and threads that wait for each other could stand still for ever.
    """
    if not hasattr(os, "sched_getscheduler"):  # macOS
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def write_video(
    path: Path,
    *,
    codec: str = "libx264",
    num_frames: int = 40,
    width: int = 64,
    height: int = 48,
    fps: int = 25,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    gop: int | None = None,
    num_b_frames: int | None = None,
    rotation: int = 0,
    bit_rate: int = 400_000,
    format: str | None = None,
    container_options: dict[str, str] | None = None,
    frames: Sequence[np.ndarray] | None = None,
) -> Path:
    """One video file. `pts` are in units of 1 / fps; `rotation` is what PyAV writes as display matrix."""
    pictures = frames if frames is not None else moving_frames(num_frames, width, height)
    with (
        usual_scheduling(),
        av.open(str(path), "w", format=format, options=container_options or {}) as container,
    ):
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.bit_rate = bit_rate
        stream.codec_context.time_base = Fraction(1, fps)
        stream.codec_context.thread_count = 1
        if gop is not None:
            stream.codec_context.gop_size = gop
        if num_b_frames is not None:
            stream.codec_context.max_b_frames = num_b_frames
        if rotation:
            stream.set_display_rotation(rotation)
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i if pts is None else pts[i]
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
