"""`openxclip evaluate PROTOCOL`: what a model can do, by one of six protocols."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import tyro

from openxclip.cli.evaluate_few_shot import few_shot
from openxclip.cli.scoring import Options, measure

if TYPE_CHECKING:
    from openxclip.data.manifest import Manifest

Shared: TypeAlias = Annotated[Options, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]
ListName = Annotated[str | None, tyro.conf.arg(name="list", help="which list of the data")]
TrainLabels = Annotated[
    str | None,
    tyro.conf.arg(
        help="names of the classes that were trained, as --labels takes them; openxclip-tiny and run folders of "
        "ours know theirs"
    ),
]


UNKNOWN_TRAINING = "The training classes are not known: not checked that the test has none of them."


def supervised(options: Shared, list_name: ListName = None) -> int:
    """Top-1, top-5, accuracy of each class and the confusion matrix on trained classes.

    A folder's test.txt is taken where --list says nothing else. Videos that cannot be read are counted and
    listed, and make the exit status 1.
    """
    test = options.manifest(list_name)

    from openxclip.evaluation import protocols

    return measure("supervised", options, lambda score: protocols.supervised(score, test))


def zero_shot(
    options: Shared,
    lists: Annotated[tuple[str, ...], tyro.conf.arg(help="lists of the data, each a split")],
    label_splits: Annotated[
        Path | None,
        tyro.conf.arg(
            help="folder of Kinetics-600's zero-shot splits (labels_split1.csv, ...), applied to each list"
        ),
    ] = None,
    train_labels: TrainLabels = None,
    allow_overlap: Annotated[
        bool,
        tyro.conf.arg(
            help="keep classes that were trained, and say which; 19 names of UCF-101 are Kinetics-400's, too"
        ),
    ] = False,
) -> int:
    """Top-1 on classes that were never trained, in several splits: each, mean and std over splits.

    Classes that were trained are refused, where the training classes are known.
    """
    from openxclip.evaluation import protocols

    splits = _splits(options, lists, label_splits)
    trained = training_labels(options.model, train_labels)
    notes = [] if trained else [UNKNOWN_TRAINING]
    for split in splits.values():
        if not allow_overlap:
            protocols.check_disjoint(trained or (), split)
        elif kept := protocols.overlap(trained or (), split):
            notes.append(
                f"{split.name}: {len(kept)} of {len(split.labels)} classes were trained: {', '.join(kept)}."
            )
    return measure("zero-shot", options, lambda score: protocols.zero_shot(score, splits), notes)


def base_to_novel(
    options: Shared,
    base_list: Annotated[str, tyro.conf.arg(help="list of test videos of trained classes")],
    novel_list: Annotated[str, tyro.conf.arg(help="list of test videos of other classes")],
) -> int:
    """Accuracy on trained and on new classes, each among their own names, and the harmonic mean."""
    base, novel = options.manifest(base_list), options.manifest(novel_list)

    from openxclip.evaluation import protocols

    return measure("base-to-novel", options, lambda score: protocols.base_to_novel(score, base, novel))


def label_union(options: Shared, list_name: ListName = None, train_labels: TrainLabels = None) -> int:
    """The same videos with the names of training classes left among the candidates."""
    from openxclip.errors import InputError

    test = options.manifest(list_name)
    trained = training_labels(options.model, train_labels)
    if trained is None:
        raise InputError(
            f"the training classes of {options.model[0]} are not known; give their names with --train-labels"
        )

    from openxclip.evaluation import protocols

    return measure("label-union", options, lambda score: protocols.label_union(score, test, trained))


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
    """The same motion over another background, and the middle frame alone, without any motion."""
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
}

DESCRIPTION = """What a model can do, by one of six protocols. Every figure is a share of videos in percent.

Videos that cannot be read are named on stderr, counted, left out, and make the exit status 1."""


def evaluate(arguments: Sequence[str]) -> int:
    """Accuracy on labelled videos, by one of six protocols (`openxclip evaluate --help`)."""
    return tyro.extras.subcommand_cli_from_dict(
        PROTOCOLS, prog="openxclip evaluate", description=DESCRIPTION, args=arguments
    )


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
    """The class names that were trained: those given, or those that stand with the models; None if unknown."""
    from openxclip.data.labels import parse_labels
    from openxclip.data.subsets import union

    if given is not None:
        return tuple(parse_labels(given))
    found: tuple[str, ...] = ()
    for model in models:
        recorded = _recorded_labels(model)
        if recorded is None:
            return None
        found = union(found, recorded)
    return found


def _recorded_labels(model: str) -> list[str] | None:
    """Of the shipped model and its copies, of a run folder, or of its `best` or `last`."""
    from openxclip.checkpoints.checkpoint import CONFIG_FILE, read_json
    from openxclip.checkpoints.shipped import SHIPPED, TRAINING_LABELS_FILE, shipped_folder
    from openxclip.data.labels import read_label_file

    folder = Path(model)
    if model in SHIPPED and not folder.exists():
        folder = shipped_folder(model)
    if (folder / TRAINING_LABELS_FILE).is_file():
        return read_label_file(folder / TRAINING_LABELS_FILE)
    run = folder.parent if folder.name in ("best", "last") else folder
    return read_json(run / CONFIG_FILE).get("labels") if (run / CONFIG_FILE).is_file() else None
