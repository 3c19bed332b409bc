"""How a timeline is made, as settings. Imports nothing heavy: a command offers them as options."""

import math
from dataclasses import dataclass

from openxclip.durations import seconds_of
from openxclip.errors import InputError


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """What is looked at."""

    window: str = "4s"
    """length of a window"""
    stride: str = "2s"
    """from one window to the next"""
    views: str = "1x1"
    """temporal clips x spatial crops of each window"""
    shots: bool = False
    """look for shot boundaries: no segment goes on beyond one"""

    def check(self) -> None:
        """Refuse values that mean nothing. Not on construction: a command line reports its own errors.

        Raises:
            InputError: a length cannot be read.
        """
        _ = self.window_seconds, self.stride_seconds

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return seconds_of("--window", self.window)

    @property
    def stride_seconds(self) -> float:
        """From one window to the next."""
        return seconds_of("--stride", self.stride)


@dataclass(frozen=True, kw_only=True)
class SegmentRules:
    """When a segment begins and ends."""

    enter: float = 0.5
    """score that a label must reach somewhere"""
    leave: float = 0.3
    """score below which it has ended"""
    min_seconds: float = 2.0
    """shorter segments are dropped"""
    close_gap_seconds: float = 2.0
    """segments of a label with no more between them become one"""
    suppress: float | None = None
    """drop a segment that overlaps by so much with a better one of another label: intersection over union, 0 to 1"""

    def check(self) -> None:
        """Refuse values that mean nothing. Not on construction: a command line reports its own errors.

        Raises:
            InputError: thresholds that are no probabilities, or a negative length.
        """
        if not 0 < self.leave <= self.enter <= 1:
            raise InputError(
                f"--leave is {self.leave:g} and --enter {self.enter:g}; they must lie between 0 and 1, and --leave not "
                "above --enter"
            )
        for name in ("min_seconds", "close_gap_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"--{name.replace('_', '-')} must be 0 or more, got {getattr(self, name):g}")
        if self.suppress is not None and not 0 <= self.suppress <= 1:
            raise InputError(f"--suppress must lie between 0 and 1, got {self.suppress:g}")
