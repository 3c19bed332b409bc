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
    """Computes the features of videos from decoded pixels."""

    device: torch.device
    """Device of the features."""

    def encode_video(self, pixels: Tensor) -> VideoFeatures:
        """Cropped frames uint8 (B, T, 3, S, S) on the CPU -> features on `device`.

        A runtime of an asynchronous device may return before the features are computed.
        """


def build_runtime(model: XCLIP, preprocess: Preprocessor, options: RuntimeOptions) -> Runtime:
    """The runtime named by the options.

    Raises:
        InputError: the model's device cannot run it, or options of one runtime are given to another.
        MissingExtraError: its package is not installed.
    """
    check_options(options)
    if options.runtime == "torch":
        return TorchRuntime(model, preprocess, options)
    if options.runtime == "openvino":
        from openxclip.runtimes.openvino_runtime import OpenVinoRuntime

        return OpenVinoRuntime(model, preprocess, options)
    from openxclip.runtimes.onnx_runtime import OnnxRuntime

    return OnnxRuntime(model, preprocess, options)


def check_options(options: RuntimeOptions) -> None:
    """Refuse options that would have no effect.

    Raises:
        InputError: an option would have no effect.
    """
    if options.compile and options.runtime != "torch":
        raise InputError(f"--compile is for torch; leave it out with --runtime {options.runtime}")
    if options.int8 and options.runtime == "auto":
        raise InputError("--runtime auto chooses the precision itself; leave --int8 out")
    if options.num_threads is not None and options.num_threads < 1:
        raise InputError(f"--num-threads must be at least 1, got {options.num_threads}")
    calibrated = options.runtime == "auto" or (options.int8 and options.runtime != "torch")
    if options.calibration is not None and not calibrated:
        raise InputError(
            "--calibration is for --runtime auto, and for --int8 with openvino or onnx; torch's int8 needs none"
        )
