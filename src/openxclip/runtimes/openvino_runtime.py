"""The image tower in OpenVINO: the fastest runtime on most Intel and AMD processors."""

import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from openxclip.errors import MissingExtraError
from openxclip.models import XCLIP, VideoFeatures
from openxclip.runtimes.exporting import as_features
from openxclip.runtimes.on_cpu import check_cpu, kept_graph
from openxclip.runtimes.options import RuntimeOptions
from openxclip.video.transforms import Preprocessor

if TYPE_CHECKING:
    import openvino

FILE = "video_encoder.xml"


class OpenVinoRuntime:
    """Runs a graph of the model; the model itself is not changed."""

    def __init__(self, model: XCLIP, preprocess: Preprocessor, options: RuntimeOptions) -> None:
        """
        Args:
            model: on the CPU; OpenVINO computes in bfloat16 if the model does, otherwise in float32.
            preprocess: of the model.
            options: threads, int8 and token merging.

        Raises:
            MissingExtraError: OpenVINO is not installed.
            InputError: the model is on another device, or does not support the options.
        """
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino") from error
        check_cpu(model, "OpenVINO")
        self.device = torch.device("cpu")

        def write(program: ExportedProgram, folder: Path) -> None:
            openvino.save_model(converted(program), folder / FILE, compress_to_fp16=False)

        self._kept = kept_graph(model, preprocess, options, "openvino", write)
        self._compiled = core().compile_model(self._kept.folder / FILE, "CPU", settings(model, options))

    def encode_video(self, pixels: Tensor) -> VideoFeatures:
        """Cropped frames uint8 (B, T, 3, S, S) -> features in float32."""
        outputs = self._compiled(pixels.numpy(), share_inputs=True)
        return as_features(tuple(torch.from_numpy(outputs[i]) for i in range(len(self._compiled.outputs))))


@cache
def core() -> "openvino.Core":
    """The OpenVINO core of this process, kept until it ends; the package must be installed.

    Its plugin gives the thread that loads it a signal stack, and frees it with the last reference. If another thread
    drops that reference, the first thread keeps a dangling address: the next signal (Ctrl-C, a worker's end) would
    crash the process.
    """
    import openvino

    return openvino.Core()


def converted(program: ExportedProgram) -> "openvino.Model":
    """Convert a graph to OpenVINO; the package must be installed."""
    import openvino

    with warnings.catch_warnings(action="ignore"):  # its deprecation warnings about torch
        return openvino.convert_model(program)


def settings(model: XCLIP, options: RuntimeOptions) -> dict[str, Any]:
    """OpenVINO's settings: it chooses threads, cores and memory nodes unless a number of threads is given."""
    precision = "bf16" if model.logit_scale.dtype == torch.bfloat16 else "f32"
    found: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    if options.num_threads is not None:
        found["INFERENCE_NUM_THREADS"] = options.num_threads
    return found
