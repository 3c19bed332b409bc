"""The image tower as a graph that other runtimes take: pixels of 0..255 in, features out.

Shapes: B videos, T frames, S input side, E joint embedding, N patches.
"""

import copy

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from openxclip.models import XCLIP, VideoFeatures
from openxclip.runtimes.torch_runtime import fold_normalisation
from openxclip.video.transforms import Preprocessor

MAX_VIDEOS = 4096
NUM_EXAMPLES = 2  # one would be taken for a constant


class VideoEncoder(nn.Module):
    """`encode_video` for raw pixels, with plain tensors as outputs."""

    def __init__(self, model: XCLIP, preprocess: Preprocessor) -> None:
        super().__init__()
        self.model = fold_normalisation(copy.deepcopy(model).float(), preprocess).eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """uint8 (B, T, 3, S, S) -> (B, E), and (B, N, E) of a model with prompting."""
        features = self.model.encode_video(pixels.float())
        return tuple(tensor for tensor in features if tensor is not None)


@torch.no_grad()
def exported_video_encoder(model: XCLIP, preprocess: Preprocessor) -> ExportedProgram:
    """The graph of a model's video encoder in float32, for any number of videos."""
    encoder = VideoEncoder(model, preprocess)
    size, num_frames = model.config.vision.image_size_px, model.config.num_frames
    pixels = torch.zeros(NUM_EXAMPLES, num_frames, 3, size, size, dtype=torch.uint8)
    shapes = {"pixels": {0: Dim("videos", min=1, max=MAX_VIDEOS)}}
    return torch.export.export(encoder, (pixels,), dynamic_shapes=shapes)


def as_features(outputs: tuple[Tensor, ...]) -> VideoFeatures:
    """What the graph gives, as the model gives it."""
    return VideoFeatures(outputs[0], outputs[1] if len(outputs) > 1 else None)
