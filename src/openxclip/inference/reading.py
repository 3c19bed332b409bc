"""Reads a video file for a model, and frames of it for people.

Shapes: V views, T frames, S input side, H x W pixels of a frame for people.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import Tensor

from openxclip.inference.engine import Engine
from openxclip.inference.views import Read, Views, read_views
from openxclip.video.convert import FrameSize
from openxclip.video.decode import read_frames
from openxclip.video.source import VideoLimits, VideoSource
from openxclip.video.transforms import Preprocessor

SHOWN_PX = 256  # approximate side of a frame shown to people


def read_video(
    engine: Engine, video: VideoSource, views: Views, limits: VideoLimits | None = None, num_threads: int = 1
) -> Tensor:
    """Decode a video's views for the engine's model -> uint8 (V, T, 3, S, S).

    Raises:
        VideoError: the video cannot be decoded.
    """
    return engine.read_views(_reader(video, limits, num_threads), views)


def read_shown(
    engine: Engine, video: VideoSource, limits: VideoLimits | None = None, num_threads: int = 1
) -> Tensor:
    """The frames of one clip, cropped as the model sees them, at a viewable size -> uint8 (T, 3, H, W).

    Raises:
        VideoError: the video cannot be decoded.
    """
    preprocess = enlarged(engine.preprocess)
    read = _reader(video, limits, num_threads)
    return read_views(read, preprocess, engine.model.config.num_frames, Views())[0]


def enlarged(preprocess: Preprocessor) -> Preprocessor:
    """The same crop at a viewable size: the input of a small model has too few pixels for people."""
    factor = max(1, round(SHOWN_PX / preprocess.input_size_px))
    return replace(
        preprocess,
        input_size_px=factor * preprocess.input_size_px,
        resize_short_side_px=factor * preprocess.resize_short_side_px,
    )


def _reader(video: VideoSource, limits: VideoLimits | None, num_threads: int) -> Read:
    def frames(choose: Callable[[int], np.ndarray], size: FrameSize) -> np.ndarray:
        return read_frames(video, choose, size, num_threads=num_threads, limits=limits).data

    return frames
