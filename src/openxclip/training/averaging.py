"""Stochastic weight averaging (SWA, Izmailov et al. 2018): the mean of the weights at the ends of epochs.

One more copy of the weights holds their running mean, and one model comes out. The paper explores with a constant
or cyclical learning rate, and reports 78.94 % top-1 on ImageNet with a ResNet-152; Open-VCLIP and FROSTER average the
epochs of an ordinary fine-tuning, as is done here.
Normalisation statistics need no averaging: no layer has any.
"""

from typing import cast

from torch.optim.swa_utils import AveragedModel

from openxclip.models import XCLIP
from openxclip.training.config import AveragingConfig


class WeightAverage:
    """The running mean, in a separate model."""

    def __init__(self, model: XCLIP, config: AveragingConfig, num_epochs: int) -> None:
        self.config = config
        self.num_epochs = num_epochs
        self.average = AveragedModel(model).requires_grad_(False)
        """Its state is the mean and the number of epochs in it."""

    @property
    def model(self) -> XCLIP:
        """The model with the mean weights."""
        return cast(XCLIP, self.average.module)

    def update(self, model: XCLIP, epoch: int) -> bool:
        """Add the weights at the end of an epoch (from 1), if it counts -> whether it does."""
        counts = epoch / self.num_epochs > self.config.start
        if counts:
            self.average.update_parameters(model)
        return counts
