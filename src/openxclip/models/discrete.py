"""Discrete labels: a learnable vector for each class instead of its text, the baseline "without text" (section 4).

Shapes: K classes, E joint embedding.
"""

import torch
from torch import nn


class DiscreteLabels(nn.Module):
    """A table (K, E) that replaces the text features.

    It is compared like texts, by scaled cosine, not by the usual linear layer: the logits are then the same function
    of the same video feature, and a difference in accuracy is due to the targets alone.
    """

    labels: tuple[str, ...] | None
    """The class names of the rows, which cannot be replaced; None until a training sets them."""

    def __init__(self, num_labels: int, embed_dim: int) -> None:
        super().__init__()
        self.labels = None
        self.table = nn.Parameter(torch.empty(num_labels, embed_dim))
