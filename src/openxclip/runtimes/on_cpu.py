"""What runtimes of CPUs have in common."""

from collections.abc import Callable
from pathlib import Path

from torch.export import ExportedProgram

from openxclip.errors import InputError
from openxclip.models import XCLIP
from openxclip.models.merging import check_merging
from openxclip.runtimes.calibration_file import identity, kept_calibration
from openxclip.runtimes.exporting import GraphOptions, exported_video_encoder
from openxclip.runtimes.graphs import Kept, kept, video_key
from openxclip.runtimes.options import RuntimeOptions
from openxclip.video.transforms import Preprocessor


def check_cpu(model: XCLIP, name: str) -> None:
    """Refuse a model that is elsewhere.

    Raises:
        InputError: it is.
    """
    if model.logit_scale.device.type != "cpu":
        raise InputError(
            f"{name} runs on the CPU here, and the model is on {model.logit_scale.device}: give --device cpu"
        )


def kept_graph(
    model: XCLIP,
    preprocess: Preprocessor,
    options: RuntimeOptions,
    name: str,
    write: Callable[[ExportedProgram, Path], None],
) -> Kept:
    """The folder with a runtime's graph of a model, written if it is not there yet.

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
        ranges = kept_calibration(model, preprocess, options.calibration).ranges if options.int8 else {}
        graph = GraphOptions(ranges=ranges, marked=name == "onnx", merge_tokens=options.merge_tokens)
        write(exported_video_encoder(model, preprocess, graph), folder)

    of_int8 = identity(options.calibration) if options.int8 else None
    return kept("graphs", video_key(model, preprocess, name, options.merge_tokens, of_int8), fill)
