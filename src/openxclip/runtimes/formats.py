"""Writes graphs in each format, and runs the written files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram

from openxclip.errors import MissingExtraError
from openxclip.runtimes.export_options import ExportOptions, Format
from openxclip.runtimes.onnx_runtime import OPSET, write_onnx
from openxclip.runtimes.openvino_runtime import converted, core

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
METADATA_KEY = "openxclip"
"""The key under which a graph stores its metadata, as JSON."""

Run = Callable[[dict[str, Tensor]], tuple[Tensor, ...]]
"""Inputs by name -> outputs, computed by the format's runtime."""


class GraphFile(NamedTuple):
    """A graph and the file to write."""

    program: ExportedProgram
    path: Path
    inputs: Sequence[str]
    """Their names."""
    outputs: Sequence[str]
    """Their names."""
    metadata: str
    """Metadata for programs, as JSON."""


Writer = Callable[[GraphFile, ExportOptions], Run]
"""Writes a file -> a function that runs it."""


def write_for_onnx(file: GraphFile, options: ExportOptions) -> Run:
    """Write an .onnx file, with its weights in a separate file.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx") from error
    opset, metadata = options.opset or OPSET, {METADATA_KEY: file.metadata}
    write_onnx(file.program, file.path, file.inputs, file.outputs, opset, metadata)
    session = onnxruntime.InferenceSession(file.path, providers=["CPUExecutionProvider"])

    def run(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
        found = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
        return tuple(map(torch.from_numpy, found))

    return run


def write_for_openvino(file: GraphFile, options: ExportOptions) -> Run:
    """Write an .xml file, with its weights in .bin.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    written = converted(file.program)
    for ports, names in ((written.inputs, file.inputs), (written.outputs, file.outputs)):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    written.set_rt_info(file.metadata, [METADATA_KEY])
    openvino.save_model(written, file.path, compress_to_fp16=options.precision == "float16")
    compiled = core().compile_model(file.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
        found = compiled({name: tensor.numpy() for name, tensor in given.items()})
        return tuple(torch.from_numpy(found[name]) for name in file.outputs)

    return run


def write_for_torch(file: GraphFile, options: ExportOptions) -> Run:
    """Write a .pt2 file; torch keeps the order of inputs and outputs, not their names."""
    torch.export.save(file.program, file.path, extra_files={METADATA_KEY: file.metadata})
    read = torch.export.load(file.path).module()

    def run(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return read(*given.values())

    return run


WRITERS: dict[Format, Writer] = {
    "onnx": write_for_onnx,
    "openvino": write_for_openvino,
    "torch-export": write_for_torch,
}
