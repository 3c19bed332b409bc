"""Exports the image tower as a graph for other runtimes: pixels of 0..255 in, features out.

Shapes: B videos, T frames, S input side, E joint embedding, N patches.
"""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from openxclip.errors import InputError
from openxclip.models import XCLIP, VideoFeatures
from openxclip.models.merging import check_merging
from openxclip.runtimes.quantisation import LayerRange, quantise
from openxclip.runtimes.torch_runtime import fold_normalisation
from openxclip.video.transforms import Preprocessor

MAX_VIDEOS = 4096
MAX_FRAMES = 1024
NUM_EXAMPLES = 2  # a batch of one would be treated as a constant
NUM_EXAMPLE_FRAMES = 3  # of graphs for any number of frames


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """How the graph of an image tower differs from the model in float32."""

    dtype: torch.dtype = torch.float32
    """Type of the computation."""
    ranges: Mapping[str, LayerRange] = field(default_factory=dict)
    """Input ranges of the layers computed in 8-bit integers."""
    marked: bool = False
    """Whether rounding of weights is a named operation, as ONNX needs it."""
    merge_tokens: int = 0
    """Patches of a frame that each block merges."""
    dynamic_frames: bool = False
    """Allow any number of frames; not possible for a model with an integration transformer."""


class VideoEncoder(nn.Module):
    """`encode_video` for raw pixels, with plain tensors in float32 as outputs."""

    def __init__(self, model: XCLIP, preprocess: Preprocessor, options: GraphOptions) -> None:
        super().__init__()
        check_merging(options.merge_tokens, model.config.vision)
        self.model = fold_normalisation(copy.deepcopy(model).float(), preprocess).eval().to(options.dtype)
        self.model.visual.num_merged = options.merge_tokens
        self.dtype = options.dtype
        quantise(self.model, options.ranges, options.marked)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """uint8 (B, T, 3, S, S) -> (B, E), and (B, N, E) of a model with prompting."""
        features = self.model.encode_video(pixels.to(self.dtype))
        return tuple(tensor.float() for tensor in features if tensor is not None)


@torch.no_grad()
def exported_video_encoder(
    model: XCLIP, preprocess: Preprocessor, options: GraphOptions | None = None
) -> ExportedProgram:
    """The graph of a model's video encoder, for any number of videos.

    Raises:
        InputError: the model does not support the options.
    """
    options = options or GraphOptions()
    encoder = VideoEncoder(model, preprocess, options)
    size, num_frames = model.config.vision.image_size_px, model.config.num_frames
    shapes: dict[int, Any] = {0: Dim("videos", min=1, max=MAX_VIDEOS)}
    if options.dynamic_frames:
        if model.integration is not None:
            raise InputError(
                f"this model has time positions for {num_frames} frames, and its graph takes no other number; leave "
                "--dynamic-frames out, or load it with --frames"
            )
        num_frames = NUM_EXAMPLE_FRAMES
        shapes[1] = Dim("frames", min=1, max=MAX_FRAMES)
    pixels = torch.zeros(NUM_EXAMPLES, num_frames, 3, size, size, dtype=torch.uint8)
    return exported(encoder, (pixels,), {"pixels": shapes})


def exported(
    module: nn.Module, inputs: tuple[Tensor, ...], dynamic_shapes: Mapping[str, Any]
) -> ExportedProgram:
    """Export a module as a graph, from example inputs and their dynamic axes."""
    with warnings.catch_warnings(action="ignore"):  # the exporter's own deprecation warnings
        return torch.export.export(module, inputs, dynamic_shapes=dict(dynamic_shapes))


def as_features(outputs: tuple[Tensor, ...]) -> VideoFeatures:
    """The graph's outputs as video features."""
    return VideoFeatures(outputs[0], outputs[1] if len(outputs) > 1 else None)
