"""Replaces a video's background, or freezes its motion.

The background of a clip is the temporal median of its frames: what a pixel shows most of the time. Everything that
differs from it counts as foreground. This works for a static camera and for objects that change position. If the
camera moves, almost everything is foreground; an object that moves on the spot is partly background; and a person who
sits still belongs to the background pasted into other videos. The seams are also new. So on real videos the drop in
accuracy is an upper bound on the influence of the scene.

Shapes: V views, T frames, S input side; pixels are uint8 (V, T, 3, S, S).
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from openxclip.data.media import Item
from openxclip.errors import InputError

CERTAIN_BACKGROUND = 12
"""Difference between frames, in levels of 255, that compression alone can cause."""
CERTAIN_FOREGROUND = 40
"""Difference in levels above which a pixel is fully foreground; between the two values it is blended."""


def frozen(pixels: Tensor) -> Tensor:
    """The middle frame, T times: the video without motion."""
    num_frames = pixels.shape[1]
    return pixels[:, num_frames // 2, None].expand_as(pixels)


def with_background_of(pixels: Tensor, other: Tensor) -> Tensor:
    """The foreground of a video over the background of another one of the same shape."""
    share = foreground(pixels)  # (V, T, 1, S, S)
    mixed = share * pixels.float() + (1 - share) * background(other).float()
    return mixed.round().to(pixels.dtype)


def background(pixels: Tensor) -> Tensor:
    """Temporal median (V, 1, 3, S, S)."""
    # torch 2.13 reads out of bounds for the median of an expanded tensor, such as a frozen video.
    return pixels.contiguous().median(dim=1, keepdim=True).values


def foreground(pixels: Tensor) -> Tensor:
    """The foreground share of each pixel, in 0..1: (V, T, 1, S, S), smoothed over 3x3 pixels against speckles."""
    difference = (pixels.float() - background(pixels).float()).abs().amax(dim=2)  # (V, T, S, S)
    smooth = F.avg_pool2d(difference, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    span = CERTAIN_FOREGROUND - CERTAIN_BACKGROUND
    return ((smooth - CERTAIN_BACKGROUND) / span).clamp(0, 1)[:, :, None]


def partners(items: Sequence[Item]) -> dict[Item, Item]:
    """For each video, one with another label, drawn by the video's path: independent of the list's order.

    Raises:
        InputError: all have the same label.
    """
    ordered = sorted(items, key=lambda item: (item.label, item.path))
    counts = Counter(item.label for item in items)
    if len(counts) == 1:
        raise InputError(
            f"a background of another class is needed, and all {len(items)} readable videos have one label; "
            "give a list with at least two classes"
        )
    first: dict[int, int] = {}  # position of each label's first video
    for place, item in enumerate(ordered):
        first.setdefault(item.label, place)
    found: dict[Item, Item] = {}
    for item in items:
        own = counts[item.label]
        place = _path_number(item.path) % (len(items) - own)  # among the videos of other labels
        found[item] = ordered[place if place < first[item.label] else place + own]
    return found


def _path_number(path: str) -> int:
    """A number that depends only on a path."""
    digest = hashlib.sha256(path.encode(errors="backslashreplace")).digest()
    return int.from_bytes(digest, "big")
