"""The format of open_clip: OpenAI's layout, or an image tower of timm."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from openxclip.checkpoints.checkpoint import Checkpoint, FolderFormat, parse
from openxclip.checkpoints.formats.official import num_blocks
from openxclip.checkpoints.formats.preprocessors import read_open_clip_preprocessor
from openxclip.checkpoints.names import OPENAI_CLIP, open_clip_timm
from openxclip.checkpoints.tables import Table, build
from openxclip.checkpoints.towers import CLIP_VISION, PERCEPTION_ENCODER_VISION, SIGLIP_VISION
from openxclip.checkpoints.weights import read_weights
from openxclip.errors import CheckpointError, ConfigError
from openxclip.files import read_json
from openxclip.models import XCLIPConfig
from openxclip.models.config import HEAD_WIDTH, Activation, TextConfig, VisionConfig, image_model
from openxclip.text.tokenizer_folder import Cleaning

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

# open_clip's defaults for missing keys of a configuration.
TEXT_DEFAULTS: dict[str, Any] = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "eos_id": 2,
    "proj_bias": False,
    "norm_kwargs": {},
    "act_kwargs": {},
}
VISION_DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "patch_size": 16,
    "width": 768,
    "layers": 12,
    "head_width": HEAD_WIDTH,
    "mlp_ratio": 4.0,
    "no_ln_pre": False,
    "pool_type": "tok",
    "final_ln_after_pool": False,
    "act_kwargs": {},
}

LAYER_SCALE = re.compile(r"(.*\.(?:res)?blocks\.\d+)\.ls_?([12])\.gamma")
"""The factors of a block's two branches, in open_clip's own towers and in timm's."""

BRANCH_ENDS = {"1": ("attn.out_proj", "attn.proj"), "2": ("mlp.c_proj", "mlp.fc2")}
"""Number of the branch -> its last layer, in open_clip's own towers or timm's."""

SIGLIP, PERCEPTION_ENCODER = "SigLIP", "Perception Encoder"
TIMM_TOWERS = {
    SIGLIP: re.compile(r"vit_[a-z0-9]+_patch\d+_siglip_\d+"),
    PERCEPTION_ENCODER: re.compile(r"vit_pe_core_[a-z]+_patch\d+_\d+"),
}
"""Image towers of timm that can be read -> pattern of their names. Sizes are inferred from the tensors."""

WIDE_HEADS = {1152: 72, 1536: 96}
"""Width of a tower of timm -> width of its heads, if not 64: the largest towers have 16 heads."""


def read_open_clip(folder: Path) -> Checkpoint:
    """Read a language-image model that open_clip wrote; a video is the mean of its frames.

    Raises:
        CheckpointError: a file is missing or damaged, or describes a model that our configuration cannot express.
    """
    path = folder / CONFIG_FILE
    values = read_json(path)
    weights_file, weights = read_weights(folder, WEIGHTS_FILES)
    parse(lambda v: _check_layer_scale(v["model_cfg"], weights), values, path)
    weights = without_layer_scale(weights, weights_file)
    config = parse(lambda v: read_config(v["model_cfg"], weights), values, path)
    preprocess, notes = parse(
        lambda v: read_open_clip_preprocessor(v.get("preprocess_cfg") or {}, config.vision.image_size_px),
        values,
        path,
    )
    model = build(weights, config, _table(config, weights), str(weights_file))
    return Checkpoint(model, preprocess, notes=notes)


