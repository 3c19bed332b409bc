"""Writes pictures and short animations for people. Needs only the decoder's library."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from openxclip.errors import InputError
from openxclip.files import atomic_write

# container, codec, pixel format, codec options
_FILMS = {
    ".webp": ("webp", "libwebp_anim", "yuv420p", {"quality": "80"}),
    ".mp4": ("mp4", "libx264", "yuv420p", {"crf": "20"}),
}


def write_animation(path: Path, pictures: np.ndarray, seconds_per_picture: float) -> None:
    """Write pictures uint8 (T, H, W, 3) as an animation, atomically; a WebP loops forever.

    Raises:
        InputError: the file's suffix is neither .webp nor .mp4.
    """
    if path.suffix.lower() not in _FILMS:
        raise InputError(f"{path} must end in .webp or .mp4")
    container_format, codec, pixel_format, options = _FILMS[path.suffix.lower()]
    height, width = (side - side % 2 for side in pictures.shape[1:3])  # H.264 needs even sides
    repeat = {"loop": "0"} if container_format == "webp" else {}
    with (
        atomic_write(path) as temporary,
        av.open(str(temporary), "w", format=container_format, options=repeat) as container,
    ):
        stream: Any = container.add_stream(
            codec, rate=Fraction(1) / _fraction(seconds_per_picture), options=options
        )
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        for picture in pictures[:, :height, :width]:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _fraction(seconds: float) -> Fraction:
    return Fraction(seconds).limit_denominator(1000)
