"""Live streams: standard input, named pipes, network URLs, cameras; reconnected after an interruption.

Only a URL given by the user is opened, with only the protocols that it needs. A playlist at it may name further network
URLs, never files.
"""

import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from openxclip.errors import InputError, VideoError
from openxclip.video.convert import FrameSize
from openxclip.video.playback import Break, PlayedFrame, Player
from openxclip.video.source import VideoLimits

OPEN_SECONDS = 15.0
READ_SECONDS = 10.0  # without a packet, after which the connection counts as lost
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0  # before reconnecting; doubled each time
STRETCH_SECONDS = 0.5  # of frames used for timing: longer than the delay of frames that are held back
PROBE_SECONDS = 2.0  # of the stream that FFmpeg probes before the first frame

INDEX_BEHIND = (
    "the index of this MP4 is at its end, and a pipe cannot seek; give the file itself, or write it with "
    "ffmpeg's -movflags +faststart or as MPEG-TS"
)

_TRANSPORT = "tcp,tls,crypto"
PROTOCOLS = {
    "rtsp": f"rtp,udp,rtsp,{_TRANSPORT}",
    "rtsps": f"rtp,udp,rtsp,rtsps,srtp,{_TRANSPORT}",
    "http": f"http,https,httpproxy,{_TRANSPORT}",
    "https": f"http,https,httpproxy,{_TRANSPORT}",
    "udp": "udp",
    "rtp": "rtp,udp",
    "tcp": "tcp",
    "srt": "srt,udp",
    "rtmp": "rtmp,tcp",
}
"""URL scheme -> protocols that FFmpeg may use for it."""

_CAMERA_FORMATS = {"linux": "video4linux2", "darwin": "avfoundation", "win32": "dshow"}


def is_live(source: str) -> bool:
    """Whether this names a stream: -, a pipe, a camera, or a URL."""
    if source == "-" or "://" in source:
        return True
    try:
        mode = Path(source).stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def check_kind(source: str) -> None:
    """Refuse a URL with an unknown scheme.

    Raises:
        InputError: it has another scheme than those of `PROTOCOLS`.
    """
    scheme = source.partition("://")[0].lower()
    if "://" in source and scheme not in PROTOCOLS:
        hint = "; give a file by its path" if scheme == "file" else ""
        raise InputError(
            f"{source}: {scheme} is not a known kind of stream; known are {', '.join(PROTOCOLS)}{hint}"
        )


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


