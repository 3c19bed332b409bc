"""The same motion over another background, and the same scene without motion.

The background of a clip is the temporal median of its frames: what a pixel shows most of the time. What differs from
it is taken for the foreground. This holds for a camera that stands still and for things that leave their place. Where
the camera moves, almost everything is foreground; of what moves on the spot, a part stays behind; and a person who
sits still belongs to the background that is lent out. The seams are also new. So on real videos the drop in accuracy
is an upper bound on the influence of the scene.

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
"""Levels of 255 that compression alone changes between frames."""
CERTAIN_FOREGROUND = 40
"""Levels of difference from which on a pixel is foreground and nothing else; between the two it is mixed."""


def frozen(pixels: Tensor) -> Tensor:
    """The middle frame, T times: what can be told without motion."""
    num_frames = pixels.shape[1]
    return pixels[:, num_frames // 2, None].expand_as(pixels)


def with_background_of(pixels: Tensor, other: Tensor) -> Tensor:
    """The foreground of a video over the background of another one of the same shape."""
    share = foreground(pixels)  # (V, T, 1, S, S)
    mixed = share * pixels.float() + (1 - share) * background(other).float()
    return mixed.round().to(pixels.dtype)


def background(pixels: Tensor) -> Tensor:
    """Temporal median (V, 1, 3, S, S)."""
    # torch 2.13 reads foreign memory for the median of an expanded tensor, which a frozen video is.
    return pixels.contiguous().median(dim=1, keepdim=True).values


def foreground(pixels: Tensor) -> Tensor:
    """How much each pixel is foreground, in 0..1: (V, T, 1, S, S), smoothed over 3x3 pixels against speckles."""
    difference = (pixels.float() - background(pixels).float()).abs().amax(dim=2)  # (V, T, S, S)
    smooth = F.avg_pool2d(difference, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    span = CERTAIN_FOREGROUND - CERTAIN_BACKGROUND
    return ((smooth - CERTAIN_BACKGROUND) / span).clamp(0, 1)[:, :, None]


def partners(items: Sequence[Item]) -> dict[Item, Item]:
    """For each video one that has another label, drawn by the video's path: the same whatever the list's order.

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
    first: dict[int, int] = {}  # place of each label's first video
    for place, item in enumerate(ordered):
        first.setdefault(item.label, place)
    found: dict[Item, Item] = {}
    for item in items:
        own = counts[item.label]
        place = _path_number(item.path) % (len(items) - own)  # among all but those of its label
        found[item] = ordered[place if place < first[item.label] else place + own]
    return found


def _path_number(path: str) -> int:
    """A number that follows from a path alone."""
    digest = hashlib.sha256(path.encode(errors="backslashreplace")).digest()
    return int.from_bytes(digest, "big")
