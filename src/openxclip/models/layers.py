"""Layers that every tower shares.

Shapes: ... any leading dims, L tokens, D width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from openxclip.models.activations import ACTIVATIONS, ActivationPair
from openxclip.models.config import MLP_RATIO, Activation
from openxclip.models.rotary import rotate


class MLP(nn.Module):
    """Linear (D -> hidden, 4D where nothing else is said), activation, Linear (hidden -> D)."""

    def __init__(self, width: int, hidden: int | None = None, activation: Activation = "quick_gelu") -> None:
        super().__init__()
        hidden = hidden or MLP_RATIO * width
        self.fc1 = nn.Linear(width, hidden)
        self.activation = ACTIVATIONS[activation]
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """x (..., D) -> (..., D), from the normalised x."""
        hidden = normed_linear(norm, self.fc1, x)
        if torch.is_grad_enabled():
            return _ActivatedLinear.apply(hidden, self.fc2.weight, self.fc2.bias, self.activation)
        return self.fc2(self.activation.forward(hidden))


def normed_linear(norm: nn.LayerNorm, linear: nn.Linear, x: Tensor) -> Tensor:
    """linear(norm(x)), x (..., D)."""
    if torch.is_grad_enabled():
        return _NormedLinear.apply(x, norm.weight, norm.bias, linear.weight, linear.bias, norm.eps)
    return linear(norm(x))


class _NormedLinear(torch.autograd.Function):
    """Layer norm and the linear layer behind it, in training.

    Of all that lies in between, nothing is kept: the normalised tokens are computed again in the backward pass, and
    under autocast the weights are cast again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, norm_weight, norm_bias, weight)
        ctx.eps = eps
        dtype = _product_dtype(x)
        # Under autocast x may be of a smaller type than the norm, which not every device's kernel takes.
        normed = F.layer_norm(x.to(norm_weight.dtype), x.shape[-1:], norm_weight, norm_bias, eps)
        return F.linear(normed.to(dtype), weight.to(dtype), bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, norm_weight, norm_bias, weight = ctx.saved_tensors
        dtype, x, shape = x.dtype, x.to(norm_weight.dtype), x.shape[-1:]
        normed, mean, rstd = torch.native_layer_norm(x, shape, norm_weight, norm_bias, ctx.eps)
        wants = ctx.needs_input_grad
        grad = grad.flatten(0, -2)
        grad_weight, grad_bias = _linear_grads(grad, normed.to(grad.dtype).flatten(0, -2), weight, wants[3:5])
        grad_normed = (grad @ weight.to(grad.dtype)).to(x.dtype).view_as(x)
        grad_x, *of_norm = torch.ops.aten.native_layer_norm_backward(
            grad_normed, x, shape, mean, rstd, norm_weight, norm_bias, wants[:3]
        )
        return None if grad_x is None else grad_x.to(dtype), *of_norm, grad_weight, grad_bias, None


class _ActivatedLinear(torch.autograd.Function):
    """Activation and the linear layer behind it, in training.

    The activations, which are as wide as what goes in, are not kept but computed again in the backward pass, and their
    memory then takes the gradient. So a whole block needs a fifth less memory, and takes less time, too: memory of
    this size comes fresh from the system each time, page by page.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, activation: ActivationPair) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.activation = activation
        dtype = _product_dtype(hidden)
        return F.linear(activation.forward(hidden).to(dtype), weight.to(dtype), bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        grad = grad.flatten(0, -2)
        activated = ctx.activation.forward(hidden).to(grad.dtype).flatten(0, -2)
        grad_weight, grad_bias = _linear_grads(grad, activated, weight, ctx.needs_input_grad[1:3])
        grad_activated = torch.mm(grad, weight.to(grad.dtype), out=activated).to(hidden.dtype).view_as(hidden)
        return ctx.activation.backward_(grad_activated, hidden), grad_weight, grad_bias, None


def _product_dtype(x: Tensor) -> torch.dtype:
    """What a linear layer computes in: autocast's type where that is on. Casts by hand are not kept, as autocast's."""
    device = x.device.type
    if device != "meta" and x.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def _linear_grads(
    grad: Tensor, x: Tensor, weight: Tensor, wants: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a linear layer's weight and bias, where wanted, from that of its output (M, F) and input (M, D)."""
    of_weight = (grad.T @ x).to(weight.dtype) if wants[0] else None
    of_bias = grad.sum(dim=0).to(weight.dtype) if wants[1] else None
    return of_weight, of_bias


class Attention(nn.Module):
    """Multi-head self-attention over the second-to-last axis, with fused query, key and value."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Tensor, norm: nn.LayerNorm, causal: bool = False, angles: Tensor | None = None
    ) -> Tensor:
        """x (..., L, D) -> (..., L, D), from the normalised x.

        causal lets a token see itself and those before it; angles (L, D/H/2) rotate queries and keys (see `rotary`).
        """
        q, k, v = normed_linear(norm, self.qkv, x).flatten(0, -3).chunk(3, dim=-1)  # (prod(...), L, D) each
        if angles is not None:
            q, k = (rotate(tensor, angles, self.num_heads) for tensor in (q, k))
        out = attend(q, k, v, self.num_heads, causal)
        return self.proj(out.reshape(x.shape))

    def one_query(self, query: Tensor, x: Tensor) -> Tensor:
        """One query (D,), not taken from the tokens, attends to x (..., L, D) -> what it finds (..., D)."""
        width = len(query)
        q = F.linear(query, self.qkv.weight[:width], self.qkv.bias[:width])
        key_value = F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:])
        k, v = key_value.flatten(0, -3).chunk(2, dim=-1)  # (prod(...), L, D) each
        out = attend(q.expand(len(k), 1, -1), k, v, self.num_heads)
        return self.proj(out.view(*x.shape[:-2], width))


def attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int, causal: bool = False) -> Tensor:
    """Scaled dot-product attention of (B, Lq, D) to (B, Lk, D), split into heads -> (B, Lq, D)."""
    q, k, v = (
        x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value)
    )  # (B, H, L, D/H)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        out = _two_products(q, k, v, causal)
    else:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return out.transpose(1, 2).flatten(2)


def _two_products(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """`scaled_dot_product_attention` of (B, H, L, D/H) as two plain products.

    For bfloat16 on a CPU torch's own kernel is made for long sequences: with the tokens of a frame or of a class name
    these products take about two thirds of its time, and a third to a tenth of it in the backward pass.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, H, Lq, Lk)
    if causal:
        scores = scores + scores.new_full(scores.shape[-2:], -torch.inf).triu(1)
    return scores.softmax(dim=-1) @ v


class TransformerBlock(nn.Module):
    """Pre-norm residual block: attention, then MLP."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_width: int | None = None,
        activation: Activation = "quick_gelu",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(width, norm_eps)
        self.attn = Attention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width, norm_eps)
        self.mlp = MLP(width, mlp_width, activation)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """x (..., L, D) -> (..., L, D)."""
        x = x + self.attn(x, self.attn_norm, causal)
        return x + self.mlp(x, self.mlp_norm)


class DropPath(nn.Module):
    """Stochastic depth: in training a clip's whole branch is dropped with `rate`, the others scaled up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """branch (B, ...) -> the same shape; the identity in eval mode."""
        if not self.training or self.rate == 0.0:
            return branch
        keep = 1.0 - self.rate
        mask = branch.new_empty(branch.shape[0], *[1] * (branch.ndim - 1)).bernoulli_(keep)
        return branch * mask / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"
