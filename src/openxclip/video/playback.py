"""Plays a video once, from its start and in presentation order: files of any length, and live streams.

Nothing is counted in advance and no frame is kept, so memory does not grow with the length. Undecodable parts are
skipped up to the next key frame, and reported.
"""

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol, Self

import av
import numpy as np

from openxclip.errors import VideoError
from openxclip.video.convert import Converter, FrameSize, quarter_turns
from openxclip.video.packets import CODECS_THAT_SKIP
from openxclip.video.source import (
    VideoLimits,
    VideoSource,
    choose_stream,
    open_container,
    open_file,
    source_name,
    video_errors,
)

JUMP_SECONDS = 10.0  # in a stream, a longer step of the time stamps is a clock jump, not elapsed time
FORMATS_THAT_JUMP = frozenset(
    {"mpegts", "mpeg"}
)  # broadcast formats; files in other formats keep their steps
GAP_SECONDS = 1.0  # a stream or a broadcast without frames for longer has lost some
BREAK_OFF_SECONDS = (
    1.0  # tolerance for files shorter than their header states: sound may be longer than video
)
RECOVERY_SECONDS = 60.0  # after damage, if no key frame comes
USUAL_RATE = Fraction(25)  # frames per second, if a stream does not state it
MAX_ERRORS = 100  # consecutive errors of the container
MAX_AHEAD_BYTES = 256 << 20


class Closable(Protocol):
    """A file or a file-like object."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True)
class PlayedFrame:
    """A decoded frame and its presentation time."""

    image: Any
    """PyAV's frame."""
    seconds: float
    """Time from the first frame; strictly increasing."""


@dataclass(frozen=True)
class Break:
    """A stretch without decodable frames, or a jump of the time stamps."""

    kind: Literal["damage", "gap", "jump", "lost"]
    start_seconds: float
    end_seconds: float
    reason: str


