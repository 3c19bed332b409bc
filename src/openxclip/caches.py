"""Where recomputable results are cached. Imports nothing heavy: it runs before torch is imported."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """The cache folder: $OPENXCLIP_CACHE, or the user's cache folder, if any."""
    given = os.environ.get("OPENXCLIP_CACHE")
    if given:
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openxclip"
    except RuntimeError:  # the user has no home directory
        return None


def keep_compiled_code() -> None:
    """Make torch keep compiled code in the cache folder: its default folder does not survive a restart.

    Call it before torch is imported. If the folder is not writable, torch uses its default.
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
