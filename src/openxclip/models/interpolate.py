"""Weight interpolation between the image model and the fine-tuned one (WiSE-FT, Wortsman et al. 2022).

Fine-tuning improves on its own data and loses some of the image model's breadth; weights in between often keep both.
With CLIP and ImageNet the paper reports 1.6 points more on ImageNet and 4 to 6 more under five distribution shifts than
fine-tuning before it.
"""

import torch

from openxclip.errors import CheckpointError, InputError
from openxclip.models import XCLIP
from openxclip.models.expand import shared_parts_differ


def check_share(share: float) -> None:
    """Refuse a share outside 0..1.

    Raises:
        InputError: it is outside 0..1.
    """
    if not 0 <= share <= 1:
        raise InputError(
            f"interpolate must be 0 (the image model) to 1 (the fine-tuned model), got {share}; try 0.5"
        )


@torch.no_grad()
def interpolate_weights(fine_tuned: XCLIP, image_model: XCLIP, share: float) -> tuple[int, int]:
    """Set `fine_tuned`'s weights to (1 - share) * image model + share * fine-tuned, in place.

    Parameters that only the fine-tuned model has stay as they are: the image model has no value for them.

    Returns:
        How many parameters were interpolated, and how many kept.

    Raises:
        CheckpointError: the two models have different towers.
    """
    if problem := shared_parts_differ(fine_tuned.config, image_model.config):
        raise CheckpointError(
            f"these two models cannot be interpolated: {problem}; give the image model that the training started from"
        )
    start = image_model.state_dict()
    num_interpolated = num_kept = 0
    for name, parameter in fine_tuned.named_parameters():
        if name in start and start[name].shape == parameter.shape:
            parameter.copy_(torch.lerp(start[name], parameter, share))
            num_interpolated += parameter.numel()
        else:
            num_kept += parameter.numel()
    return num_interpolated, num_kept
