"""Layers shared by all towers.

Shapes: ... any leading dims, L tokens, D width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openxclip.models.config import MLP_RATIO, Activation
from openxclip.models.rotary import rotate

QUICK = 1.702


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's x * sigmoid(1.702 x), by silu(z) = z sigmoid(z): the backward pass keeps one tensor less."""
    return F.silu(QUICK * x) * (1 / QUICK)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
}


class MLP(nn.Module):
    """Linear (D -> hidden, by default 4D), activation, Linear (hidden -> D)."""

    def __init__(self, width: int, hidden: int | None = None, activation: Activation = "quick_gelu") -> None:
        super().__init__()
        hidden = hidden or MLP_RATIO * width
        self.fc1 = nn.Linear(width, hidden)
        self.activation = ACTIVATIONS[activation]
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        return self.fc2(self.activation(self.fc1(x)))


class Attention(nn.Module):
    """Multi-head self-attention over the second-to-last axis, with fused query, key and value."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, causal: bool = False, angles: Tensor | None = None) -> Tensor:
        """x (..., L, D) -> (..., L, D).

        With `causal`, a token sees itself and those before it. Angles (L, D/H/2) rotate queries and keys.
        """
        q, k, v = self.qkv(x).flatten(0, -3).chunk(3, dim=-1)  # (prod(...), L, D) each
        if angles is not None:
            q, k = (rotate(tensor, angles, self.num_heads) for tensor in (q, k))
        out = attend(q, k, v, self.num_heads, causal)
        return self.proj(out.reshape(x.shape))

    def weights(self, x: Tensor) -> Tensor:
        """Attention weights of each token of x (..., L, D), for explanations -> (..., H, L, L); each row sums to 1."""
        q, k, _ = self.qkv(x).flatten(0, -3).chunk(3, dim=-1)
        return attention_weights(q, k, self.num_heads).unflatten(0, x.shape[:-2])

    def one_query(self, query: Tensor, x: Tensor) -> Tensor:
        """One query (D,), not taken from the tokens, attends to x (..., L, D) -> (..., D)."""
        width = len(query)
        q = F.linear(query, self.qkv.weight[:width], self.qkv.bias[:width])
        key_value = F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:])
        k, v = key_value.flatten(0, -3).chunk(2, dim=-1)  # (prod(...), L, D) each
        out = attend(
            q.expand(k.shape[0], 1, -1), k, v, self.num_heads
        )  # `len` would be a constant when exported
        return self.proj(out.view(*x.shape[:-2], width))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    causal: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    """Scaled dot-product attention of (B, Lq, D) to (B, Lk, D), split into heads -> (B, Lq, D).

    With `causal`, a token sees itself and those before it. A bias (B, 1 or Lq, Lk), the same in every head, is added to
    the scores; it is for inference.
    """
    q, k, v = (
        x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value)
    )  # (B, H, L, D/H)
    if q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16:
        out = _two_products(q, k, v, causal)
    else:
        mask = None if bias is None else bias.to(q.dtype).unsqueeze(1)
        out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
    return out.transpose(1, 2).flatten(2)


def attention_weights(query: Tensor, key: Tensor, num_heads: int) -> Tensor:
    """The attention weights, which `attend` does not compute: (B, Lq, D), (B, Lk, D) -> (B, H, Lq, Lk), in float32."""
    q, k = (x.float().unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key))
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)


def _two_products(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """`scaled_dot_product_attention` of (B, H, L, D/H) as two plain products.

    In bfloat16 on a CPU, torch's kernel has a slow backward pass for sequences as short as a frame's: with it a
    training step of B/32-8 takes 29 % longer, one of B/16-8 10 % (`python -m benchmarks training`).
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
        x = x + self.attn(self.attn_norm(x), causal)
        return x + self.mlp(self.mlp_norm(x))


class DropPath(nn.Module):
    """Stochastic depth: in training a clip's whole branch is dropped with `rate`, the others scaled up.

    The draw comes from torch's generator, unless the caller passes one: then a clip loses the same branches, no matter
    which clips share its batch.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor, kept: Tensor | None = None) -> Tensor:
        """branch (B, ...), and 1 or 0 for each clip (B,) -> the same shape; the identity in eval mode."""
        if not self.training or self.rate == 0.0:
            return branch
        keep = 1.0 - self.rate
        if kept is None:
            kept = branch.new_empty(branch.shape[0]).bernoulli_(keep)
        return branch * kept.to(branch.dtype).view(-1, *[1] * (branch.ndim - 1)) / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"
