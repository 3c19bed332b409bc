"""Where results that can be computed again are kept. Imports nothing heavy: it is asked before torch is imported."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """The folder for what the command can compute again: $OPENXCLIP_CACHE, or the user's cache folder, if any."""
    given = os.environ.get("OPENXCLIP_CACHE")
    if given:
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openxclip"
    except RuntimeError:  # a user without a home
        return None


def keep_compiled_code() -> None:
    """Let torch keep compiled code in the cache folder: its own default folder does not survive a restart.

    Call it before torch is imported. Where the folder cannot be written, torch uses its default.
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
