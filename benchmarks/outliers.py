"""Weights with outliers as large CLIP models have them, made from any weights.

In trained models a few channels that layer norms put out are tens of times the others (Dettmers et al. 2022; Xiao et
al. 2023), and a few units of an MLP are large for every token. Random weights have neither, and rounding them proves
little.
"""

import copy

import torch

from openxclip.models import XCLIP
from openxclip.models.vision import FrameBlock

NUM_CHANNELS = 6  # of each norm
NUM_UNITS = 4  # of each MLP
LARGE = 30.0


def with_outliers(model: XCLIP) -> XCLIP:
    """A copy in which channels are 10 to 100 times the others, and the function is nearly the same.

    Channels of each norm are scaled up, and the weights that read them down by as much, which changes nothing. Units of
    each MLP get a large bias, and the next layer's bias takes it away again; the activation is the identity there.
    """
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in model.visual.blocks:
            assert isinstance(block, FrameBlock)
            for norm, linear in ((block.intra_norm, block.intra_attn.qkv), (block.mlp_norm, block.mlp.fc1)):
                channels = torch.randperm(len(norm.weight), generator=generator)[:NUM_CHANNELS]
                factors = 10 ** (1 + torch.rand(NUM_CHANNELS, generator=generator))
                norm.weight[channels] *= factors
                norm.bias[channels] *= factors
                linear.weight[:, channels] /= factors
            units = torch.randperm(block.mlp.fc1.out_features, generator=generator)[:NUM_UNITS]
            block.mlp.fc1.bias[units] += LARGE
            block.mlp.fc2.bias.sub_(LARGE * block.mlp.fc2.weight[:, units].sum(dim=1))
    return model
