"""The format of XCLIPModel in transformers, read and written without that library."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from openxclip.checkpoints.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    FolderFormat,
    parse,
    read_config_file,
)
from openxclip.checkpoints.formats.preprocessors import (
    PREPROCESSOR_FILE,
    PREPROCESSOR_FILES,
    read_huggingface_preprocessor,
    square_side_px,
    to_huggingface_preprocessor,
)
from openxclip.checkpoints.names import HUGGINGFACE
from openxclip.checkpoints.tables import build, to_theirs
from openxclip.checkpoints.weights import TRANSFORMERS_WEIGHTS, read_weights
from openxclip.errors import CheckpointError, ConfigError
from openxclip.files import read_json, write_json
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.models.config import (
    HEAD_WIDTH,
    MLP_RATIO,
    IntegrationConfig,
    PromptingConfig,
    TextConfig,
    VisionConfig,
)
from openxclip.text.tokenizer import END, START, MissingTokenizer, Tokenizer
from openxclip.text.tokenizer_folder import CONFIG_FILE as TOKENIZER_CONFIG_FILE
from openxclip.text.tokenizer_folder import TOKENIZER_FILE
from openxclip.video.transforms import Preprocessor

MODEL_TYPE = "xclip"

ACTIVATION, NORM_EPS = "quick_gelu", 1e-5
"""The only values in this format that the model computes."""

TOWER_KEYS = {"width": "hidden_size", "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads"}
"""Our name of a tower's size -> theirs, in all configurations of transformers."""

# Defaults of XCLIPConfig and its parts for missing keys; most files omit many.
DEFAULTS: dict[str, Any] = {
    "projection_dim": 512,
    "prompt_layers": 2,
    "prompt_num_attention_heads": 8,
    "prompt_hidden_act": ACTIVATION,
}
TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": ACTIVATION,
    "layer_norm_eps": NORM_EPS,
}
VISION_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mit_hidden_size": 512,
    "mit_intermediate_size": 2048,
    "mit_num_hidden_layers": 1,
    "mit_num_attention_heads": 8,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "num_frames": 8,
    "hidden_act": ACTIVATION,
    "layer_norm_eps": NORM_EPS,
}


def read_huggingface(folder: Path) -> Checkpoint:
    """Read an X-CLIP that transformers wrote.

    Raises:
        CheckpointError: a file is missing or damaged, or describes a model that our configuration cannot express.
    """
    config = parse(read_config, read_json(folder / CONFIG_FILE), folder / CONFIG_FILE)
    image_size_px = config.vision.image_size_px
    preprocess, notes = read_huggingface_preprocessor(
        folder, image_size_px, Preprocessor.hugging_face(image_size_px)
    )
    weights_file, weights = read_weights(folder, TRANSFORMERS_WEIGHTS)
    model = build(weights, config, HUGGINGFACE, str(weights_file))
    return Checkpoint(model, preprocess, notes=(*head_notes(config), *notes))


