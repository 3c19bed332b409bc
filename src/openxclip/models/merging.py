"""Token merging (ToMe, Bolya et al. 2023): each block merges the most similar patches of a frame.

An inference option for the image tower only. A merged token represents all its patches: attention counts it as often
(section 3, "proportional attention"), and so does everything after the tower, since every patch gets the value of the
token that represents it. Class tokens and message tokens are never merged. Rotary angles are merged like tokens:
an angle is proportional to the position, so their mean is the angle of the mean position.

Shapes: B videos, T frames, N patches of a frame, P patch tokens that remain, C class tokens (0 or 1), D width, R
tokens merged in a block.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from openxclip.errors import InputError
from openxclip.models.config import VisionConfig
from openxclip.models.layers import Attention, attend
from openxclip.models.rotary import rotate


class Merged(NamedTuple):
    """Tokens of frames, some of which represent several patches."""

    tokens: Tensor
    """(B, T, C + P, D)."""
    sizes: Tensor
    """(B, T, C + P, 1): number of patches that each represents; 1 for class tokens."""
    places: Tensor
    """(B, T, N): which of the P tokens represents each patch."""
    angles: Tensor | None
    """(B, T, C + P, D / heads / 2) if positions are rotary."""


def check_merging(num_merged: int, config: VisionConfig) -> None:
    """Refuse numbers that leave too few tokens to merge.

    Raises:
        InputError: `num_merged` is negative, or the last block would have fewer than two tokens for each pair.
    """
    most = largest_merging(config)
    if not 0 <= num_merged <= most:
        raise InputError(
            f"merge_tokens must be 0 to {most} for this model, whose {config.num_layers} blocks share "
            f"{config.num_patches} patches of a frame, got {num_merged}"
        )


def largest_merging(config: VisionConfig) -> int:
    """The maximum number of tokens that every block can merge: half of the last one's input."""
    return config.num_patches // (config.num_layers + 1)


def unmerged(tokens: Tensor, num_class_tokens: int, angles: Tensor | None) -> Merged:
    """All tokens (B, T, C + N, D), not merged yet; angles (C + N, D / heads / 2)."""
    sizes = torch.ones_like(tokens[..., :1])
    num_patches = tokens.shape[2] - num_class_tokens
    places = torch.arange(num_patches, device=tokens.device).expand(*tokens.shape[:2], -1)
    if angles is not None:
        angles = angles.expand(*tokens.shape[:2], -1, -1)
    return Merged(tokens, sizes, places, angles)


def every_patch(merged: Merged, num_class_tokens: int) -> Tensor:
    """Every patch with the value of the token that represents it -> (B, T, C + N, D)."""
    heads, patches = merged.tokens[:, :, :num_class_tokens], merged.tokens[:, :, num_class_tokens:]
    return torch.cat([heads, _take(patches, merged.places)], dim=2)


def attend_by_size(
    attention: Attention, x: Tensor, sizes: Tensor, angles: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention of x (M, L, D) in which a token of size s counts s times, by log s added to its scores.

    Args:
        attention: the block's own.
        x: normalised tokens of M frames.
        sizes: (M, L, 1).
        angles: (M, L, D / heads / 2).

    Returns:
        The attention output (M, L, D), and the keys' mean over heads (M, L, D / heads), which measures similarity.
    """
    query, key, value = attention.qkv(x).chunk(3, dim=-1)
    alike = key.unflatten(-1, (attention.num_heads, -1)).mean(dim=-2)
    if angles is not None:
        query, key = (rotate(tensor, angles, attention.num_heads) for tensor in (query, key))
    out = attend(query, key, value, attention.num_heads, bias=sizes.log().transpose(1, 2))
    return attention.proj(out), alike


def merge(merged: Merged, alike: Tensor, num_merged: int, num_class_tokens: int) -> Merged:
    """Merge the R most similar pairs of each frame (bipartite soft matching, section 3).

    The patches are split alternately into two sets; each patch of the first is paired with the most similar one of the
    second; the R most similar pairs are merged, to their mean weighted by size.

    Args:
        merged: the tokens.
        alike: (B, T, C + P, any width), the features that similarity is measured on.
        num_merged: R.
        num_class_tokens: C.
    """
    first, second = (F.normalize(alike[:, :, num_class_tokens + start :: 2], dim=-1) for start in (0, 1))
    closeness, partner = (first @ second.transpose(-1, -2)).max(dim=-1)  # (B, T, P1)
    order = closeness.topk(
        closeness.shape[-1], dim=-1
    ).indices  # closest first; a sort is not exported everywhere
    given, kept = order[..., :num_merged], order[..., num_merged:]
    takers = partner.gather(-1, given)  # of the second set

    def joined(x: Tensor) -> Tensor:
        """x (B, T, C + P, W), sums over sizes -> (B, T, C + P - R, W)."""
        heads, patches = x[:, :, :num_class_tokens], x[:, :, num_class_tokens:]
        ones, others = patches[:, :, 0::2], patches[:, :, 1::2]
        others = others.scatter_add(2, _index(takers, x), _take(ones, given))
        return torch.cat([heads, _take(ones, kept), others], dim=2)

    sizes = joined(merged.sizes)
    tokens = joined(merged.tokens * merged.sizes) / sizes
    angles = None if merged.angles is None else joined(merged.angles * merged.sizes) / sizes
    # New index of each of the P tokens: the kept ones of the first set, then the second set.
    num_kept = kept.shape[-1]
    rank = torch.zeros_like(order).scatter(-1, order, _counted(order))
    of_first = torch.where(rank < num_merged, num_kept + partner, rank - num_merged)
    of_second = num_kept + _counted(second[..., 0])
    before = merged.places // 2 + merged.places % 2 * order.shape[-1]  # first set, then second set
    return Merged(tokens, sizes, torch.cat([of_first, of_second], dim=-1).gather(-1, before), angles)


def _counted(x: Tensor) -> Tensor:
    """0, 1, 2, ... along the last axis, in the shape of x."""
    return torch.arange(x.shape[-1], device=x.device).expand_as(x)


def _index(places: Tensor, x: Tensor) -> Tensor:
    """Indices (B, T, M) for `gather` and `scatter` of whole tokens of x (..., W) -> (B, T, M, W)."""
    return places.unsqueeze(-1).expand(-1, -1, -1, x.shape[-1])


def _take(x: Tensor, places: Tensor) -> Tensor:
    """The tokens of x (B, T, P, W) at indices (B, T, M) -> (B, T, M, W)."""
    return x.gather(2, _index(places, x))
