"""Soft targets: label smoothing, and mixup and cutmix over whole clips.

The draws depend only on the number of clips in a batch, so that several processes, each with some of the clips, draw
the same and mix like one process with all of them.

Shapes: N clips of a batch, B of them here, T frames, S input side, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from openxclip.training.config import MixConfig


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """One draw for neighbouring clips of a batch."""

    places: range
    """Positions of the clips that it mixes."""
    partners: np.ndarray
    """Position of the clip that each of them is mixed with."""
    share: float
    """Share of the clip itself."""
    box: tuple[int, int, int, int] | None
    """Cutmix: (top, left, bottom, right) of the pasted box, the same in every frame; None is mixup."""


def smooth_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """labels (B,) -> targets (B, K): 1 - smoothing on the class, smoothing spread over all K."""
    return F.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes


def draw_mixing(num_clips: int, side_px: int, config: MixConfig, rng: np.random.Generator) -> list[Mixing]:
    """Draw how the N clips of a batch are mixed; nothing if both kinds are off."""
    if config.mixup_alpha == 0 and config.cutmix_alpha == 0:
        return []
    size = config.micro_batch or num_clips
    starts = range(0, num_clips, size)
    return [_drawn(range(start, min(start + size, num_clips)), side_px, config, rng) for start in starts]


def _drawn(places: range, side_px: int, config: MixConfig, rng: np.random.Generator) -> Mixing:
    use_cutmix = config.cutmix_alpha > 0 and (
        config.mixup_alpha == 0 or rng.random() < config.switch_probability
    )
    alpha = config.cutmix_alpha if use_cutmix else config.mixup_alpha
    share, box = float(rng.beta(alpha, alpha)), None
    partners = places.start + _partners(len(places), config, rng)
    if use_cutmix:
        box, share = _box(share, side_px, rng)
    return Mixing(places=places, partners=partners, share=share, box=box)


def _partners(num_clips: int, config: MixConfig, rng: np.random.Generator) -> np.ndarray:
    """(N,) int64, the clip that each clip is mixed with."""
    if config.partners == "random":
        return rng.permutation(num_clips)
    return np.arange(num_clips - 1, -1, -1)


def _box(share: float, side_px: int, rng: np.random.Generator) -> tuple[tuple[int, int, int, int], float]:
    """A box of about (1 - share) of the area -> the box, and the remaining share after clipping at the border."""
    half = side_px * np.sqrt(1 - share) / 2
    centre = rng.integers(0, side_px, size=2)
    top, left = np.clip(centre - half, 0, side_px).astype(int)
    bottom, right = np.clip(centre + half, 0, side_px).astype(int)
    kept = 1 - (bottom - top) * (right - left) / side_px**2
    return (int(top), int(left), int(bottom), int(right)), float(kept)


def mix(
    pixels: Tensor, targets: Tensor, mixings: Sequence[Mixing], row_of: Mapping[int, int]
) -> tuple[Tensor, Tensor]:
    """Mix clips with their partners; a clip whose partner could not be read stays as it is.

    Args:
        pixels: (B, T, 3, S, S), not changed.
        targets: (B, K).
        mixings: of the whole batch.
        row_of: position in the batch -> row here, for clips that were read.
    """
    if not mixings:
        return pixels, targets
    mixed, wanted = pixels.clone(), targets.clone()
    for mixing in mixings:
        own = [place for place in mixing.places if place in row_of]
        rows = [row_of[place] for place in own]
        partners = [mixing.partners[place - mixing.places.start] for place in own]
        others = [row_of.get(int(partner), row) for partner, row in zip(partners, rows, strict=True)]
        if rows:
            mixed[rows] = _mixed(pixels[rows], pixels[others], mixing)
            wanted[rows] = torch.lerp(targets[others], targets[rows], mixing.share)
    return mixed, wanted


def _mixed(pixels: Tensor, others: Tensor, mixing: Mixing) -> Tensor:
    if mixing.box is None:
        return torch.lerp(others, pixels, mixing.share)
    top, left, bottom, right = mixing.box
    pixels = pixels.clone()
    pixels[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return pixels


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of logits (B, K) to soft targets (B, K), of each clip (B,)."""
    return F.cross_entropy(logits.float(), targets, reduction="none")
