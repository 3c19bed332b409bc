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
    # Plain arithmetic instead of torch.where and remainder, which would take most of the time on CPUs.
    red, green, blue = pixels.unbind(-3)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    is_red = (red - value).sign_().add_(1)  # 1 where it is the largest, otherwise 0
    is_green = (green - value).sign_().add_(1).mul_(1 - is_red)
    is_blue = 1 - is_red - is_green
    distance = (green - blue).mul_(is_red)
    distance.add_((blue - red).mul_(is_green)).add_((red - green).mul_(is_blue))
    distance.div_(chroma.clamp(min=1e-6))  # gray pixels have no hue; chroma 0 below makes any hue right
    sextant = distance.add_(is_green.mul_(2)).add_(is_blue.mul_(4)).add_(6 * turns)
    moved = torch.empty_like(pixels)
    for channel, offset in enumerate((5, 3, 1)):  # red, green and blue are a third of the circle apart
        k = sextant + offset
        k.sub_((k / 6).floor_().mul_(6))
        torch.sub(value, torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma), out=moved.select(-3, channel))
    return moved
