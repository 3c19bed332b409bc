"""Attention pooling: a learned probe attends to all tokens of a frame (SigLIP, Zhai et al. 2023; Perception Encoder).

Shapes: ... any leading dims, L tokens, D width.
"""

import torch
from torch import Tensor, nn

from openxclip.models.config import VisionConfig
from openxclip.models.layers import MLP, Attention


class AttentionPooling(nn.Module):
    """One query, the same for every frame, followed by a residual MLP."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.width
        self.probe = nn.Parameter(torch.empty(width))
        self.attn = Attention(width, config.pooling_heads or config.num_heads)
        self.mlp_norm = nn.LayerNorm(width, config.norm_eps)
        self.mlp = MLP(width, config.pooling_mlp_width or config.mlp_width, config.activation)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (..., L, D) -> (..., D)."""
        found = self.attn.one_query(self.probe, tokens)
        return found + self.mlp(self.mlp_norm(found))
