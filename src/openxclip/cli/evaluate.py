"""`openxclip evaluate PROTOCOL`: measure a model by one of seven protocols."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import tyro

from openxclip.cli.evaluate_few_shot import few_shot
from openxclip.cli.evaluate_timeline import timeline
from openxclip.cli.scoring import Options, check_once, measure

if TYPE_CHECKING:
    from openxclip.data.media import Manifest

Shared: TypeAlias = Annotated[Options, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]
ListName = Annotated[str | None, tyro.conf.arg(name="list", help="which list of the data")]
TrainLabels = Annotated[
    str | None,
    tyro.conf.arg(
        help="names of the training classes, as --labels takes them; openxclip-tiny and our run folders "
        "know theirs"
    ),
]
AllowOverlap = Annotated[
    bool,
    tyro.conf.arg(
        help="keep test classes that are also training classes, and list them; UCF-101 and Kinetics-400 share 19"
    ),
]

UNKNOWN_TRAINING = "The training classes are unknown, so overlap with the test classes was not checked."


def supervised(options: Shared, list_name: ListName = None) -> int:
    """Top-1, top-5, accuracy per class and the confusion matrix on trained classes.

    Without --list, a folder's test.txt is used. Videos that cannot be read are skipped and listed; the exit
    status is then 1.
    """
    test = options.manifest(list_name)

    from openxclip.evaluation import protocols

    return measure("supervised", options, lambda score: protocols.supervised(score, test))


def zero_shot(
    options: Shared,
    lists: Annotated[tuple[str, ...], tyro.conf.arg(help="lists of the data, one per split")],
    label_splits: Annotated[
        Path | None,
        tyro.conf.arg(
            help="folder of Kinetics-600's zero-shot splits (labels_split1.csv, ...), applied to each list"
        ),
    ] = None,
    train_labels: TrainLabels = None,
    allow_overlap: AllowOverlap = False,
) -> int:
    """Top-1 on classes outside the training set: each split, and mean and std over splits.

    Training classes are refused, if they are known.
    """
    check_once("--lists", lists)
    splits = _splits(options, lists, label_splits)
    notes = _overlap_notes(splits.values(), training_labels(options.model, train_labels), allow_overlap)
    if len(splits) > 1:
        notes.append("The std over splits is the sample standard deviation.")

    from openxclip.evaluation import protocols

    return measure("zero-shot", options, lambda score: protocols.zero_shot(score, splits), notes)


def base_to_novel(
    options: Shared,
    base_list: Annotated[str, tyro.conf.arg(help="list of test videos of trained classes")],
    novel_list: Annotated[str, tyro.conf.arg(help="list of test videos of other classes")],
    train_labels: TrainLabels = None,
    allow_overlap: AllowOverlap = False,
) -> int:
    """Accuracy on trained classes and on new classes, each among their own names, and the harmonic mean.

    Training classes among the new ones are refused, if they are known.
    """
    from openxclip.evaluation import protocols

    base, novel = (protocols.occurring(options.manifest(name)) for name in (base_list, novel_list))
    trained = training_labels(options.model, train_labels)
    notes = _overlap_notes([novel], trained, allow_overlap)
    from openxclip.wording import shortened

    if trained is not None and (strange := _untrained(trained, base)):
        notes.append(
            f"{base.name}: {len(strange)} of {len(base.labels)} base classes were not trained: "
            f"{shortened(strange)}."
        )
    return measure("base-to-novel", options, lambda score: protocols.base_to_novel(score, base, novel), notes)


def label_union(
    options: Shared,
    list_name: ListName = None,
    train_labels: TrainLabels = None,
    allow_overlap: AllowOverlap = False,
) -> int:
    """Accuracy on new classes when the names of the training classes are also candidates.

    Training classes among the new ones are refused.
    """
    from openxclip.errors import InputError

    test = options.manifest(list_name)
    trained = training_labels(options.model, train_labels)
    if trained is None:
        raise InputError(
            f"the training classes of {options.model[0]} are unknown; give their names with --train-labels"
        )
    notes = _overlap_notes([test], trained, allow_overlap)

    from openxclip.evaluation import protocols

    return measure("label-union", options, lambda score: protocols.label_union(score, test, trained), notes)


def static_bias(
    options: Shared,
    list_name: ListName = None,
    swapped_list: Annotated[
        str | None,
        tyro.conf.arg(
            help="list of the same scenes over other backgrounds, in the same order; without it, each "
            "video's moving parts are pasted over the median frame of a video of another class"
        ),
    ] = None,
) -> int:
    """Accuracy with the background replaced, and on the middle frame alone, without motion."""
    test = options.manifest(list_name)
    swapped = None if swapped_list is None else options.manifest(swapped_list)

    from openxclip.evaluation import protocols

    return measure("static-bias", options, lambda score: protocols.static_bias(score, test, swapped))


PROTOCOLS: dict[str, Callable[..., int]] = {
    "supervised": supervised,
    "few-shot": few_shot,
    "zero-shot": zero_shot,
    "base-to-novel": base_to_novel,
    "label-union": label_union,
    "static-bias": static_bias,
    "timeline": timeline,
}

DESCRIPTION = """Measure a model by one of seven protocols. Figures are percentages of videos, except for timeline.