class Player:
    """An open video. Iterate over it once; use it in a `with` statement."""

    def __init__(
        self,
        container: Any,
        name: str,
        *,
        file: Closable | None = None,
        num_threads: int = 0,
        ahead_seconds: float | None = None,
        limits: VideoLimits | None = None,
    ) -> None:
        """
        Args:
            container: PyAV container, at its start.
            name: name in errors.
            file: closed with the player.
            num_threads: of the decoder; 0 takes what the machine has.
            ahead_seconds: how far packets are read ahead of the decoder, and how early the end is known; None for a
                live stream, which must not be delayed.
            limits: what a frame may cost.
        """
        self.name = name
        self._container, self._file = container, file
        self._ahead_seconds = ahead_seconds
        self._limits = limits or VideoLimits()
        self._converter = Converter()
        self._size: tuple[int, int] | None = None
        self._turns = 0
        try:
            with video_errors(name):
                self._begin(num_threads)
        except BaseException:
            self.close()
            raise

    @classmethod
    def of_file(
        cls,
        source: VideoSource,
        *,
        ahead_seconds: float,
        num_threads: int = 0,
        limits: VideoLimits | None = None,
    ) -> Self:
        """Play a file.

        Raises:
            VideoError: it cannot be opened, or holds no video.
        """
        name = source_name(source)
        with video_errors(name):
            file, is_ours = open_file(source)
            try:
                container = open_container(file)
            except BaseException:
                if is_ours:
                    file.close()
                raise
        return cls(
            container,
            name,
            file=file if is_ours else None,
            num_threads=num_threads,
            ahead_seconds=ahead_seconds,
            limits=limits,
        )

    def _begin(self, num_threads: int) -> None:
        self._stream = choose_stream(self._container, self.name)
        self._decoder = self._stream.codec_context
        self._decoder.thread_count = num_threads
        # With frame threading, each thread holds back one frame: a live stream would be delayed.
        self._decoder.thread_type = "SLICE" if self._ahead_seconds is None else "AUTO"
        # Damage must raise an error: by default the decoder conceals it. A frame larger than its header states is
        # stopped before memory is allocated for it.
        self._decoder.options = {"err_detect": "explode", "max_pixels": str(self._limits.max_frame_px)}
        self._limits.check_frame(self.name, self._decoder.width, self._decoder.height)
        self.codec: str = self._decoder.codec.canonical_name
        self.frame_rate: Fraction = self._stream.average_rate or self._stream.guessed_rate or USUAL_RATE
        self.stated_seconds = self._stated_seconds()
        self._limits.check_seconds(self.name, self.stated_seconds or 0.0)
        self._is_steady_rate = self._ahead_seconds is None or self._container.format.name in FORMATS_THAT_JUMP
        self._time_base = float(self._stream.time_base or 0)
        self._clock = _Clock(
            self._time_base,
            float(1 / self.frame_rate),
            JUMP_SECONDS if self._is_steady_rate else math.inf,
        )
        self._last_pts: int | None = None  # of the packets, once all are read
        self._is_steady = True  # no packet came out of order, or far from the one before
        self._ahead_pts: list[int] = []  # of the packets that were read and a little before, sorted
        self._is_wanted: Callable[[float, float], bool] | None = None
        self._waits_for_key = False
        self._began_at: int | None = None  # time stamp of the key frame where decoding started
        self._may_lead = False
        self.broke_off: str | None = None
        """Why a live stream ended, if not by its sender."""
        self._most_skipped = round(RECOVERY_SECONDS * self.frame_rate)

    def _stated_seconds(self) -> float | None:
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return self._container.duration / 1e6 if self._container.duration else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the video."""
        self._container.close()
        if self._file is not None:
            self._file.close()

    @property
    def end_seconds(self) -> float | None:
        """End of the last frame; None until known from the packets read ahead."""
        return None if self._last_pts is None else self._clock.end_of(self._last_pts)

    @property
    def played_seconds(self) -> float:
        """Time from the first frame to the end of the last one, once all are played."""
        end = self.end_seconds
        return self._clock.seconds + float(1 / self.frame_rate) if end is None else end

    def skip_unless(self, is_wanted: Callable[[float, float], bool]) -> None:
        """Skip unwanted frames that no other frame needs, if the packets identify them.

        Args:
            is_wanted: whether the frame on screen between two moments is wanted.
        """
        if self._ahead_seconds is not None and self.codec in CODECS_THAT_SKIP:
            self._is_wanted = is_wanted

    def pixels(self, frame: PlayedFrame, size: FrameSize) -> np.ndarray:
        """A frame upright and scaled, uint8 (3, H, W). All frames get the size of the first one."""
        if self._size is None:
            self._size = (frame.image.width, frame.image.height)
            self._turns = quarter_turns(frame.image)
        width, height = size.of(*self._size)
        self._limits.check_frame(self.name, width, height, "a scaled frame")
        return self._converter.to_rgb(frame.image, width, height, self._turns, size.filter)

    def __iter__(self) -> Iterator[PlayedFrame | Break]:
        """Frames, and breaks between them.

        Raises:
            VideoError: not one frame can be decoded.
        """
        recovery: _Recovery | None = None
        ahead: _Damage | None = None  # of a packet whose frame is yet to come
        shown: float | None = None
        for image in self._images():
            if isinstance(image, _Damage):
                if image.pts is not None:
                    ahead = ahead or image
                else:
                    recovery = recovery or _Recovery(self._clock.seconds, image.reason)
                continue
            before = self._clock.seconds
            seconds, jump = self._clock.at(image.pts if image.pts is not None else image.dts)
            if ahead is not None and ahead.is_reached(image, jump):
                recovery, ahead = recovery or _Recovery(before, ahead.reason), None
            if image.is_corrupt and recovery is None:
                recovery = _Recovery(seconds, "a frame is damaged")
            if jump is not None:
                yield Break("jump", seconds, seconds, f"the time stamps jump by {jump:+.1f} s")
            if recovery is not None and not recovery.is_over(image, seconds):
                continue
            if recovery is not None:
                yield Break("damage", recovery.start_seconds, seconds, recovery.reason)
                recovery = None
            elif self._is_gap(shown, seconds):
                start = (shown or 0.0) + float(1 / self.frame_rate)
                yield Break("gap", start, seconds, "no frames came")
            shown = seconds
            yield PlayedFrame(image, seconds)
        if shown is None:
            raise VideoError(self.name, "not one frame of it can be decoded: it is damaged or incomplete")
        yield from self._at_the_end(recovery)

    def _at_the_end(self, recovery: "_Recovery | None") -> Iterator[Break]:
        """The missing part at the end."""
        end = self.played_seconds
        if recovery is not None:
            yield Break("damage", recovery.start_seconds, end, recovery.reason)
        if self._ahead_seconds is not None and (self.stated_seconds or 0.0) > end + BREAK_OFF_SECONDS:
            reason = f"its pictures end here; its header states {self.stated_seconds:.1f} s"
            yield Break("gap", end, self.stated_seconds or end, reason)

    def _is_gap(self, shown: float | None, seconds: float) -> bool:
        if not self._is_steady_rate or shown is None:
            return False
        return seconds - shown > max(GAP_SECONDS, 3 / float(self.frame_rate))

    def _images(self) -> Iterator[Any]:
        skipped = 0
        for packet in self._packets():
            if isinstance(packet, _Damage):
                yield packet
            elif self._waits_for_key and not packet.is_keyframe and skipped < self._most_skipped:
                skipped += 1
            else:
                if self._waits_for_key:
                    self._began_at = None
                self._waits_for_key, skipped = False, 0
                if self._is_leading(packet):
                    continue
                if self._is_wanted is not None:
                    is_needed = self._is_needed(packet, self._is_wanted)
                    self._decoder.skip_frame = "DEFAULT" if is_needed else "NONREF"
                yield from self._decoded(packet)
        yield from self._decoded(None)

    def _is_leading(self, packet: Any) -> bool:
        """Whether a packet follows the key frame where decoding started, but is shown before it.

        In an open group of pictures such frames depend on earlier, missing frames; no other frame depends on them.
        """
        if self._began_at is None:  # the very first packet
            self._began_at = packet.pts
            self._may_lead = packet.is_keyframe and packet.pts is not None
        elif self._may_lead:
            self._may_lead = packet.pts is not None and packet.pts < self._began_at
            return self._may_lead
        return False

    def _is_needed(self, packet: Any, is_wanted: Callable[[float, float], bool]) -> bool:
        """Whether the frame of a packet is on screen at a wanted time, as far as the packets show."""
        start = None if packet.pts is None else self._clock.seconds_of(packet.pts)
        if start is None or not self._is_steady:
            return True
        place = bisect_right(self._ahead_pts, packet.pts)
        if place == len(self._ahead_pts):
            return True
        end = self._clock.seconds_of(self._ahead_pts[place])
        return end is None or is_wanted(start, end)

    def _decoded(self, packet: Any) -> Iterator[Any]:
        try:
            yield from self._decoder.decode(packet)
        except av.FFmpegError as error:
            self._limits.check_frame(self.name, self._decoder.width, self._decoder.height)
            yield _Damage(f"it cannot be decoded ({error.strerror})")
            # A multi-threaded decoder does not recover by itself.
            self._decoder.flush_buffers()
            self._waits_for_key = True

    def _packets(self) -> Iterator[Any]:
        """Packets in decode order, read `ahead_seconds` ahead."""
        if self._ahead_seconds is None:
            yield from self._demuxed()
            return
        ahead: deque[tuple[float, Any]] = deque()
        num_bytes, last, last_pts = 0, 0.0, None
        for packet in self._demuxed():
            when = self._time_of(packet)
            if when is None or not 0 <= when - last <= JUMP_SECONDS:  # no reliable order
                self._is_steady &= when is not None and not ahead
                while ahead:
                    yield ahead.popleft()[1]
                num_bytes = 0
            last = last if when is None else when
            if not isinstance(packet, _Damage):
                num_bytes += packet.size
                pts = packet.pts if packet.pts is not None else packet.dts
                if pts is not None and not packet.is_discard:
                    last_pts = pts if last_pts is None else max(last_pts, pts)
                    self._note(pts)
            ahead.append((last, packet))
            while ahead and (last - ahead[0][0] > self._ahead_seconds or num_bytes > MAX_AHEAD_BYTES):
                released = ahead.popleft()[1]
                num_bytes -= 0 if isinstance(released, _Damage) else released.size
                yield released
        self._last_pts = last_pts if self._is_steady else None
        for _, packet in ahead:
            yield packet

    def _note(self, pts: int) -> None:
        """Store a time stamp, and drop those far before everything that the decoder has not seen."""
        insort(self._ahead_pts, pts)
        if len(self._ahead_pts) % 4096 == 0:
            keep_seconds = 2 * (self._ahead_seconds or 0.0) + JUMP_SECONDS
            oldest = pts - keep_seconds / max(1e-9, self._time_base)
            del self._ahead_pts[: bisect_right(self._ahead_pts, oldest)]

    def _time_of(self, packet: Any) -> float | None:
        if isinstance(packet, _Damage):
            return None
        ticks = packet.dts if packet.dts is not None else packet.pts
        return None if ticks is None else ticks * self._time_base

    def _demuxed(self) -> Iterator[Any]:
        """Packets as in the file, with damage of the container between them."""
        num_errors = 0
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    self._limits.check_over(self.name)
                    num_errors = 0
                    if packet.size:
                        yield _Damage("a packet is damaged", packet.pts) if packet.is_corrupt else packet
                return
            except av.FFmpegError as error:
                if self._ahead_seconds is None and not isinstance(error, av.InvalidDataError):
                    self.broke_off = "nothing came" if isinstance(error, av.ExitError) else error.strerror
                    return  # no damage: everything before is intact
                num_errors += 1
                yield _Damage(f"the file is damaged ({error.strerror})")
                if num_errors >= MAX_ERRORS or not self._may_go_on(error):
                    return

    def _may_go_on(self, error: av.FFmpegError) -> bool:
        """Whether reading can continue after an error of the container."""
        return self._ahead_seconds is not None and isinstance(error, av.InvalidDataError)


@dataclass(frozen=True)
class _Damage:
    """An undecodable part of the stream."""

    reason: str
    pts: int | None = None
    """Time stamp of its frame, if known; earlier frames may still come out of the decoder."""

    def is_reached(self, image: Any, jump: float | None) -> bool:
        """Whether this frame comes after the damage."""
        return jump is not None or self.pts is None or image.pts is None or image.pts >= self.pts


@dataclass(frozen=True)
class _Recovery:
    """Recovery after damage: frames show remains of other frames until a key frame comes."""

    start_seconds: float
    reason: str

    def is_over(self, image: Any, seconds: float) -> bool:
        """Whether this frame is intact again."""
        is_late = seconds - self.start_seconds > RECOVERY_SECONDS
        return not image.is_corrupt and (image.key_frame or is_late)


class _Clock:
    """Converts time stamps to increasing seconds from the first frame."""

    def __init__(self, time_base: float, frame_seconds: float, largest_step_seconds: float) -> None:
        self.seconds = 0.0
        """Time of the last frame."""
        self._time_base, self._frame_seconds = time_base, frame_seconds
        self._largest_step = largest_step_seconds
        self._offset: float | None = None

    def at(self, pts: int | None) -> tuple[float, float | None]:
        """Time of a frame, and the jump of its time stamp, if any."""
        following = self.seconds + self._frame_seconds
        if self._offset is None:
            self._offset = -(pts or 0) * self._time_base
            return self.seconds, None
        if pts is None:
            self.seconds = following
            return self.seconds, None
        seconds = self._offset + pts * self._time_base
        step = seconds - self.seconds
        if not -1 < step <= self._largest_step:
            self._offset += following - seconds
            self.seconds = following
            return following, step
        self.seconds = max(seconds, self.seconds + self._frame_seconds / 10)
        return self.seconds, None

    def seconds_of(self, pts: int) -> float | None:
        """Presentation time of a frame with this time stamp; None before the first frame."""
        return None if self._offset is None else self._offset + pts * self._time_base

    def end_of(self, pts: int) -> float | None:
        """End of a frame with this time stamp, if it is the last one."""
        start = self.seconds_of(pts)
        return None if start is None else start + self._frame_seconds
