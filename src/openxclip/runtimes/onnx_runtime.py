"""The image tower in ONNX Runtime, in float32."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.export import ExportedProgram

from openxclip.errors import MissingExtraError
from openxclip.models import XCLIP, VideoFeatures
from openxclip.runtimes.exporting import as_features, exported_video_encoder
from openxclip.runtimes.openvino_runtime import check_cpu
from openxclip.video.transforms import Preprocessor

OPSET = 18


class OnnxRuntime:
    """Runs a graph of the model; the model itself is not changed."""

    def __init__(self, model: XCLIP, preprocess: Preprocessor) -> None:
        """
        Raises:
            MissingExtraError: ONNX Runtime, or what writes its graphs, is not installed.
            InputError: the model is not on the CPU.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "onnx") from error
        check_cpu(model, "ONNX Runtime")
        self.device = torch.device("cpu")
        with TemporaryDirectory() as folder:
            graph = write_onnx(exported_video_encoder(model, preprocess), Path(folder) / "encoder.onnx")
            self._session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])

    def encode_video(self, pixels: Tensor) -> VideoFeatures:
        """Cropped frames uint8 (B, T, 3, S, S) -> features in float32."""
        outputs = self._session.run(None, {"pixels": pixels.numpy()})
        return as_features(tuple(map(torch.from_numpy, outputs)))


def write_onnx(
    program: ExportedProgram,
    path: Path,
    inputs: Sequence[str] = ("pixels",),
    outputs: Sequence[str] = ("video", "patches"),
) -> Path:
    """Write a graph as ONNX, its weights beside it.

    Args:
        program: the graph.
        path: of the file; the weights get its name with `.data` behind it.
        inputs: their names.
        outputs: their names; those that the graph lacks are left out.

    Raises:
        MissingExtraError: the packages that write ONNX are not installed.
    """
    num_outputs = len(program.graph_signature.user_outputs)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses packages that no model here needs
    try:
        with warnings.catch_warnings(action="ignore"):  # of what the exporter itself still uses
            written = torch.onnx.export(
                program,
                input_names=list(inputs),
                output_names=list(outputs[:num_outputs]),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:
        raise MissingExtraError("onnxscript", "onnx") from error
    assert written is not None, "without a file it gives the program"
    written.save(str(path), external_data=True)
    return path
