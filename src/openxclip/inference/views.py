"""The views of a video that are scored and averaged: temporal clips x spatial crops.

Shapes: V views, T frames, S input side.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from openxclip.errors import InputError
from openxclip.video.convert import FrameSize
from openxclip.video.sampling import dense_views, multi_view
from openxclip.video.transforms import Preprocessor

MAX_CLIPS = 100  # all views of a video are in memory at once


@dataclass(frozen=True)
class Views:
    """The views of a video: temporal clips x spatial crops. Deterministic."""

    num_clips: int = 1
    """Temporal clips, spread over the whole video."""
    num_crops: int = 1
    """Spatial crops of each: 1 (centre) or 3 (along the long side). A model that squashes whole frames has one."""
    dense_stride: int | None = None
    """None spreads each clip over the whole video; n takes every n-th frame of windows spread over it."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_clips <= MAX_CLIPS or self.num_crops not in (1, 3):
            raise InputError(
                f"views {self.num_clips}x{self.num_crops}: clips must be 1 to {MAX_CLIPS}, crops 1 or 3; "
                "write for example 1x1 or 4x3"
            )

    def indices(self, length: int, num_frames: int) -> np.ndarray:
        """The frame indices (num_clips, T) to sample from a video of `length` frames."""
        if self.dense_stride is not None:
            return dense_views(length, num_frames, self.dense_stride, self.num_clips)
        return multi_view(length, num_frames, self.num_clips)

    @classmethod
    def parse(cls, text: str) -> "Views":
        """Parse "4x3" (4 clips of 3 crops) or "3x1@16" (each clip takes every 16th frame of a window).

        Raises:
            InputError: the text has another form.
        """
        match = re.fullmatch(r"(\d+)x(\d+)(?:@([1-9]\d*))?", text.strip())
        if not match:
            raise InputError(
                f"cannot read views {text!r}; write clips x crops, for example 1x1 or 4x3, or 3x1@16 for clips of "
                "every 16th frame"
            )
        return cls(int(match[1]), int(match[2]), int(match[3]) if match[3] else None)


Read = Callable[[Callable[[int], np.ndarray], FrameSize], np.ndarray]
"""Reads a video: `choose` maps its length to the wanted indices; frames uint8 (T, 3, H, W) of the requested size."""


def read_views(read: Read, preprocess: Preprocessor, num_frames: int, views: Views) -> Tensor:
    """Read a video's views -> uint8 (V, T, 3, S, S); V is `num_clips` times the crops that the model's frames give.

    Raises:
        VideoError: the video cannot be read.
    """
    frames = read(
        lambda length: views.indices(length, num_frames).reshape(-1), preprocess.frame_size(views.num_crops)
    )
    crops = preprocess.crops(frames, views.num_crops)  # (crops, clips * T, 3, S, S)
    return crops.unflatten(1, (views.num_clips, num_frames)).transpose(0, 1).flatten(0, 1)
