"""One video stream of an open file: its packets, and its frames from a key frame or from the start."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Self

import av

from openxclip.errors import VideoError
from openxclip.video.packets import CODECS_THAT_SKIP, SEEKABLE_CODECS, PacketInfo, PacketTable, Run, scan
from openxclip.video.source import (
    VideoLimits,
    VideoSource,
    choose_stream,
    header_seconds,
    open_container,
    open_file,
    source_name,
    video_errors,
)

# AVI stores no pts, and FFmpeg's generated ones are one frame off if there are B-frames. An MPEG program stream
# stores few, and the generated ones in between differ after a seek.
_FORMATS_WITHOUT_PTS = frozenset({"avi", "mpeg"})
# `field_order` of H.264 whose packets hold whole frames. If packets hold fields, two make a frame.
_PROGRESSIVE = 1

_HOLE = (
    "packet {} cannot be decoded, and others follow it. Download the file again, or repair it with: "
    "ffmpeg -i FILE -c:v libx264 REPAIRED.mp4"
)


class WrongTableError(Exception):
    """The packets announced a frame that decoding does not yield; never leaves this package."""


class VideoStream:
    """The file and its decoder. Raises FFmpeg's own errors, except while opening."""

    def __init__(self, source: VideoSource, num_threads: int, limits: VideoLimits) -> None:
        self.name = source_name(source)
        self.is_unsupported = False
        """Whether decoding failed because FFmpeg does not support the file, not because of damage."""
        self._limits = limits
        self._num_threads = num_threads
        self._container: Any = None
        with video_errors(self.name):
            self._file, self._owns_file = open_file(source)
        try:
            with video_errors(self.name):
                self._reopen(num_threads)
            self._inspect()
        except BaseException:
            self.close()
            raise

    def _inspect(self) -> None:
        """Read the header, and refuse a video over the limits, before anything is decoded."""
        self.codec: str = self._decoder.codec.canonical_name
        self.width, self.height = self._decoder.width, self._decoder.height
        self._limits.check_frame(self.name, self.width, self.height)
        self._limits.check_seconds(self.name, header_seconds(self._stream))
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.frame_seconds = float(1 / rate) if rate else 0.0
        self.time_base = float(self._stream.time_base)
        self.has_reliable_pts = (
            self.codec in SEEKABLE_CODECS
            and self._container.format.name not in _FORMATS_WITHOUT_PTS
            and (self.codec != "h264" or self._decoder.field_order == _PROGRESSIVE)
        )
        self.reorders: bool = self._decoder.has_b_frames

    def _reopen(self, num_threads: int) -> Self:
        """Go back to the first packet, with a fresh decoder."""
        if self._container is not None:
            self._container.close()
        self._container = open_container(self._file)
        self._stream = choose_stream(self._container, self.name)
        self._decoder = self._stream.codec_context
        self._set_threads(num_threads)
        self._decoder.thread_type = "AUTO"
        # Stops a frame larger than its header states before memory is allocated for it.
        self._decoder.options = {"max_pixels": str(self._limits.max_frame_px)}
        return self

    def use_threads(self, num_threads: int) -> None:
        """Use this many threads from now on."""
        if num_threads == self._num_threads:
            return
        self._num_threads = num_threads
        if self._decoder.is_open:
            self._reopen(num_threads)
        else:
            self._set_threads(num_threads)

    def _set_threads(self, num_threads: int) -> None:
        self._decoder.thread_count = num_threads or self._automatic_threads()

    def _automatic_threads(self) -> int:
        """Default number of decoding threads; 0 lets FFmpeg decide.

        If frames are skipped, the remaining ones depend on each other in a chain: FFmpeg's threads mostly wait, and a
        core is better used for the conversion.
        """
        if self._decoder.codec.canonical_name not in CODECS_THAT_SKIP:
            return 0
        return max(1, (os.cpu_count() or 1) - 1)

    def close(self) -> None:
        """Close what was opened here; a file object of the caller stays open."""
        if self._container is not None:
            self._container.close()
            self._container = None
        if self._owns_file:
            self._file.close()

    def _packets(self) -> Iterator[Any]:
        # FFmpeg marks the end of a stream by an empty packet; empty ones inside an AVI hold no frame either.
        for packet in self._container.demux(self._stream):
            self._limits.check_over(self.name)
            if packet.size:
                yield packet

    def scan(self) -> list[PacketInfo]:
        """All packets in decode order, undecoded. Call it once, before anything else."""
        return scan(self._packets())

    def decode_all(self) -> Iterator[Any]:
        """All frames in presentation order; FFmpeg's error at the first packet that cannot be decoded."""
        self._reopen(self._num_threads)
        for packet in self._packets():
            yield from self._decoder.decode(packet)
        yield from self._decoder.decode(None)

    def decode_until_break(self) -> Iterator[Any]:
        """All frames of a truncated file: the remains at its end are skipped.

        A hole, i.e. damage with intact packets after it, is a VideoError: frames after a hole show remains of
        others. One thread, so that an error comes with the packet that caused it.
        """
        self._reopen(1)
        self.is_unsupported = self.codec == "webp"  # FFmpeg skips the frames of an animation
        broken_at: int | None = None
        packets = self._packets_until_break()
        for position, packet in enumerate(packets):
            try:
                frames = self._decoder.decode(packet)
            except av.FFmpegError as error:
                self.is_unsupported |= isinstance(error, av.PatchWelcomeError | av.NotImplementedError)
                self._limits.check_frame(self.name, self._decoder.width, self._decoder.height)
                broken_at = position if broken_at is None else broken_at
                continue
            if broken_at is not None:
                raise VideoError(self.name, f"it is corrupt: {_HOLE.format(broken_at)}")
            yield from frames
        with suppress(av.FFmpegError):
            yield from self._decoder.decode(None)

    def _packets_until_break(self) -> Iterator[Any]:
        with suppress(av.FFmpegError):
            yield from self._packets()

    def decode_run(self, table: PacketTable, run: Run) -> Iterator[Any]:
        """The frames of one run, including the wanted ones; others are skipped if the codec allows it.

        Not if a packet may be lost: the decoder then conceals frames with others, which must all be present.
        """
        for position, packet in self._packets_of(table, run):
            if self.codec in CODECS_THAT_SKIP and table.is_even:
                self._decoder.skip_frame = "DEFAULT" if position in run.positions else "NONREF"
            yield from self._decoder.decode(packet)
        yield from self._decoder.decode(None)

    def _packets_of(self, table: PacketTable, run: Run) -> Iterator[tuple[int, Any]]:
        """The packets of a run with their positions, each checked against the first pass."""
        for go in (self._seek, self._rewind):  # a seek may land too far in formats without an index
            go(table.seek_time(run.start))
            packets = self._packets()
            packet = self._skip_to(run.start, packets, table)
            if packet is not None:
                break
        for position in range(run.start, run.stop):
            if packet is None or packet.pts != table.packets[position].pts:
                raise WrongTableError(f"packet {position} is different when read again")
            yield position, packet
            packet = next(packets, None) if position + 1 < run.stop else None

    def _skip_to(self, start: int, packets: Iterator[Any], table: PacketTable) -> Any:
        """The packet at this position, or None if the packets begin after it."""
        for packet in packets:
            # After a seek the first packets may be incomplete, with a pts never seen before.
            position = table.position_of_pts.get(packet.pts, -1)
            if position >= start:
                return packet if position == start else None
        return None

    def _seek(self, pts: int) -> None:
        try:
            self._container.seek(pts, stream=self._stream)
        except av.FFmpegError:  # a format that cannot seek
            self._reopen(self._num_threads)

    def _rewind(self, _: int) -> None:
        self._reopen(self._num_threads)
