"""Soft targets: label smoothing, and mixup and cutmix over whole clips.

Shapes: B clips, T frames, S input side, K classes.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from openxclip.training.config import MixConfig


def smooth_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """labels (B,) -> targets (B, K): 1 - smoothing on the class, smoothing spread over all K."""
    return F.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes


def mix(
    pixels: Tensor, targets: Tensor, config: MixConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each clip of a batch with its mirror partner, clip i with clip B - 1 - i.

    Args:
        pixels: (B, T, 3, S, S), not changed.
        targets: (B, K).
        config: which mixing, and how strong; with both off everything comes back as it is.
        rng: of this batch.
    """
    use_cutmix = config.cutmix_alpha > 0 and (
        config.mixup_alpha == 0 or rng.random() < config.switch_probability
    )
    if use_cutmix:
        return _cutmix(pixels, targets, rng.beta(config.cutmix_alpha, config.cutmix_alpha), rng)
    if config.mixup_alpha > 0:
        share = rng.beta(config.mixup_alpha, config.mixup_alpha)
        return torch.lerp(pixels.flip(0), pixels, share), torch.lerp(targets.flip(0), targets, share)
    return pixels, targets


def _cutmix(pixels: Tensor, targets: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Paste the partner's box of about (1 - share) of the area, at the same place in every frame."""
    side = pixels.shape[-1]
    half = side * np.sqrt(1 - share) / 2
    centre = rng.integers(0, side, size=2)
    top, left = np.clip(centre - half, 0, side).astype(int)
    bottom, right = np.clip(centre + half, 0, side).astype(int)
    mixed = pixels.clone()
    mixed[..., top:bottom, left:right] = pixels.flip(0)[..., top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / side**2  # what is really left after clipping at the border
    return mixed, torch.lerp(targets.flip(0), targets, share)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, K) to soft targets (B, K)."""
    return F.cross_entropy(logits.float(), targets)
