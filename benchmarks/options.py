"""What can be set for every suite."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from openxclip.errors import InputError, OpenXCLIPError


class UnavailableError(OpenXCLIPError, RuntimeError):
    """A suite needs something that is not there; the others go on."""


def _data() -> Path:
    return Path(os.environ.get("OPENXCLIP_TEST_DATA", "../shared/data"))


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is measured, and on which clips."""

    data: Path = field(default_factory=_data)
    """Folder of the real clips (ucf8/test.txt); without it their suite is left out."""
    learned: Path | None = None
    """A run of `ucf8_fewshot` (docs/training.md), for suites that ask what rounding and merging cost; without it they
    measure the shipped model alone."""
    num_rounds: int = 9
    """Measurements of each variant; where one takes seconds, fewer."""
    num_inputs: int = 200
    """Random inputs over which agreement is counted."""

    def __post_init__(self) -> None:
        for name in ("num_rounds", "num_inputs"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
