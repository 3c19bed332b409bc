"""Initial values of all parameters: one table, with exactly one matching row per parameter.

The towers follow CLIP (normal, scaled by fan-in and depth); the parts that X-CLIP adds start small beside pretrained
towers (truncated normal of 0.02, alpha 0.1). X-CLIP's released code intends that as well, but some parameters keep
torch's defaults: a second table.
"""

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from openxclip.models.parts import ADDED, is_added

Rule = Callable[[Tensor, int], object]
"""Fills a parameter in place; the second argument is the depth of its tower."""


def _fan_in(gain: float, by_depth: bool = False) -> Rule:
    """Normal with std = gain / sqrt(fan-in), and / sqrt(2 depth) for what writes into a residual stream."""

    def fill(parameter: Tensor, depth: int) -> None:
        scale = gain / math.sqrt(parameter[0].numel())
        nn.init.normal_(parameter, std=scale / math.sqrt(2 * depth) if by_depth else scale)

    return fill


def _normal(std: float) -> Rule:
    return lambda parameter, _: nn.init.normal_(parameter, std=std)


def _width(parameter: Tensor, _: int) -> None:
    nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)


def _constant(value: float) -> Rule:
    return lambda parameter, _: nn.init.constant_(parameter, value)


NEW_STD = 0.02  # of the parts that X-CLIP adds, as published


def _small(parameter: Tensor, _: int) -> None:
    nn.init.trunc_normal_(parameter, std=NEW_STD)


_TOWER = r"(visual|text)"
_BLOCK = rf"{_TOWER}\.blocks\.\d+"

TABLE: tuple[tuple[str, Rule], ...] = (
    (r".*norm\.weight", _constant(1.0)),
    (r".*\.bias", _constant(0.0)),
    (r"logit_scale", _constant(math.log(1 / 0.07))),
    (r"logit_bias", _constant(-10.0)),  # as SigLIP starts
    (r"visual\.patch_embedding\.weight", _fan_in(1.0)),
    (r"visual\.(class|position)_embedding|visual\.pooling\.probe", _width),
    (r"visual\.pooling\.attn\.(qkv|proj)\.weight", _fan_in(1.0)),
    (r"visual\.pooling\.mlp\.fc1\.weight", _fan_in(2**-0.5)),
    (r"visual\.pooling\.mlp\.fc2\.weight", _fan_in(2.0)),
    (r"text\.token_embedding\.weight", _normal(0.02)),
    (r"text\.position_embedding", _normal(0.01)),
    (rf"{_BLOCK}\.(intra_)?attn\.qkv\.weight", _fan_in(1.0)),
    (rf"{_BLOCK}\.(intra_)?attn\.proj\.weight", _fan_in(1.0, by_depth=True)),
    (rf"{_BLOCK}\.mlp\.fc1\.weight", _fan_in(2**-0.5)),
    (rf"{_BLOCK}\.mlp\.fc2\.weight", _fan_in(2.0, by_depth=True)),
    (rf"{_TOWER}\.proj\.weight", _fan_in(1.0)),
    (rf"(?={ADDED}).*(?<!norm)\.weight", _small),
    (r"integration\.position_embedding", _small),
    (r"prompting\.alpha", _constant(0.1)),
    (r"text\.context\.vectors", _normal(0.02)),
    (r"discrete\.table", _small),
)
"""Pattern of the parameter's full name -> how it is filled."""


def _uniform_by_width(parameter: Tensor, _: int) -> None:
    """The default initialisation of `nn.Linear`; a bias has the width of its input here."""
    bound = parameter.shape[-1] ** -0.5
    nn.init.uniform_(parameter, -bound, bound)


def _xavier(parameter: Tensor, _: int) -> None:
    nn.init.xavier_uniform_(parameter)


RELEASED: tuple[tuple[str, Rule], ...] = (
    (r"visual\.blocks\.\d+\.message_proj\.(weight|bias)", _uniform_by_width),
    (r"visual\.blocks\.\d+\.cross_attn\.qkv\.weight", _xavier),
    (r"visual\.blocks\.\d+\.cross_attn\.proj\.weight", _uniform_by_width),
    (r"integration\.blocks\.\d+\.attn\.qkv\.weight", _xavier),
    (r"prompting\.patch_proj\.weight", _normal(1.0)),
)
"""Where X-CLIP's released code differs: `nn.MultiheadAttention` and `nn.Linear` keep torch's defaults, and a projection
of patches, whose scale the following layer norm removes, is a plain `torch.randn`."""


def rules_for(name: str) -> list[Rule]:
    """The rows whose pattern matches this parameter's full name; the table is correct if it is always one."""
    return [rule for pattern, rule in TABLE if re.fullmatch(pattern, name)]


@torch.no_grad()
def draw_as_released(model: nn.Module) -> None:
    """Refill, in place, the parameters of new parts that X-CLIP's released code initialises differently."""
    for name, parameter in model.named_parameters():
        for pattern, rule in RELEASED:
            if re.fullmatch(pattern, name):
                rule(parameter, 1)


@torch.no_grad()
def enlarge_new_parts(model: nn.Module, gain: float) -> None:
    """Scale what `initialise` drew for the new parts' matrices and time positions from 0.02 to a share of their size.

    A matrix gets a deviation of gain / sqrt(fan-in); time positions, which are added to frame features of about 1 in
    towers this narrow, gain / 2.
    """
    for name, parameter in model.named_parameters():
        if not is_added(name) or parameter.ndim < 2 or name.startswith("text."):
            continue  # context vectors are like word embeddings, and as small
        is_position = name == "integration.position_embedding"
        parameter.mul_((gain / 2 if is_position else gain / math.sqrt(parameter.shape[-1])) / NEW_STD)


@torch.no_grad()
def initialise(model: nn.Module) -> None:
    """Fill every parameter of an X-CLIP model in place, from torch's global random generator."""
    towers = {name: tower for name in ("visual", "text") if (tower := getattr(model, name)) is not None}
    depth = {name: len(tower.blocks) for name, tower in towers.items()}
    for name, parameter in model.named_parameters():
        (rule,) = rules_for(name)
        rule(parameter, depth.get(name.partition(".")[0], 1))
