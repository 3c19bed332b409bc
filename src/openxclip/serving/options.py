"""Settings of a server. Imports nothing heavy, so that a command can offer them as options."""

import re
from dataclasses import dataclass
from pathlib import Path

from openxclip.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Settings of a server: address, access, and limits of a request."""

    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 admits other machines"""
    port: int = 8000
    """port to listen on; 0 chooses a free one"""
    api_key_file: Path | None = None
    """file with one accepted key per line; without it, anyone who can reach the address has access"""
    allow_paths: Path | None = None
    """folder whose videos requests may name by path; without it, videos can only be uploaded"""
    allow_hosts: tuple[str, ...] = ()
    """additional host names of a local-only server, such as the name of a proxy in front of it"""
    allow_frames: str | None = None
    """site that may embed the page in a frame, such as https://huggingface.co"""
    max_queue: int = 64
    """maximum number of concurrent requests, including waiting ones; more get 503"""
    max_megabytes: float = 100.0
    """largest request (1 MB = 1,000,000 bytes)"""
    max_seconds: float = 600.0
    """longest video"""
    max_frame_px: int = 4096 * 2304
    """maximum pixels of a frame, width times height"""
    max_labels: int = 1000
    """maximum number of labels of a request"""
    max_label_letters: int = 200
    """maximum length of a label or template, in characters"""
    max_sentences: int = 20_000
    """maximum number of labels times templates"""
    max_views: int = 30
    """maximum number of views of a video"""
    max_windows: int = 2000
    """maximum number of windows of a timeline"""
    max_timelines: int = 4
    """maximum number of concurrent timelines; more get 503"""
    max_batch: int = 16
    """maximum number of videos of a request"""
    max_label_sets: int = 64
    """number of encoded label sets to cache"""
    receive_seconds: float = 60.0
    """time limit for receiving a request"""
    deadline_seconds: float = 60.0
    """time limit for answering a request, once received"""
    timeline_deadline_seconds: float = 600.0
    """time limit for a timeline, whose duration grows with the number of windows"""
    decoders: int | None = None
    """videos decoded at the same time; by default as many as suit the device"""

    @property
    def largest_batch(self) -> int:
        """Maximum number of videos of one request: each needs a slot."""
        return min(self.max_batch, self.max_queue)

    @property
    def max_bytes(self) -> int:
        """`max_megabytes` in bytes."""
        return round(self.max_megabytes * 1_000_000)

    def check(self) -> None:
        """Refuse invalid values. Not done on construction: a command line reports its own errors.

        Raises:
            InputError: a number is out of range, or `allow_paths` is not a folder.
        """
        if not 0 <= self.port <= 65535:
            raise InputError(f"--port must be 0 to 65535, got {self.port}")
        for name, value in vars(self).items():
            if name != "port" and isinstance(value, int | float) and not value > 0:
                raise InputError(f"--{name.replace('_', '-')} must be greater than 0, got {value}")
        if self.allow_frames is not None and not re.fullmatch(r"https?://[\w.:*-]+", self.allow_frames):
            raise InputError(
                f"--allow-frames must be a site such as https://example.org, got {self.allow_frames!r}"
            )
        if self.allow_paths is not None and not self.allow_paths.is_dir():
            raise InputError(f"--allow-paths: {self.allow_paths} is not a folder; give an existing one")
        self.keys()

    def keys(self) -> tuple[str, ...]:
        """The accepted keys; none if access is open.

        Raises:
            InputError: the file cannot be read or holds no key.
        """
        if self.api_key_file is None:
            return ()
        try:
            lines = self.api_key_file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--api-key-file: {self.api_key_file} cannot be read: {error}") from error
        keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
        if not keys or not all(key.isascii() and key.isprintable() for key in keys):
            raise InputError(
                f"--api-key-file: {self.api_key_file} must hold one key per line, of printable ASCII characters"
            )
        return keys
