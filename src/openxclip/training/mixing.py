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
    """Mix each clip of a batch with a partner.

    Args:
        pixels: (B, T, 3, S, S), not changed.
        targets: (B, K).
        config: which mixing, how strong, with which partners; with both kinds off everything comes back as it is.
        rng: of this batch.
    """
    size = config.micro_batch or len(pixels)
    parts = [
        _mix_part(clips, wanted, config, rng)
        for clips, wanted in zip(pixels.split(size), targets.split(size), strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    return torch.cat([clips for clips, _ in parts]), torch.cat([wanted for _, wanted in parts])


def _mix_part(
    pixels: Tensor, targets: Tensor, config: MixConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix the clips (B, T, 3, S, S) of one draw, and their targets (B, K)."""
    use_cutmix = config.cutmix_alpha > 0 and (
        config.mixup_alpha == 0 or rng.random() < config.switch_probability
    )
    alpha = config.cutmix_alpha if use_cutmix else config.mixup_alpha
    if alpha == 0:
        return pixels, targets
    share = rng.beta(alpha, alpha)
    partners = torch.from_numpy(_partners(len(pixels), config, rng)).to(pixels.device)
    others = pixels[partners]
    if use_cutmix:
        mixed, share = _cutmix(pixels, others, share, rng)
    else:
        mixed = torch.lerp(others, pixels, share)
    return mixed, torch.lerp(targets[partners], targets, share)


def _partners(num_clips: int, config: MixConfig, rng: np.random.Generator) -> np.ndarray:
    """(B,) int64, the clip that each clip is mixed with."""
    if config.partners == "random":
        return rng.permutation(num_clips)
    return np.arange(num_clips - 1, -1, -1)


def _cutmix(pixels: Tensor, others: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Paste the partner's box of about (1 - share) of the area, at the same place in every frame -> share kept."""
    side = pixels.shape[-1]
    half = side * np.sqrt(1 - share) / 2
    centre = rng.integers(0, side, size=2)
    top, left = np.clip(centre - half, 0, side).astype(int)
    bottom, right = np.clip(centre + half, 0, side).astype(int)
    mixed = pixels.clone()
    mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / side**2  # what is left after clipping at the border


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, K) to soft targets (B, K)."""
    return F.cross_entropy(logits.float(), targets)
