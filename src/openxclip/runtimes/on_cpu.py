"""Code shared by the CPU runtimes."""

import logging
from collections.abc import Callable
from pathlib import Path

from torch.export import ExportedProgram

from openxclip.errors import InputError
from openxclip.models import XCLIP
from openxclip.models.merging import check_merging
from openxclip.runtimes.calibration import Calibration
from openxclip.runtimes.calibration_file import identity, kept_calibration
from openxclip.runtimes.exporting import GraphOptions, exported_video_encoder
from openxclip.runtimes.graphs import Kept, kept, versions, video_key
from openxclip.runtimes.options import RuntimeName, RuntimeOptions
from openxclip.runtimes.quantisation import largest_weight
from openxclip.video.transforms import Preprocessor

logger = logging.getLogger(__name__)

PACKAGES: dict[RuntimeName, tuple[str, ...]] = {
    "torch": ("torch",),
    "openvino": ("openvino",),
    "onnx": ("onnxruntime", "onnxscript"),
}
"""The packages that each runtime imports."""


def check_cpu(model: XCLIP, name: str) -> None:
    """Refuse a model that is not on the CPU.

    Raises:
        InputError: it is on another device.
    """
    if model.logit_scale.device.type != "cpu":
        raise InputError(
            f"{name} runs on the CPU, but the model is on {model.logit_scale.device}: give --device cpu"
        )


def kept_graph(
    model: XCLIP,
    preprocess: Preprocessor,
    options: RuntimeOptions,
    name: RuntimeName,
    write: Callable[[ExportedProgram, Path], None],
) -> Kept:
    """The folder with a runtime's graph of a model, written if missing.

    Args:
        model: on the CPU.
        preprocess: of the model.
        options: int8, its calibration and token merging.
        name: of the runtime.
        write: the graph into a folder.

    Raises:
        InputError: the calibration has no clips that can be read, or more tokens are to be merged than there are.
    """
    check_merging(options.merge_tokens, model.config.vision)

    def fill(folder: Path) -> None:
        ranges = {}
        if options.int8:
            calibration = kept_calibration(model, preprocess, options.calibration)
            report_floats(calibration)
            ranges = calibration.ranges
        graph = GraphOptions(ranges=ranges, marked=name == "onnx", merge_tokens=options.merge_tokens)
        write(exported_video_encoder(model, preprocess, graph), folder)

    of_int8 = (identity(options.calibration), largest_weight()) if options.int8 else None
    packages = versions("torch", *PACKAGES[name])
    return kept("graphs", video_key(model, preprocess, name, options.merge_tokens, of_int8, packages), fill)


def report_floats(calibration: Calibration) -> None:
    """Warn about layers that the bound leaves in float, if any."""
    num_layers, num_floats = len(calibration.layers), sum(layer.in_float for layer in calibration.layers)
    if num_floats:
        logger.warning(
            "%d of %d layers are computed in float, not int8, to keep within the bound on noise; `openxclip export "
            "--int8` lists them, and --calibration with videos like yours may leave fewer",
            num_floats,
            num_layers,
        )
