"""Discrete labels: a learnable vector for each class in place of its text, the baseline "without text" (section 4).

Shapes: K classes, E joint embedding.
"""

import torch
from torch import nn


class DiscreteLabels(nn.Module):
    """A table (K, E) that takes the place of the text features.

    It is compared as texts are, by scaled cosine, not by the usual linear layer: the logits are then the same
    function of the same video feature, and a difference in accuracy is due to the targets alone.
    """

    labels: tuple[str, ...] | None
    """The class names of the rows, which no other names may take the place of; None until a training says them."""

    def __init__(self, num_labels: int, embed_dim: int) -> None:
        super().__init__()
        self.labels = None
        self.table = nn.Parameter(torch.empty(num_labels, embed_dim))
