"""The source of a request's video: an upload, or a file in the allowed folder. Names are never trusted."""

import os
import stat
import threading
from pathlib import Path
from typing import BinaryIO

from openxclip.errors import VideoError
from openxclip.serving.problems import Problem

MAX_PATH_LETTERS = 4096


class GuardedFile:
    """A seekable binary file that stops being readable when its request ends, which also stops the decoder."""

    name = "the video"  # name in messages, independent of the client's name

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._over = threading.Event()

    def end(self) -> None:
        """Mark the request as over."""
        self._over.set()

    def is_over(self) -> bool:
        """Whether the request is over."""
        return self._over.is_set()

    def read(self, size: int = -1) -> bytes:
        """Bytes from the current position.

        Raises:
            VideoError: the request is over.
        """
        self._check()
        try:
            return self._file.read(size)
        except ValueError:  # closed in the meantime
            self._over.set()
            self._check()
            raise

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position."""
        self._check()
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The current position."""
        return self._file.tell()

    def seekable(self) -> bool:
        """It is."""
        return True

    def _check(self) -> None:
        if self._over.is_set():
            raise VideoError(self.name, "its request is over")


def open_allowed(folder: Path | None, path: str) -> BinaryIO:
    """Open a video in the allowed folder by its path, relative to the folder or absolute.

    Raises:
        Problem: no folder is allowed, the path leads out of it, or there is no such file.
    """
    if folder is None:
        raise Problem(
            "path-not-allowed",
            "this server accepts no paths: upload the video, or start the server with --allow-paths",
        )
    if len(path) > MAX_PATH_LETTERS:
        raise Problem("path-not-allowed", f"a path may have {MAX_PATH_LETTERS} characters")
    root = folder.resolve()
    try:
        found = (root / path).resolve()
    except (OSError, ValueError, RuntimeError):  # a symlink loop, a null character
        raise Problem(
            "path-not-allowed", "this is not a valid path; give the path of a video in the allowed folder"
        ) from None
    if not found.is_relative_to(root):
        raise Problem(
            "path-not-allowed", "the path leads out of the allowed folder; give that of a video inside it"
        )
    try:
        # Not blocking: a pipe would wait for its writer. No symlinks: the path is already resolved.
        handle = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (OSError, ValueError):
        raise Problem("no-such-video", "there is no such file in the allowed folder") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Problem("no-such-video", "there is no such file in the allowed folder")
    return os.fdopen(handle, "rb")
