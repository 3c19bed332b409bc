"""The runtime protocol: the image tower behind one method, so that any engine can compute it."""

from typing import Protocol

import torch
from torch import Tensor

from openxclip.models import XCLIP, VideoFeatures
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.torch_runtime import TorchRuntime
from openxclip.video.transforms import Preprocessor


class Runtime(Protocol):
    """Computes the features of videos from pixels as they were decoded."""

    device: torch.device
    """Where the features are."""

    def encode_video(self, pixels: Tensor) -> VideoFeatures:
        """Cropped frames uint8 (B, T, 3, S, S) on the CPU -> features on `device`.

        A runtime of an asynchronous device may return before the features are computed.
        """


def build_runtime(model: XCLIP, preprocess: Preprocessor, options: RuntimeOptions) -> Runtime:
    """The runtime that the options ask for.

    Raises:
        InputError: the model's device cannot run it.
    """
    return TorchRuntime(model, preprocess, options)
