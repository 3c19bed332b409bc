"""Finds the weights in other trainers' checkpoints and restores the model's own parameter names.

A trainer stores more than the weights (optimizer, epoch), and its wrappers around the model (DataParallel, FSDP,
`torch.compile`, a Lightning module) prefix the parameters' names with their own.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from openxclip.errors import CheckpointError

T = TypeVar("T")

WEIGHTS_KEYS = ("model", "state_dict", "model_state_dict", "module")
"""Keys of the weights in a checkpoint: of timm-like trainers, Lightning and mmcv, PyTorch's tutorials, DeepSpeed."""

MAX_NESTING = 3

WRAPPER = re.compile(r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Prefixes that DataParallel and DDP, `torch.compile`, FSDP and checkpointing add to names."""

ATTRIBUTE = re.compile(r"(model|net|network|clip|clip_model|backbone)\.")
"""The attribute of a larger module that holds the model, if all names begin with the same one."""

VIFI_CLIP = {"image_encoder.": "visual.", "text_encoder.": ""}
"""ViFi-CLIP's names of the towers -> OpenAI CLIP's."""

VIFI_CLIP_BUFFERS = re.compile(r"prompt_learner\.(complete_text_embeddings|token_prefix|token_suffix)")
"""ViFi-CLIP's embedded class names, which follow from the labels."""


def weights_in(content: Any) -> Any:
    """The part of a saved object that holds the weights: the object itself, or the value of one of the keys."""
    for _ in range(MAX_NESTING):
        if not isinstance(content, dict):
            break
        inner = next((content[key] for key in WEIGHTS_KEYS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    return content


def unwrapped(weights: Mapping[str, T], path: Path) -> dict[str, T]:
    """The weights under the names that the model itself gives them.

    Raises:
        CheckpointError: two weights then have the same name, or a part of the model is not in the file.
    """
    names = {name: WRAPPER.sub("", name) for name in weights}
    while prefix := _common_attribute(names.values()):
        names = {name: short.removeprefix(prefix) for name, short in names.items()}
    if len(set(names.values())) < len(names):
        raise CheckpointError(f"{path} holds the same weights twice, with and without a trainer's prefix")
    return _from_vifi_clip({short: weights[name] for name, short in names.items()}, path)


def _common_attribute(names: Any) -> str:
    """The attribute that all names begin with, with its dot; empty if there is none."""
    found = {match[0] if (match := ATTRIBUTE.match(name)) else "" for name in names}
    return found.pop() if len(found) == 1 else ""


def _from_vifi_clip(weights: dict[str, T], path: Path) -> dict[str, T]:
    """OpenAI CLIP's names for ViFi-CLIP's; other weights as they are."""
    if not any(name.startswith("image_encoder.") for name in weights):
        return weights
    if prompts := [name for name in weights if name == "prompt_learner.ctx" or "VPT" in name]:
        raise CheckpointError(
            f"{path} is a ViFi-CLIP with learned prompts ({', '.join(prompts[:3])}), which cannot be computed; give "
            "one that was fine-tuned without them"
        )
    renamed = {
        _renamed(name): tensor for name, tensor in weights.items() if not VIFI_CLIP_BUFFERS.fullmatch(name)
    }
    if "token_embedding.weight" not in renamed:
        raise CheckpointError(
            f"{path} is a ViFi-CLIP; such files lack the token embedding, which stays CLIP's. Add it under its name to "
            "the file's weights: clip.state_dict()['token_embedding.weight'], of the CLIP that it started from"
        )
    return renamed


def _renamed(name: str) -> str:
    for theirs, ours in VIFI_CLIP.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
