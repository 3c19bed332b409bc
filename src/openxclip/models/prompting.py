"""Video-specific prompting (section 3.3): adapts class names to the video they are compared with.

Shapes: B videos, T frames, N patches, D vision width, E joint embedding, K texts.
"""

import torch
from torch import Tensor, nn

from openxclip.models.config import PromptingConfig, heads
from openxclip.models.layers import MLP, attend, attention_weights


class CrossAttention(nn.Module):
    """Texts attend to the video's patches; queries, keys and values have no bias, the output has one."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        """text (B, K, E) attends to context (B, N, E) -> (B, K, E)."""
        out = attend(self.query(text), self.key(context), self.value(context), self.num_heads)
        return self.proj(out)

    def weights(self, text: Tensor, context: Tensor) -> Tensor:
        """Attention weights of each text (B, K, E) over the context (B, N, E), for explanations -> (B, H, K, N)."""
        return attention_weights(self.query(text), self.key(context), self.num_heads)


class PromptingLayer(nn.Module):
    """Pre-norm residual block: cross-attention to the video, then MLP."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.cross_attn = CrossAttention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        """text (B, K, E), context (B, N, E) -> (B, K, E)."""
        text = text + self.cross_attn(self.query_norm(text), context)
        return text + self.mlp(self.mlp_norm(text))


class VideoSpecificPrompting(nn.Module):
    """Adds to each text its prompt from the video, scaled by the learnable `alpha`."""

    def __init__(self, config: PromptingConfig, vision_width: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_norm = nn.LayerNorm(vision_width)
        self.patch_proj = nn.Linear(vision_width, embed_dim, bias=False)
        self.context_norm = nn.LayerNorm(embed_dim)
        num_heads = heads(config.num_heads, embed_dim)
        self.layers = nn.ModuleList(PromptingLayer(embed_dim, num_heads) for _ in range(config.num_layers))
        self.alpha = nn.Parameter(torch.empty(embed_dim))

    def project(self, patches: Tensor) -> Tensor:
        """Patch tokens of a clip (B, T, N, D) -> its visual context, the mean over frames (B, N, E)."""
        return self.patch_proj(self.patch_norm(patches)).mean(dim=1)

    def forward(self, text: Tensor, context: Tensor) -> Tensor:
        """text (K, E), context (B, N, E) -> texts adapted to each video (B, K, E)."""
        context = self.context_norm(context)
        prompt = text.expand(context.shape[0], -1, -1)  # (B, K, E)
        for layer in self.layers:
            prompt = layer(prompt, context)
        return text + self.alpha * prompt

    def attention(self, text: Tensor, context: Tensor) -> Tensor:
        """Where texts attend in a video, for explanations: the mean over heads and layers (B, K, N); rows sum to 1."""
        context = self.context_norm(context)
        prompt = text.expand(context.shape[0], -1, -1)
        maps = []
        for layer in self.layers:
            assert isinstance(layer, PromptingLayer)
            maps.append(layer.cross_attn.weights(layer.query_norm(prompt), context).mean(dim=1))
            prompt = layer(prompt, context)
        return torch.stack(maps).mean(dim=0)
