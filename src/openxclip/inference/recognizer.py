"""Labels and a model become predictions.

Shapes: B videos, V views, T frames, S input side, K labels, E joint embedding.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from openxclip.checkpoints.load import load, resolve_device
from openxclip.data.descriptions import check_descriptions
from openxclip.errors import CheckpointError, InputError, VideoError
from openxclip.inference.ahead import read_ahead
from openxclip.inference.labels import encode_labels
from openxclip.inference.shortcuts import Shortcuts
from openxclip.inference.shortlist import shortlist_logits
from openxclip.inference.views import Views, read_views
from openxclip.models import XCLIP
from openxclip.runtimes.folding import fold_normalisation
from openxclip.runtimes.int8 import check_device, use_int8
from openxclip.text.labels import check_labels
from openxclip.text.templates import BUILT_IN_TEMPLATES
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer
from openxclip.video.decode import VideoLimits, VideoSource
from openxclip.video.transforms import Preprocessor

NUM_DECODE_THREADS = 2
MAX_VIEWS_AT_ONCE = 16  # bounds memory; published protocols have up to 12 views


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a video was recognised as."""

    path: str
    """The video."""
    scores: list[tuple[str, float]]
    """(label, probability), best first; empty where the video could not be read."""
    error: str | None = None
    """Why it could not."""


