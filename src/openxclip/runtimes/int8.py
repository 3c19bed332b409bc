"""Int8 matrix products in the image tower: CPUs compute four times as many of them as in float32.

Shapes: ... any leading dims, M rows, D input width (summed over), F output width.
"""

import torch
from torch import Tensor, nn

from openxclip.errors import InputError
from openxclip.models import XCLIP

LARGEST = 127  # of the integers -127 to 127, symmetric around 0


class Int8Linear(nn.Module):
    """A linear layer whose weights and inputs are rounded to integers with a scale for each row of either.

    A row of the input is a token and is scaled dynamically, so no calibration is needed, and a token with large values
    does not reduce the precision of other tokens.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = to_int8(linear.weight.detach())
        self.register_buffer("weight", weight.T)  # (D, F)
        self.register_buffer("scale", scale.T)  # (1, F)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., F), in the type of x."""
        rows, scale = to_int8(x.flatten(0, -2))
        # Exact: 32-bit sums hold the products of 130,000 pairs. torch has no public API for this product yet.
        out = torch._int_mm(rows, self.weight) * (scale * self.scale)
        if self.bias is not None:
            out = out + self.bias
        return out.to(x.dtype).unflatten(0, x.shape[:-1])


def to_int8(x: Tensor, largest: int = LARGEST) -> tuple[Tensor, Tensor]:
    """x (M, D) -> integers (M, D) and scales (M, 1) whose product approximates x.

    The integers are -largest to largest.
    """
    scale = x.abs().amax(dim=1, keepdim=True).float() / largest
    scale = scale.clamp(min=torch.finfo(torch.float32).tiny)  # a row of zeros
    return (x / scale).round().to(torch.int8), scale


def check_device(device: torch.device) -> None:
    """Refuse a device that is not a CPU.

    Raises:
        InputError: the device is not a CPU.
    """
    if device.type != "cpu":
        raise InputError(f"int8 is for CPUs, but the model runs on {device}; leave it out there")


def quantisable(tower: XCLIP) -> dict[str, nn.Linear]:
    """The layers worth quantising, by name: attention within frames and MLPs, nearly all of a video's arithmetic."""
    names = ("intra_attn.qkv", "intra_attn.proj", "mlp.fc1", "mlp.fc2")
    paths = [f"visual.blocks.{i}.{name}" for i in range(len(tower.visual.blocks)) for name in names]
    layers = {path: tower.get_submodule(path) for path in paths}
    return {path: layer for path, layer in layers.items() if isinstance(layer, nn.Linear)}


def use_int8(model: XCLIP) -> None:
    """Quantise the image tower's attention within frames and its MLPs in place: nearly all of a video's arithmetic.

    For inference only, without gradients.

    Messages stay as they are (one row per frame costs nothing), and so do the projections, the integration transformer,
    prompting and texts.

    Raises:
        InputError: the model is not on the CPU.
    """
    check_device(model.logit_scale.device)
    for path, layer in quantisable(model).items():
        model.set_submodule(path, Int8Linear(layer))
