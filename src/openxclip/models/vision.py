"""The image tower with cross-frame communication (section 3.2, CCT).

Shapes: B videos, T frames, N patches of a frame, L = 1 + N tokens (class token first), D width,
E joint embedding.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openxclip.models.config import VisionConfig
from openxclip.models.layers import MLP, Attention, DropPath


class FrameFeatures(NamedTuple):
    """What the tower gives for each frame."""

    frames: Tensor
    """(B, T, E): the class token, normalised and projected into the joint embedding."""
    patches: Tensor
    """(B, T, N, D): the patch tokens as the last block leaves them."""


class FrameBlock(nn.Module):
    """Frames exchange messages (CFA), then each frame attends within itself (IFA), then the MLP."""

    def __init__(self, width: int, num_heads: int, drop_path: float, message_tokens: bool) -> None:
        super().__init__()
        self.message_tokens = message_tokens
        if message_tokens:
            self.message_proj = nn.Linear(width, width)
            self.cross_norm = nn.LayerNorm(width)
            self.cross_attn = Attention(width, num_heads)
        self.intra_norm = nn.LayerNorm(width)
        self.intra_attn = Attention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MLP(width)
        self.drop_path = DropPath(drop_path)

    def messages(self, x: Tensor) -> Tensor:
        """Cross-frame fusion attention over T: x (B, T, L, D) -> one message token a frame (B, T, 1, D)."""
        message = self.message_proj(x[:, :, 0])  # (B, T, D)
        message = message + self.drop_path(self.cross_attn(self.cross_norm(message)))
        return message.unsqueeze(2)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, L, D) -> (B, T, L, D)."""
        num_tokens = x.shape[2]
        if self.message_tokens:
            x = torch.cat([x, self.messages(x)], dim=2)  # (B, T, L+1, D)
        x = x + self.drop_path(self.intra_attn(self.intra_norm(x)))  # intra-frame diffusion attention
        x = x[:, :, :num_tokens]  # the message has been read; it does not live on
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))


class VisionTransformer(nn.Module):
    """CLIP's image tower whose blocks may talk across frames."""

    def __init__(self, config: VisionConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        width = config.width
        self.patch_embedding = nn.Conv2d(3, width, config.patch_size_px, config.patch_size_px, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.position_embedding = nn.Parameter(torch.empty(1 + config.num_patches, width))
        self.pre_norm = nn.LayerNorm(width)
        rates = torch.linspace(0, config.drop_path, config.num_layers, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            FrameBlock(width, config.num_heads, rate, config.message_tokens) for rate in rates
        )
        self.post_norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, embed_dim, bias=False)

    def embed(self, pixels: Tensor) -> Tensor:
        """pixels (B, T, 3, H, W) -> tokens (B, T, L, D)."""
        num_videos, num_frames = pixels.shape[:2]
        patches = self.patch_embedding(pixels.flatten(0, 1))  # (BT, D, h, w)
        patches = patches.flatten(2).transpose(1, 2).unflatten(0, (num_videos, num_frames))  # (B, T, N, D)
        class_token = self.class_embedding.expand(num_videos, num_frames, 1, -1)
        return torch.cat([class_token, patches], dim=2) + self.position_embedding

    def forward(self, pixels: Tensor) -> FrameFeatures:
        """pixels (B, T, 3, H, W), normalised -> features of each frame."""
        x = self.pre_norm(self.embed(pixels))
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return FrameFeatures(frames=self.proj(self.post_norm(x[:, :, 0])), patches=x[:, :, 1:])
