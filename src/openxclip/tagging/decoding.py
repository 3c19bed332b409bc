"""Decodes a video into the pixels of its rows and facts about it. Runs in a decoder process.

Shapes: W windows, V views, T frames, S input side.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from openxclip.inference.views import Views
from openxclip.tagging.sources import WHOLE_BYTES, Source
from openxclip.video.decode import VideoReader
from openxclip.video.source import VideoLimits
from openxclip.video.transforms import Preprocessor

WINDOWS_AT_ONCE = 64  # of one video; a long one is reopened for the next ones


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which frames of each video to decode, and how."""

    preprocess: Preprocessor
    num_frames: int
    views: Views
    window_seconds: float | None
    stride_seconds: float | None
    content_hash: bool
    limits: VideoLimits


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some windows of an input: up to `WINDOWS_AT_ONCE`, from the first one."""

    number: int
    """Number of the input in its part."""
    source: Source
    first_window: int = 0
    max_windows: int = WINDOWS_AT_ONCE


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts about a video, for the columns of its rows."""

    duration_seconds: float
    fps: float
    width: int
    height: int
    codec: str
    content_hash: str | None
    windows: tuple[tuple[float, float], ...]
    """Start and end in seconds of each window of this piece; 0 and the length for a whole video."""
    num_windows: int
    """Number of windows of the whole video."""


class LastFile:
    """Opens sources, and caches the bytes of the last fetched one: a long video is opened for each of its
    pieces."""

    def __init__(self) -> None:
        self._source: Source | None = None
        self._data = b""

    def open(self, source: Source) -> BinaryIO:
        """See `Source.open`."""
        if source == self._source:
            return io.BytesIO(self._data)
        self._source, self._data = None, b""
        file = source.open()
        if isinstance(file, io.BytesIO) and file.getbuffer().nbytes <= WHOLE_BYTES:
            self._source, self._data = source, file.getvalue()
        return file


def decode(
    piece: Piece, plan: Plan, opened: Callable[[Source], BinaryIO] = Source.open
) -> tuple[np.ndarray, Facts]:
    """Pixels uint8 (W, V, T, 3, S, S) of the windows of a piece, and facts about the video.

    Raises:
        VideoError: the video cannot be read.
    """
    with opened(piece.source) as file:
        digest = _hash(file) if plan.content_hash else None
        with VideoReader(file, num_threads=1, limits=plan.limits) as reader:
            length, seconds = reader.num_frames, reader.duration_seconds
            spans = spans_of(plan, length, seconds)
            wanted = spans[piece.first_window : piece.first_window + piece.max_windows]
            facts = Facts(
                duration_seconds=seconds,
                fps=length / seconds if seconds else 0.0,
                width=reader.width,
                height=reader.height,
                codec=reader.codec,
                content_hash=digest,
                windows=tuple(_seconds_of(span, plan, length, seconds) for span in wanted),
                num_windows=len(spans),
            )
            return _pixels(reader, plan, wanted), facts


def spans_of(plan: Plan, length: int, seconds: float) -> list[tuple[int, int]]:
    """The frame range of each window; all frames for a whole video.

    The last window is the one that reaches the end, and stops there.
    """
    if plan.window_seconds is None or plan.stride_seconds is None or not seconds:
        return [(0, length)]
    per_second = length / seconds
    size = plan.window_seconds * per_second
    step = max(1.0, plan.stride_seconds * per_second)  # no two windows begin at the same frame
    spans: list[tuple[int, int]] = []
    while (start := len(spans) * step) < length:
        begin, end = round(start), min(length, max(round(start) + 1, round(start + size)))
        spans.append((begin, end))
        if end == length:
            break
    return spans


def _seconds_of(span: tuple[int, int], plan: Plan, length: int, seconds: float) -> tuple[float, float]:
    if plan.window_seconds is None:
        return 0.0, seconds
    return span[0] / length * seconds, span[1] / length * seconds


def _pixels(reader: VideoReader, plan: Plan, spans: list[tuple[int, int]]) -> np.ndarray:
    """All frames of all windows in one read, each decoded once."""

    def choose(length: int) -> np.ndarray:
        del length
        return np.concatenate(
            [first + plan.views.indices(end - first, plan.num_frames).reshape(-1) for first, end in spans]
        )

    frames = reader.read_chosen(choose, plan.preprocess.frame_size(plan.views.num_crops)).data
    crops = plan.preprocess.crops(frames, plan.views.num_crops).numpy()  # (crops, W * clips * T, 3, S, S)
    crops = crops.reshape(len(crops), len(spans), plan.views.num_clips, plan.num_frames, *crops.shape[2:])
    windows = np.moveaxis(crops, 0, 2)  # (W, clips, crops, T, 3, S, S)
    return np.ascontiguousarray(windows.reshape(len(spans), -1, *windows.shape[3:]))


def _hash(file: BinaryIO) -> str:
    digest = hashlib.blake2b(digest_size=16)
    read: Callable[[int], bytes] = file.read
    while block := read(1 << 20):
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()
