"""Converts a decoded frame of any pixel format to upright RGB of the wanted size."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

Filter = Literal["bilinear", "bicubic"]
Resize = Literal["short_side", "squash"]
LongSide = Literal["round", "truncate"]

# swscale widens both when it shrinks, like Pillow; its bicubic is a little sharper than Pillow's.
_INTERPOLATION = {"bilinear": Interpolation.BILINEAR, "bicubic": Interpolation.BICUBIC}


@dataclass(frozen=True, kw_only=True)
class FrameSize:
    """The size of decoded frames, and the scaling method."""

    short_side_px: int | None = None
    """Side to scale to; None leaves frames as they are."""
    resize: Resize = "short_side"
    """"short_side" scales the shorter side and keeps the aspect ratio, "squash" makes a square of any shape."""
    filter: Filter = "bilinear"
    """The filter for scaling."""
    long_side: LongSide = "round"
    """How the longer side becomes a whole number of pixels: rounded as in mmcv, or truncated as in torchvision."""

    def of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after scaling a frame of this size."""
        side = self.short_side_px
        if side is None:
            return width, height
        if self.resize == "squash":
            return side, side
        if self.long_side == "truncate":
            short = min(width, height)
            return side * width // short, side * height // short
        scale = side / min(width, height)
        return max(side, int(width * scale + 0.5)), max(side, int(height * scale + 0.5))


def quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns that bring the frame upright, 0 to 3."""
    return round(frame.rotation / 90) % 4


class Converter:
    """Caches swscale's tables between frames: setting them up costs more than a small frame."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def to_rgb(self, frame: Any, width: int, height: int, turns: int, filter: Filter) -> np.ndarray:
        """(3, H, W) uint8, red first. Colour, chroma and size are converted in one pass; the turn comes last.

        `width` and `height` are those before the turn. A frame that already has that size becomes FFmpeg's
        rgb24. When scaling, swscale fills separate planes two to three times as fast as it interleaves colours, and
        uses the chroma of every pixel, whereas rgb24 of an even width gets that of every other one.
        """
        format = "rgb24" if (frame.width, frame.height) == (width, height) else "gbrp"
        scaled = self._reformatter.reformat(
            frame, width, height, format, interpolation=_INTERPOLATION[filter], threads=1
        )
        if format == "rgb24":
            rgb = scaled.to_ndarray().transpose(2, 0, 1)
        else:
            rgb = np.stack([_pixels(scaled.planes[i], width, height) for i in (2, 0, 1)])
        return np.rot90(rgb, turns, axes=(1, 2))


def _pixels(plane: Any, width: int, height: int) -> np.ndarray:
    """(H, W) of a plane, whose lines may be padded."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, :width]
