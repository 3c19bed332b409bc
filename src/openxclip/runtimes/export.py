"""Exports a model for other programs: three graphs, the tokenizer and metadata in one folder.

    video_encoder   pixels uint8 (videos, T, 3, S, S) -> video (videos, E), and patches (videos, N, E) with prompting
    text_encoder    tokens int64 (labels, C) -> text (labels, E)
    scorer          video, patches, text -> logits (videos, labels)

The first includes normalisation; a softmax over labels turns the last one's output into probabilities. If labels are
given, text.npy holds their features: a program for only these labels needs neither tokenizer nor text encoder.

Shapes: T frames, S input side, E joint embedding, N patches, C tokens of a text.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from openxclip import __version__
from openxclip.checkpoints.catalogue import licence_of
from openxclip.checkpoints.load import Loaded
from openxclip.errors import InputError
from openxclip.files import atomic_folder
from openxclip.models import XCLIP, VideoFeatures
from openxclip.models.merging import check_merging
from openxclip.runtimes.calibration import BOUND as NOISE_BOUND
from openxclip.runtimes.calibration import Calibration, noise_between
from openxclip.runtimes.calibration_clips import calibration_clips
from openxclip.runtimes.calibration_file import kept_calibration
from openxclip.runtimes.export_options import ExportOptions, Precision
from openxclip.runtimes.exporting import (
    MAX_VIDEOS,
    NUM_EXAMPLES,
    GraphOptions,
    VideoEncoder,
    exported,
    exported_video_encoder,
)
from openxclip.runtimes.formats import SUFFIXES, WRITERS, GraphFile
from openxclip.text.tokenizer import Tokenizer

MAX_LABELS = 65536
NUM_CLIPS = 4  # for the check after writing
BOUND = 1e-3
"""Largest difference from torch in float32, of values up to about 100, which is the scale of logits."""
HALF_BOUND = 3e-2
"""The same for weights in float16, as a share of the largest value."""
INT8_BOUND = 2 * NOISE_BOUND
"""Maximum noise of video features in int8: twice the calibration's bound, since runtimes round differently."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The written files and their deviations."""

    differences: dict[str, float]
    """Name of each graph, and "pixels to logits" -> the largest difference of outputs from torch in float32."""
    noise: float
    """Noise of the video features: see `calibration.py`."""
    calibration: Calibration | None
    """Calibration of int8."""


