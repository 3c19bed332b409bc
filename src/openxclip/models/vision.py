"""The image tower with cross-frame communication (section 3.2, CCT).

Shapes: B videos, T frames, N patches of a frame, L tokens (1 + N, class token first; N in a tower without), D width,
E joint embedding.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openxclip.models.config import VisionConfig
from openxclip.models.layers import MLP, Attention, DropPath
from openxclip.models.merging import Merged, attend_by_size, every_patch, merge, unmerged
from openxclip.models.pooling import AttentionPooling
from openxclip.models.rotary import patch_angles


class FrameFeatures(NamedTuple):
    """The tower's features of each frame."""

    frames: Tensor
    """(B, T, E): the class token or the pooled tokens, normalised and projected into the joint embedding."""
    patches: Tensor
    """(B, T, N, D): the patch tokens after the last block."""


class FrameBlock(nn.Module):
    """Frames exchange messages (CFA), then each frame attends within itself (IFA), then the MLP."""

    def __init__(self, config: VisionConfig, drop_path: float) -> None:
        super().__init__()
        width, num_heads = config.width, config.num_heads
        self.class_token = config.class_token
        self.message_tokens = config.message_tokens
        if self.message_tokens:
            self.message_proj = nn.Linear(width, width)
            self.cross_norm = nn.LayerNorm(width, config.norm_eps)
            self.cross_attn = Attention(width, num_heads)
        self.intra_norm = nn.LayerNorm(width, config.norm_eps)
        self.intra_attn = Attention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width, config.norm_eps)
        self.mlp = MLP(width, config.mlp_width, config.activation)
        self.drop_path = DropPath(drop_path)

    def messages(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Cross-frame fusion attention over T: x (B, T, L, D) -> one message token a frame (B, T, 1, D).

        A message is computed from the frame's class token. In a tower without one, the mean of the frame's patches
        replaces it: like a class token it is in the space of the block's tokens, costs nothing and has no order.
        (The tower's attention pooling was trained only on the last block's normalised tokens; its probe would not
        fit the tokens of earlier blocks.)
        """
        return self._message_of(self._summary(x), kept)

    def _message_of(self, summary: Tensor, kept: Tensor | None = None) -> Tensor:
        """Summary of each frame (B, T, D) -> its message (B, T, 1, D)."""
        message = self.message_proj(summary)
        message = message + self.drop_path(self.cross_attn(self.cross_norm(message)), kept)
        return message.unsqueeze(2)

    def message_attention(self, x: Tensor) -> Tensor:
        """Which frames each frame's message reads in x (B, T, L, D), for explanations: mean over heads (B, T, T)."""
        return self.cross_attn.weights(self.cross_norm(self.message_proj(self._summary(x)))).mean(dim=1)

    def _summary(self, x: Tensor) -> Tensor:
        """The token that represents each frame of x (B, T, L, D) -> (B, T, D)."""
        return x[:, :, 0] if self.class_token else x.mean(dim=2)

    def forward(self, x: Tensor, angles: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """One block.

        Args:
            x: (B, T, L, D).
            angles: (L, D / heads / 2) of its tokens, if positions are rotary.
            kept: (3, B), 1 or 0: whether each clip keeps the branch of messages, of attention and of the MLP in
                training; by default `DropPath` draws.

        Returns:
            (B, T, L, D).
        """
        num_tokens = x.shape[2]
        for_messages, for_attention, for_mlp = (None, None, None) if kept is None else kept
        if self.message_tokens:
            x = torch.cat([x, self.messages(x, for_messages)], dim=2)  # (B, T, L+1, D)
            if angles is not None:  # a message has no position in the frame: it is not rotated
                angles = torch.cat([angles, angles.new_zeros(1, angles.shape[1])])
        # intra-frame diffusion attention
        x = x + self.drop_path(self.intra_attn(self.intra_norm(x), angles=angles), for_attention)
        x = x[:, :, :num_tokens]  # the message has been read and is dropped
        return x + self.drop_path(self.mlp(self.mlp_norm(x)), for_mlp)

    def merging(self, merged: Merged, num_merged: int) -> Merged:
        """The block for inference with token merging: `num_merged` tokens of each frame merge before the MLP."""
        num_class_tokens, num_tokens = int(self.class_token), merged.tokens.shape[2]
        x, sizes, angles = merged.tokens, merged.sizes, merged.angles
        if self.message_tokens:
            mean = (x * sizes).sum(dim=2) / sizes.sum(dim=2)
            x = torch.cat([x, self._message_of(x[:, :, 0] if self.class_token else mean)], dim=2)
            sizes = torch.cat([sizes, torch.ones_like(sizes[:, :, :1])], dim=2)
            if angles is not None:
                angles = torch.cat([angles, torch.zeros_like(angles[:, :, :1])], dim=2)
        flat = None if angles is None else angles.flatten(0, 1)
        found, alike = attend_by_size(
            self.intra_attn, self.intra_norm(x).flatten(0, 1), sizes.flatten(0, 1), flat
        )
        x = (x + found.view_as(x))[:, :, :num_tokens]
        alike = alike.unflatten(0, x.shape[:2])[:, :, :num_tokens]
        merged = merge(merged._replace(tokens=x), alike, num_merged, num_class_tokens)
        return merged._replace(tokens=merged.tokens + self.mlp(self.mlp_norm(merged.tokens)))


class VisionTransformer(nn.Module):
    """A language-image model's image tower whose blocks can exchange messages between frames."""

    def __init__(self, config: VisionConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.num_merged = 0
        """Tokens of a frame that each block merges; for inference."""
        width = config.width
        self.patch_embedding = nn.Conv2d(
            3, width, config.patch_size_px, config.patch_size_px, bias=config.patch_bias
        )
        self.class_embedding = nn.Parameter(torch.empty(width)) if config.class_token else None
        num_tokens = config.num_patches + int(config.class_token)
        self.position_embedding = nn.Parameter(torch.empty(num_tokens, width))
        self.pre_norm = nn.LayerNorm(width, config.norm_eps) if config.pre_norm else nn.Identity()
        rates = torch.linspace(0, config.drop_path, config.num_layers, device="cpu").tolist()
        self.blocks = nn.ModuleList(FrameBlock(config, rate) for rate in rates)
        self.post_norm = nn.LayerNorm(width, config.norm_eps)
        self.pooling = AttentionPooling(config) if config.pooling == "attention" else None
        self.proj = (
            nn.Linear(width, embed_dim, bias=config.projection_bias) if config.projection else nn.Identity()
        )

    def embed(self, pixels: Tensor) -> Tensor:
        """pixels (B, T, 3, H, W) -> tokens (B, T, L, D)."""
        num_videos, num_frames = pixels.shape[:2]
        patches = self.patch_embedding(pixels.flatten(0, 1))  # (BT, D, h, w)
        patches = patches.flatten(2).transpose(1, 2).unflatten(0, (num_videos, num_frames))  # (B, T, N, D)
        if self.class_embedding is not None:
            class_token = self.class_embedding.expand(num_videos, num_frames, 1, -1)
            patches = torch.cat([class_token, patches], dim=2)
        return patches + self.position_embedding

    def pool(self, x: Tensor) -> Tensor:
        """Tokens after the last block (B, T, L, D) -> frame features (B, T, E)."""
        if self.config.pooling == "mean":
            return self.proj(self.post_norm(x[:, :, int(self.config.class_token) :].mean(dim=2)))
        if self.pooling is None:
            return self.proj(self.post_norm(x[:, :, 0]))
        return self.proj(self.pooling(self.post_norm(x)))

    def message_attention(self, pixels: Tensor) -> Tensor | None:
        """Which frames each frame attends to in pixels (B, T, 3, H, W), for explanations -> (B, T, T); rows sum to 1.

        The mean over heads and blocks; None in a tower without message tokens.
        """
        if not self.config.message_tokens:
            return None
        x = self.pre_norm(self.embed(pixels))
        angles = self._angles(x.device) if self.config.rotary else None
        maps = []
        for block in self.blocks:
            assert isinstance(block, FrameBlock)
            maps.append(block.message_attention(x))
            x = block(x, angles)
        return torch.stack(maps).mean(dim=0)

    def forward(self, pixels: Tensor, kept: Tensor | None = None) -> FrameFeatures:
        """pixels (B, T, 3, H, W), normalised -> features of each frame; `kept` (layers, 3, B) is for training."""
        x = self.pre_norm(self.embed(pixels))
        angles = self._angles(x.device) if self.config.rotary else None
        if self.num_merged:
            x = self._merging(x, angles)
            return FrameFeatures(frames=self.pool(x), patches=x[:, :, int(self.config.class_token) :])
        for i, block in enumerate(self.blocks):
            of_block = None if kept is None else kept[i]
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, angles, of_block, use_reentrant=False)
            else:
                x = block(x, angles, of_block)
        return FrameFeatures(frames=self.pool(x), patches=x[:, :, int(self.config.class_token) :])

    def _merging(self, x: Tensor, angles: Tensor | None) -> Tensor:
        """All blocks with token merging: tokens (B, T, L, D) -> the same shape, every patch with its token's value."""
        num_class_tokens = int(self.config.class_token)
        merged = unmerged(x, num_class_tokens, angles)
        for block in self.blocks:
            assert isinstance(block, FrameBlock)
            merged = block.merging(merged, self.num_merged)
        return every_patch(merged, num_class_tokens)

    def _angles(self, device: torch.device) -> Tensor:
        """Angles (L, D / heads / 2) by which attention rotates each token; a class token is not rotated."""
        config = self.config
        grid, num_class_tokens = config.image_size_px // config.patch_size_px, int(config.class_token)
        angles = patch_angles(grid, config.width // config.num_heads, num_class_tokens, device)
        return torch.cat([angles.new_zeros(num_class_tokens, angles.shape[1]), angles])
