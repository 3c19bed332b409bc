"""The text tower: CLIP's, causal, or SigLIP's, where all tokens see each other.

Shapes: K texts, C tokens of a text, E joint embedding.
"""

import torch
from torch import Tensor, nn

from openxclip.models.config import TextConfig
from openxclip.models.layers import TransformerBlock
from openxclip.models.learnable_context import LearnableContext, shorten


def ends(tokens: Tensor, end_id: int | None = None) -> Tensor:
    """Where each text (K, C) ends -> (K,): its first token with this id, or with the highest (`TextConfig.end_id`)."""
    return tokens.argmax(dim=1) if end_id is None else (tokens == end_id).int().argmax(dim=1)


def trim(tokens: Tensor, end_id: int | None = None) -> Tensor:
    """Cut the padding after the longest text: tokens (K, C) -> (K, C').

    Exact, not an approximation: attention is causal and the feature is read at the end-of-text token, so nothing
    after the last one is ever used.
    """
    return tokens[:, : int(ends(tokens, end_id).max()) + 1]


class TextTransformer(nn.Module):
    """A transformer over the tokens of a text; its feature is one of them (see `TextConfig.causal`)."""

    def __init__(self, config: TextConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.width, config.num_heads, config.mlp_width, config.activation, config.norm_eps
            )
            for _ in range(config.num_layers)
        )
        self.final_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.proj = nn.Linear(config.width, embed_dim, bias=config.projection_bias)
        # Last, so that the same seed gives the tower the same initial weights with and without it.
        self.context = (
            LearnableContext(config.num_context_vectors, config.width) if config.num_context_vectors else None
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (K, C) -> text features (K, E); any C up to the context length, or exactly that if not causal."""
        if self.config.causal:
            return self._causal(trim(tokens, self.config.end_id))
        return self._bidirectional(tokens)

    def untrimmed(self, tokens: Tensor) -> Tensor:
        """The same over the whole context: no shape depends on token values, as exported graphs require."""
        return self._causal(tokens) if self.config.causal else self._bidirectional(tokens)

    def _causal(self, tokens: Tensor) -> Tensor:
        num_vectors = self.config.num_context_vectors or 0
        if self.context is None:
            x = self.token_embedding(tokens)
        else:
            tokens = shorten(tokens, self.config.context_length - num_vectors)
            x = self.context(self.token_embedding(tokens))
        x = self._encode(x, causal=True)  # (K, C, D), with learnable context (K, C + M, D)
        end = x[
            torch.arange(x.shape[0], device=x.device), ends(tokens, self.config.end_id) + num_vectors
        ]  # (K, D)
        return self.proj(self.final_norm(end))

    def _bidirectional(self, tokens: Tensor) -> Tensor:
        x = self._encode(self.token_embedding(tokens), causal=False)
        return self.proj(self.final_norm(x[:, -1]))

    def _encode(self, x: Tensor, causal: bool) -> Tensor:
        """Token embeddings (K, C, D) -> output of the last block, of the same shape."""
        x = x + self.position_embedding[: x.shape[1]]
        for block in self.blocks:
            x = block(x, causal=causal)
        return x
