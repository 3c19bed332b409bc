"""What happens when in a video: scores of windows, and the resulting segments.

Shapes: M windows, K labels.
"""

from dataclasses import dataclass, field

import numpy as np

from openxclip.timelines.background import Background
from openxclip.timelines.segments import Segment
from openxclip.video.playback import Break


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of one moment."""

    seconds: float
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The timeline of one video."""

    path: str
    labels: tuple[str, ...]
    model: str
    duration_seconds: float
    window_seconds: float
    stride_seconds: float
    starts_seconds: np.ndarray
    """(M,): start times of the windows."""
    ends_seconds: np.ndarray
    """(M,)"""
    scores: np.ndarray
    """(M, K) float32, 0 to 1; NaN for a window that was not seen."""
    segments: tuple[Segment, ...]
    """Segments by time."""
    breaks: tuple[Break, ...]
    """Stretches that could not be read, and jumps of the time stamps."""
    cuts_seconds: tuple[float, ...] = ()
    """Shot boundaries, if requested."""
    thumbnails: tuple[Thumbnail, ...] = ()
    """Thumbnails spread over the video, if requested."""
    background: Background | None = None
    """The calibration of "none of these"."""

    @property
    def none(self) -> np.ndarray | None:
        """(M,): probability of "none of these"; None without a background."""
        return None if self.background is None else 1 - self.scores.sum(axis=1)

    @property
    def num_unseen(self) -> int:
        """Number of windows with missing frames."""
        return int(np.isnan(self.scores).any(axis=1).sum())
