"""Converts a model to another variant: shared weights are kept, new parts initialised, others dropped.

This turns an image model into any X-CLIP, as in the paper: CLIP first, then a few parts for video around it.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import torch

from openxclip.errors import CheckpointError
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.models.parts import part_of


def expand(
    model: XCLIP, config: XCLIPConfig, seed: int, redraw: Callable[[XCLIP], None] | None = None
) -> tuple[XCLIP, tuple[str, ...]]:
    """A model of `config` with every parameter it shares with `model`, and its new parts with their parameter counts.

    Parts that `model` lacks are initialised from `seed`, and changed by `redraw` if given (see
    `models/initialisation.py`); parts that `config` switches off are dropped. Time positions are interpolated if
    the number of frames differs.

    Raises:
        CheckpointError: the towers, which must be the same, differ, or a kept part has another number of heads.
    """
    _check_same_towers(model.config, config)
    if config.num_frames != model.config.num_frames:
        model = model.with_num_frames(config.num_frames)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expanded = XCLIP(config)
        if redraw is not None:
            redraw(expanded)
    wanted = expanded.state_dict()
    kept = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name in wanted and wanted[name].shape == tensor.shape
    }
    expanded.load_state_dict(kept, strict=False)  # missing parameters are new
    scale = model.logit_scale
    return expanded.to(scale.device, scale.dtype).train(model.training), _new_parts(expanded, kept)


def clip_only(config: XCLIPConfig) -> XCLIPConfig:
    """The same model without the parts that X-CLIP, and the methods it is compared with, add to CLIP."""
    return dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, message_tokens=False, drop_path=0.0),
        text=dataclasses.replace(config.text, num_context_vectors=None),
        integration=None,
        prompting=None,
        num_discrete_labels=None,
    )


def shared_parts_differ(first: XCLIPConfig, second: XCLIPConfig) -> str:
    """Why two models cannot share their towers' weights, as text; empty if they can."""
    ours, theirs = _shared_settings(first), _shared_settings(second)
    return "; ".join(
        f"{name} is {ours[name]!r}, not {theirs[name]!r}" for name in ours if ours[name] != theirs[name]
    )


def _shared_settings(config: XCLIPConfig) -> dict[str, Any]:
    """Settings of the parts that an image model also has, by dotted name."""
    settings: dict[str, Any] = {}
    alike = dataclasses.replace(clip_only(config), num_frames=1, frame_mean="features")
    for name, value in alike.to_dict().items():
        parts = value if isinstance(value, dict) else {"": value}
        settings |= {f"{name}.{leaf}".rstrip("."): setting for leaf, setting in parts.items()}
    return settings


def _check_same_towers(have: XCLIPConfig, want: XCLIPConfig) -> None:
    problems = [shared_parts_differ(have, want)]
    for name in ("integration", "prompting"):
        ours, theirs = getattr(have, name), getattr(want, name)
        if ours is not None and theirs is not None and ours.num_heads != theirs.num_heads:
            problems.append(f"{name} has {ours.num_heads} heads, not {theirs.num_heads}")
    if have.num_discrete_labels is not None and want.num_discrete_labels is None:
        problems.append("it has discrete labels and no text tower")
    if problem := "; ".join(filter(None, problems)):
        raise CheckpointError(
            f"the model cannot be expanded as requested: {problem}. The towers must stay the same; request a model "
            "with the same ones, or start from other weights"
        )


def _new_parts(model: XCLIP, kept: Collection[str]) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if name not in kept:
            counts[part_of(name).name] += parameter.numel()
    return tuple(f"{part} ({count:,} parameters)" for part, count in counts.items())
