"""What happens when in a video: the scores of windows over it, and the segments that they make.

Shapes: M windows, K labels.
"""

from dataclasses import dataclass, field

import numpy as np

from openxclip.timelines.background import Background
from openxclip.timelines.segments import Segment
from openxclip.video.playback import Break


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of a moment."""

    seconds: float
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The result of one video."""

    path: str
    labels: tuple[str, ...]
    model: str
    duration_seconds: float
    window_seconds: float
    stride_seconds: float
    starts_seconds: np.ndarray
    """(M,) of the windows."""
    ends_seconds: np.ndarray
    """(M,)"""
    scores: np.ndarray
    """(M, K) float32, 0 to 1; not numbers where a window was not seen."""
    segments: tuple[Segment, ...]
    """In order of time."""
    breaks: tuple[Break, ...]
    """What could not be read, and jumps of the time stamps."""
    cuts_seconds: tuple[float, ...] = ()
    """Shot boundaries, if they were looked for."""
    thumbnails: tuple[Thumbnail, ...] = ()
    """Spread over the video, if they were wanted."""
    background: Background | None = None
    """What "none of these" was calibrated with."""

    @property
    def none(self) -> np.ndarray | None:
        """(M,) probability of "none of these"; None without a background."""
        return None if self.background is None else 1 - self.scores.sum(axis=1)

    @property
    def num_unseen(self) -> int:
        """Windows of which a frame was missing."""
        return int(np.isnan(self.scores).any(axis=1).sum())
