"""Accuracy and confusion.

Shapes: V videos, K classes.
"""

import torch
from torch import Tensor


def top_k_accuracy(probabilities: Tensor, labels: Tensor, k: int) -> float:
    """Share of videos whose label is among the k most probable: probabilities (V, K), labels (V,).

    Of equal values the first is taken, as in `argmax`, so that the confusion matrix agrees.
    """
    top = probabilities.argsort(dim=1, descending=True, stable=True)[:, :k]  # (V, k)
    return (top == labels[:, None]).any(dim=1).double().mean().item()


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts (K, K): row is the true class, column the predicted one; predicted (V,), labels (V,)."""
    cells = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)


def per_class_accuracy(confusion: Tensor) -> Tensor:
    """Recall of each class (K,) from a confusion matrix (K, K); nan if a class has no video."""
    return confusion.diagonal().double() / confusion.sum(dim=1)


def harmonic_mean(first: float, second: float) -> float:
    """Harmonic mean of two shares; 0 if either is 0."""
    return 2 * first * second / (first + second) if first + second else 0.0
