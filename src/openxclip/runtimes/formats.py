"""Graphs as files of each format: how they are written, and how what was written is run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.export import ExportedProgram

from openxclip.errors import MissingExtraError
from openxclip.runtimes.onnx_runtime import OPSET, write_onnx
from openxclip.runtimes.openvino_runtime import converted, core

Format = Literal["onnx", "openvino", "torch-export"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
METADATA_KEY = "openxclip"
"""Under which a graph keeps what a program must know, as JSON."""

Run = Callable[[dict[str, Tensor]], tuple[Tensor, ...]]
"""Inputs by name -> outputs, by the runtime that a format is for."""


class Settings(Protocol):
    """What a writer asks the export's options for."""

    @property
    def opset(self) -> int | None:
        """Of ONNX."""

    @property
    def precision(self) -> str:
        """Of the weights."""


Writer = Callable[[ExportedProgram, Path, Sequence[str], Sequence[str], str, Settings], Run]
"""Graph, file, names of inputs and of outputs, metadata, options -> what runs the file."""


def write_for_onnx(
    program: ExportedProgram,
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: str,
    options: Settings,
) -> Run:
    """An .onnx file, its weights beside it.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx") from error
    write_onnx(program, path, inputs, outputs, options.opset or OPSET, {METADATA_KEY: metadata})
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return tuple(
            map(torch.from_numpy, session.run(None, {name: tensor.numpy() for name, tensor in given.items()}))
        )

    return run


def write_for_openvino(
    program: ExportedProgram,
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: str,
    options: Settings,
) -> Run:
    """An .xml file, its weights in .bin.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    written = converted(program)
    for ports, names in ((written.inputs, inputs), (written.outputs, outputs)):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    written.set_rt_info(metadata, [METADATA_KEY])
    openvino.save_model(written, path, compress_to_fp16=options.precision == "float16")
    compiled = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
        found = compiled({name: tensor.numpy() for name, tensor in given.items()})
        return tuple(torch.from_numpy(found[name]) for name in outputs)

    return run


def write_for_torch(
    program: ExportedProgram,
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: str,
    options: Settings,
) -> Run:
    """A .pt2 file; torch keeps the order of inputs and outputs, not their names."""
    torch.export.save(program, path, extra_files={METADATA_KEY: metadata})
    read = torch.export.load(path).module()

    def run(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return read(*given.values())

    return run


WRITERS: dict[Format, Writer] = {
    "onnx": write_for_onnx,
    "openvino": write_for_openvino,
    "torch-export": write_for_torch,
}
