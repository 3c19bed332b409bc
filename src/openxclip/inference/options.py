"""Settings for scoring videos. Imports nothing heavy, so that a command can offer them as options."""

from dataclasses import dataclass, field
from pathlib import Path

from openxclip.errors import InputError
from openxclip.runtimes.options import RuntimeOptions


@dataclass(frozen=True, kw_only=True)
class InferenceOptions:
    """Settings of an engine. None of them changes the best label, apart from rounding and the shortlist."""

    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    """Options of the image tower's runtime."""
    batch_size: int | None = None
    """views per forward pass; by default as many as pay off on the device"""
    shortlist: int | None = None
    """adapt only this many labels to each video, the best by plain cosine; the others get probability 0"""
    text_cache: Path | None = None
    """folder that caches the text features of large label sets for the next run"""

    def check(self) -> None:
        """Refuse invalid values. Not done on construction: a command line reports its own errors.

        Raises:
            InputError: a number is below 1.
        """
        for name in ("batch_size", "shortlist"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, or None for the default, got {value}")
