"""Colour operations on float pixels (..., 3, H, W) of 0..255, red first; each returns 0..255 again.

The definitions are those of Pillow and torchvision, which the published training uses, without their rounding
to whole numbers between two operations.
"""

import torch

# ITU-R 601 luma, what Pillow calls "L".
_LUMA = (0.299, 0.587, 0.114)


def gray(pixels: torch.Tensor) -> torch.Tensor:
    """0.299 R + 0.587 G + 0.114 B, (..., 1, H, W)."""
    red, green, blue = pixels.unbind(-3)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).unsqueeze(-3)


def brightness(pixels: torch.Tensor, factor: float) -> torch.Tensor:
    """factor * pixel."""
    return (pixels * factor).clamp_(0, 255)


def contrast(pixels: torch.Tensor, factor: float) -> torch.Tensor:
    """factor * pixel + (1 - factor) * mean gray of that frame."""
    mean = gray(pixels).mean(dim=(-3, -2, -1), keepdim=True)
    return (pixels * factor).add_((1 - factor) * mean).clamp_(0, 255)


def saturation(pixels: torch.Tensor, factor: float) -> torch.Tensor:
    """factor * pixel + (1 - factor) * gray of that pixel."""
    return (pixels * factor).add_((1 - factor) * gray(pixels)).clamp_(0, 255)


def hue(pixels: torch.Tensor, turns: float) -> torch.Tensor:
    """The hue of HSV moved by `turns` of the colour circle; value and saturation stay.

    HSV and not the cheaper rotation in YIQ: that one leaves the RGB cube and so changes saturation too, which
    the published augmentation does not.
    """
    red, green, blue = pixels.unbind(-3)
    value = pixels.amax(-3)
    chroma = value - pixels.amin(-3)
    divisor = chroma.clamp(min=1e-6)  # gray pixels have no hue; chroma 0 below makes any hue right
    sextant = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    ).add_(6 * turns)
    channels = []
    for offset in (5, 3, 1):  # red, green, blue lie a third of the circle apart
        k = (sextant + offset).remainder_(6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, dim=-3)