class Recognizer:
    """Recognises one label set; the text features are computed once, when it is made."""

    def __init__(
        self,
        model: XCLIP,
        tokenizer: Tokenizer | MissingTokenizer,
        preprocess: Preprocessor,
        labels: Sequence[str],
        templates: Sequence[str] | None = None,
        limits: VideoLimits | None = None,
        descriptions: Mapping[str, str | Sequence[str]] | None = None,
        shortcuts: Shortcuts | None = None,
    ) -> None:
        """`descriptions` give texts that stand for a label in place of its name; every label needs one or more."""
        self.shortcuts = shortcuts or Shortcuts()
        if templates is None:
            templates = BUILT_IN_TEMPLATES["name"]
        self.model = model
        self.preprocess = preprocess
        self.labels = tuple(check_labels(labels, "labels"))
        self.limits = limits
        texts = None if descriptions is None else check_descriptions(descriptions, "descriptions")
        self.text = encode_labels(  # (K, E)
            model, tokenizer, self.labels, templates, descriptions=texts, cache=self.shortcuts.text_cache
        )
        folded = fold_normalisation(model, preprocess)
        if self.shortcuts.int8:
            use_int8(folded)
        self._encode_video = folded.encode_video
        if self.shortcuts.compile:
            # On a GPU, CUDA graphs send all kernels of a shape seen before at once. Their outputs are overwritten by
            # the next call; the logits made of them are not.
            mode = "reduce-overhead" if self.text.device.type == "cuda" else "default"
            self._encode_video = torch.compile(folded.encode_video, mode=mode)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        labels: Sequence[str],
        templates: Sequence[str] | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        num_frames: int | None = None,
        tokenizer: str | Path | None = None,
        interpolate: float | None = None,
        image_model: str | Path | None = None,
        limits: VideoLimits | None = None,
        descriptions: Mapping[str, str | Sequence[str]] | None = None,
        shortcuts: Shortcuts | None = None,
    ) -> "Recognizer":
        """Load a model (see `openxclip.load`) and make a recognizer of it."""
        if shortcuts is not None and shortcuts.int8:
            check_device(resolve_device(device))  # before a large model is loaded
        loaded = load(
            source,
            device=device,
            dtype=dtype,
            num_frames=num_frames,
            tokenizer=tokenizer,
            interpolate=interpolate,
            image_model=image_model,
        )
        return cls(
            *loaded,
            labels=labels,
            templates=templates,
            limits=limits,
            descriptions=descriptions,
            shortcuts=shortcuts,
        )

    @overload  # a str is a Sequence[str] to the type checker; a single path is meant where one is given
    def predict(self, videos: str | Path, *, top_k: int = 5, views: str = "1x1") -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(
        self, videos: Sequence[str | Path], *, top_k: int = 5, views: str = "1x1"
    ) -> list[Prediction]: ...

    def predict(
        self, videos: str | Path | Sequence[str | Path], *, top_k: int = 5, views: str = "1x1"
    ) -> Prediction | list[Prediction]:
        """The best labels of one video, or of each of several; a bad one among several has its `error` set.

        Raises:
            InputError: `top_k` or `views` is not allowed.
            VideoError: a single video cannot be read.
        """
        if not isinstance(videos, str | Path):
            return list(self.predict_each(videos, top_k=top_k, views=views))
        _check_top_k(top_k)
        pixels = self.read(videos, Views.parse(views), num_threads=0)
        return self._prediction(videos, pixels, top_k)

    def predict_each(
        self, videos: Iterable[str | Path], *, top_k: int = 5, views: str = "1x1"
    ) -> Iterator[Prediction]:
        """Predictions one by one, in order; the next videos are decoded while the model works.

        Raises:
            InputError: `top_k` or `views` is not allowed.
        """
        _check_top_k(top_k)
        parsed = Views.parse(views)
        clips = read_ahead(videos, lambda path: self.read(path, parsed), NUM_DECODE_THREADS)
        return (self._prediction(path, pixels, top_k) for path, pixels in clips)

    def read(self, video: VideoSource, views: Views, num_threads: int = 1) -> Tensor:
        """Decode a video's views as this model wants them -> uint8 (V, T, 3, S, S).

        Raises:
            VideoError: the video cannot be decoded.
        """
        return read_views(
            video,
            self.preprocess,
            self.model.config.num_frames,
            views,
            num_threads=num_threads,
            limits=self.limits,
        )

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Views uint8 (V, T, 3, S, S) of one video -> probabilities (K,); see `probabilities_of`."""
        return self.probabilities_of(pixels[None])[0]

    @torch.inference_mode()
    def probabilities_of(self, pixels: Tensor) -> Tensor:
        """Videos uint8 (B, V, T, 3, S, S) -> probabilities (B, K): the mean over views of softmax(logits).

        Raises:
            CheckpointError: the model's output is no number.
        """
        chunks = pixels.flatten(0, 1).split(MAX_VIEWS_AT_ONCE)
        logits = torch.cat([self._logits(chunk) for chunk in chunks])  # (B * V, K)
        of_views = logits.float().softmax(dim=-1).unflatten(0, pixels.shape[:2])
        probabilities = of_views.mean(dim=1).cpu()
        if probabilities.isnan().any():
            raise CheckpointError(
                f"the model's scores are not numbers: its weights are damaged, or too large for {self.text.dtype}; "
                "try float32, or get the weights again"
            )
        return probabilities

    def _logits(self, pixels: Tensor) -> Tensor:
        """Views uint8 (V, T, 3, S, S) -> logits (V, K)."""
        device = self.text.device
        if device.type == "cuda":
            pixels = pixels.pin_memory()  # only then does the copy not wait for the device
        # Every value of 0..255 is exact in all types that a model can have.
        video = self._encode_video(pixels.to(device, non_blocking=True).to(self.text.dtype))
        if self.shortcuts.shortlist is None:
            return self.model.logits(video, self.text)
        return shortlist_logits(self.model, video, self.text, self.shortcuts.shortlist)

    def _prediction(self, path: str | Path, pixels: Tensor | VideoError, top_k: int) -> Prediction:
        """Of the views (V, T, 3, S, S) of a video, or of what went wrong with it; equals in order of labels."""
        if isinstance(pixels, VideoError):
            return Prediction(path=str(path), scores=[], error=pixels.reason)
        values, indices = self.probabilities(pixels).sort(descending=True, stable=True)
        best = zip(indices[:top_k].tolist(), values[:top_k].tolist(), strict=True)
        return Prediction(path=str(path), scores=[(self.labels[i], value) for i, value in best])


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise InputError(f"top_k must be at least 1, got {top_k}")
