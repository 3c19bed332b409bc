"""Settings of a timeline. Imports nothing heavy, so that a command can offer them as options."""

import math
from dataclasses import dataclass

from openxclip.durations import seconds_of
from openxclip.errors import InputError


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """Settings of the windows."""

    window: str = "4s"
    """length of a window"""
    stride: str = "2s"
    """time from one window to the next"""
    views: str = "1x1"
    """temporal clips x spatial crops of each window"""
    shots: bool = False
    """detect shot boundaries: no segment crosses one"""

    def check(self) -> None:
        """Refuse invalid values. Not done on construction: a command line reports its own errors.

        Raises:
            InputError: a length is malformed.
        """
        _ = self.window_seconds, self.stride_seconds

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return seconds_of("--window", self.window)

    @property
    def stride_seconds(self) -> float:
        """Time from one window to the next."""
        return seconds_of("--stride", self.stride)


@dataclass(frozen=True, kw_only=True)
class SegmentRules:
    """Rules for where segments begin and end."""

    enter: float = 0.5
    """score that a label must reach within a segment"""
    leave: float = 0.3
    """score below which a segment ends"""
    min_seconds: float = 2.0
    """shorter segments are dropped"""
    close_gap_seconds: float = 2.0
    """segments of a label with a gap of at most this are merged"""
    suppress: float | None = None
    """drop a segment that overlaps this much with a better one of another label: intersection over union, 0 to 1"""

    def check(self) -> None:
        """Refuse invalid values. Not done on construction: a command line reports its own errors.

        Raises:
            InputError: thresholds outside 0..1, or a negative length.
        """
        if not 0 < self.leave <= self.enter <= 1:
            raise InputError(
                f"--leave is {self.leave:g} and --enter {self.enter:g}; they must be between 0 and 1, and --leave not "
                "above --enter"
            )
        for name in ("min_seconds", "close_gap_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"--{name.replace('_', '-')} must be 0 or more, got {getattr(self, name):g}")
        if self.suppress is not None and not 0 <= self.suppress <= 1:
            raise InputError(f"--suppress must be between 0 and 1, got {self.suppress:g}")
