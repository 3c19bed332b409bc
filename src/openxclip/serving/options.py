"""How a server serves, as settings. Imports nothing heavy, so that a command can offer them as options."""

import re
from dataclasses import dataclass
from pathlib import Path

from openxclip.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Settings of a server: its address, who may use it, and what a request may cost."""

    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 lets other machines in"""
    port: int = 8000
    """port to listen on; 0 takes a free one"""
    api_key_file: Path | None = None
    """file with one accepted key a line; without it anybody who reaches the address may ask"""
    allow_paths: Path | None = None
    """folder whose videos requests may name by path; without it videos can only be uploaded"""
    allow_hosts: tuple[str, ...] = ()
    """further names of a server for this machine alone, such as that of a proxy before it"""
    allow_frames: str | None = None
    """site that may show the page in a frame, such as https://huggingface.co"""
    max_queue: int = 64
    """requests that are received, wait or are computed at the same time; more get 503"""
    max_megabytes: float = 100.0
    """largest request (1 MB = 1,000,000 bytes)"""
    max_seconds: float = 600.0
    """longest video"""
    max_frame_px: int = 4096 * 2304
    """most pixels of a frame, width times height"""
    max_labels: int = 1000
    """most labels of a request"""
    max_label_letters: int = 200
    """longest label or template"""
    max_sentences: int = 20_000
    """most labels times templates"""
    max_views: int = 30
    """most views of a video"""
    max_windows: int = 2000
    """most windows of a timeline"""
    max_timelines: int = 4
    """timelines that are made at the same time; more get 503"""
    max_batch: int = 16
    """most videos of one request"""
    max_label_sets: int = 64
    """label sets that are kept encoded"""
    receive_seconds: float = 60.0
    """time to send a request in"""
    deadline_seconds: float = 60.0
    """time to answer it, once it is received"""
    timeline_deadline_seconds: float = 600.0
    """time to answer with a timeline, which takes as long as its video has windows"""
    decoders: int | None = None
    """videos that are decoded at the same time; by default as many as suit the device"""

    @property
    def largest_batch(self) -> int:
        """Videos of one request: each needs a place."""
        return min(self.max_batch, self.max_queue)

    @property
    def max_bytes(self) -> int:
        """`max_megabytes` in bytes."""
        return round(self.max_megabytes * 1_000_000)

    def check(self) -> None:
        """Refuse values that mean nothing. Not on construction: a command line reports its own errors.

        Raises:
            InputError: a number is out of its range, or the folder of `allow_paths` is none.
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
            raise InputError(f"--allow-paths: {self.allow_paths} is no folder; give an existing one")
        self.keys()

    def keys(self) -> tuple[str, ...]:
        """The accepted keys; none where everybody may ask.

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
                f"--api-key-file: {self.api_key_file} must hold one key a line, of printable ASCII characters"
            )
        return keys
