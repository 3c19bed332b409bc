"""The activations of an MLP, each with its derivative: training computes both anew from what went in."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from openxclip.models.config import Activation

QUICK = 1.702


class ActivationPair(NamedTuple):
    """An activation and how a gradient goes back through it."""

    forward: Callable[[Tensor], Tensor]
    """x -> activations, in memory of their own; it is not differentiated itself."""
    backward_: Callable[[Tensor, Tensor], Tensor]
    """Gradient of the activations and x -> gradient of x, in the memory of the former."""


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's x * sigmoid(1.702 x), as silu(1.702 x) / 1.702: torch has a kernel for silu(z) = z sigmoid(z) and for its
    derivative, with half the passes over memory of the plain product."""
    return F.silu(QUICK * x, inplace=True).mul_(1 / QUICK)


def quick_gelu_backward_(grad: Tensor, x: Tensor) -> Tensor:
    """The derivative of quick_gelu at x is that of silu at 1.702 x."""
    return torch.ops.aten.silu_backward.grad_input(grad, QUICK * x, grad_input=grad)


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution's cumulative function at x."""
    return F.gelu(x)


def gelu_backward_(grad: Tensor, x: Tensor) -> Tensor:
    """Of gelu."""
    return torch.ops.aten.gelu_backward.grad_input(grad, x, grad_input=grad)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU's approximation by tanh."""
    return F.gelu(x, approximate="tanh")


def gelu_tanh_backward_(grad: Tensor, x: Tensor) -> Tensor:
    """Of gelu_tanh."""
    return torch.ops.aten.gelu_backward.grad_input(grad, x, approximate="tanh", grad_input=grad)


ACTIVATIONS: dict[Activation, ActivationPair] = {
    "quick_gelu": ActivationPair(quick_gelu, quick_gelu_backward_),
    "gelu": ActivationPair(gelu, gelu_backward_),
    "gelu_tanh": ActivationPair(gelu_tanh, gelu_tanh_backward_),
}
