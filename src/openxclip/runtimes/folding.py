"""Normalisation folded into the patch projection: the model reads raw pixels, cast once and copied no more."""

import copy

import torch
from torch import nn

from openxclip.models import XCLIP
from openxclip.video.transforms import Preprocessor


@torch.no_grad()
def fold_normalisation(model: XCLIP, preprocess: Preprocessor) -> XCLIP:
    """A model that takes pixels of 0..255, cast to its dtype, where `model` takes normalised ones.

    (pixels / 255 - mean) / std is linear, and so is the projection W x + b of the patches: W / (255 std) and
    b - W mean / std do the same. All other parameters are shared with `model`, not copied.
    """
    folded = copy.deepcopy(model, memo={id(parameter): parameter for parameter in model.parameters()})
    patches = model.visual.patch_embedding
    weight = patches.weight.float()  # (D, 3, P, P)
    mean, std = (
        torch.tensor(values, device=weight.device).view(3, 1, 1)
        for values in (preprocess.mean, preprocess.std)
    )
    bias = -(weight * (mean / std)).sum(dim=(1, 2, 3))
    if patches.bias is not None:
        bias += patches.bias.float()
    side = weight.shape[-1]
    projection = nn.Conv2d(3, len(weight), side, side, device=weight.device, dtype=patches.weight.dtype)
    projection.load_state_dict({"weight": weight / (255 * std), "bias": bias})
    folded.visual.patch_embedding = projection.requires_grad_(False)
    return folded
