"""Label sets: class names in the order of their ids, built in, from a file, or from the command line."""

from collections import Counter
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from openxclip.errors import InputError
from openxclip.files import is_file
from openxclip.text.label_files import LABEL_SUFFIXES, names_in
from openxclip.wording import nearest

SPOKEN_LABEL_SETS = ("kinetics400", "kinetics600", "ucf101", "hmdb51")
"""Class names in normal spelling, which small tokenizers are trained on."""

BUILT_IN_LABEL_SETS = (*SPOKEN_LABEL_SETS, "ucf101-official")
"""The last has UCF-101's names as released, one word each, as used for the published numbers."""


def parse_labels(text: str, *, takes_one: bool = False) -> list[str]:
    """Read a `--labels` argument: a built-in name, a file (see `label_files.py`), or the labels as "a, b, c".

    A built-in name takes precedence over a file (for the file write ./ucf101), a file over labels.

    Args:
        text: the argument.
        takes_one: whether a single typed label is allowed; otherwise it is treated as a misspelt name.

    Raises:
        InputError: a file is missing or malformed, or the labels are not usable.
    """
    if text in BUILT_IN_LABEL_SETS:
        return built_in_labels(text)
    if is_file(text):
        return read_label_file(Path(text))
    if "/" in text or text.lower().endswith(LABEL_SUFFIXES):
        raise InputError(
            f"There is no label file {text}.{_did_you_mean_file(Path(text))} Give an existing file, one of "
            f"{', '.join(BUILT_IN_LABEL_SETS)}, or labels as 'a, b, c' (a label with a slash: only from a file)."
        )
    labels = check_labels(text.split(","), f"labels {text!r}")
    if len(labels) == 1 and not takes_one:
        close = nearest(text, BUILT_IN_LABEL_SETS, cutoff=0.5)
        raise InputError(
            f"{text!r} is a single label, with nothing to compare it to.{f' Did you mean {close}?' if close else ''} "
            f"Give labels as 'a, b, c', a file, or one of {', '.join(BUILT_IN_LABEL_SETS)}."
        )
    return labels


def _did_you_mean_file(path: Path) -> str:
    """A question that suggests the file in the same folder with the most similar name."""
    try:
        beside = [file.name for file in path.parent.iterdir() if file.suffix.lower() in LABEL_SUFFIXES]
    except OSError:
        return ""
    close = nearest(path.name, beside)
    return f" Did you mean {path.with_name(close)}?" if close else ""


def built_in_labels(name: str) -> list[str]:
    """Class names of a public dataset, in its official order."""
    if name not in BUILT_IN_LABEL_SETS:
        raise InputError(
            f"There is no built-in label set {name!r}. Use one of {', '.join(BUILT_IN_LABEL_SETS)}."
        )
    text = resources.files("openxclip.text").joinpath("label_sets", f"{name}.txt").read_text(encoding="utf-8")
    return check_labels(text.splitlines(), name)


def read_label_file(path: Path) -> list[str]:
    """Class names from a file in any format of `label_files.py`, in the order of their ids.

    Raises:
        InputError: the file cannot be read or has another format, or the labels are not usable.
    """
    return check_labels(names_in(path), str(path))


def check_labels(labels: Iterable[str], source: str) -> list[str]:
    """Strip the labels, and refuse empty and repeated ones; `source` is their origin, for messages."""
    if isinstance(labels, Iterable) and not isinstance(labels, str):
        labels = list(labels)  # a generator can be read only once
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{source}: expected a list of strings, got {labels!r}. For one label pass [label].")
    labels = [label.strip() for label in labels]
    if not labels:
        raise InputError(f"{source}: no labels found. Give at least one.")
    if "" in labels:
        raise InputError(f"{source}: label {labels.index('')} (counted from 0) is empty. Remove or name it.")
    counts = Counter(label.casefold() for label in labels)
    if repeated := [label for label in labels if counts[label.casefold()] > 1]:
        raise InputError(
            f"{source}: labels occur more than once: {', '.join(repeated)}. Remove the repetitions."
        )
    return labels
