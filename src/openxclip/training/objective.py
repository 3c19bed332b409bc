"""The objective of X-CLIP and later methods as one module: the trained model and its loss.

Torch's engines for several processes wrap this module: everything that is trained is inside.

Shapes: B clips, T frames, S input side, K classes.
"""

import numpy as np
import torch
from torch import Tensor, nn

from openxclip.models import XCLIP
from openxclip.training.distillation import Distillation
from openxclip.training.mixing import soft_cross_entropy
from openxclip.training.text_targets import TextTargets


class Objective(nn.Module):
    """The loss of clips against the texts of their classes."""

    def __init__(
        self, model: XCLIP, targets: TextTargets, distillation: Distillation | None, *, use_bfloat16: bool
    ) -> None:
        """
        Args:
            model: the model to train.
            targets: the class texts.
            distillation: keeps features near a teacher's; its networks are also trained.
            use_bfloat16: whether the forward pass computes in bfloat16.
        """
        super().__init__()
        self.model = model
        self.beside = nn.ModuleDict({} if distillation is None else {"distillation": distillation.residuals})
        """Modules trained in addition to the model."""
        self._targets, self._distillation, self._use_bfloat16 = targets, distillation, use_bfloat16

    def forward(
        self, pixels: Tensor, targets: Tensor, weights: Tensor, drawn: int, kept: Tensor | None
    ) -> Tensor:
        """The weighted sum of the clips' losses.

        Args:
            pixels: (B, T, 3, S, S), normalised and mixed.
            targets: (B, K).
            weights: of the clips (B,), 0 for one that could not be read.
            drawn: which of the texts (`TextTargets.draw`).
            kept: the branches of each clip that stochastic depth keeps (layers, 3, B), if it drops any.
        """
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=self._use_bfloat16):
            text = self._targets.features(drawn)
            video = self.model.encode_video(pixels, kept)
            losses = soft_cross_entropy(self.model.logits(video, text), targets)
            loss = (weights * losses).sum()
            if self._distillation is not None:
                loss = loss + self._distillation.extra_loss(pixels, video.video, text, drawn, weights)
        return loss


def draw_kept(model: XCLIP, num_clips: int, rng: np.random.Generator) -> Tensor | None:
    """Which branches the clips of a batch keep (layers, 3, clips) as 1 or 0; None if none is ever dropped."""
    if model.config.vision.drop_path == 0:
        return None
    rates = np.array([block.drop_path.rate for block in model.visual.blocks])  # type: ignore[union-attr]
    draws = rng.random((len(rates), 3, num_clips))
    return torch.from_numpy((draws >= rates[:, None, None]).astype(np.float32))