class LivePlayer:
    """A stream that reconnects after an interruption. Iterate over it once; a pipe or a file ends it."""

    def __init__(
        self,
        source: str,
        *,
        limits: VideoLimits | None = None,
        num_threads: int = 0,
        reconnects: bool = True,
        wait: Callable[[float], bool] = _sleep,
    ) -> None:
        """
        Args:
            source: see `is_live`.
            limits: limits of a frame.
            num_threads: of the decoder; 0 uses all cores.
            reconnects: whether it reconnects; otherwise it stops at its first end.
            wait: waits this many seconds; returns true to stop.

        Raises:
            InputError: a URL with an unknown scheme.
        """
        check_kind(source)
        self.name = source
        self._is_pipe, self._reconnects = _is_pipe(source), reconnects
        self._limits, self._num_threads, self._wait = limits, num_threads, wait
        self._connected: Player | None = None
        self._flowing: _Flowing | None = None
        self._offset = 0.0
        self._last_seconds = 0.0
        self._pause = FIRST_PAUSE_SECONDS  # grows until a frame comes: a sender may accept and send nothing
        self._since = time.monotonic()
        self._leads = (-self._since, -self._since)
        """Maximum lead of frames over the clock, in the last stretch and in this one. Frames held back by a demuxer or
        a decoder come late, when the connection counts as lost: earlier frames give the time at that point."""

    @property
    def end_seconds(self) -> float | None:
        """None: the length is unknown."""
        return None

    def connect(self) -> None:
        """Connect, and wait for the first bytes; must be called first.

        Raises:
            VideoError: nothing responds, or it sends no video.
        """
        self._connected = self._connect()
        self._since = time.monotonic()
        self._leads = (-self._since, -self._since)

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second."""
        return self._player.frame_rate

    @property
    def _player(self) -> Player:
        assert self._connected is not None, "connect first"
        return self._connected

    def close(self) -> None:
        """Close the stream."""
        if self._connected is not None:
            self._connected.close()

    def pixels(self, frame: PlayedFrame, size: FrameSize) -> np.ndarray:
        """See `Player`."""
        return self._player.pixels(frame, size)

    def __iter__(self) -> Iterator[PlayedFrame | Break]:
        """Frames and breaks between them; a lost connection gives a break at once, and another when it is back.

        Raises:
            VideoError: a pipe or a file broke off, or has no frame that can be decoded.
        """
        while True:
            reason = "the sender ended it"
            try:
                for item in self._player:
                    yield self._moved(item)
            except (VideoError, av.FFmpegError, OSError) as error:
                reason = error.reason if isinstance(error, VideoError) else str(error)
                if self._is_pipe and self._has_index_behind():
                    raise VideoError(self.name, INDEX_BEHIND) from error
                if not self._may_come_again():
                    raise
            broke_off = self._player.broke_off
            if not self._may_come_again():
                # For HTTP without a content length, FFmpeg reports every end as an error.
                if broke_off is not None and (self._is_pipe or self._player.stated_seconds is not None):
                    raise VideoError(self.name, f"it broke off ({broke_off})")
                return
            yield from self._reconnect(reason if broke_off is None else f"it broke off ({broke_off})")
            if self._is_over:
                return

    _is_over = False

    def _moved(self, item: PlayedFrame | Break) -> PlayedFrame | Break:
        """An item of the current connection, in the time of the whole stream."""
        if isinstance(item, Break):
            start, end = item.start_seconds + self._offset, item.end_seconds + self._offset
            return replace(item, start_seconds=start, end_seconds=end)
        self._last_seconds, now = item.seconds + self._offset, time.monotonic()
        self._pause = FIRST_PAUSE_SECONDS
        before, lead = self._leads[1], self._last_seconds - now
        if now - self._since >= STRETCH_SECONDS:
            self._leads, self._since = (before, lead), now
        else:
            self._leads = (self._leads[0], max(before, lead))
        return replace(item, seconds=self._last_seconds)

    def _may_come_again(self) -> bool:
        """Whether the ended stream is neither a pipe nor a file."""
        return self._reconnects and not self._is_pipe and self._player.stated_seconds is None

    def _reconnect(self, reason: str) -> Iterator[Break]:
        """Retry until it works or the caller stops. The time without a connection counts."""
        last = self._last_seconds
        while True:
            pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            yield Break("lost", last, last, f"{reason}; trying again in {pause:g} s")
            if self._wait(pause):
                self._is_over = True
                return
            self._player.close()
            try:
                self._connected = self._connect()
            except VideoError as error:
                reason = error.reason
                continue
            self._offset = max(last, max(self._leads) + time.monotonic())
            reason = f"connected again after {self._offset - last:.1f} s"
            yield Break("gap", last, self._offset, reason)
            return

    def _has_index_behind(self) -> bool:
        return self._flowing is not None and self._flowing.has_index_behind()

    def _connect(self) -> Player:
        try:
            container, file = _open(self.name, is_pipe=self._is_pipe)
        except VideoError:
            raise
        except av.InvalidDataError as error:
            raise VideoError(self.name, f"it does not send a video ({error.strerror})") from error
        except (av.FFmpegError, OSError) as error:
            raise VideoError(self.name, f"it cannot be reached ({error.strerror or error})") from error
        self._flowing = file
        return Player(container, self.name, file=file, num_threads=self._num_threads, limits=self._limits)


def _is_pipe(source: str) -> bool:
    return source == "-" or ("://" not in source and stat.S_ISFIFO(Path(source).stat().st_mode))


def _open(source: str, *, is_pipe: bool) -> "tuple[Any, _Flowing | None]":
    """A container of PyAV, and the pipe that it reads, if it is one."""
    probe = {"analyzeduration": str(int(PROBE_SECONDS * 1e6))}
    timeout = (OPEN_SECONDS, READ_SECONDS)
    if source == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise VideoError(source, "standard input is closed; send a stream into it")
        # Not sys.stdin: a thread that waits in it at exit would crash the process.
        file = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115
        return _container_of(file, probe)
    if "://" not in source:
        if is_pipe:
            file = Path(source).open("rb", buffering=0)  # noqa: SIM115 closed with the player
            try:
                return _container_of(file, probe)
            except BaseException:
                file.close()
                raise
        return av.open(source, format=_CAMERA_FORMATS.get(sys.platform), timeout=timeout), None
    scheme = source.partition("://")[0].lower()
    options = {**probe, "protocol_whitelist": PROTOCOLS[scheme]}
    if scheme.startswith("http"):
        # A file that breaks off before its stated length is resumed from there; streams without one are handled here.
        options |= {"reconnect": "1", "reconnect_delay_max": f"{LONGEST_PAUSE_SECONDS:g}"}
    if scheme.startswith("rtsp"):
        options["rtsp_flags"] = "prefer_tcp"  # lost packets would damage the picture
    return av.open(source, options=options, timeout=timeout, metadata_errors="replace"), None


def _container_of(file: BinaryIO, options: dict[str, str]) -> "tuple[Any, _Flowing]":
    flowing = _Flowing(file)
    container = av.open(
        flowing,
        options={**options, "protocol_whitelist": "none"},
        metadata_errors="replace",
        buffer_size=1 << 16,
    )
    return container, flowing


class _Flowing:
    """A pipe: available bytes are returned at once, and nothing can be read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._read: Callable[[int], bytes] = getattr(file, "read1", file.read)
        self.close = file.close
        self._head = b""  # the first bytes

    def read(self, num_bytes: int) -> bytes:
        """Some bytes; empty at the end."""
        data = self._read(num_bytes)
        self._head = self._head or data
        return data

    def has_index_behind(self) -> bool:
        """Whether it is an MP4 whose index is not at the start."""
        at, kind = 0, b"ftyp" if self._head[4:8] == b"ftyp" else b""
        while kind in (b"ftyp", b"free", b"wide"):
            at += max(8, int.from_bytes(self._head[at : at + 4], "big"))
            kind = self._head[at + 4 : at + 8]
        return kind == b"mdat"
