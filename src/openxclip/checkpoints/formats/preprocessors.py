"""Preprocessor files of transformers and open_clip, read as a Preprocessor, and transformers' file written."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openxclip.checkpoints.checkpoint import parse
from openxclip.errors import ConfigError
from openxclip.files import read_json
from openxclip.video.convert import Filter
from openxclip.video.transforms import Preprocessor, Triple

PREPROCESSOR_FILE = "preprocessor_config.json"
PREPROCESSOR_FILES = ("processor_config.json", PREPROCESSOR_FILE, "video_preprocessor_config.json")
"""In the order in which transformers reads them; since version 5 it writes everything into the first."""

SECTIONS = ("image_processor", "video_processor")
"""Keys of the preprocessor in `processor_config.json`, the one that X-CLIP and CLIP use first."""

LONG_SIDE = "long_side"
"""A key of ours, for models whose pipeline rounds the longer side. transformers ignores it and truncates."""

PILLOW: dict[int, Filter] = {2: "bilinear", 3: "bicubic"}
"""Pillow's number of a filter -> ours."""
OPEN_CLIP: dict[str, Filter] = {"bilinear": "bilinear", "bicubic": "bicubic", "random": "bicubic"}
"""open_clip's name of a filter -> the one it uses in inference."""

Read = tuple[Preprocessor, tuple[str, ...]]
"""A preprocessor, and notes on deviations from the file."""


def read_huggingface_preprocessor(folder: Path, image_size_px: int, usual: Preprocessor) -> Read:
    """The preprocessor of a Hugging Face folder; `usual`, with a note, if it has no file.

    Raises:
        CheckpointError: a file cannot be read, or asks for unsupported steps.
    """
    for name in PREPROCESSOR_FILES:
        path = folder / name
        values = _preprocessor_of(read_json(path)) if path.exists() else None
        if values is not None:
            return parse(lambda v: read_preprocessor(v, image_size_px), values, path)
    return usual, (f"{folder} has no {PREPROCESSOR_FILE}: the usual preprocessing of its kind is used",)


def _preprocessor_of(values: dict[str, Any]) -> dict[str, Any] | None:
    """The section that describes a preprocessor, or the values themselves; None if they only name a class."""
    sections = [values[key] for key in SECTIONS if isinstance(values.get(key), dict)]
    if sections:
        return sections[0]
    return None if values.keys() <= {"processor_class", "auto_map"} else values


def read_preprocessor(values: Mapping[str, Any], image_size_px: int) -> Read:
    """The preprocessor that a `preprocessor_config.json` describes: X-CLIP's, CLIP's, SigLIP's, SigLIP 2's.

    Raises:
        ConfigError: it asks for unsupported steps.
    """
    _check_steps(values)
    keeps_shape = "max_num_patches" in values  # NaFlex; we use a square input
    size = {"height": image_size_px, "width": image_size_px} if keeps_shape else values["size"]
    squash = isinstance(size, dict) and size.get("height") is not None
    if squash:
        resize_px = crop_px = square_side_px(size)
        if values.get("do_center_crop"):
            crop_px = square_side_px(values.get("crop_size") or size)
    else:
        if values.get("do_center_crop") is False:
            raise ConfigError(
                "do_center_crop is off; frames whose shape differs from the input are always cropped"
            )
        resize_px = size["shortest_edge"] if isinstance(size, dict) else size
        crop_px = square_side_px(values.get("crop_size") or resize_px)  # older files say only `size`
    if crop_px != image_size_px:
        raise ConfigError(f"crop_size is {crop_px} px, but the model's input is {image_size_px} px")
    filter, notes = _filter(values)
    if keeps_shape:
        notes = (squash_note(image_size_px), *notes)
    preprocess = Preprocessor(
        input_size_px=crop_px,
        resize_short_side_px=resize_px,
        mean=_triple(values["image_mean"]),
        std=_triple(values["image_std"]),
        filter=filter,
        resize="squash" if squash else "short_side",
        long_side="round" if squash else values.get(LONG_SIDE, "truncate"),
    )
    return preprocess, notes