def write_folder(
    folder: Path, model: XCLIP, tokenizer: Tokenizer | MissingTokenizer, preprocess: Preprocessor
) -> None:
    """Write the files that `XCLIPModel.from_pretrained` reads into an existing folder.

    Raises:
        CheckpointError: the format cannot express the model.
    """
    write_json(folder / CONFIG_FILE, to_huggingface_config(model.config))
    write_json(folder / PREPROCESSOR_FILE, to_huggingface_preprocessor(preprocess))
    save_file(to_theirs(model.state_dict(), HUGGINGFACE), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    if isinstance(tokenizer, Tokenizer):
        tokenizer.save(folder / TOKENIZER_FILE)
        write_json(folder / TOKENIZER_CONFIG_FILE, _tokenizer_config(tokenizer))


def read_config(values: Mapping[str, Any]) -> XCLIPConfig:
    """The configuration that a `config.json` describes.

    Raises:
        ConfigError: it does not describe an X-CLIP, or one that our configuration cannot express.
    """
    if values.get("model_type") != MODEL_TYPE:
        raise ConfigError(f"model_type is {values.get('model_type')!r}, only {MODEL_TYPE!r} can be read")
    top = DEFAULTS | {key: values[key] for key in DEFAULTS if key in values}
    text = section(values, "text_config", TEXT_DEFAULTS)
    vision = section(values, "vision_config", VISION_DEFAULTS)
    _refuse_other_models(top, text, vision)
    return XCLIPConfig(
        embed_dim=top["projection_dim"],
        num_frames=vision["num_frames"],
        vision=VisionConfig(
            image_size_px=square_side_px(vision["image_size"]),
            patch_size_px=square_side_px(vision["patch_size"]),
            **tower_sizes(vision),
        ),
        text=TextConfig(**tower_sizes(text), **vocabulary(text)),
        integration=IntegrationConfig(
            num_layers=vision["mit_num_hidden_layers"], num_heads=vision["mit_num_attention_heads"]
        ),
        prompting=PromptingConfig(
            num_layers=top["prompt_layers"], num_heads=top["prompt_num_attention_heads"]
        ),
    )


def tower_sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes whose keys are the same in every tower of transformers."""
    return {ours: values[theirs] for ours, theirs in TOWER_KEYS.items()}


def vocabulary(text: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a text tower's input."""
    return {"vocab_size": text["vocab_size"], "context_length": text["max_position_embeddings"]}


def to_huggingface_config(config: XCLIPConfig) -> dict[str, Any]:
    """Inverse of `read_config`, except for `drop_path`, which transformers interprets differently."""
    if config.integration is None or config.prompting is None or not config.vision.message_tokens:
        raise CheckpointError(
            "XCLIPModel always has message tokens, integration and prompting; a model without one of them, such as a "
            "model of discrete labels, cannot be written in its format. Save it in the native one "
            "(format='openxclip')"
        )
    if differences := _unlike_theirs(config):
        raise CheckpointError(
            f"XCLIPModel's towers are OpenAI CLIP's, with no learnable context; this model's are not: "
            f"{', '.join(differences)}. It cannot be written in that format; save it in the native one "
            "(format='openxclip')"
        )
    text = _to_tower(config.text, "xclip_text_model") | {
        "vocab_size": config.text.vocab_size,
        "max_position_embeddings": config.text.context_length,
        "eos_token_id": 2,  # not an id: tells transformers to take the token with the highest id
    }
    vision = _to_tower(config.vision, "xclip_vision_model") | {
        "mit_hidden_size": config.embed_dim,
        "mit_intermediate_size": MLP_RATIO * config.embed_dim,
        "mit_num_hidden_layers": config.integration.num_layers,
        "mit_num_attention_heads": config.integration.num_heads,
        "image_size": config.vision.image_size_px,
        "patch_size": config.vision.patch_size_px,
        "num_frames": config.num_frames,
    }
    return {
        "architectures": ["XCLIPModel"],
        "model_type": MODEL_TYPE,
        "projection_dim": config.embed_dim,
        "prompt_layers": config.prompting.num_layers,
        "prompt_num_attention_heads": config.prompting.num_heads,
        "prompt_hidden_act": ACTIVATION,
        "text_config": text,
        "vision_config": vision,
    }


def _to_tower(tower: VisionConfig | TextConfig, model_type: str) -> dict[str, Any]:
    sizes = {theirs: getattr(tower, ours) for ours, theirs in TOWER_KEYS.items()}
    return {
        "model_type": model_type,
        "intermediate_size": MLP_RATIO * tower.width,
        "hidden_act": ACTIVATION,
    } | sizes


SIZES = {"image_size_px", "patch_size_px", "vocab_size", "context_length", *TOWER_KEYS}
"""Settings of a tower that the format can express."""


def _unlike_theirs(config: XCLIPConfig) -> list[str]:
    """Settings of the towers that the format cannot express; XCLIPModel's are the defaults of our configuration."""
    parts = {"vision": (config.vision, VisionConfig()), "text": (config.text, TextConfig())}
    differences = [
        f"{part}.{name} is {value!r}"
        for part, (tower, theirs) in parts.items()
        for name, value in vars(tower).items()
        if name not in SIZES | {"drop_path"} and value != getattr(theirs, name)
    ]
    return [*differences, "logit_bias is True"] if config.logit_bias else differences


def section(values: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A part's values over its defaults; the old key `NAME_dict`, if present and not null, replaces the new one."""
    old = values.get(f"{name}_dict")
    given = (values.get(name) or {}) if old is None else old
    return {key: given.get(key, default) for key, default in defaults.items()}


def _refuse_other_models(top: Mapping[str, Any], text: Mapping[str, Any], vision: Mapping[str, Any]) -> None:
    required = {
        "prompt_hidden_act": (top["prompt_hidden_act"], ACTIVATION),
        "text_config.hidden_act": (text["hidden_act"], ACTIVATION),
        "vision_config.hidden_act": (vision["hidden_act"], ACTIVATION),
        "text_config.layer_norm_eps": (text["layer_norm_eps"], NORM_EPS),
        "vision_config.layer_norm_eps": (vision["layer_norm_eps"], NORM_EPS),
        "text_config.intermediate_size": (text["intermediate_size"], MLP_RATIO * text["hidden_size"]),
        "vision_config.intermediate_size": (vision["intermediate_size"], MLP_RATIO * vision["hidden_size"]),
        "vision_config.mit_hidden_size": (vision["mit_hidden_size"], top["projection_dim"]),
        "vision_config.mit_intermediate_size": (
            vision["mit_intermediate_size"],
            MLP_RATIO * vision["mit_hidden_size"],
        ),
        "vision_config.num_channels": (vision["num_channels"], 3),
    }
    wrong = [f"{key} is {given!r}, not {fit!r}" for key, (given, fit) in required.items() if given != fit]
    if wrong:
        raise ConfigError(f"the file describes a model that cannot be computed: {'; '.join(wrong)}")


def head_notes(config: XCLIPConfig) -> tuple[str, ...]:
    """Notes on numbers of heads that differ from training; the port gives the large models 8 instead of 12."""
    if config.embed_dim % HEAD_WIDTH:
        return ()
    notes = []
    for name, part in (("integration", config.integration), ("prompting", config.prompting)):
        trained = config.embed_dim // HEAD_WIDTH
        if part is not None and part.num_heads != trained:
            notes.append(
                f"config.json gives {name} {part.num_heads} heads, X-CLIP's own code width / 64 = {trained}; "
                "the file is followed, so results equal those of transformers"
            )
    return tuple(notes)


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "tokenizer_class": "CLIPTokenizer",
        "processor_class": "XCLIPProcessor",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,  # ids after the first end token are ignored
        "model_max_length": tokenizer.context_length,
    }


FORMAT = FolderFormat(
    name="huggingface",
    config_files=(CONFIG_FILE, *PREPROCESSOR_FILES),
    weights=TRANSFORMERS_WEIGHTS,
    recognises=lambda folder: read_config_file(folder).get("model_type") == MODEL_TYPE,
    read=read_huggingface,
    write=write_folder,
    model_types=(MODEL_TYPE,),
)
