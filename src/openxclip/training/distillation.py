"""Residual feature distillation (FROSTER, Huang et al., ICLR 2024): the frozen image model teaches.

Features z of the model in training are pulled towards the image model's, but only after a small network that is
dropped at the end of training, so that they can still move away if the videos require it:

    beta * mean(1 - cos(z + alpha * MLP(z), teacher's z)),    MLP(z) = W2 GELU(W1 z),  W2 = 0 at the start

The same for texts where their features are trained, with a network of their own. Published with alpha = 0.1 and
beta = 2 (these and the distance as in the authors' code): zero-shot 84.8 % on UCF-101, 54.8 % on HMDB-51 and 74.8 % on
Kinetics-600's new classes (B/16). That code compares frames; we compare the videos' features, so that it works with
every way to integrate frames.

Shapes: B clips, T frames, S input side, K classes, E joint embedding.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openxclip.models import XCLIP
from openxclip.training.config import DistillationConfig


class Distillation:
    """The teacher, and the networks between it and the model in training."""

    def __init__(
        self, teacher: XCLIP, texts: Sequence[Tensor] | None, config: DistillationConfig, seed: int
    ) -> None:
        """
        Args:
            teacher: the image model, with the frame mean.
            texts: its features (K, E) of the class names, for each draw of templates (`TextTargets`); None if
                the model in training has frozen texts.
            config: alpha and beta.
            seed: of the networks' weights.
        """
        self.teacher = teacher.eval().requires_grad_(False)
        self.texts = texts
        self.config = config
        names = ("video",) if texts is None else ("video", "text")
        rng = torch.Generator().manual_seed(seed)
        self.residuals = nn.ModuleDict({name: _residual(teacher.config.embed_dim, rng) for name in names})
        self.residuals.to(teacher.logit_scale.device)
        """Networks that are trained with the model but are not part of it."""

    def extra_loss(self, pixels: Tensor, video: Tensor, text: Tensor, drawn: int, weights: Tensor) -> Tensor:
        """Weighted distance of the model's features from the teacher's, summed over the clips.

        Args:
            pixels: the clips (B, T, 3, S, S), as the model saw them.
            video: the model's features of them (B, E).
            text: its features of the class names (K, E).
            drawn: which of the texts these are.
            weights: of the clips (B,).
        """
        with torch.no_grad():
            wanted = self.teacher.encode_video(pixels).video
        loss = (weights * self._distances("video", video, wanted)).sum()
        if self.texts is not None:
            loss = loss + weights.sum() * self._distances("text", text, self.texts[drawn]).mean()
        return self.config.weight * loss

    def _distances(self, name: str, features: Tensor, wanted: Tensor) -> Tensor:
        """1 - cosine of each row of features and wanted (..., E), in float32."""
        unit = F.normalize(features.float(), dim=-1)
        moved = unit + self.config.residual_share * self.residuals[name](unit)
        return 1 - F.cosine_similarity(moved.float(), wanted.float(), dim=-1)


def _residual(width: int, rng: torch.Generator) -> nn.Sequential:
    """Two layers without bias; the second starts at zero, so that the features pass unchanged at first."""
    first, second = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
    nn.init.kaiming_normal_(first.weight, generator=rng)
    nn.init.zeros_(second.weight)
    return nn.Sequential(first, nn.GELU(), second)
