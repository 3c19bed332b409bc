"""Frames of a video by index: exact, and without decoding frames that are not needed.

Frame i is the i-th frame of decoding the whole video from its start. If the packets show which frame is where,
only the stretch from the key frame before each wanted frame is decoded; all other files are decoded from the
start. Pixels are returned as stored: nothing is stretched for non-square pixels.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

from openxclip.errors import InputError, VideoError
from openxclip.video.convert import Converter, Filter, FrameSize, quarter_turns
from openxclip.video.packets import PacketTable, Run, share_out
from openxclip.video.source import VideoLimits, VideoSource, playing_seconds, video_errors
from openxclip.video.stream import VideoStream, WrongTableError

# A video whose frames were counted by decoding keeps them for the read that follows, up to this size.
_KEEP_BYTES = 128 << 20

# Minimum packets per parallel decoder: opening the file again takes as long as decoding about ten of them.
_MIN_PACKETS_OF_SHARE = 32

# By the packets, by a plain decode, and up to where the file breaks off.
_PLAY_TRIES = 3

FULL_SIZE = FrameSize()

Indices = Sequence[int] | np.ndarray
Convert = Callable[[Converter, Any], np.ndarray]
"""Converts a decoded frame to pixels (3, H, W)."""


@dataclass(frozen=True)
class Frames:
    """Some frames of a video, in the requested order."""

    data: np.ndarray  # (T, 3, H, W) uint8, red first
    pts_seconds: np.ndarray  # (T,) float64, counted from the first frame of the video


class VideoReader:
    """A video opened once, read at any indices, any number of times. Use it in a `with` statement."""

    def __init__(
        self, source: VideoSource, *, num_threads: int = 0, limits: VideoLimits | None = None
    ) -> None:
        """`num_threads` for decoding: 0 uses all cores, 1 is best for many parallel workers.

        With 0, stretches between key frames are decoded in parallel.
        """
        if num_threads < 0:
            raise InputError(f"num_threads is {num_threads}; it must be 0 (automatic) or greater")
        self._limits = limits or VideoLimits()
        self._source = Path(source).absolute() if isinstance(source, str | Path) else source
        self._num_threads = num_threads
        self._converter = Converter()
        self._stream = VideoStream(source, num_threads, self._limits)
        self.name = self._stream.name
        self.codec = self._stream.codec
        self._table: PacketTable | None = None
        self._kept: list[Any] = []  # all frames of a video decoded from the start, if they are small enough
        self._damaged = False
        self._turns: int | None = None
        try:
            with video_errors(self.name):
                self._count()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what this reader opened; a file object of the caller stays open."""
        self._kept = []
        self._stream.close()

    @property
    def num_frames(self) -> int:
        """Number of frames from decoding the whole video."""
        return len(self._seconds)

    @property
    def duration_seconds(self) -> float:
        """Time from the first frame to the end of the last one."""
        return float(self._seconds[-1]) + self._stream.frame_seconds

    @property
    def width(self) -> int:
        """Width of a frame as shown, i.e. after rotation."""
        return self._stream.height if self._upright_turns() % 2 else self._stream.width

    @property
    def height(self) -> int:
        """Height of a frame as shown, i.e. after rotation."""
        return self._stream.width if self._upright_turns() % 2 else self._stream.height

    def read(self, indices: Indices, size: FrameSize = FULL_SIZE) -> Frames:
        """The frames at `indices`, in that order; repeats are allowed.

        If the frame size changes within a video, all frames get the size of the first one.
        """
        return self.read_chosen(lambda _: indices, size)

    def read_chosen(self, choose: Callable[[int], Indices], size: FrameSize = FULL_SIZE) -> Frames:
        """Like `read` at `choose(num_frames)`; chooses again if the packets announced too many frames."""
        with video_errors(self.name):
            width, height = size.of(self._stream.width, self._stream.height)
            self._limits.check_frame(self.name, width, height, "a scaled frame")
            try:
                return self._read(self._checked(choose(self.num_frames)), width, height, size.filter)
            except WrongTableError:
                self._count_by_decoding()
                return self._read(self._checked(choose(self.num_frames)), width, height, size.filter)

    def play(self, size_of: Callable[[int, int], tuple[int, int]]) -> Iterator[tuple[float, np.ndarray]]:
        """Every frame once, in order: seconds from the first one, and pixels (3, H, W) uint8. None is kept.

        They are those that `read` gives at 0, 1, 2, ...; one decode from the start.

        Args:
            size_of: (width, height) of the frames, from that of the video as stored, before rotation.

        Raises:
            VideoError: the video cannot be decoded, at once or part-way.
        """
        with video_errors(self.name):
            width, height = size_of(self._stream.width, self._stream.height)
            self._limits.check_frame(self.name, width, height, "a scaled frame")
            number = 0
            for _ in range(_PLAY_TRIES):
                try:
                    for image in islice(self._images_in_order(), number, None):
                        yield (
                            float(self._seconds[number]),
                            self._upright(self._converter, image, width, height, "bilinear"),
                        )
                        number += 1
                    self._check_complete(number)
                    return
                except WrongTableError:  # continue after the intact frames
                    self._count_by_decoding()
            raise VideoError(
                self.name, "it decodes to a different number of frames each time. Download it again"
            )

    def _images_in_order(self) -> Iterator[Any]:
        """As many frames as were counted, decoded from the start."""
        try:
            for image in islice(self._kept or self._decode_all(), self.num_frames):
                if image.is_corrupt and self._table is not None:
                    self._damaged = True
                    raise WrongTableError("a frame is damaged")
                yield image
        except av.FFmpegError as error:
            self._damaged = True
            raise WrongTableError(str(error)) from error

    def _check_complete(self, num_frames: int) -> None:
        if num_frames < self.num_frames:
            raise WrongTableError(f"{self.num_frames} frames were announced, {num_frames} came")

    def _upright(
        self, converter: Converter, image: Any, width: int, height: int, filter: Filter
    ) -> np.ndarray:
        """Pixels (3, H, W); `width` and `height` are those before the turn."""
        if self._turns is None:
            self._turns = quarter_turns(image)
        return converter.to_rgb(image, width, height, self._turns, filter)

    def _checked(self, indices: Indices) -> np.ndarray:
        wanted = np.asarray(indices)
        if wanted.ndim != 1 or not len(wanted) or not np.issubdtype(wanted.dtype, np.integer):
            raise InputError(f"frame indices must be a non-empty list of integers, not {indices!r}")
        outside = wanted[(wanted < 0) | (wanted >= self.num_frames)]
        if len(outside):
            raise InputError(f"{self.name}: there is no frame {outside[0]}, only 0 to {self.num_frames - 1}")
        return wanted.astype(np.int64)

    def _read(self, wanted: np.ndarray, width: int, height: int, filter: Filter) -> Frames:
        def convert(converter: Converter, frame: Any) -> np.ndarray:
            return self._upright(converter, frame, width, height, filter)

        data = np.empty(0, np.uint8)
        for index, pixels in self._pixels_at(wanted, convert):
            if not data.size:
                data = np.empty((len(wanted), *pixels.shape), np.uint8)
            data[wanted == index] = pixels
        return Frames(data, self._seconds[wanted])

    def _pixels_at(self, wanted: np.ndarray, convert: Convert) -> Iterator[tuple[int, np.ndarray]]:
        """Each wanted frame once, converted, with its index."""
        if self._table is None:
            yield from self._converted(self._frames_from_start(frozenset(wanted.tolist())), convert)
            return
        shares = self._shares(self._table.plan(wanted))
        if len(shares) > 1:
            yield from self._side_by_side(self._table, shares, convert)
            return
        self._stream.use_threads(self._num_threads)
        yield from self._converted(self._frames_of_runs(self._stream, self._table, shares[0]), convert)

    def _converted(
        self, frames: Iterable[tuple[int, Any]], convert: Convert
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Each frame converted, with its index."""
        return ((index, convert(self._converter, frame)) for index, frame in frames)

    def _side_by_side(
        self, table: PacketTable, shares: Sequence[Sequence[Run]], convert: Convert
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Decode the first share with this reader's decoder, and the others in parallel with separate decoders."""
        num_threads = max(1, (os.cpu_count() or 1) // len(shares))
        with ThreadPoolExecutor(len(shares) - 1, thread_name_prefix="decode") as pool:
            others = [
                pool.submit(self._decode_share, table, share, convert, num_threads) for share in shares[1:]
            ]
            self._stream.use_threads(num_threads)
            yield from self._converted(self._frames_of_runs(self._stream, table, shares[0]), convert)
            for other in others:
                yield from other.result()

    def _shares(self, runs: Sequence[Run]) -> list[list[Run]]:
        """The runs split into one share per decoder."""
        source = self._source
        can_open_again = source.is_file() if isinstance(source, Path) else isinstance(source, bytes)
        if self._num_threads or not can_open_again:
            return [list(runs)]
        worth = sum(run.num_packets for run in runs) // _MIN_PACKETS_OF_SHARE
        return share_out(runs, max(1, min(os.cpu_count() or 1, worth)))

    def _decode_share(
        self, table: PacketTable, runs: Sequence[Run], convert: Convert, num_threads: int
    ) -> list[tuple[int, np.ndarray]]:
        """The frames of some runs, from a separate decoder."""
        converter = Converter()
        with closing(VideoStream(self._source, num_threads, self._limits)) as stream:
            frames = self._frames_of_runs(stream, table, runs)
            return [(index, convert(converter, frame)) for index, frame in frames]

    def _upright_turns(self) -> int:
        if self._turns is None:  # only known from a decoded frame
            self.read([0])
        assert self._turns is not None
        return self._turns

    def _count(self) -> None:
        """Determine the number of frames and their times, from the packets if they are reliable."""
        try:
            packets = self._stream.scan()
        except av.FFmpegError:
            packets, self._damaged = [], True
        self._num_packets = len(packets)
        if self._stream.has_reliable_pts:
            self._table = PacketTable.build(packets, self._stream.reorders)
        if self._table is None:
            self._count_by_decoding()
        else:
            self._set_times(self._table.pts.tolist())

    def _count_by_decoding(self) -> None:
        self._table = None
        pts: list[int | None] = []
        if not self._damaged:
            try:
                pts = self._decode_and_keep()
            except av.FFmpegError:
                self._damaged = True
            # With several threads FFmpeg may silently lose frames at damage.
            self._damaged |= len(pts) < self._num_packets
        if self._damaged:
            pts = self._decode_and_keep()
        self._set_times(pts)

    def _decode_all(self) -> Iterator[Any]:
        return self._stream.decode_until_break() if self._damaged else self._stream.decode_all()

    def _decode_and_keep(self) -> list[int | None]:
        """Decode everything; the pts of every frame. Stops at `max_seconds`: not every header states a length."""
        pts: list[int | None] = []
        self._kept, num_bytes, seconds = [], 0, 0.0
        for frame in self._decode_all():
            self._damaged |= frame.is_corrupt
            pts.append(frame.pts)
            seconds += playing_seconds(self._seconds_at(pts[-2:]))
            self._limits.check_seconds(self.name, seconds)
            num_bytes += sum(plane.buffer_size for plane in frame.planes)
            if num_bytes <= _KEEP_BYTES:
                self._kept.append(frame)
            else:
                self._kept = []
        return pts

    def _seconds_at(self, pts: Sequence[int | None]) -> np.ndarray:
        """Presentation times of these frames, from the first one; evenly spaced if time stamps are missing."""
        ticks = np.array([p for p in pts if p is not None], dtype=np.int64)
        if len(ticks) < len(pts) or np.any(np.diff(ticks) < 0):
            return np.arange(len(pts)) * self._stream.frame_seconds
        return (ticks - ticks[0]) * self._stream.time_base

    def _set_times(self, pts: Sequence[int | None]) -> None:
        if not pts and self._stream.is_unsupported:
            raise VideoError(
                self.name,
                f"FFmpeg cannot decode this kind of {self.codec}. Convert it with another program, to MP4 or GIF",
            )
        if not pts:
            raise VideoError(
                self.name,
                "not one frame of it can be decoded: it is damaged or incomplete. Download it again",
            )
        self._seconds = self._seconds_at(pts)
        self._limits.check_seconds(self.name, playing_seconds(self._seconds))

    def _frames_from_start(self, wanted: frozenset[int]) -> Iterator[tuple[int, Any]]:
        frames = self._kept or self._decode_all()
        last = max(wanted)
        for index, frame in enumerate(frames):
            if index in wanted:
                yield index, frame
            if index == last:
                return

    def _frames_of_runs(
        self, stream: VideoStream, table: PacketTable, runs: Iterable[Run]
    ) -> Iterator[tuple[int, Any]]:
        return chain.from_iterable(self._frames_of_run(stream, table, run) for run in runs)

    def _frames_of_run(self, stream: VideoStream, table: PacketTable, run: Run) -> Iterator[tuple[int, Any]]:
        missing = dict(run.index_of_pts)
        try:
            for frame in stream.decode_run(table, run):
                index = missing.pop(frame.pts, None)
                if index is not None:
                    # FFmpeg conceals a damaged frame with earlier frames: it needs all of them.
                    self._damaged |= frame.is_corrupt
                    yield index, frame
        except av.FFmpegError as error:
            self._damaged = True
            raise WrongTableError(str(error)) from error
        if self._damaged:
            raise WrongTableError(f"a frame of {sorted(run.index_of_pts.values())} is damaged")
        if missing:
            raise WrongTableError(f"frames {sorted(missing.values())} were announced and did not come")


def read_frames(
    source: VideoSource,
    choose: Callable[[int], Indices],
    size: FrameSize = FULL_SIZE,
    *,
    num_threads: int = 0,
    limits: VideoLimits | None = None,
) -> Frames:
    """Open a video and read the frames whose indices `choose` returns for its number of frames.

    `num_threads` is that of VideoReader. To read several clips at once, let `choose` return the indices of all of them
    in one row.
    """
    with VideoReader(source, num_threads=num_threads, limits=limits) as reader:
        return reader.read_chosen(choose, size)
