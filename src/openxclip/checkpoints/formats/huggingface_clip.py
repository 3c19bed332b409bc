"""The formats of CLIPModel, MetaClip2Model, SiglipModel and Siglip2Model in transformers."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from openxclip.checkpoints.checkpoint import CONFIG_FILE, Checkpoint, FolderFormat, parse, read_config_file
from openxclip.checkpoints.formats.huggingface import section, tower_sizes, vocabulary
from openxclip.checkpoints.formats.preprocessors import (
    PREPROCESSOR_FILES,
    read_huggingface_preprocessor,
    square_side_px,
    squash_note,
)
from openxclip.checkpoints.names import HUGGINGFACE_CLIP, HUGGINGFACE_SIGLIP, HUGGINGFACE_SIGLIP2
from openxclip.checkpoints.tables import build
from openxclip.checkpoints.towers import CLIP_VISION, SIGLIP_TEXT, SIGLIP_VISION
from openxclip.checkpoints.weights import TRANSFORMERS_WEIGHTS, read_weights
from openxclip.errors import ConfigError
from openxclip.files import read_json
from openxclip.models import XCLIPConfig
from openxclip.models.config import Activation, TextConfig, image_model
from openxclip.video.transforms import Preprocessor

TABLES = {
    "clip": HUGGINGFACE_CLIP,
    "metaclip_2": HUGGINGFACE_CLIP,
    "siglip": HUGGINGFACE_SIGLIP,
    "siglip2": HUGGINGFACE_SIGLIP2,
}
"""Value of `model_type` -> names of the weights. SigLIP 2 with an input of fixed size has type siglip."""

ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
}

# Defaults of each kind of configuration for missing keys; most files omit many.
_LAYERS: dict[str, Any] = {"num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP: dict[str, Any] = _LAYERS | {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP: dict[str, Any] = _LAYERS | {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_VISION: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_channels": 3}

CLIP_TEXT_DEFAULTS = _CLIP | {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
CLIP_VISION_DEFAULTS = _CLIP | _VISION | {"image_size": 224, "patch_size": 32}
SIGLIP_TEXT_DEFAULTS = _SIGLIP | {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "max_position_embeddings": 64,
    "projection_size": None,
}
SIGLIP_VISION_DEFAULTS = _SIGLIP | _VISION | {"patch_size": 16, "vision_use_head": True}

CLIPS = ("clip", "metaclip_2")
"""Values of `model_type` with CLIP's towers; MetaCLIP 2 has texts of all languages, whose end is not the highest id."""

HIGHEST_ID = 2
"""Value of eos_token_id in older files of CLIP: a text ends at its highest id."""


def read_huggingface_clip(folder: Path) -> Checkpoint:
    """Read a language-image model that transformers wrote; a video is the mean of its frames.

    Raises:
        CheckpointError: a file is missing or damaged, or describes a model that our configuration cannot express.
    """
    values = read_json(folder / CONFIG_FILE)
    config = parse(read_config, values, folder / CONFIG_FILE)
    preprocess, notes = _read_preprocessor(folder, values["model_type"], config.vision.image_size_px)
    weights_file, weights = read_weights(folder, TRANSFORMERS_WEIGHTS)
    model = build(weights, config, TABLES[values["model_type"]], str(weights_file))
    return Checkpoint(model, preprocess, notes=notes)


def _read_preprocessor(folder: Path, kind: str, size_px: int) -> tuple[Preprocessor, tuple[str, ...]]:
    usual = Preprocessor.clip(size_px) if kind in CLIPS else Preprocessor.siglip(size_px)
    if kind != "siglip2":
        return read_huggingface_preprocessor(folder, size_px, usual)
    usual = replace(usual, filter="bilinear")  # the default of Siglip2ImageProcessor
    preprocess, notes = read_huggingface_preprocessor(folder, size_px, usual)
    return preprocess, tuple(dict.fromkeys((squash_note(size_px), *notes)))


