"""Evaluation protocols: what is scored against which class names, and the figures that are reported.

A protocol is independent of models: it takes a `Score`, which scores a manifest against the manifest's labels.
Every figure is a share in 0..1.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from openxclip.data.media import Manifest
from openxclip.data.subsets import restrict, union, with_labels
from openxclip.errors import InputError
from openxclip.evaluation.backgrounds import frozen, partners, with_background_of
from openxclip.evaluation.evaluate import Alter, Evaluation, Read, evaluate
from openxclip.evaluation.metrics import harmonic_mean
from openxclip.inference.engine import Engine
from openxclip.inference.recognizer import Recognizer
from openxclip.inference.views import Views
from openxclip.text.label_texts import LabelTexts
from openxclip.video.source import VideoLimits
from openxclip.wording import shortened


class Score(Protocol):
    """Scores the videos of a manifest, changed by `alter` if given, against its labels."""

    def __call__(self, manifest: Manifest, alter: Alter | None = None) -> Evaluation: ...


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of a protocol for one model."""

    figures: Mapping[str, float]
    """Name of each reported figure -> share in 0..1."""
    evaluations: Mapping[str, Evaluation]
    """Name -> the underlying evaluation."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        evaluations = {name: evaluation.to_dict() for name, evaluation in self.evaluations.items()}
        return {"figures": dict(self.figures), "evaluations": evaluations}


Texts = Callable[[Sequence[str]], LabelTexts]
"""Labels -> the sentences that represent them."""


def bare_names(labels: Sequence[str]) -> LabelTexts:
    """The class names themselves."""
    return LabelTexts(labels=labels)


def scorer(
    engine: Engine,
    views: Views,
    texts: Texts = bare_names,
    progress: Callable[[Manifest], Callable[[], None]] = lambda manifest: lambda: None,
    read: Read | None = None,
    limits: VideoLimits | None = None,
) -> Score:
    """The `Score` of a model.

    Args:
        engine: the model.
        views: of every video.
        texts: the sentences that represent a manifest's labels.
        progress: gives, for a manifest, a function to call after each of its videos.
        read: reads a video's views; None decodes them.
        limits: videos beyond them are refused.
    """

    def score(manifest: Manifest, alter: Alter | None = None) -> Evaluation:
        recognizer = Recognizer(engine, texts(manifest.labels), limits)
        return evaluate(recognizer, manifest, views, progress(manifest), alter, read)

    return score


def supervised(score: Score, test: Manifest) -> Result:
    """Accuracy on videos of the training classes."""
    evaluation = score(test)
    return Result(
        figures={"top-1": evaluation.top1, "top-5": evaluation.top5}, evaluations={"test": evaluation}
    )


def zero_shot(score: Score, splits: Mapping[str, Manifest]) -> Result:
    """Accuracy on classes outside the training set, in each of several splits; see `check_disjoint`.

    The std over splits is the sample standard deviation.
    """
    evaluations = {name: score(split) for name, split in splits.items()}
    top1 = [evaluation.top1 for evaluation in evaluations.values()]
    figures = {f"top-1, {name}": evaluation.top1 for name, evaluation in evaluations.items()}
    figures |= {f"top-5, {name}": evaluation.top5 for name, evaluation in evaluations.items()}
    if len(top1) > 1:
        figures["top-1, mean over splits"] = statistics.mean(top1)
        figures["top-1, std over splits"] = statistics.stdev(top1)
    return Result(figures=figures, evaluations=evaluations)


def check_disjoint(training_labels: Sequence[str], test: Manifest) -> None:
    """Refuse test classes that are training classes.

    Raises:
        InputError: the test has some; the message lists them.
    """
    if found := overlap(training_labels, test):
        raise InputError(
            f"{len(found)} of {len(test.labels)} classes of {test.name} are training classes, not new ones: "
            f"{shortened(found)}. Remove them from the labels; `openxclip evaluate` keeps them with --allow-overlap"
        )


def overlap(training_labels: Sequence[str], test: Manifest) -> list[str]:
    """The training classes of a test, by name."""
    trained = {label.casefold() for label in training_labels}
    return [label for label in test.labels if label.casefold() in trained]


def base_to_novel(score: Score, base: Manifest, novel: Manifest) -> Result:
    """Accuracy on trained classes among their names, on new classes among theirs, and the harmonic mean.

    The classes of a list are those of its videos: the two lists may share one label file.

    Raises:
        InputError: a class is in both lists.
    """
    base, novel = occurring(base), occurring(novel)
    known = {label.casefold() for label in base.labels}
    if both := [label for label in novel.labels if label.casefold() in known]:
        raise InputError(
            f"{base.name} and {novel.name} share {len(both)} classes: {shortened(both)}. Give lists "
            "without common classes"
        )
    evaluations = {"base": score(base), "novel": score(novel)}
    figures = {name: evaluation.top1 for name, evaluation in evaluations.items()}
    figures["harmonic mean"] = harmonic_mean(figures["base"], figures["novel"])
    return Result(figures=figures, evaluations=evaluations)


def occurring(manifest: Manifest) -> Manifest:
    """The same videos under the labels that occur."""
    labels = [manifest.labels[i] for i in sorted({item.label for item in manifest.items})]
    return manifest if len(labels) == len(manifest.labels) else restrict(manifest, labels)


def of_trained_classes(train: Manifest, test: Manifest) -> tuple[Manifest, Manifest]:
    """Both lists under the classes of the training videos: a part of a dataset may come with the names of all."""
    train = occurring(train)
    return train, test if test.labels == train.labels else restrict(test, train.labels)


def label_union(score: Score, test: Manifest, training_labels: Sequence[str]) -> Result:
    """The same videos with the test's class names as candidates, and with the training classes added."""
    among = score(
        with_labels(test, union(test.labels, training_labels))
    )  # first: it needs the most descriptions
    alone = score(test)
    own = set(test.labels)
    predicted = list(_predictions(among).values())
    figures = {
        "top-1, test labels alone": alone.top1,
        "top-1, with training labels": among.top1,
        "best label is a training class": sum(label not in own for label in predicted) / len(predicted),
    }
    return Result(figures=figures, evaluations={"alone": alone, "union": among})


