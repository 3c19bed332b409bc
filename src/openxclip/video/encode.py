"""Re-encodes a video for training: small frames, short groups of pictures, no sound. Index i stays the same picture.

The output is deterministic: one thread, and no time or version in the file. Frame
times are kept to 1/90000 s.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation

from openxclip.configuration import require
from openxclip.video.decode import VideoReader
from openxclip.video.source import VideoLimits, VideoSource, video_errors

TIME_BASE = Fraction(1, 90000)
MAX_QUALITY = 51  # of H.264 with 8 bits
LONGEST_FRAME_SECONDS = 3600.0  # a longer one is a jump of the time stamps, which MP4 cannot represent


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """Encoder settings."""

    short_side_px: int = 256
    """Larger frames are scaled down to it; smaller ones are kept."""
    group_of_pictures: int = 1
    """Maximum distance of key frames: smaller values are faster to read, but take more space."""
    quality: int = 20
    """libx264's constant rate factor: 0 is lossless, 51 the worst; 6 more take half the space."""

    def __post_init__(self) -> None:
        require(
            self.short_side_px >= 2 and self.short_side_px % 2 == 0,
            f"the short side must be an even number of pixels, at least 2, got {self.short_side_px}",
        )
        require(
            self.group_of_pictures >= 1,
            f"a group of pictures must have at least 1 frame, got {self.group_of_pictures}",
        )
        require(
            0 <= self.quality <= MAX_QUALITY,
            f"quality must be between 0 and {MAX_QUALITY}, got {self.quality}",
        )


@dataclass(frozen=True, kw_only=True)
class EncodedVideo:
    """An .mp4 file in memory."""

    data: bytes
    num_frames: int


def encode(source: VideoSource, options: EncodeOptions, limits: VideoLimits | None = None) -> EncodedVideo:
    """Encode a video as H.264 (yuv420p) in MP4, upright.

    Raises:
        VideoError: it cannot be read, or its frame times cannot be written.
    """
    with VideoReader(source, num_threads=1, limits=limits) as reader:
        frames = _with_ticks(reader.play(partial(even_size, options.short_side_px)))
        with video_errors(reader.name):
            return _encode(frames, options)


def even_size(short_side_px: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) with the short side at most `short_side_px`, both even, as yuv420p needs."""
    scale = min(1.0, short_side_px / min(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


def _with_ticks(frames: Iterator[tuple[float, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """Frames with strictly increasing times in units of TIME_BASE."""
    ticks, before, skipped = -1, 0.0, 0.0
    for seconds, pixels in frames:
        skipped += max(0.0, seconds - before - LONGEST_FRAME_SECONDS)
        ticks, before = max(ticks + 1, round((seconds - skipped) / TIME_BASE)), seconds
        yield ticks, pixels


def _encode(frames: Iterator[tuple[int, np.ndarray]], options: EncodeOptions) -> EncodedVideo:
    file, stream, num_frames = io.BytesIO(), None, 0
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        for ticks, pixels in frames:
            if stream is None:
                stream = _add_stream(container, pixels.shape[2], pixels.shape[1], options)
            container.mux(stream.encode(_image(pixels, ticks)))
            num_frames += 1
        assert stream is not None, "a video that can be opened has frames"
        container.mux(stream.encode(None))
    return EncodedVideo(data=file.getvalue(), num_frames=num_frames)


def _add_stream(container: Any, width: int, height: int, options: EncodeOptions) -> Any:
    # Without CABAC and the deblocking filter a frame is decoded nearly twice as fast, and takes a tenth more space.
    # Its macroblock tree reads uninitialised memory, so the output would not be deterministic.
    settings = {
        "crf": str(options.quality),
        "preset": "veryfast",
        "tune": "fastdecode",
        "x264-params": "no-mbtree=1",
    }
    stream = container.add_stream("libx264", options=settings)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = stream.time_base = TIME_BASE
    stream.codec_context.gop_size = options.group_of_pictures
    stream.codec_context.thread_count = 1  # another number of threads gives different bytes
    return stream


def _image(pixels: np.ndarray, ticks: int) -> Any:
    """A frame of PyAV from (3, H, W) uint8."""
    image = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)), format="rgb24")
    image = image.reformat(format="yuv420p", interpolation=Interpolation.AREA, threads=1)
    image.pts, image.time_base = ticks, TIME_BASE
    return image
