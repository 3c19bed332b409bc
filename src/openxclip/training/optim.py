"""Parameter groups, the optimizer and its learning-rate schedule."""

import dataclasses
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
    """Switch off the gradients of the parts whose factor is 0, and on those of the others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(getattr(factors, group_of(name)) != 0)


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with a group for each (group of parts, decays or not); a group keeps its peak rate as `peak_lr`."""
    factors = dataclasses.asdict(config.factors)
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((group_of(name), decays(name, parameter)), []).append(parameter)
    if not groups:
        raise ConfigError("every part is frozen; set one of optim.factors above 0")
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if decayed else 0.0,
                "peak_lr": config.learning_rate * factors[part],
            }
            for (part, decayed), parameters in groups.items()
        ],
        betas=config.betas,
        eps=config.epsilon,
        fused=True,  # one pass over each tensor in place of a dozen
    )


def schedule(step: int, num_steps: int, num_warmup_steps: int, final_factor: float) -> float:
    """Factor on the peak learning rate at a step (from 0): linear warm-up, then cosine to `final_factor`."""
    if step < num_warmup_steps:
        return final_factor + (1 - final_factor) * step / num_warmup_steps
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
