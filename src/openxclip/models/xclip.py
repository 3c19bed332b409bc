"""The whole model: videos and class names in one joint embedding.

Shapes: B videos, T frames, N patches, E joint embedding, K texts, C tokens of a text, S input side in pixels.
"""

import copy
import dataclasses
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openxclip.errors import FrameCountError, InputError
from openxclip.models.config import XCLIPConfig
from openxclip.models.discrete import DiscreteLabels
from openxclip.models.initialisation import initialise
from openxclip.models.integration import MultiFrameIntegration, interpolate_positions
from openxclip.models.prompting import VideoSpecificPrompting
from openxclip.models.text import TextTransformer
from openxclip.models.vision import VisionTransformer


class VideoFeatures(NamedTuple):
    """Features of a clip for the comparison with texts."""

    video: Tensor
    """(B, E): the video feature, not normalised."""
    patches: Tensor | None
    """(B, N, E): the visual context that adapts the texts; None in a model without prompting."""


class XCLIP(nn.Module):
    """X-CLIP: three pure calls (`encode_video`, `encode_text`, `logits`); the caller holds the features."""

    def __init__(self, config: XCLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = VisionTransformer(config.vision, config.embed_dim)
        self.integration = (
            MultiFrameIntegration(config.integration, config.num_frames, config.embed_dim)
            if config.integration
            else None
        )
        self.prompting = (
            VideoSpecificPrompting(config.prompting, config.vision.width, config.embed_dim)
            if config.prompting
            else None
        )
        num_labels = config.num_discrete_labels
        self.text = None if num_labels else TextTransformer(config.text, config.embed_dim)
        self.discrete = DiscreteLabels(num_labels, config.embed_dim) if num_labels else None
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.logit_bias = nn.Parameter(torch.empty(())) if config.logit_bias else None
        if not self.logit_scale.is_meta:
            initialise(self)

    def encode_video(self, pixels: Tensor, kept: Tensor | None = None) -> VideoFeatures:
        """pixels (B, T, 3, S, S), normalised, of any floating type -> features of each video, in the model's dtype.

        In training, `kept` (layers, 3, B) says which branches each clip keeps (`DropPath`).

        Raises:
            FrameCountError: T is not the number of frames that the time positions were trained with. A model without
                them, whose video is the mean of its frames, takes any T.
            InputError: the shape does not fit the model.
        """
        self._check(pixels)
        frames, patches = self.visual(pixels.to(self.visual.patch_embedding.weight.dtype), kept)
        video = self._frame_mean(frames) if self.integration is None else self.integration(frames)
        return VideoFeatures(video, None if self.prompting is None else self.prompting.project(patches))

    def _frame_mean(self, frames: Tensor) -> Tensor:
        """Frame features (B, T, E) -> (B, E). Cosines are linear in unit vectors: their mean has the mean cosine."""
        if self.config.frame_mean == "logits":
            frames = F.normalize(frames, dim=-1)
        return frames.mean(dim=1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """tokens (K, C) -> text features (K, E), not normalised.

        Raises:
            InputError: the texts are longer than the model's context, or shorter where it needs all of it (not
                causal), or use ids outside its vocabulary; or the model has discrete labels instead of texts.
        """
        if self.text is None:
            raise InputError(
                f"this model has no text tower: it was trained on {self.config.num_discrete_labels} discrete labels, "
                "whose vectors are model.discrete.table; for free class names load a model trained with texts"
            )
        context, vocab = self.config.text.context_length, self.config.text.vocab_size
        shortest = 1 if self.config.text.causal else context
        if tokens.ndim != 2 or tokens.numel() == 0 or not shortest <= tokens.shape[1] <= context:
            raise InputError(
                f"tokens must be (K, C) with K >= 1, {shortest} <= C <= {context}, got {tuple(tokens.shape)}"
            )
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab:
            raise InputError(
                f"token ids must be in 0..{vocab - 1}, got {int(tokens.min())}..{int(tokens.max())}; "
                "use the tokenizer that belongs to these weights"
            )
        return self.text(tokens)

    def logits(self, video: VideoFeatures, text: Tensor) -> Tensor:
        """Scaled cosine of every video, or its mean over frames, with every text adapted to the video.

        Features (B, E) and (K, E) -> (B, K), at least float32.

        Raises:
            InputError: the features lack the patches that video-specific prompting reads.
        """
        if self.prompting is not None:
            if video.patches is None:
                raise InputError(
                    "these features have no patches, which this model's prompting reads; encode the videos again"
                )
            text = self.prompting(text, video.patches)  # (B, K, E)
        # At least in float32: the scale magnifies bfloat16's rounding errors, and close classes would tie.
        precision = torch.promote_types(text.dtype, torch.float32)
        # autocast does not support the meta device, on which costs are counted
        with nullcontext() if text.is_meta else torch.autocast(text.device.type, enabled=False):
            query = video.video.to(precision)  # (B, E)
            if self.config.frame_mean == "features":
                query = F.normalize(query, dim=-1)
            text = F.normalize(text.to(precision), dim=-1)
            similarity = torch.einsum("be,bke->bk" if text.ndim == 3 else "be,ke->bk", query, text)
            logits = self.logit_scale.to(precision).exp() * similarity
            return logits if self.logit_bias is None else logits + self.logit_bias.to(precision)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """pixels (B, T, 3, S, S), tokens (K, C) -> logits (B, K)."""
        return self.logits(self.encode_video(pixels), self.encode_text(tokens))

    def with_num_frames(self, num_frames: int) -> "XCLIP":
        """A copy for clips of another length: the integration transformer's positions are interpolated."""
        model = copy.deepcopy(self)
        model.config = dataclasses.replace(self.config, num_frames=num_frames)
        if model.integration is not None:
            positions = model.integration.position_embedding
            positions.data = interpolate_positions(positions.data, num_frames)
        return model

    def _check(self, pixels: Tensor) -> None:
        size, num_frames = self.config.vision.image_size_px, self.config.num_frames
        if pixels.ndim != 5 or pixels.shape[2] != 3 or pixels.shape[3:] != (size, size):
            raise InputError(f"pixels must be (B, T, 3, {size}, {size}), got {tuple(pixels.shape)}")
        if not pixels.shape[1]:
            raise InputError("the clip has no frames; give at least one")
        if not pixels.is_floating_point():
            raise InputError(
                f"pixels must be normalised floats, got {pixels.dtype}; pass frames through preprocess"
            )
        if self.integration is not None and pixels.shape[1] != num_frames:
            raise FrameCountError(
                f"the clip has {pixels.shape[1]} frames, the model was trained with {num_frames}; sample "
                f"{num_frames} frames, or load the model for the other count, which interpolates its time "
                f"positions (num_frames={pixels.shape[1]}, on the command line --frames {pixels.shape[1]})"
            )