def static_bias(score: Score, test: Manifest, swapped: Manifest | None = None) -> Result:
    """Accuracy with the background replaced, and without any motion.

    `swapped` lists the same scenes, in the same order, over other backgrounds. Without it, each readable video is
    put over the background of a video of another class (see `evaluation/backgrounds.py`).
    """
    if swapped is not None:
        _check_same_scenes(test, swapped)
    as_is = score(test)
    readable = _predictions(as_is)
    test = replace(test, items=tuple(test.items[place] for place in readable))
    if swapped is None:
        others = partners(test.items)
        over_another = replace(
            score(test, lambda item, read: with_background_of(read(item), read(others[item]))),
            altered="its moving parts over the background of another video",
        )
    else:
        over_another = score(replace(swapped, items=tuple(swapped.items[place] for place in readable)))
    still = replace(score(test, lambda item, read: frozen(read(item))), altered="its middle frame alone")
    before, after = list(readable.values()), _predictions(over_another)
    same = [before[place] == label for place, label in after.items()]
    figures = {
        "top-1, as they are": as_is.top1,
        "top-1, other background": over_another.top1,
        "same label over both": sum(same) / len(same),
        "top-1, frozen middle frame": still.top1,
    }
    return Result(
        figures=figures, evaluations={"as-is": as_is, "other-background": over_another, "frozen": still}
    )


def _check_same_scenes(test: Manifest, swapped: Manifest) -> None:
    first, second = ([manifest.labels[item.label] for item in manifest.items] for manifest in (test, swapped))
    if first != second or test.labels != swapped.labels:
        raise InputError(
            f"{swapped.name} ({len(second)} videos) does not list the scenes of {test.name} ({len(first)}) in the "
            "same order with the same labels; give the list of these scenes over other backgrounds, or none"
        )


def _predictions(evaluation: Evaluation) -> dict[int, str]:
    """Position in the list -> best label, for the videos that could be read."""
    predicted = enumerate(video.predicted for video in evaluation.videos)
    return {place: label for place, label in predicted if label is not None}
