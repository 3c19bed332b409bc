"""Score a recognizer on a list of labelled videos, deterministically.

Shapes: V videos, K classes.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openxclip.data.media import Item, Manifest
from openxclip.errors import InputError, VideoError
from openxclip.evaluation.metrics import confusion_matrix, per_class_accuracy, top_k_accuracy
from openxclip.files import atomic_write
from openxclip.inference.pipeline import Failure
from openxclip.inference.recognizer import Recognizer
from openxclip.inference.views import Views
from openxclip.processes import current


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """One row of the per-class table."""

    label: str
    """Class name."""
    num_videos: int
    """Videos of this class that were scored."""
    accuracy: float | None
    """Share of them whose best label is correct; None if there are none."""


@dataclass(frozen=True, kw_only=True)
class VideoResult:
    """One video of an evaluation: its predicted label, or why it could not be read."""

    path: str
    """Path as written in the list."""
    label: str
    """Its true class."""
    file: str | None = None
    """The video file, if it is one."""
    clip: dict[str, Any] | None = None
    """The clip of moving shapes, if it is one."""
    predicted: str | None = None
    """The best label."""
    probability: float | None = None
    """Its probability."""
    error: str | None = None
    """Why the video could not be read."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; those that do not apply are left out, except `file`."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value is not None or name == "file"}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result of an evaluation. Accuracies are over the videos that could be read; the others are counted."""

    data: str
    """Name of the list."""
    views: str
    """Clips x crops of each video."""
    num_videos: int
    """Videos in the list."""
    num_unreadable: int
    """Videos that could not be read."""
    top1: float
    """Share whose best label is correct."""
    top5: float
    """Share whose label is among the five best."""
    classes: list[ClassResult]
    """Results by class."""
    confusion: list[list[int]]
    """Row: true class, column: predicted."""
    videos: list[VideoResult]
    """A result for each video, in the order of the list."""
    fingerprint: str
    """Digest of the list: its labels, paths and assignments."""
    altered: str = ""
    """What was scored instead of the original video; empty for unaltered videos."""

    def save(self, path: Path) -> None:
        """Write everything as one JSON file."""
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"videos": [video.to_dict() for video in self.videos]}

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """Read a file that `save` wrote."""
        values = json.loads(path.read_text())
        classes = [ClassResult(**row) for row in values["classes"]]
        videos = [VideoResult(**row) for row in values["videos"]]
        return cls(**values | {"classes": classes, "videos": videos})


Read = Callable[[Item], Tensor]
"""A video of a manifest -> its views uint8 (V, T, 3, S, S)."""

Alter = Callable[[Item, Read], Tensor]
"""A video and a function that reads any video -> the views to score instead of its own."""


def evaluate(
    recognizer: Recognizer,
    manifest: Manifest,
    views: Views,
    on_video: Callable[[], None] = lambda: None,
    alter: Alter | None = None,
    read: Read | None = None,
) -> Evaluation:
    """Score every video of a manifest, in batches; the processes of a run share the work, and all get the whole result.

    Args:
        recognizer: the model and the manifest's labels.
        manifest: the videos.
        views: of each video.
        on_video: called after each video.
        alter: changes the pixels of a video before scoring.
        read: reads a video's views; None decodes them.

    Raises:
        InputError: the recognizer's labels differ from the manifest's.
        VideoError: no video can be read.
    """
    if recognizer.labels != manifest.labels:
        raise InputError(
            f"the recognizer's labels are not those of {manifest.name}; build it with these labels"
        )

    def decode(item: Item) -> Tensor:
        return recognizer.engine.read_views(partial(item.media.read, limits=recognizer.limits), views)

    def altered(item: Item) -> Tensor:
        return as_is(item) if alter is None else alter(item, as_is)

    as_is = read or decode
    processes = current()
    num_together = max(1, recognizer.engine.flow.batch_size // (views.num_clips * views.num_crops))
    own = processes.share_of(len(manifest.items), num_together)
    outcomes: dict[int, Tensor | str] = {}
    """Position of a video -> its scores (K,), or an error."""
    items = [manifest.items[place] for place in own]
    scored = recognizer.engine.score(items, altered, recognizer.label_set)
    for place, outcome in zip(own, scored, strict=True):
        outcomes[place] = outcome.reason if isinstance(outcome, Failure) else outcome.scores
        for _ in range(processes.count):  # the other processes are equally far
            on_video()
    everything = {place: found for part in processes.gathered(outcomes) for place, found in part.items()}
    return _evaluation(manifest, views, [everything[place] for place in range(len(manifest.items))])


def _evaluation(manifest: Manifest, views: Views, outcomes: Sequence[Tensor | str]) -> Evaluation:
    """The result from the scores (K,) of each video, or its error."""
    results: list[VideoResult] = []
    scores: list[Tensor] = []
    truth: list[int] = []
    for item, outcome in zip(manifest.items, outcomes, strict=True):
        result = _unscored(item, manifest.labels)
        if isinstance(outcome, str):
            results.append(replace(result, error=outcome))
            continue
        best = int(outcome.argmax())
        results.append(replace(result, predicted=manifest.labels[best], probability=outcome[best].item()))
        scores.append(outcome)
        truth.append(item.label)
    if not scores:
        raise VideoError(
            manifest.name,
            f"none of its {len(results)} videos can be read; they are missing or damaged; the first, "
            f"{results[0].path}: {results[0].error}",
        )
    return _summarise(manifest, views, torch.stack(scores), torch.tensor(truth), results)


def views_text(views: Views) -> str:
    """Views as `--views` takes them: clips x crops, and the stride of dense ones."""
    stride = "" if views.dense_stride is None else f"@{views.dense_stride}"
    return f"{views.num_clips}x{views.num_crops}{stride}"


def _unscored(item: Item, labels: Sequence[str]) -> VideoResult:
    """The facts about a video that are known before scoring."""
    return VideoResult(path=item.path, label=labels[item.label], **item.media.facts())


def _summarise(
    manifest: Manifest, views: Views, scores: Tensor, truth: Tensor, videos: list[VideoResult]
) -> Evaluation:
    """The result from probabilities (V, K) and true labels (V,) of the readable videos."""
    confusion = confusion_matrix(scores.argmax(dim=1), truth, len(manifest.labels))
    accuracies = per_class_accuracy(confusion).tolist()
    return Evaluation(
        data=manifest.name,
        views=views_text(views),
        num_videos=len(videos),
        num_unreadable=len(videos) - len(scores),
        top1=top_k_accuracy(scores, truth, 1),
        top5=top_k_accuracy(scores, truth, 5),
        classes=[
            ClassResult(label=label, num_videos=count, accuracy=None if math.isnan(accuracy) else accuracy)
            for label, count, accuracy in zip(
                manifest.labels, confusion.sum(dim=1).tolist(), accuracies, strict=True
            )
        ],
        confusion=confusion.tolist(),
        videos=videos,
        fingerprint=manifest.fingerprint(),
    )