Videos that cannot be read are skipped and listed on stderr; the exit status is then 1."""


def evaluate(arguments: Sequence[str]) -> int:
    """Accuracy on labelled videos, by one of seven protocols (`openxclip evaluate --help`)."""
    from openxclip.errors import InputError

    if arguments and arguments[0].startswith("-") and not {"-h", "--help"}.intersection(arguments):
        raise InputError(
            f"name a protocol first: {', '.join(PROTOCOLS)}; e.g. openxclip evaluate supervised {arguments[0]} ..."
        )
    return tyro.extras.subcommand_cli_from_dict(
        PROTOCOLS, prog="openxclip evaluate", description=DESCRIPTION, args=arguments
    )


def _overlap_notes(
    tests: "Iterable[Manifest]", trained: Sequence[str] | None, allow_overlap: bool
) -> list[str]:
    """Refuse test classes that are training classes, or list them in notes."""
    from openxclip.evaluation import protocols

    if trained is None:
        return [UNKNOWN_TRAINING]
    notes = []
    for test in tests:
        if not allow_overlap:
            protocols.check_disjoint(trained, test)
        elif kept := protocols.overlap(trained, test):
            notes.append(
                f"{test.name}: {len(kept)} of {len(test.labels)} classes were trained: {', '.join(kept)}."
            )
    return notes


def _untrained(trained: Sequence[str], test: "Manifest") -> list[str]:
    known = {label.casefold() for label in trained}
    return [label for label in test.labels if label.casefold() not in known]


def _splits(options: Options, lists: Sequence[str], label_splits: Path | None) -> "dict[str, Manifest]":
    from openxclip.data.official import read_zero_shot_labels
    from openxclip.data.subsets import restrict

    whole = {name: options.manifest(name) for name in lists}
    if label_splits is None:
        return whole
    return {
        f"{name}, split {number}": restrict(manifest, labels)
        for name, manifest in whole.items()
        for number, labels in enumerate(read_zero_shot_labels(label_splits), start=1)
    }


def training_labels(models: Sequence[str], given: str | None) -> tuple[str, ...] | None:
    """Names of the training classes: the given ones, or those recorded with the models; None if unknown."""
    from openxclip.checkpoints import runs
    from openxclip.data.subsets import union
    from openxclip.text.labels import parse_labels

    if given is not None:
        return tuple(parse_labels(given, takes_one=True))
    found: tuple[str, ...] = ()
    for model in models:
        recorded = runs.training_labels(model)
        if recorded is None:
            return None
        found = union(found, recorded)
    return found
