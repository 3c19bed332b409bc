"""Score a recognizer on a list of labelled videos, deterministically.

Shapes: V videos, K classes.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openxclip.data.manifest import Item, Manifest
from openxclip.data.shapes.clip import ShapesClip
from openxclip.errors import InputError, VideoError
from openxclip.evaluation.metrics import confusion_matrix, per_class_accuracy, top_k_accuracy
from openxclip.files import atomic_write
from openxclip.inference.ahead import read_ahead
from openxclip.inference.recognizer import MAX_VIEWS_AT_ONCE, NUM_DECODE_THREADS, Recognizer
from openxclip.inference.views import Views


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """One row of the table by class."""

    label: str
    """Class name."""
    num_videos: int
    """Videos of this class that were scored."""
    accuracy: float | None
    """Share of them whose best label is right; None where there are none."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found. Accuracies are over the videos that could be read; the others are counted."""

    data: str
    """Name of the list."""
    views: str
    """Clips x crops of each video."""
    num_videos: int
    """Videos in the list."""
    num_unreadable: int
    """Videos that could not be read."""
    top1: float
    """Share whose best label is right."""
    top5: float
    """Share whose label is among the five best."""
    classes: list[ClassResult]
    """By class."""
    confusion: list[list[int]]
    """Row: true class, column: predicted."""
    videos: list[dict[str, Any]]
    """For each video: path, file (or None), of a rendered one the clip, label, and either predicted with its
    probability or the error."""
    fingerprint: str
    """Of the list: its labels, paths and assignments."""
    altered: str = ""
    """What was scored of each video in place of the whole; empty: the videos as they are."""

    def save(self, path: Path) -> None:
        """Write everything as one JSON file."""
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """What `save` wrote."""
        values = json.loads(path.read_text())
        return cls(**values | {"classes": [ClassResult(**row) for row in values["classes"]]})


Read = Callable[[Item], Tensor]
"""A video of a manifest -> its views uint8 (V, T, 3, S, S)."""

Alter = Callable[[Item, Read], Tensor]
"""A video and the way to read any -> the views to score in place of its own."""


def evaluate(
    recognizer: Recognizer,
    manifest: Manifest,
    views: Views,
    on_video: Callable[[], None] = lambda: None,
    alter: Alter | None = None,
) -> Evaluation:
    """Score every video of a manifest, several at a time; `on_video` is called after each.

    Raises:
        InputError: the recognizer's labels are not the manifest's.
        VideoError: no video can be read.
    """
    if recognizer.labels != manifest.labels:
        raise InputError(
            f"the recognizer's labels are not those of {manifest.name}; build it with these labels"
        )

    def read(item: Item) -> Tensor:
        return recognizer.read(item.open(), views)

    def altered(item: Item) -> Tensor:
        return read(item) if alter is None else alter(item, read)

    videos: list[dict[str, Any]] = []
    scores: list[Tensor] = []
    truth: list[int] = []
    outcomes = read_ahead(manifest.items, altered, NUM_DECODE_THREADS)
    size = max(1, MAX_VIEWS_AT_ONCE // (views.num_clips * views.num_crops))
    while batch := list(islice(outcomes, size)):
        readable = [pixels for _, pixels in batch if not isinstance(pixels, VideoError)]
        probabilities = iter(recognizer.probabilities_of(torch.stack(readable)) if readable else ())
        for item, outcome in batch:
            videos.append(_row(item, manifest.labels))
            if isinstance(outcome, VideoError):
                videos[-1]["error"] = outcome.reason
            else:
                scores.append(next(probabilities))
                truth.append(item.label)
                best = int(scores[-1].argmax())
                videos[-1] |= {"predicted": manifest.labels[best], "probability": scores[-1][best].item()}
            on_video()
    if not scores:
        first = videos[0]
        raise VideoError(
            manifest.name,
            f"no video of it can be read, {len(videos)} are missing or damaged; the first, {first['path']}: "
            f"{first['error']}",
        )
    return _summarise(manifest, views, torch.stack(scores), torch.tensor(truth), videos)


def views_text(views: Views) -> str:
    """As `--views` takes it: clips x crops."""
    return f"{views.num_clips}x{views.num_crops}"


def _row(item: Item, labels: Sequence[str]) -> dict[str, Any]:
    file = str(item.source.resolve()) if isinstance(item.source, Path) else None
    clip = {"clip": asdict(item.source)} if isinstance(item.source, ShapesClip) else {}
    return {"path": item.path, "file": file, "label": labels[item.label]} | clip


def _summarise(
    manifest: Manifest, views: Views, scores: Tensor, truth: Tensor, videos: list[dict[str, Any]]
) -> Evaluation:
    """Probabilities (V, K) and true labels (V,) of the readable videos become the result."""
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
