"""Parameter groups, the optimizer and its learning-rate schedule."""

import math

import torch
from torch import nn

from openxclip.errors import ConfigError
from openxclip.models.parts import group_of
from openxclip.training.config import LearningRates, OptimConfig


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: not to biases, norms and other 1-d parameters, nor to positions."""
    return parameter.ndim >= 2 and not name.endswith("position_embedding")


def freeze(model: nn.Module, factors: LearningRates) -> None:
    """Turn gradients off for parts whose factor is 0, and on for the others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(factors.of(group_of(name)) != 0)


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with a group for each (group of parts, decays or not), which keeps its `part` and its rate's `peak_lr`."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decayed = config.decay_everything or decays(name, parameter)
            groups.setdefault((group_of(name), decayed), []).append(parameter)
    if not groups:
        raise ConfigError("every part is frozen; set one of optim.factors above 0")
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if decayed else 0.0,
                "peak_lr": config.learning_rate * config.factors.of(part),
                "part": part,
            }
            for (part, decayed), parameters in groups.items()
        ],
        betas=config.betas,
        eps=config.epsilon,
        fused=True,  # one pass over each tensor instead of a dozen
    )


def learning_rate(
    config: OptimConfig, peak: float, step: int, num_steps: int, num_warmup_steps: int
) -> float:
    """Learning rate of parameters with this peak rate at a step (from 0): linear warm-up, then a cosine.

    "as_released" is the schedule of X-CLIP's released code: warm-up starts from 0, the cosine counts from the
    first step and not from the end of warm-up, its floor is the same absolute rate for all parameters, and each step
    has the rate of the step before, so the first two have 0.

    Args:
        config: selects the schedule.
        peak: of these parameters, their factor included.
        step: from 0.
        num_steps: of the whole run.
        num_warmup_steps: the warm-up steps among them.
    """
    if config.schedule == "as_released":
        before = max(0, step - 1)
        if before < num_warmup_steps:
            return peak * before / num_warmup_steps
        floor = config.learning_rate * config.final_factor
        return floor + (peak - floor) * _cosine(before / num_steps)
    if step < num_warmup_steps:
        share = step / num_warmup_steps
    else:
        share = _cosine((step - num_warmup_steps) / max(1, num_steps - num_warmup_steps))
    return peak * (config.final_factor + (1 - config.final_factor) * share)


def _cosine(progress: float) -> float:
    """Half cosine: 1 at progress 0, 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))
