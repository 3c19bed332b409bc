"""Learnable context (CoOp, Zhou et al. 2022): free vectors replace the words of a template.

Shapes: K texts, C tokens of a text, M context vectors, D text width.
"""

import torch
from torch import Tensor, nn


class LearnableContext(nn.Module):
    """M vectors between the start token and the class name, the same ones for every class."""

    def __init__(self, num_vectors: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(num_vectors, width))

    def forward(self, embedded: Tensor) -> Tensor:
        """Embedded texts (K, C, D), start token first -> (K, C + M, D)."""
        vectors = self.vectors.expand(len(embedded), -1, -1)
        return torch.cat([embedded[:, :1], vectors, embedded[:, 1:]], dim=1)


def shorten(tokens: Tensor, length: int) -> Tensor:
    """Cut texts (K, C) to `length` tokens as the tokenizer would: the last one stays the end token."""
    end, position = tokens.max(dim=1)  # the end token has the highest id
    cut = tokens[:, :length].clone()
    too_long = position >= length
    cut[too_long, -1] = end[too_long]
    return cut