def _check_layer_scale(values: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse weights without the factors that the configuration names; results would differ without them."""
    factors = {name for name in names if LAYER_SCALE.fullmatch(name)}
    of_image = {name for name in factors if name.startswith("visual.")}
    for tower, found in (("vision_cfg", of_image), ("text_cfg", factors - of_image)):
        given = values[tower] if isinstance(values[tower], dict) else {}  # `read_config` refuses it
        layers = given.get("layers") or VISION_DEFAULTS["layers"]
        if given.get("ls_init_value") and len(found) != 2 * layers:
            raise ConfigError(
                f"{tower} has layer scale in {layers} layers, the weights {len(found)} of its {2 * layers} factors; "
                "download both files again"
            )


def without_layer_scale(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The same model with each branch factor folded into the weights of the layer before it.

    Layer scale (Touvron et al. 2021, arXiv 2103.17239) multiplies a branch's output by a trained factor for each
    channel. The branch ends in a linear layer, so that factor * (W x + b) = (factor * W) x + factor * b.

    Raises:
        CheckpointError: a factor has no layer that it belongs to.
    """
    folded = {name: tensor for name, tensor in weights.items() if not LAYER_SCALE.fullmatch(name)}
    for name in weights.keys() - folded.keys():
        block, number = LAYER_SCALE.fullmatch(name).groups()  # type: ignore[union-attr]
        layer = next(
            (f"{block}.{end}" for end in BRANCH_ENDS[number] if f"{block}.{end}.weight" in folded), None
        )
        if layer is None or folded.get(f"{layer}.bias", weights[name]).shape != weights[name].shape:
            raise CheckpointError(f"{path}: {name} does not belong to the last layer of a branch")
        factor = weights[name].float()
        folded[f"{layer}.weight"] = factor[:, None] * folded[f"{layer}.weight"].float()
        folded[f"{layer}.bias"] = factor * folded[f"{layer}.bias"].float()
    return folded


def cleaning_of(folder: Path) -> Cleaning | None:
    """How texts are cleaned, by the folder's `open_clip_config.json`, if it has one."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return None
    return parse(
        lambda v: (v["model_cfg"]["text_cfg"].get("tokenizer_kwargs") or {}).get("clean"),
        read_json(path),
        path,
    )


def read_config(values: Mapping[str, Any], weights: Mapping[str, Tensor]) -> XCLIPConfig:
    """The configuration that `model_cfg` and the shapes of the weights describe.

    Raises:
        ConfigError: it describes a model that our configuration cannot express.
    """
    vision, text = values["vision_cfg"], values["text_cfg"]
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise ConfigError("vision_cfg and text_cfg must be objects")
    activation: Activation = "quick_gelu" if values.get("quick_gelu") else "gelu"
    kind = _timm_kind(vision.get("timm_model_name"))
    # SigLIP was trained with the tanh form, as in transformers; timm computes some sizes with the exact GELU.
    text_activation = "gelu_tanh" if kind == SIGLIP else _with_settings(activation, text, "text_cfg")
    return image_model(
        embed_dim=values["embed_dim"],
        vision=_vision(vision, activation) if kind is None else _timm_vision(vision, kind, weights),
        text=_text(text, text_activation),
        logit_bias="logit_bias" in weights,
    )


def _with_settings(activation: Activation, given: Mapping[str, Any], where: str) -> Activation:
    """The activation, changed by a tower's act_kwargs."""
    settings = given.get("act_kwargs")
    if not settings:
        return activation
    if activation != "gelu" or settings != {"approximate": "tanh"}:
        raise ConfigError(f"{where}.act_kwargs {settings} of {activation} cannot be computed")
    return "gelu_tanh"


def _vision(given: Mapping[str, Any], activation: Activation) -> VisionConfig:
    values = _known(given, VISION_DEFAULTS, "vision_cfg")
    pool = (values["pool_type"], bool(values["final_ln_after_pool"]))
    if values["pool_type"] != "tok" and pool != ("avg", True):
        raise ConfigError(
            f"vision_cfg.pool_type is {pool[0]!r}; it must be 'tok', or 'avg' with final_ln_after_pool (CLIPA)"
        )
    return replace(
        CLIP_VISION,
        image_size_px=values["image_size"],
        patch_size_px=values["patch_size"],
        width=values["width"],
        num_layers=values["layers"],
        num_heads=values["width"] // values["head_width"],
        mlp_width=int(values["width"] * values["mlp_ratio"]),
        activation=_with_settings(activation, values, "vision_cfg"),
        pre_norm=not values["no_ln_pre"],
        pooling="class" if values["pool_type"] == "tok" else "mean",
    )


def _timm_kind(name: str | None) -> str | None:
    """The one of `TIMM_TOWERS` that an image tower is; None if it is open_clip's own."""
    if name is None:
        return None
    for kind, pattern in TIMM_TOWERS.items():
        if pattern.fullmatch(name):
            return kind
    raise ConfigError(
        f"timm_model_name is {name!r}; image towers of timm that can be read are {', '.join(TIMM_TOWERS)}"
    )


def _timm_vision(given: Mapping[str, Any], kind: str, weights: Mapping[str, Tensor]) -> VisionConfig:
    """The tower that timm builds by that name; open_clip's `quick_gelu` does not apply to it."""
    trunk = "visual.trunk"
    width, _, _, patch_size_px = weights[f"{trunk}.patch_embed.proj.weight"].shape
    image_size_px = given.get("image_size") or VISION_DEFAULTS["image_size"]
    if kind == PERCEPTION_ENCODER:
        _check_rotations(given["timm_model_name"], image_size_px)
    return replace(
        SIGLIP_VISION if kind == SIGLIP else PERCEPTION_ENCODER_VISION,
        image_size_px=image_size_px,
        patch_size_px=patch_size_px,
        width=width,
        num_layers=num_blocks(weights, f"{trunk}.blocks"),
        num_heads=width // WIDE_HEADS.get(width, HEAD_WIDTH),
        mlp_width=len(weights[f"{trunk}.blocks.0.mlp.fc1.bias"]),
        class_token=f"{trunk}.cls_token" in weights,
        pooling_mlp_width=len(weights[f"{trunk}.attn_pool.mlp.fc1.bias"]),
    )


def _check_rotations(name: str, image_size_px: Any) -> None:
    """Refuse sizes other than the name's, for which timm scales the angles."""
    trained_px = int(name.rpartition("_")[2])
    if image_size_px != trained_px:
        raise ConfigError(
            f"vision_cfg.image_size is {image_size_px}, that of {name} {trained_px}: rotary positions of another size "
            "cannot be computed"
        )


def _text(given: Mapping[str, Any], activation: Activation) -> TextConfig:
    if given.get("hf_model_name"):
        raise ConfigError(f"the text tower is {given['hf_model_name']!r}; only open_clip's own can be read")
    values = _known(given, TEXT_DEFAULTS, "text_cfg")
    causal, pool = not values["no_causal_mask"], values["pool_type"]
    if pool not in (("argmax", "eos") if causal else ("last",)):
        raise ConfigError(
            f"text_cfg.pool_type is {pool!r}; it must be 'argmax' or 'eos' for a causal tower, 'last' otherwise"
        )
    if unknown := values["norm_kwargs"].keys() - {"eps"}:
        raise ConfigError(f"text_cfg.norm_kwargs asks for {', '.join(unknown)}, which cannot be computed")
    return TextConfig(
        vocab_size=values["vocab_size"],
        context_length=values["context_length"],
        width=values["width"],
        num_layers=values["layers"],
        num_heads=values["heads"],
        mlp_width=int(values["width"] * values["mlp_ratio"]),
        causal=causal,
        end_id=values["eos_id"] if pool == "eos" else None,
        activation=activation,
        norm_eps=values["norm_kwargs"].get("eps", 1e-5),
        projection_bias=values["proj_bias"],
    )


READ_ELSEWHERE = {"hf_tokenizer_name", "tokenizer_kwargs", "ls_init_value"}
"""Keys that do not affect a tower's computation; layer scale's trained values are in the weights."""


def _known(given: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The given values over the defaults.

    Raises:
        ConfigError: a file has other keys, which would change the computation.
    """
    unknown = {
        key for key, value in given.items() if key not in defaults and value and key not in READ_ELSEWHERE
    }
    if unknown:
        raise ConfigError(f"{where} asks for {', '.join(sorted(unknown))}, which cannot be computed")
    return {key: default if given.get(key) is None else given[key] for key, default in defaults.items()}


def _table(config: XCLIPConfig, weights: Mapping[str, Tensor]) -> Table:
    if any(name.startswith("visual.trunk.") for name in weights):
        return open_clip_timm(config.text.projection_bias)
    if any(name.startswith("text.") for name in weights):
        raise CheckpointError(
            "the text tower is named text.*, the image tower is not timm's: no known layout"
        )
    return OPENAI_CLIP


FORMAT = FolderFormat(
    name="open-clip",
    config_files=(CONFIG_FILE,),
    weights=WEIGHTS_FILES,
    recognises=lambda folder: (folder / CONFIG_FILE).exists(),
    read=read_open_clip,
)
