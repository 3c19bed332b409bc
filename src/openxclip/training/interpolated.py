"""Interpolated-weight regularisation (Open-VCLIP, Weng et al., ICML 2023).

Zero-shot recognition is best at weights between the image model's (A) and the fine-tuned ones (theta). So each step
also reduces the loss there:

    L(theta) + beta * L(alpha * A + (1 - alpha) * theta),    alpha ~ U(0, lambda),    beta = C / (1 - alpha)

This beta cancels the (1 - alpha) of the chain rule: C times the gradient at the interpolated weights is added to the
gradient at theta, as in the authors' code. Published with lambda = 0.6 and C = 0.5: zero-shot 83.4 % on UCF-101,
53.9 % on HMDB-51 and 73.0 % on Kinetics-600's new classes (B/16, together with averaging and interpolation after the
training).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from openxclip.models import XCLIP
from openxclip.training.config import InterpolatedConfig


class InterpolatedWeights:
    """The trained weights that a model shares with the image model, and their values there."""

    def __init__(self, model: XCLIP, image_model: XCLIP, config: InterpolatedConfig) -> None:
        self.config = config
        start = image_model.state_dict()
        self.pairs = [
            (parameter, start[name])
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name in start
        ]

    @contextmanager
    def weights(self, rng: np.random.Generator) -> Iterator[float]:
        """Context with interpolated weights, in which a backward pass adds the gradient; yields C.

        Parts that the image model lacks stay as they are. The weights are actually swapped, not only in the forward
        pass, so that gradient checkpointing recomputes its blocks with the same weights.
        """
        alpha = rng.uniform(0, self.config.max_share)
        trained = [parameter.data for parameter, _ in self.pairs]
        for parameter, start in self.pairs:
            parameter.data = torch.lerp(parameter.data, start, alpha)
        try:
            yield self.config.weight
        finally:
            for (parameter, _), values in zip(self.pairs, trained, strict=True):
                parameter.data = values