def read_config(values: Mapping[str, Any]) -> XCLIPConfig:
    """The configuration that a `config.json` of one of the `TABLES` describes.

    Raises:
        ConfigError: it describes another kind of model, or one that our configuration cannot express.
    """
    kind = values.get("model_type")
    if kind not in TABLES:
        raise ConfigError(
            f"model_type is {kind!r}; language-image models that can be read are {', '.join(TABLES)}"
        )
    return _clip(values, kind) if kind in CLIPS else _siglip(values, kind)


def _clip(values: Mapping[str, Any], kind: str) -> XCLIPConfig:
    text = section(values, "text_config", CLIP_TEXT_DEFAULTS)
    vision = section(values, "vision_config", CLIP_VISION_DEFAULTS)
    end = text["eos_token_id"]
    if type(end) is not int:
        raise ConfigError(f"text_config.eos_token_id is {end!r}; it must be one id")
    is_highest = end == text["vocab_size"] - 1 or (kind == "clip" and end == HIGHEST_ID)
    return image_model(
        embed_dim=values.get("projection_dim", 512),
        vision=replace(
            CLIP_VISION,
            **_tower(vision, "vision_config"),
            image_size_px=square_side_px(vision["image_size"]),
            patch_size_px=_patch_size_px(vision),
        ),
        text=TextConfig(
            **_tower(text, "text_config"), **vocabulary(text), end_id=None if is_highest else end
        ),
    )


def _siglip(values: Mapping[str, Any], kind: str) -> XCLIPConfig:
    # An input of fixed size has a side, NaFlex a number of patches, which we arrange in a square.
    size = {"image_size": 224} if kind == "siglip" else {"num_patches": 256}
    text = section(values, "text_config", SIGLIP_TEXT_DEFAULTS)
    vision = section(values, "vision_config", SIGLIP_VISION_DEFAULTS | size)
    embed_dim, width = text["projection_size"] or text["hidden_size"], vision["hidden_size"]
    if embed_dim != width or not vision["vision_use_head"]:
        raise ConfigError(
            f"text features are {embed_dim} wide, image features {width}, vision_use_head is "
            f"{vision['vision_use_head']}; only towers of one width with attention pooling can be read"
        )
    patch_size_px = _patch_size_px(vision)
    side_px = (
        square_side_px(vision["image_size"])
        if kind == "siglip"
        else patch_size_px * math.isqrt(vision["num_patches"])
    )
    return image_model(
        embed_dim=embed_dim,
        vision=replace(
            SIGLIP_VISION,
            **_tower(vision, "vision_config"),
            image_size_px=side_px,
            patch_size_px=patch_size_px,
        ),
        text=replace(SIGLIP_TEXT, **_tower(text, "text_config"), **vocabulary(text)),
        logit_bias=True,
    )


def _tower(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings whose keys are the same in both kinds of tower."""
    activation = values["hidden_act"]
    if activation not in ACTIVATIONS:
        raise ConfigError(f"{where}.hidden_act is {activation!r}; it must be one of {', '.join(ACTIVATIONS)}")
    if (num_channels := values.get("num_channels", 3)) != 3:
        raise ConfigError(f"{where}.num_channels is {num_channels}; it must be 3")
    return tower_sizes(values) | {
        "mlp_width": values["intermediate_size"],
        "activation": ACTIVATIONS[activation],
        "norm_eps": values["layer_norm_eps"],
    }


def _patch_size_px(vision: Mapping[str, Any]) -> int:
    return square_side_px(vision["patch_size"])


FORMAT = FolderFormat(
    name="huggingface",
    config_files=(CONFIG_FILE, *PREPROCESSOR_FILES),
    weights=TRANSFORMERS_WEIGHTS,
    recognises=lambda folder: read_config_file(folder).get("model_type") in tuple(TABLES),
    read=read_huggingface_clip,
    model_types=tuple(TABLES),
)
