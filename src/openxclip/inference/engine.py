"""A loaded model, ready to score any videos against any number of label sets.

Its parts are separate values: a runtime (pixels -> video features), a scorer (features -> logits), and the flow of
videos through both.

Shapes: B videos, V views, T frames, S input side, K labels, E joint embedding.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from openxclip.checkpoints.device import resolve_device
from openxclip.checkpoints.load import Loaded, load
from openxclip.checkpoints.source import ModelSource
from openxclip.inference import pipeline
from openxclip.inference.label_set import LabelSet, encode_label_set
from openxclip.inference.options import InferenceOptions
from openxclip.inference.pipeline import Failure, Flow, Scored
from openxclip.inference.scoring import build_scorer, mean_over_views
from openxclip.inference.views import Read, Views, read_views
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.models.xclip import VideoFeatures
from openxclip.runtimes.choice import chosen_runtime
from openxclip.runtimes.int8 import check_device
from openxclip.runtimes.runtime import check_options
from openxclip.text.label_texts import LabelTexts

Item = TypeVar("Item")

NUM_CPU_DECODERS = 2  # next to a model that computes on the same cores
GPU_BATCH_SIZE = 32
CPU_BATCH_GMACS = 4.0
CPU_BATCH_GMACS_BFLOAT16 = 240.0  # matrix units need many tokens: docs/performance.md
MAX_CPU_BATCH_SIZE = 16


class Engine:
    """Runtime, scorer and flow for one model."""

    def __init__(self, loaded: Loaded, options: InferenceOptions | None = None) -> None:
        """
        Args:
            loaded: the three values that `openxclip.load` returns.
            options: how to run and score; None for the defaults.

        Raises:
            InputError: the model's device does not support the options.
        """
        self.options = options or InferenceOptions()
        self.options.check()
        self.model, self.tokenizer, self.preprocess = loaded
        self.flow = _flow(self.model, self.options.batch_size)
        self.runtime, self.runtime_options = chosen_runtime(
            self.model, self.preprocess, self.options.runtime, self.flow.batch_size
        )
        self.scorer = build_scorer(self.model, self.options.shortlist)

    @classmethod
    def load(cls, source: ModelSource, options: InferenceOptions | None = None) -> "Engine":
        """Load a model (see `openxclip.load`) and build an engine around it."""
        if options is not None:
            options.check()
            check_options(options.runtime)
        if options is not None and options.runtime.int8:
            check_device(resolve_device(source.device))  # fail before a large model is loaded
        return cls(load(source), options)

    def label_set(self, texts: LabelTexts, check: Callable[[], None] = lambda: None) -> LabelSet:
        """Encode labels for this model, once; `check` is called between batches of sentences, and may raise."""
        return encode_label_set(self.model, self.tokenizer, texts, self.options.text_cache, check)

    def read_views(self, read: Read, views: Views) -> Tensor:
        """Read a video's views for this model -> uint8 (V, T, 3, S, S)."""
        return read_views(read, self.preprocess, self.model.config.num_frames, views)

    def score(
        self,
        items: Iterable[Item],
        read: Callable[[Item], Tensor],
        labels: LabelSet,
        *,
        ordered: bool = True,
    ) -> Iterator[Scored[Item] | Failure[Item]]:
        """Probabilities (K,) of every item, as `Scored.scores`; the next videos are decoded in the meantime.

        Args:
            items: any values that represent videos.
            read: an item -> its views uint8 (V, T, 3, S, S); a VideoError makes the item a `Failure`.
            labels: from `label_set`.
            ordered: False gives results as soon as their batch is computed, and failures at once.

        Raises:
            CheckpointError: the model's scores are NaN.
        """
        flow = replace(self.flow, ordered=ordered)
        for outcome in pipeline.run(items, read, lambda pixels: self.logits(pixels, labels), flow):
            if isinstance(outcome, Scored):
                outcome = Scored(outcome.item, mean_over_views(outcome.scores))
            yield outcome

    def probabilities(self, pixels: Tensor, labels: LabelSet) -> Tensor:
        """Views uint8 (V, T, 3, S, S) of one video -> probabilities (K,), on the CPU."""
        chunks = [self.logits(chunk, labels) for chunk in pixels.split(self.flow.batch_size)]
        return mean_over_views(torch.cat(chunks).cpu())

    def logits(self, pixels: Tensor, labels: LabelSet) -> Tensor:
        """Views uint8 (B, T, 3, S, S) -> logits (B, K), on the model's device."""
        return self.compare(self.encode(pixels), labels)

    def encode(self, pixels: Tensor) -> VideoFeatures:
        """Views uint8 (B, T, 3, S, S) -> features of each, on the runtime's device and in its type."""
        return self.runtime.encode_video(pixels)

    @torch.inference_mode()
    def compare(self, video: VideoFeatures, labels: LabelSet) -> Tensor:
        """Features of B views from `encode` -> logits (B, K), on the model's device."""
        # A runtime may compute in another dtype than the model that scores its features.
        dtype = labels.features.dtype
        patches = None if video.patches is None else video.patches.to(dtype)
        return self.scorer(VideoFeatures(video.video.to(dtype), patches), labels.features)


def _flow(model: XCLIP, batch_size: int | None) -> Flow:
    if model.logit_scale.device.type == "cpu":
        size = batch_size or cpu_batch_size(model.config, next(model.parameters()).dtype)
        return Flow(batch_size=size, num_decoders=NUM_CPU_DECODERS)
    size = batch_size or GPU_BATCH_SIZE
    return Flow(batch_size=size, num_decoders=os.cpu_count() or 1, num_in_flight=1)


def cpu_batch_size(config: XCLIPConfig, dtype: torch.dtype) -> int:
    """Batch size on a CPU: one view of a large tower keeps all cores busy, small ones share the overhead of a call."""
    budget = CPU_BATCH_GMACS_BFLOAT16 if dtype == torch.bfloat16 else CPU_BATCH_GMACS
    vision = config.vision
    num_tokens = config.num_frames * (
        vision.num_patches + 2
    )  # class and message token in addition to the patches
    gmacs = 12 * vision.num_layers * vision.width**2 * num_tokens / 1e9  # of a transformer's linear layers
    return max(1, min(MAX_CPU_BATCH_SIZE, round(budget / gmacs)))
