"""The multi-frame integration transformer (section 3.2, MIT): combines frame features into one video feature.

Shapes: B videos, T frames, E joint embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openxclip.models.config import IntegrationConfig, heads
from openxclip.models.layers import TransformerBlock


class MultiFrameIntegration(nn.Module):
    """A small transformer over the frames, added to them, then the mean."""

    def __init__(self, config: IntegrationConfig, num_frames: int, embed_dim: int) -> None:
        super().__init__()
        self.position_embedding = nn.Parameter(torch.empty(num_frames, embed_dim))
        num_heads = heads(config.num_heads, embed_dim)
        self.blocks = nn.ModuleList(TransformerBlock(embed_dim, num_heads) for _ in range(config.num_layers))

    def forward(self, frames: Tensor) -> Tensor:
        """frames (B, T, E) -> video feature (B, E)."""
        x = frames + self.position_embedding
        for block in self.blocks:
            x = block(x)
        return (frames + x).mean(dim=1)


def interpolate_positions(positions: Tensor, num_frames: int) -> Tensor:
    """Positions (T, E) stretched linearly over time to another number of frames -> (num_frames, E)."""
    stretched = F.interpolate(positions.T[None], size=num_frames, mode="linear", align_corners=False)
    return stretched[0].T.contiguous()
