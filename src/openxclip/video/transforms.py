"""Turns frames into the model's pixels: resize, crop, normalise; and augments training clips.

Shapes: T frames of a clip, H x W as decoded, S the model's input size. Frames come as (T, 3, H, W) uint8, red first.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F

from openxclip.configuration import check_types
from openxclip.errors import ConfigError, InputError
from openxclip.video import colour
from openxclip.video.convert import Filter, FrameSize, LongSide, Resize

Triple = tuple[float, float, float]

# Per channel, on the 0..1 scale. X-CLIP normalises with ImageNet's, although its towers come from CLIP.
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)

# The published pipeline takes 224 px crops of frames with a short side of 256 px.
_RESIZE_RATIO = 256 / 224


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """Preprocessing of a model; part of its checkpoint.

    "short_side" keeps the aspect ratio and crops; "squash" scales the whole frame to S x S and does not
    crop: since all crops would be the same, there is only one, regardless of the requested number.
    """

    input_size_px: int  # S
    resize_short_side_px: int  # short side before the centre crop, at least S
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    filter: Filter = "bilinear"
    resize: Resize = "short_side"
    long_side: LongSide = "round"

    def __post_init__(self) -> None:
        check_types(self, "preprocessor")
        if self.input_size_px < 1:
            raise ConfigError(f"input_size_px is {self.input_size_px}; it must be 1 or greater")
        if self.resize == "squash" and self.resize_short_side_px != self.input_size_px:
            raise ConfigError(
                f"resize_short_side_px is {self.resize_short_side_px}, input_size_px {self.input_size_px}: with resize "
                f"'squash' nothing is cropped. Set both to {self.input_size_px}"
            )
        if self.resize_short_side_px < self.input_size_px:
            raise ConfigError(
                f"resize_short_side_px is {self.resize_short_side_px}, less than input_size_px, "
                f"{self.input_size_px}: the crop would not fit. Set it to {self.input_size_px} or greater"
            )
        if min(self.std) <= 0 or not all(map(math.isfinite, (*self.mean, *self.std))):
            raise ConfigError(f"mean {self.mean} and std {self.std} must be finite, and std positive")

    @classmethod
    def official(cls, input_size_px: int) -> Self:
        """The X-CLIP authors' own test pipeline."""
        return cls(input_size_px=input_size_px, resize_short_side_px=round(_RESIZE_RATIO * input_size_px))

    @classmethod
    def hugging_face(cls, input_size_px: int) -> Self:
        """The pipeline of the Hugging Face port: the short side is resized directly to the input size."""
        return cls(input_size_px=input_size_px, resize_short_side_px=input_size_px, long_side="truncate")

    @classmethod
    def clip(cls, input_size_px: int) -> Self:
        """The pipeline that CLIP was trained with."""
        return cls(
            input_size_px=input_size_px,
            resize_short_side_px=input_size_px,
            mean=CLIP_MEAN,
            std=CLIP_STD,
            filter="bicubic",
            long_side="truncate",
        )

    @classmethod
    def siglip(cls, input_size_px: int) -> Self:
        """The pipeline that SigLIP was trained with: pixels between -1 and 1."""
        half = (0.5, 0.5, 0.5)
        return cls(
            input_size_px=input_size_px,
            resize_short_side_px=input_size_px,
            mean=half,
            std=half,
            filter="bicubic",
            resize="squash",
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of to_dict; all keys and no others are required, but older files have only the first four."""
        names = {field.name for field in fields(cls)}
        required = names - {"filter", "resize", "long_side"}
        if not required <= set(values) <= names:
            raise ConfigError(
                f"preprocessor: missing keys {sorted(required - set(values))}, "
                f"unknown keys {sorted(set(values) - names)}. Its keys are {sorted(names)}"
            )
        return cls(**(values | {"mean": tuple(values["mean"]), "std": tuple(values["std"])}))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def frame_size(self, num_crops: int = 1) -> FrameSize:
        """The size to decode at, so that `crops` need not resize again."""
        _check_num_crops(num_crops)
        side = self.resize_short_side_px if num_crops == 1 else self.input_size_px
        return FrameSize(short_side_px=side, resize=self.resize, filter=self.filter, long_side=self.long_side)

    def crops(self, frames: np.ndarray, num_crops: int = 1) -> torch.Tensor:
        """(T, 3, H, W) uint8 -> (num_crops, T, 3, S, S) uint8.

        One crop: the centre. Three: left, centre and right, or top, centre and bottom, of frames whose SHORT
        side is the input size, so that together they cover nearly everything. "squash" gives one in any case.
        """
        pixels = _checked(frames)
        height, width = pixels.shape[-2:]
        width, height = self.frame_size(num_crops).of(width, height)
        pixels = resize(pixels, height, width, self.filter)
        steps = (1,) if num_crops == 1 or self.resize == "squash" else (0, 1, 2)
        # Copied with NumPy: torch's threads would compete with the decoders.
        return torch.from_numpy(np.stack([self._crop(pixels.numpy(), step) for step in steps]))

    def _crop(self, pixels: np.ndarray, step: int) -> np.ndarray:
        """Centred along the shorter side; along the longer one at the start (0), centre (1) or end (2)."""
        size = self.input_size_px
        free_y, free_x = pixels.shape[-2] - size, pixels.shape[-1] - size
        top, left = free_y // 2, free_x // 2
        if free_y > free_x:
            top *= step
        else:
            left *= step
        return pixels[..., top : top + size, left : left + size]

    def normalise(self, pixels: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """(..., 3, S, S) uint8 -> the same shape in `dtype`: (pixels / 255 - mean) / std, in float32.

        Works on any device, so that a batch can be transferred as uint8 and normalised on the model's device.
        """
        mean, std = (
            torch.tensor(values).mul(255).view(3, 1, 1).to(pixels.device) for values in (self.mean, self.std)
        )
        return pixels.float().sub(mean).div_(std).to(dtype)

    def __call__(self, frames: np.ndarray, num_crops: int = 1) -> torch.Tensor:
        """(T, 3, H, W) uint8 -> (num_crops, T, 3, S, S) float32, the model's input."""
        return self.normalise(self.crops(frames, num_crops))


Steps = tuple[tuple[str, float], ...]
"""Colour operations in order, each with its factor."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The random draws of `TrainTransform` for one clip, as plain numbers that can be sent between processes."""

    crop: tuple[int, int, int, int]
    """Top, left, height, width."""
    flip: bool
    """Whether to flip left and right."""
    jitter: tuple[Steps, ...]
    """Jitter of the whole clip, or of each frame; without steps the colours are unchanged."""
    gray: bool
    """Whether to convert to greyscale."""


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Augmentation of a training clip, with one draw for all frames of the clip, except with `jitter_frames`.

    Crops of many shapes become S x S with the bilinear filter, independent of the model's own filter and resize mode.
    """

    input_size_px: int  # S
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)  # crop sides, in short sides of the frame
    max_scale_gap: int = 1  # how far apart in `scales` the width and the height of a crop may be
    uniform_crop: bool = False  # squares anywhere, of any size between the least and the largest of `scales`
    flip_probability: float = 0.5
    jitter_probability: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1  # in turns of the colour circle
    jitter_frames: bool = False  # a draw for each frame, as released, instead of one per clip
    gray_probability: float = 0.2

    def __post_init__(self) -> None:
        if self.input_size_px < 1:
            raise ConfigError(f"input_size_px is {self.input_size_px}; it must be 1 or greater")
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ConfigError(f"scales is {self.scales}; it needs at least one number, above 0 and up to 1")
        if self.max_scale_gap < 0:
            raise ConfigError(f"max_scale_gap is {self.max_scale_gap}; it must be 0 or greater")
        shares = ("flip_probability", "jitter_probability", *_JITTER, "gray_probability")
        for name in shares:
            limit = 0.5 if name == "hue" else 1.0
            if not 0 <= getattr(self, name) <= limit:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be between 0 and {limit}")

    @property
    def short_side_px(self) -> int:
        """The short side to decode at."""
        return round(_RESIZE_RATIO * self.input_size_px)

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """(T, 3, H, W) uint8 -> (T, 3, S, S) uint8. The same state of `rng` gives the same pixels."""
        pixels = _checked(frames)
        num_frames, _, height, width = pixels.shape
        return self.apply(pixels, self.draw(height, width, num_frames, rng))

    def draw(self, height: int, width: int, num_frames: int, rng: np.random.Generator) -> Augmentation:
        """Draw the augmentation of a clip of `num_frames` frames of this size."""
        return Augmentation(
            crop=self._crop(height, width, rng),
            flip=bool(rng.random() < self.flip_probability),
            jitter=tuple(self._jitter(rng) for _ in range(num_frames if self.jitter_frames else 1)),
            gray=bool(rng.random() < self.gray_probability),
        )

    def apply(self, frames: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
        """(T, 3, H, W) uint8 -> (T, 3, S, S) uint8, on the device of `frames`."""
        top, left, height, width = augmentation.crop
        # Cropped before resizing and colour-jittered after, for as few pixels as possible.
        cropped = frames[..., top : top + height, left : left + width]
        pixels = resize(cropped, self.input_size_px, self.input_size_px)
        if augmentation.flip:
            pixels = pixels.flip(-1)
        jitter = augmentation.jitter
        if pixels.device.type == "cpu":  # a frame at a time stays in the cache
            jitter = jitter * (len(pixels) // len(jitter))
        parts = zip(pixels.chunk(len(jitter)), jitter, strict=True)
        return torch.cat([_coloured(part, steps, augmentation.gray) for part, steps in parts])

    def _crop(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """A crop (top, left, height, width) of frames of this size."""
        if self.uniform_crop:
            # As if the frame were scaled by a uniform draw and a square of the input size cropped from it.
            scaling = rng.uniform(1 / max(self.scales), 1 / min(self.scales))
            side = max(1, round(min(height, width) / scaling))
            return int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1)), side, side
        sizes = crop_sizes(min(height, width), self.input_size_px, self.scales, self.max_scale_gap)
        crop_height, crop_width = sizes[rng.integers(len(sizes))]
        corners = crop_corners(height - crop_height, width - crop_width)
        return (*corners[rng.integers(len(corners))], crop_height, crop_width)

    def _jitter(self, rng: np.random.Generator) -> Steps:
        if rng.random() >= self.jitter_probability:
            return ()
        steps = []
        for name in rng.permutation(list(_JITTER)):
            amount = getattr(self, name)
            centre = 0.0 if name == "hue" else 1.0
            steps.append((str(name), float(rng.uniform(centre - amount, centre + amount))))
        return tuple(steps)


def _coloured(frames: torch.Tensor, steps: Steps, gray: bool) -> torch.Tensor:
    """Frames uint8 (T, 3, S, S) after these operations, in greyscale if that is drawn."""
    pixels = frames.float()
    for name, factor in steps:
        pixels = _JITTER[name](pixels, factor)
    if gray:
        pixels = colour.gray(pixels).expand_as(pixels).clone()
    return pixels.round_().to(torch.uint8)


_JITTER: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "brightness": colour.brightness,
    "contrast": colour.contrast,
    "saturation": colour.saturation,
    "hue": colour.hue,
}


def crop_sizes(
    short_side_px: int, input_size_px: int, scales: tuple[float, ...], max_scale_gap: int
) -> list[tuple[int, int]]:
    """The (height, width) a training crop may have, each equally likely.

    A side within 2 px of the input size becomes the input size if the frame is large enough, to avoid a tiny
    resize.
    """
    sides = [int(short_side_px * scale) for scale in scales]
    if short_side_px >= input_size_px:
        sides = [input_size_px if abs(side - input_size_px) < 3 else side for side in sides]
    pairs = product(range(len(sides)), repeat=2)
    return [(max(sides[i], 1), max(sides[j], 1)) for i, j in pairs if abs(i - j) <= max_scale_gap]


def crop_corners(free_y: int, free_x: int) -> list[tuple[int, int]]:
    """The (top, left) a training crop may have: the four corners and the centre of the available range.

    Positions are on a grid of quarters of that range, rounded down, as published.
    """
    y, x = free_y // 4, free_x // 4
    return [(0, 0), (0, 4 * x), (4 * y, 0), (4 * y, 4 * x), (2 * y, 2 * x)]


def resize(pixels: torch.Tensor, height: int, width: int, filter: Filter = "bilinear") -> torch.Tensor:
    """(T, 3, H, W) uint8 -> (T, 3, height, width) uint8, antialiased when it shrinks."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    shrinks = height < pixels.shape[-2] or width < pixels.shape[-1]
    # torch's bicubic equals Pillow's, which models are trained with, only with antialiasing.
    smooth = shrinks or filter == "bicubic"
    # Only the CPU antialiases integers; elsewhere a level may differ by one.
    exact = pixels if pixels.device.type == "cpu" else pixels.float()
    resized = F.interpolate(exact, (height, width), mode=filter, align_corners=False, antialias=smooth)
    return resized if exact is pixels else resized.round_().clamp_(0, 255).to(torch.uint8)


def _checked(frames: np.ndarray) -> torch.Tensor:
    """Frames uint8 (T, 3, H, W) as a tensor, without a copy if possible."""
    if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise InputError(
            f"frames have shape {frames.shape} and type {frames.dtype}; they must be (T, 3, H, W) of uint8"
        )
    if min(frames.strides) < 0:  # mirrored or rotated views, which torch cannot express
        frames = np.ascontiguousarray(frames)
    return torch.from_numpy(frames)


def _check_num_crops(num_crops: int) -> None:
    if num_crops not in (1, 3):
        raise InputError(f"num_crops is {num_crops}; it must be 1 (centre) or 3 (along the longer side)")
