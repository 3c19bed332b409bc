"""Recognises one label set in videos.

Shapes: B videos, V views, T frames, S input side, K labels.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from openxclip.checkpoints.source import ModelSource
from openxclip.errors import InputError
from openxclip.inference.engine import Engine
from openxclip.inference.explain import Explanation, explain_in_steps, ids_of
from openxclip.inference.options import InferenceOptions
from openxclip.inference.pipeline import Failure
from openxclip.inference.prediction import Prediction, ranking
from openxclip.inference.reading import read_shown, read_video
from openxclip.inference.views import Views
from openxclip.steps import finished
from openxclip.text.label_texts import LabelTexts
from openxclip.text.templates import BUILT_IN_TEMPLATES
from openxclip.video.source import VideoLimits, VideoSource, source_name


class Recognizer:
    """An engine and one label set, encoded once."""

    def __init__(
        self, engine: Engine, labels: LabelTexts | Sequence[str], limits: VideoLimits | None = None
    ) -> None:
        """
        Args:
            engine: the model; many recognizers can share it.
            labels: class names, or `LabelTexts` for templates and descriptions.
            limits: videos beyond them are refused.
        """
        texts = labels if isinstance(labels, LabelTexts) else LabelTexts(labels=labels)
        self.engine = engine
        self.limits = limits
        self.texts = texts
        self.label_set = engine.label_set(texts)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | ModelSource,
        labels: Sequence[str],
        templates: Sequence[str] | None = None,
        *,
        descriptions: Mapping[str, str | Sequence[str]] | None = None,
        options: InferenceOptions | None = None,
        limits: VideoLimits | None = None,
    ) -> "Recognizer":
        """Load a model and recognise labels with it.

        Args:
            source: what `openxclip.load` takes; a `ModelSource` also sets device, precision, frames and so on.
            labels: class names.
            templates: sentences with {} for the class name; None for the bare name.
            descriptions: texts used instead of the names; every label needs at least one.
            options: how to run and score.
            limits: videos beyond them are refused.
        """
        model = source if isinstance(source, ModelSource) else ModelSource(source=str(source))
        texts = LabelTexts(
            labels=labels,
            templates=BUILT_IN_TEMPLATES["name"] if templates is None else templates,
            descriptions=descriptions,
        )
        return cls(Engine.load(model, options), texts, limits)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names."""
        return self.label_set.labels

    @overload  # a str is a Sequence[str] to the type checker; a single path is meant where one is given
    def predict(self, videos: str | Path, *, top_k: int = 5, views: str = "1x1") -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(
        self, videos: Sequence[str | Path], *, top_k: int = 5, views: str = "1x1"
    ) -> list[Prediction]: ...

    def predict(
        self, videos: str | Path | Sequence[str | Path], *, top_k: int = 5, views: str = "1x1"
    ) -> Prediction | list[Prediction]:
        """The best labels of one video, or of each of several; an unreadable one among several has its `error` set.

        Raises:
            InputError: `top_k` or `views` is not allowed.
            VideoError: a single video cannot be read.
        """
        if not isinstance(videos, str | Path):
            return list(self.predict_each(videos, top_k=top_k, views=views))
        _check_top_k(top_k)
        pixels = self.read(videos, Views.parse(views), num_threads=0)
        return self._prediction(videos, self.probabilities(pixels), top_k)

    def predict_each(
        self, videos: Iterable[str | Path], *, top_k: int = 5, views: str = "1x1", ordered: bool = True
    ) -> Iterator[Prediction]:
        """Predictions one by one; the next videos are decoded while the model runs.

        Args:
            videos: paths; consumed as needed.
            top_k: number of labels per video.
            views: clips x crops, such as "4x3".
            ordered: False yields predictions as soon as they are ready.

        Raises:
            InputError: `top_k` or `views` is not allowed.
        """
        _check_top_k(top_k)
        parsed = Views.parse(views)
        outcomes = self.engine.score(
            videos, lambda path: self.read(path, parsed), self.label_set, ordered=ordered
        )
        return (
            Prediction(path=str(outcome.item), scores=[], error=outcome.reason)
            if isinstance(outcome, Failure)
            else self._prediction(outcome.item, outcome.scores, top_k)
            for outcome in outcomes
        )

    def explain(
        self, video: VideoSource, labels: Sequence[str] | None = None, *, top_k: int = 3
    ) -> Explanation:
        """Explain the scores of labels for one view of a video; see `Explanation`.

        Args:
            video: a path, bytes, or a file.
            labels: which of this recognizer's labels to explain; None for the best ones.
            top_k: number of best labels to explain.

        Raises:
            InputError: `top_k` is below 1, or a label is not among the recognizer's.
            VideoError: the video cannot be read.
        """
        return finished(self.explain_in_steps(video, labels, top_k=top_k))

    def explain_in_steps(
        self, video: VideoSource, labels: Sequence[str] | None = None, *, top_k: int = 3
    ) -> Generator[int, None, Explanation]:
        """`explain` as a generator that yields the number of steps after each one, for a progress bar."""
        _check_top_k(top_k)
        chosen = None if labels is None else ids_of(self.labels, labels)
        clip = self.read(video, Views(), num_threads=0)[0]
        shown = read_shown(self.engine, video, self.limits, num_threads=0)
        steps = explain_in_steps(self.engine, self.texts, self.label_set, clip, chosen, top_k)
        messages, of_labels = yield from steps
        return Explanation(
            path=source_name(video), frames=shown, message_attention=messages, labels=of_labels
        )

    def read(self, video: VideoSource, views: Views, num_threads: int = 1) -> Tensor:
        """Decode a video's views for this model -> uint8 (V, T, 3, S, S).

        Raises:
            VideoError: the video cannot be decoded.
        """
        return read_video(self.engine, video, views, self.limits, num_threads)

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Views uint8 (V, T, 3, S, S) of one video -> probabilities (K,): the mean over views of softmax(logits).

        Raises:
            CheckpointError: the model's output is NaN.
        """
        return self.engine.probabilities(pixels, self.label_set)

    def probabilities_of(self, pixels: Tensor) -> Tensor:
        """Videos uint8 (B, V, T, 3, S, S) -> probabilities (B, K), in batches across videos."""
        outcomes = self.engine.score(range(len(pixels)), pixels.__getitem__, self.label_set)
        return torch.stack([outcome.scores for outcome in outcomes if not isinstance(outcome, Failure)])

    def _prediction(self, path: str | Path, probabilities: Tensor, top_k: int) -> Prediction:
        return Prediction(path=str(path), scores=ranking(self.labels, probabilities.tolist(), top_k))


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise InputError(f"top_k must be at least 1, got {top_k}")