def read_open_clip_preprocessor(values: Mapping[str, Any], image_size_px: int) -> Read:
    """The preprocessor that `preprocess_cfg` of an `open_clip_config.json` describes; missing keys have CLIP's values.

    Raises:
        ConfigError: it asks for unsupported steps.
    """
    given = {key: value for key, value in values.items() if value is not None}
    mode, interpolation = given.get("mode", "RGB"), given.get("interpolation", "bicubic")
    resize_mode = given.get("resize_mode", "shortest")
    if mode != "RGB":
        raise ConfigError(f"mode is {mode!r}; only 'RGB' can be read")
    if interpolation not in OPEN_CLIP:
        raise ConfigError(f"interpolation is {interpolation!r}; it must be one of {', '.join(OPEN_CLIP)}")
    if resize_mode not in ("shortest", "squash"):
        raise ConfigError(
            f"resize_mode is {resize_mode!r}, which would pad frames; only 'shortest' and 'squash' can be read"
        )
    usual = Preprocessor.clip(image_size_px)
    preprocess = Preprocessor(
        input_size_px=image_size_px,
        resize_short_side_px=image_size_px,
        mean=_triple(given.get("mean", usual.mean)),
        std=_triple(given.get("std", usual.std)),
        filter=OPEN_CLIP[interpolation],
        resize="squash" if resize_mode == "squash" else "short_side",
        long_side="round" if resize_mode == "squash" else "truncate",
    )
    if (size_px := square_side_px(given.get("size", image_size_px))) == image_size_px:
        return preprocess, ()
    # As in open_clip, the model's own size takes precedence.
    return preprocess, (
        f"preprocess_cfg says {size_px} px; frames get the model's input size, {image_size_px} px",
    )


def to_huggingface_preprocessor(preprocess: Preprocessor) -> dict[str, Any]:
    """The inverse of `read_preprocessor`, for XCLIPModel."""
    side = preprocess.input_size_px
    square = {"height": side, "width": side}
    squash = preprocess.resize == "squash"
    rounds = not squash and preprocess.long_side == "round"
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "processor_class": "XCLIPProcessor",
        "do_resize": True,
        "size": square if squash else {"shortest_edge": preprocess.resize_short_side_px},
        "resample": next(number for number, name in PILLOW.items() if name == preprocess.filter),
        "do_center_crop": not squash,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    } | ({LONG_SIDE: "round"} if rounds else {})


def squash_note(size_px: int) -> str:
    """The note on models that were trained on images of any shape."""
    return f"frames are squashed to {size_px} x {size_px} px; NaFlex would keep their shape"


def square_side_px(value: Any) -> int:
    """A side in pixels, given as a number, a pair, or height and width.

    Raises:
        ConfigError: the sides differ.
    """
    sides = list(value.values()) if isinstance(value, dict) else value
    if isinstance(sides, list | tuple):
        if len(set(sides)) != 1:
            raise ConfigError(f"{value} is not square; only square inputs and patches can be used")
        return sides[0]
    return sides


def _check_steps(values: Mapping[str, Any]) -> None:
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if not values.get(step, True):
            raise ConfigError(f"{step} is off; frames are always resized, rescaled and normalised")
    if not math.isclose(values.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-4):
        raise ConfigError(f"rescale_factor is {values['rescale_factor']}; it must be 1/255")


def _filter(values: Mapping[str, Any]) -> tuple[Filter, tuple[str, ...]]:
    """The filter of a file, by default that of its class, and notes."""
    kind = values.get("image_processor_type", values.get("feature_extractor_type", ""))
    number = values.get("resample", 3 if kind.startswith(("CLIP", "SiglipImage")) else 2)
    if number in PILLOW:
        return PILLOW[number], ()
    return "bilinear", (f"the file asks for Pillow's filter {number}; frames are resized bilinearly",)


def _triple(value: Any) -> Triple:
    """A value for each channel, from three values or one."""
    return tuple(value) if isinstance(value, list | tuple) else (value, value, value)
