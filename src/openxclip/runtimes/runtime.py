"""The runtime protocol: the image tower behind one method, so that any engine can compute it."""

from typing import Protocol

import torch
from torch import Tensor

from openxclip.errors import InputError
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
        InputError: the model's device cannot run it, or options of torch are given to another runtime.
        MissingExtraError: its package is not installed.
    """
    if options.runtime == "torch":
        return TorchRuntime(model, preprocess, options)
    if options.compile or options.int8:
        raise InputError(f"--compile and --int8 are torch's; leave them out with --runtime {options.runtime}")
    if options.runtime == "openvino":
        from openxclip.runtimes.openvino_runtime import OpenVinoRuntime

        return OpenVinoRuntime(model, preprocess)
    from openxclip.runtimes.onnx_runtime import OnnxRuntime

    return OnnxRuntime(model, preprocess)
