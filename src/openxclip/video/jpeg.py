"""Encodes small pictures as JPEG with the decoder's library."""

import base64
from fractions import Fraction
from typing import Any

import av
import numpy as np


def jpeg(picture: np.ndarray) -> bytes:
    """A picture uint8 (H, W, 3) as a JPEG file."""
    height, width = picture.shape[:2]
    codec: Any = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "yuvj444p", Fraction(1)
    codec.qmin = codec.qmax = 3  # of 2 to 31, best first
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return b"".join(bytes(packet) for packet in (*codec.encode(frame), *codec.encode(None)))


def data_uri(file: bytes) -> str:
    """A JPEG file as a data URI, for pages and JSON."""
    return f"data:image/jpeg;base64,{base64.b64encode(file).decode()}"
