"""Opens a video: source of the bytes, choice of the video stream, and size limits.

Only the given bytes are ever read. FFmpeg gets a Python file object without a name, never a path or a URL, and
no protocols: a playlist inside an upload can therefore fetch nothing.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from openxclip.errors import ConfigError, VideoError, VideoLimitError

VideoSource = str | Path | bytes | BinaryIO

# Python reads are slower than FFmpeg's own; a larger buffer than PyAV's 32 KiB compensates.
_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class VideoLimits:
    """Limits of a video; a video beyond a limit is refused before it is decoded."""

    max_frame_px: int = 8192 * 4320  # width times height of one frame, as stored and as scaled
    max_seconds: float = 4 * 3600.0
    is_over: Callable[[], bool] | None = field(default=None, compare=False)
    """Called between packets; once it returns true, reading ends with a VideoError."""

    def __post_init__(self) -> None:
        for name in ("max_frame_px", "max_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be greater than 0")

    @classmethod
    def given(cls, *, max_seconds: float | None, max_frame_px: int | None) -> "VideoLimits":
        """The limits, with the default for each None."""
        usual = cls()
        return cls(
            max_seconds=usual.max_seconds if max_seconds is None else max_seconds,
            max_frame_px=usual.max_frame_px if max_frame_px is None else max_frame_px,
        )

    def check_over(self, name: str) -> None:
        """Stop reading if the caller no longer waits."""
        if self.is_over is not None and self.is_over():
            raise VideoError(name, "reading it was stopped: the caller no longer waits for it")

    def check_frame(self, name: str, width: int, height: int, what: str = "a frame") -> None:
        """Refuse a frame of too many pixels."""
        if width * height > self.max_frame_px:
            raise _too_large(name, "max_frame_px", f"{what} of {width}x{height} px", self.max_frame_px)

    def check_seconds(self, name: str, seconds: float) -> None:
        """Refuse a video that lasts too long."""
        if seconds > self.max_seconds:
            raise _too_large(name, "max_seconds", f"a length of {seconds:.1f} s", self.max_seconds)


def _too_large(name: str, limit: str, found: str, allowed: float) -> VideoLimitError:
    return VideoLimitError(
        name,
        f"{found} is over the limit {limit}={allowed:g}. "
        f"If you trust this video, raise it with VideoLimits({limit}=...), "
        f"on the command line --{limit.replace('_', '-')}, in a training --set data.{limit}=...",
        limit=limit,
        found=found,
        allowed=allowed,
    )


def source_name(source: VideoSource) -> str:
    """Name of the source in error messages."""
    if isinstance(source, str | Path):
        return str(source)
    return "<bytes>" if isinstance(source, bytes) else str(getattr(source, "name", "<bytes>"))


class _Nameless:
    """A seekable file without its name: FFmpeg could interpret a name as a pattern or a URL."""

    def __init__(self, file: BinaryIO) -> None:
        self.read: Callable[[int], bytes] = file.read
        self.seek: Callable[[int, int], int] = file.seek
        self.tell: Callable[[], int] = file.tell


@contextmanager
def video_errors(name: str) -> Iterator[None]:
    """Turn the errors of FFmpeg and of the file system into a VideoError about `name`."""
    try:
        yield
    except VideoError:
        raise
    except av.FFmpegError as error:
        raise VideoError(name, f"it is damaged, incomplete or not a video ({error.strerror})") from error
    except OSError as error:
        raise VideoError(name, f"it cannot be read ({error.strerror or error})") from error


def open_file(source: VideoSource) -> tuple[BinaryIO, bool]:
    """A seekable binary file over the source, and whether the caller of this function must close it."""
    if isinstance(source, bytes):
        return io.BytesIO(source), True
    if isinstance(source, str | Path):
        return _open_path(source), True
    if source.seekable():
        return source, False
    return io.BytesIO(source.read()), True


def _open_path(source: str | Path) -> BinaryIO:
    path = Path(source)
    if not path.exists():
        raise VideoError(
            str(source), "there is no such file. Give the path of a file on this machine", "missing"
        )
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise VideoError(str(source), f"this is {kind}. Give the path of one video file")
    return path.open("rb")


def open_container(file: BinaryIO) -> Any:
    """A PyAV input container over `file`, read from its start."""
    file.seek(0)
    return av.open(
        _Nameless(file),
        container_options={"protocol_whitelist": "none"},
        metadata_errors="replace",
        buffer_size=_BUFFER_BYTES,
    )


def choose_stream(container: Any, name: str) -> Any:
    """The video stream: one that plays before one still image, then the default one, then that with the most pixels.

    Cover art is not a video. An animated AVIF has its first frame in a separate stream.
    """
    streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not streams:
        if container.streams.video:
            raise VideoError(name, "it holds no video, only cover art. Give the file of the video itself")
        found = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise VideoError(name, f"it holds no video stream (found: {found})")
    streams = [s for s in streams if s.codec_context is not None]
    if not streams:
        raise VideoError(name, "this build of FFmpeg has no decoder for its video. Convert it to H.264")
    return max(
        streams,
        key=lambda s: (s.frames != 1, bool(s.disposition & s.disposition.default), s.width * s.height),
    )


def header_seconds(stream: Any) -> float:
    """The length the header states by its number of frames, 0 if it states none.

    Time stamps alone are not used: they may jump.
    """
    rate = stream.guessed_rate or stream.average_rate
    if not stream.frames or not rate or stream.duration is None or stream.time_base is None:
        return 0.0
    return min(float(stream.duration * stream.time_base), float(stream.frames / rate))


_LONGEST_FRAME_SECONDS = 10.0


def playing_seconds(seconds: np.ndarray) -> float:
    """How long frames at these times (N,) play. A gap of more than 10 s is a jump of the time stamps, not time."""
    return float(np.minimum(np.abs(np.diff(seconds)), _LONGEST_FRAME_SECONDS).sum())
