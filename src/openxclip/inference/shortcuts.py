"""What makes recognition cheaper, as settings; imports nothing heavy, so that a command can offer them as options."""

import os
from dataclasses import dataclass
from pathlib import Path

from openxclip.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    """What makes recognition cheaper."""

    compile: bool = False
    """compile the image tower first, which takes a minute, less the next time, for many videos"""
    int8: bool = False
    """multiply in 8-bit integers: for processors without AMX, and above all where the tower is compiled, too"""
    shortlist: int | None = None
    """adapt only so many labels to each video, the best by plain cosine; the others get probability 0"""
    text_cache: Path | None = None
    """folder where the text features of many labels are kept for the next time"""

    def __post_init__(self) -> None:
        if self.shortlist is not None and self.shortlist < 1:
            raise InputError(f"shortlist must be at least 1, or None for all labels, got {self.shortlist}")


def cache_folder() -> Path | None:
    """Where the command keeps what it can compute again: $OPENXCLIP_CACHE, or the user's cache folder, if any."""
    given = os.environ.get("OPENXCLIP_CACHE")
    if given:
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openxclip"
    except RuntimeError:  # a user without a home
        return None


def keep_compiled_code() -> None:
    """Let torch keep what it compiles in the cache folder: its own place for it goes with the next restart.

    Call it before torch is imported. Where the folder cannot be written, torch's own place has to do.
    """
    folder = cache_folder()
    if folder is None:
        return
    compiled = folder / "compiled"
    try:
        compiled.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(compiled, os.W_OK):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled))
