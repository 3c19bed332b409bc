"""CLIP's text tower.

Shapes: K texts, C tokens of a text, E joint embedding.
"""

import torch
from torch import Tensor, nn

from openxclip.models.config import TextConfig
from openxclip.models.layers import TransformerBlock
from openxclip.models.learnable_context import LearnableContext, shorten


def trim(tokens: Tensor) -> Tensor:
    """Cut the padding after the longest text: tokens (K, C) -> (K, C').

    Exact, not an approximation: attention is causal and the feature sits on the end-of-text token, so nothing
    behind the last of them is ever read.
    """
    return tokens[:, : int(tokens.argmax(dim=1).max()) + 1]


class TextTransformer(nn.Module):
    """Causal transformer; a text's feature is its end-of-text token, the one with the highest id."""

    def __init__(self, config: TextConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.num_heads) for _ in range(config.num_layers)
        )
        self.final_norm = nn.LayerNorm(config.width)
        self.proj = nn.Linear(config.width, embed_dim, bias=False)
        # Last, so that with the same seed the tower starts from the same weights with and without it.
        self.context = (
            LearnableContext(config.num_context_vectors, config.width) if config.num_context_vectors else None
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (K, C), any C up to the context length -> text features (K, E)."""
        tokens = trim(tokens)
        num_vectors = self.config.num_context_vectors or 0
        if self.context is None:
            x = self.token_embedding(tokens)
        else:
            tokens = shorten(tokens, self.config.context_length - num_vectors)
            x = self.context(self.token_embedding(tokens))
        x = x + self.position_embedding[: x.shape[1]]  # (K, C, D), with learnable context (K, C + M, D)
        for block in self.blocks:
            x = block(x, causal=True)
        end = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=1) + num_vectors]  # (K, D)
        return self.proj(self.final_norm(end))
