"""Cost of a model, counted on the meta device without weights or arithmetic."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from openxclip.models.config import XCLIPConfig
from openxclip.models.xclip import XCLIP


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one view."""

    num_parameters: int
    """Parameters of the whole model, including the text tower."""
    macs: int
    """Multiply-adds of one view against `num_labels` texts with precomputed features."""
    num_labels: int
    """Number of texts the view is compared with."""


def count_cost(config: XCLIPConfig, num_labels: int = 400) -> Cost:
    """Parameters and multiply-adds of one view; the paper counts with Kinetics-400's 400 labels."""
    size = config.vision.image_size_px
    with torch.device("meta"), torch.no_grad():
        model = XCLIP(config)
        pixels = torch.empty(1, config.num_frames, 3, size, size)
        with FlopCounterMode(display=False) as counter:
            model.logits(model.encode_video(pixels), torch.empty(num_labels, config.embed_dim))
    return Cost(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=counter.get_total_flops() // 2,
        num_labels=num_labels,
    )
