"""Rotary positions of patches (RoFormer, Su et al. 2021; on two axes as in Perception Encoder, Bolya et al. 2025).

Shapes: N patches of a frame, L tokens, H heads, D width.
"""

import torch
from torch import Tensor

BASE = 10_000.0


def patch_angles(grid: int, head_width: int, first: int, device: torch.device) -> Tensor:
    """Angles (N, head_width / 2) of a grid x grid frame: the first half depends on x, the second on y.

    Columns and rows count from `first`: 1 if there is a class token, which has no position and gets angle 0.
    """
    num_frequencies = head_width // 4
    frequencies = BASE ** -(torch.arange(num_frequencies, device=device) / num_frequencies)
    places = torch.arange(first, first + grid, device=device)[:, None] * frequencies  # (grid, head_width / 4)
    x = places.expand(grid, grid, -1)
    y = places[:, None].expand(grid, grid, -1)
    return torch.cat([x, y], dim=-1).flatten(0, 1)


def rotate(x: Tensor, angles: Tensor, num_heads: int) -> Tensor:
    """Rotate each pair of neighbouring channels of x (B, L, D), the same in every head, by angles (L, D / H / 2).

    Angles may also differ between sequences, (B, L, D / H / 2).
    """
    pairs = x.unflatten(-1, (num_heads, -1, 2))  # (B, L, H, D / H / 2, 2)
    first, second = pairs.float().unbind(-1)
    cos, sin = angles.cos().unsqueeze(-2), angles.sin().unsqueeze(-2)  # (..., L, 1, D / H / 2)
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.flatten(-3).to(x.dtype)
