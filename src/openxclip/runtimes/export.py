"""A model as files for other programs: three graphs, the tokenizer, and what a program must know, in one folder.

    video_encoder   pixels uint8 (videos, T, 3, S, S) -> video (videos, E), and patches (videos, N, E) with prompting
    text_encoder    tokens int64 (labels, C) -> text (labels, E)
    scorer          video, patches, text -> logits (videos, labels)

Normalisation is in the first; a softmax over labels makes probabilities of the last.

Shapes: T frames, S input side, E joint embedding, N patches, C tokens of a text.
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from openxclip import __version__
from openxclip.checkpoints.load import Loaded
from openxclip.errors import InputError, MissingExtraError
from openxclip.files import atomic_folder
from openxclip.models import XCLIP, VideoFeatures
from openxclip.runtimes.exporting import MAX_VIDEOS, NUM_EXAMPLES, exported_video_encoder
from openxclip.runtimes.onnx_runtime import write_onnx
from openxclip.text.tokenizer import Tokenizer

Format = Literal["onnx", "openvino", "torch-export"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
MAX_LABELS = 65536
BOUND = 1e-3
"""Largest difference of logits, which are cosines times a scale of about 100, from torch's in float32."""

Run = Callable[[dict[str, Tensor]], tuple[Tensor, ...]]
"""Inputs by name -> outputs, by the runtime that a format is for."""


class TextEncoder(nn.Module):
    """`encode_text` without its checks, which read values."""

    def __init__(self, model: XCLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """int64 (K, C) -> (K, E)."""
        assert self.model.text is not None
        return (self.model.text.untrimmed(tokens),)


class Scorer(nn.Module):
    """`logits` with plain tensors as inputs."""

    def __init__(self, model: XCLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: Tensor, text: Tensor, patches: Tensor | None = None) -> tuple[Tensor, ...]:
        """(B, E), (K, E) and, with prompting, (B, N, E) -> (B, K)."""
        return (self.model.logits(VideoFeatures(video, patches), text),)


@dataclass(frozen=True)
class Graph:
    """One graph to write, and example inputs by name."""

    name: str
    program: ExportedProgram
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


def export(
    loaded: Loaded, output: Path, format: Format, *, source: str, labels: Sequence[str] = ()
) -> dict[str, float]:
    """Write a model for another runtime, and run what was written.

    Args:
        loaded: on the CPU.
        output: a folder that does not exist yet.
        format: of the graphs.
        source: of the model, for the metadata.
        labels: class names, for the metadata.

    Returns:
        Name of each graph -> the largest difference of its outputs from torch's.

    Raises:
        InputError: the folder exists, the model has no text tower, or what was written differs by more than `BOUND`.
        MissingExtraError: the package of the format is not installed.
    """
    if output.exists():
        raise InputError(f"{output} exists; choose another folder, or remove it first")
    model = copy.deepcopy(loaded.model).float().eval()
    if model.text is None:
        raise InputError(
            "this model has discrete labels and no text tower; export a model that was trained with texts"
        )
    with atomic_folder(output) as folder:
        graphs = _graphs(model, loaded)
        differences = {graph.name: _written(graph, folder, format) for graph in graphs}
        if isinstance(loaded.tokenizer, Tokenizer):
            loaded.tokenizer.save(folder / "tokenizer.json")
        facts = _facts(loaded, format, graphs, source, labels) | {"largest_differences": differences}
        (folder / "metadata.json").write_text(
            json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return differences


@torch.no_grad()
def _graphs(model: XCLIP, loaded: Loaded) -> list[Graph]:
    videos, labels = Dim("videos", min=1, max=MAX_VIDEOS), Dim("labels", min=1, max=MAX_LABELS)
    config, generator = model.config, torch.Generator().manual_seed(0)
    size = config.vision.image_size_px
    shape = (NUM_EXAMPLES, config.num_frames, 3, size, size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    tokens = torch.randint(
        1, config.text.vocab_size, (NUM_EXAMPLES + 1, config.text.context_length), generator=generator
    )
    encoder = exported_video_encoder(model, loaded.preprocess)
    features = encoder.module()(pixels)
    texts = torch.export.export(TextEncoder(model), (tokens,), dynamic_shapes={"tokens": {0: labels}})
    (text,) = texts.module()(tokens)
    inputs = {"video": features[0], "text": text} | ({"patches": features[1]} if len(features) > 1 else {})
    shapes: dict[str, Any] = {"video": {0: videos}, "text": {0: labels}}
    if "patches" in inputs:
        shapes["patches"] = {0: videos}
    scores = torch.export.export(Scorer(model), tuple(inputs.values()), dynamic_shapes=shapes)
    return [
        Graph("video_encoder", encoder, {"pixels": pixels}, ("video", "patches")[: len(features)]),
        Graph("text_encoder", texts, {"tokens": tokens}, ("text",)),
        Graph("scorer", scores, inputs, ("logits",)),
    ]


def _written(graph: Graph, folder: Path, format: Format) -> float:
    """Write a graph and run it -> the largest difference from torch."""
    run = _WRITERS[format](graph, folder / f"{graph.name}{SUFFIXES[format]}")
    with torch.no_grad():
        expected = graph.program.module()(*graph.inputs.values())
    pairs = zip(run(graph.inputs), expected, strict=True)
    difference = max((found - wanted).abs().max().item() for found, wanted in pairs)
    if not difference <= BOUND:
        raise InputError(
            f"{graph.name} as {format} differs from torch by {difference:.2g}, more than {BOUND:g}: this version of "
            "the runtime does not compute this model right; try another format"
        )
    return difference


def _write_onnx(graph: Graph, path: Path) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx") from error
    write_onnx(graph.program, path, tuple(graph.inputs), graph.outputs)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        outputs = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return tuple(map(torch.from_numpy, outputs))

    return run


def _write_openvino(graph: Graph, path: Path) -> Run:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    written = openvino.convert_model(graph.program)
    for port, name in zip(written.inputs, graph.inputs, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(written.outputs, graph.outputs, strict=True):
        port.get_tensor().set_names({name})
    openvino.save_model(written, path, compress_to_fp16=False)
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        outputs = compiled({name: tensor.numpy() for name, tensor in inputs.items()})
        return tuple(torch.from_numpy(outputs[name]) for name in graph.outputs)

    return run


def _write_torch(graph: Graph, path: Path) -> Run:
    torch.export.save(graph.program, path)
    read = torch.export.load(path).module()
    return lambda inputs: read(*inputs.values())


_WRITERS: dict[Format, Callable[[Graph, Path], Run]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "torch-export": _write_torch,
}


def _facts(
    loaded: Loaded, format: Format, graphs: Sequence[Graph], source: str, labels: Sequence[str]
) -> dict[str, Any]:
    """What a program must know, beside the graphs."""
    config = loaded.model.config
    size = loaded.preprocess.frame_size()
    return {
        "format": format,
        "source": source,
        "openxclip": __version__,
        "labels": list(labels),
        "num_frames": config.num_frames,
        "input_size_px": config.vision.image_size_px,
        "short_side_px": size.short_side_px,
        "resize": size.resize,
        "filter": size.filter,
        "context_length": config.text.context_length,
        "frames": "evenly spaced, in the middle of equal parts of the video",
        "pixels": "RGB, 0 to 255; scaled, then the centre is cut out",
        "graphs": {
            graph.name: {"inputs": list(graph.inputs), "outputs": list(graph.outputs)} for graph in graphs
        },
    }