class TextEncoder(nn.Module):
    """`encode_text` without its checks, which read tensor values."""

    def __init__(self, model: XCLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """int64 (K, C) -> (K, E)."""
        assert self.model.text is not None
        return (self.model.text.untrimmed(tokens).float(),)


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
    """One graph to write, with inputs by name and their outputs in torch in float32."""

    name: str
    program: ExportedProgram
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def export(
    loaded: Loaded, output: Path, options: ExportOptions, *, source: str, labels: Sequence[str] = ()
) -> Exported:
    """Write a model for another runtime, and check the written graphs.

    Args:
        loaded: on the CPU.
        output: a folder that does not exist yet.
        options: settings of the export.
        source: source of the model, for the metadata.
        labels: class names, for text.npy and the metadata.

    Raises:
        InputError: the folder exists, the model has no text tower, options conflict, or a written graph differs by
            more than its bound.
        MissingExtraError: the package of the format is not installed.
    """
    options.check()
    if output.exists():
        raise InputError(f"{output} exists; choose another folder, or remove it first")
    model = copy.deepcopy(loaded.model).float().eval()
    if model.text is None:
        raise InputError(
            "this model has discrete labels and no text tower; export a model that was trained with texts"
        )
    if labels and not isinstance(loaded.tokenizer, Tokenizer):
        raise InputError(
            "this model has no tokenizer, which labels need; give --tokenizer, or leave --labels out"
        )
    check_merging(options.merge_tokens, model.config.vision)
    calibration = None
    if options.int8:
        calibration = kept_calibration(model, loaded.preprocess, options.calibration)
    with atomic_folder(output) as folder:
        graphs = _graphs(model, loaded, options, calibration)
        facts = _facts(loaded, options, graphs, source, labels)
        found = {graph.name: _written(graph, folder, options, facts) for graph in graphs}
        differences = {graph.name: _difference(graph, found[graph.name]) for graph in graphs}
        noise = _noise(graphs[0], found[graphs[0].name])
        differences["pixels to logits"] = _of_logits(model, graphs, found["video_encoder"])
        _check(graphs, differences, noise, options)
        if isinstance(loaded.tokenizer, Tokenizer):
            loaded.tokenizer.save(folder / "tokenizer.json")
        if labels:
            with torch.inference_mode():
                np.save(folder / "text.npy", model.encode_text(loaded.tokenizer(labels)).numpy())
        facts |= {"largest_differences": differences, "noise": noise}
        if calibration is not None:
            facts["int8_layers"] = [asdict(layer) for layer in calibration.layers]
        (folder / "metadata.json").write_text(
            json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return Exported(differences=differences, noise=noise, calibration=calibration)


@torch.no_grad()
def _graphs(
    model: XCLIP, loaded: Loaded, options: ExportOptions, calibration: Calibration | None
) -> list[Graph]:
    dtype = torch.float16 if options.precision == "float16" else torch.float32
    graph_options = GraphOptions(
        dtype=dtype,
        ranges={} if calibration is None else calibration.ranges,
        marked=options.format == "onnx",
        merge_tokens=options.merge_tokens,
        dynamic_frames=options.dynamic_frames,
    )
    videos, labels = Dim("videos", min=1, max=MAX_VIDEOS), Dim("labels", min=1, max=MAX_LABELS)
    config, generator = model.config, torch.Generator().manual_seed(0)
    pixels = calibration_clips(None, loaded.preprocess, config.num_frames)[:NUM_CLIPS]
    tokens = torch.randint(
        1, config.text.vocab_size, (NUM_EXAMPLES + 1, config.text.context_length), generator=generator
    )
    encoder = exported_video_encoder(model, loaded.preprocess, graph_options)
    features = VideoEncoder(model, loaded.preprocess, GraphOptions(merge_tokens=options.merge_tokens))(pixels)
    if config.text.end_id is not None:
        tokens[:, -1] = config.text.end_id  # otherwise the model would use only the first token
    text = TextEncoder(model)(tokens)[0]
    texts = exported(TextEncoder(copy.deepcopy(model).to(dtype)), (tokens,), {"tokens": {0: labels}})
    inputs = {"video": features[0], "text": text} | ({"patches": features[1]} if len(features) > 1 else {})
    shapes: dict[str, Any] = {"video": {0: videos}, "text": {0: labels}}
    if "patches" in inputs:
        shapes["patches"] = {0: videos}
    scores = exported(Scorer(model), tuple(inputs.values()), shapes)
    (logits,) = Scorer(model)(**inputs)
    return [
        Graph(
            "video_encoder",
            encoder,
            {"pixels": pixels},
            dict(zip(("video", "patches"), features, strict=False)),
        ),
        Graph("text_encoder", texts, {"tokens": tokens}, {"text": text}),
        Graph("scorer", scores, inputs, {"logits": logits}),
    ]


def _written(graph: Graph, folder: Path, options: ExportOptions, facts: dict[str, Any]) -> tuple[Tensor, ...]:
    """Write a graph and run it -> its outputs."""
    file = GraphFile(
        program=graph.program,
        path=folder / f"{graph.name}{SUFFIXES[options.format]}",
        inputs=tuple(graph.inputs),
        outputs=tuple(graph.outputs),
        metadata=json.dumps(facts, ensure_ascii=False),
    )
    run = WRITERS[options.format](file, replace(options, precision=_precision(graph, options)))
    return run(graph.inputs)


def _difference(graph: Graph, found: tuple[Tensor, ...]) -> float:
    pairs = zip(found, graph.outputs.values(), strict=True)
    return torch.stack([(one - two).abs().max() for one, two in pairs]).max().item()  # propagates NaN


@torch.no_grad()
def _of_logits(model: XCLIP, graphs: Sequence[Graph], features: tuple[Tensor, ...]) -> float:
    """The largest difference of logits caused by the written encoder's features."""
    _, texts, scorer = graphs
    (logits,) = Scorer(model)(features[0], texts.outputs["text"], *features[1:])
    return (logits - scorer.outputs["logits"]).abs().max().item()


def _noise(graph: Graph, found: tuple[Tensor, ...]) -> float:
    return noise_between(F.normalize(found[0], dim=-1), F.normalize(graph.outputs["video"], dim=-1))


def _check(
    graphs: Sequence[Graph], differences: dict[str, float], noise: float, options: ExportOptions
) -> None:
    """
    Raises:
        InputError: something is beyond its bound.
    """
    hint = "this version of the runtime does not compute this model correctly; try another format"
    if options.int8 and not noise <= INT8_BOUND:
        raise InputError(
            f"the video encoder as {options.format} in int8 has a noise of {noise:.2g}, more than {INT8_BOUND:g}: "
            f"{hint}, or leave --int8 out"
        )
    if options.precision == "float16" and not noise <= NOISE_BOUND:
        raise InputError(
            f"the video encoder as {options.format} in float16 has a noise of {noise:.2g}, more than {NOISE_BOUND:g}: "
            "this model needs --precision float32"
        )
    for graph in graphs:
        if options.int8 and graph.name == "video_encoder":
            continue
        bound, difference = BOUND, differences[graph.name]
        if _precision(graph, options) == "float16":
            bound = HALF_BOUND * max(1.0, *(tensor.abs().max().item() for tensor in graph.outputs.values()))
        if not difference <= bound:
            raise InputError(
                f"{graph.name} as {options.format} differs from torch by {difference:.2g}, more than {bound:.2g}: "
                f"{hint}"
            )
    if not options.int8 and options.precision == "float32" and not differences["pixels to logits"] <= BOUND:
        raise InputError(
            f"logits of the video encoder as {options.format} differ from torch's by "
            f"{differences['pixels to logits']:.2g}, more than {BOUND:g}: {hint}"
        )


def _precision(graph: Graph, options: ExportOptions) -> Precision:
    return "float32" if graph.name == "scorer" else options.precision


def _facts(
    loaded: Loaded, options: ExportOptions, graphs: Sequence[Graph], source: str, labels: Sequence[str]
) -> dict[str, Any]:
    """Metadata for programs; also stored in each graph."""
    config = loaded.model.config
    size = loaded.preprocess.frame_size()
    return {
        "format": options.format,
        "precision": "int8" if options.int8 else options.precision,
        "source": source,
        "licence": licence_of(source),
        "openxclip": __version__,
        "labels": list(labels),
        "num_frames": None if options.dynamic_frames else config.num_frames,
        "input_size_px": config.vision.image_size_px,
        "short_side_px": size.short_side_px,
        "resize": size.resize,
        "filter": size.filter,
        "context_length": config.text.context_length,
        "pad_id": loaded.tokenizer.pad_id if isinstance(loaded.tokenizer, Tokenizer) else None,
        "merge_tokens": options.merge_tokens,
        "frames": "evenly spaced, in the middle of equal parts of the video",
        "pixels": "RGB, 0 to 255; scaled, then the centre is cut out",
        "graphs": {
            graph.name: {"inputs": list(graph.inputs), "outputs": list(graph.outputs)} for graph in graphs
        },
    }
