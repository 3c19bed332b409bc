"""Label sets: class names in the order of their ids, built in, from a file, or from the command line."""

import csv
from collections import Counter
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from openxclip.errors import InputError

BUILT_IN_LABEL_SETS = ("kinetics400", "kinetics600", "ucf101", "hmdb51")


def parse_labels(text: str) -> list[str]:
    """Read a `--labels` argument: a built-in name, a .txt or .csv file, or the labels as "a, b, c".

    A built-in name takes precedence over a file (for the file write ./ucf101), a file over labels.

    Raises:
        InputError: a file is missing or malformed, or the labels are not usable.
    """
    if text in BUILT_IN_LABEL_SETS:
        return built_in_labels(text)
    if is_file(text):
        return read_label_file(Path(text))
    if "/" in text or text.lower().endswith((".txt", ".csv")):
        raise InputError(
            f"There is no label file {text}. Give an existing .txt or .csv file, one of "
            f"{', '.join(BUILT_IN_LABEL_SETS)}, or labels as 'a, b, c' (with a slash: only from a file)."
        )
    return check_labels(text.split(","), f"labels {text!r}")


def built_in_labels(name: str) -> list[str]:
    """Class names of a public data set, in its official order."""
    if name not in BUILT_IN_LABEL_SETS:
        raise InputError(
            f"There is no built-in label set {name!r}. Use one of {', '.join(BUILT_IN_LABEL_SETS)}."
        )
    text = resources.files("openxclip.text").joinpath("label_sets", f"{name}.txt").read_text(encoding="utf-8")
    return check_labels(text.splitlines(), name)


def read_label_file(path: Path) -> list[str]:
    """Read a file with the header `id,name`, or one label a line; blank lines and # lines are skipped."""
    lines = [line for line in read_lines(path) if line.strip()]
    if path.suffix.lower() == ".csv" or (lines and _is_header(lines[0].split(","))):
        return check_labels(_read_csv(path, lines), str(path))
    return check_labels([line for line in map(str.strip, lines) if line[0] != "#"], str(path))


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


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text file; a byte order mark and Windows line ends are allowed."""
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as UTF-8 text: {error}. Give a readable text file."
        ) from error


def _read_csv(path: Path, lines: list[str]) -> list[str]:
    try:
        rows = list(csv.reader(lines))
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}. Write lines of id,name.") from error
    if not rows or not _is_header(rows[0]):
        raise InputError(f"{path}: the first line must be the header id,name, got {rows[:1]}. Add it.")
    names: dict[int, str] = {}
    for row in rows[1:]:
        if len(row) != 2 or not row[0].strip().isdecimal():
            raise InputError(
                f"{path}: expected id,name (quote a name with a comma in it), got {row}. Correct the row."
            )
        names[int(row[0])] = row[1]
    if sorted(names) != list(range(len(rows) - 1)):
        raise InputError(
            f"{path}: {len(rows) - 1} rows need the ids 0 to {len(rows) - 2}, each once. Correct the ids."
        )
    return [names[i] for i in sorted(names)]


def _is_header(cells: list[str]) -> bool:
    return [cell.strip().lower() for cell in cells] == ["id", "name"]


def is_file(text: str) -> bool:
    """Whether an argument names an existing file."""
    try:
        return Path(text).is_file()
    except OSError:  # a long list of labels is longer than a file name may be
        return False
