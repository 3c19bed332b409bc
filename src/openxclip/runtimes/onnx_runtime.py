"""The image tower in ONNX Runtime, in float32 or 8-bit integers."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from openxclip.errors import InputError, MissingExtraError
from openxclip.models import XCLIP, VideoFeatures
from openxclip.runtimes.exporting import as_features
from openxclip.runtimes.on_cpu import check_cpu, kept_graph
from openxclip.runtimes.options import RuntimeOptions
from openxclip.video.transforms import Preprocessor

OPSET = 18
FILE = "video_encoder.onnx"


class OnnxRuntime:
    """Runs a graph of the model; the model itself is not changed."""

    def __init__(self, model: XCLIP, preprocess: Preprocessor, options: RuntimeOptions) -> None:
        """
        Args:
            model: on the CPU.
            preprocess: of the model.
            options: threads, int8 and token merging.

        Raises:
            MissingExtraError: ONNX Runtime, or what writes its graphs, is not installed.
            InputError: the model is on another device, or does not support the options.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "onnx") from error
        check_cpu(model, "ONNX Runtime")
        self.device = torch.device("cpu")

        def write(program: ExportedProgram, folder: Path) -> None:
            write_onnx(program, folder / FILE)

        self._kept = kept_graph(model, preprocess, options, "onnx", write)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.num_threads or 0  # 0: one per core
        self._session = onnxruntime.InferenceSession(
            self._kept.folder / FILE, settings, providers=["CPUExecutionProvider"]
        )

    def encode_video(self, pixels: Tensor) -> VideoFeatures:
        """Cropped frames uint8 (B, T, 3, S, S) -> features in float32."""
        outputs = self._session.run(None, {"pixels": pixels.numpy()})
        return as_features(tuple(map(torch.from_numpy, outputs)))


def write_onnx(
    program: ExportedProgram,
    path: Path,
    inputs: Sequence[str] = ("pixels",),
    outputs: Sequence[str] = ("video", "patches"),
    opset: int = OPSET,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a graph as ONNX, with its weights in a separate file.

    Args:
        program: the graph.
        path: of the file; the weights get its name with `.data` appended.
        inputs: their names.
        outputs: their names; those that the graph lacks are left out.
        opset: the version of ONNX's operations.
        metadata: texts to keep inside.

    Raises:
        MissingExtraError: the packages that write ONNX are not installed.
        InputError: the model cannot be written in this opset.
    """
    num_outputs = len(program.graph_signature.user_outputs)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses packages that no model needs
    try:
        with warnings.catch_warnings(action="ignore"):  # the exporter's own deprecation warnings
            written = torch.onnx.export(
                program,
                input_names=list(inputs),
                output_names=list(outputs[:num_outputs]),
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:
        raise MissingExtraError("onnxscript", "onnx") from error
    assert written is not None, "without a file it returns the program"
    found = written.model.opset_imports[""]
    if found != opset:
        raise InputError(f"this model cannot be written in opset {opset}, only in {found}; leave --opset out")
    written.model.metadata_props.update(metadata or {})
    written.save(str(path), external_data=True)
    return path
