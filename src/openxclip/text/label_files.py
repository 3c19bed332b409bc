"""Reads class names from a file in any common format: ours, YOLO's, UCF-101's, Hugging Face's.

    labels.txt      one name per line; blank lines and # lines are skipped
    labels.csv      the header id,name (in either order); .tsv the same with tabs
    labels.json     a list; or id -> name or name -> id, also as id2label, label2id or names, as in config.json
    data.yaml       the same as YAML, as in YOLO
    classInd.txt    lines of `1 ApplyEyeMakeup`, counted from 0 or 1

A malformed file of one of these formats is refused: its lines are never taken as names.
"""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from openxclip.errors import InputError
from openxclip.files import read_lines

LABEL_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".yaml", ".yml")

_NAMES_KEYS = ("id2label", "names", "label2id", "labels", "classes")
_NUMBERED = re.compile(r"\s*(\d+)\s*[\s,;:.)|=-]\s*(\S.*)")
_KEY = re.compile(r"\s*(['\"]?)[\w ]+\1\s*:(\s|$)")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def names_in(path: Path) -> list[str]:
    """The names in a file, in the order of their ids, exactly as written.

    Raises:
        InputError: the file cannot be read, or has none of these formats.
    """
    lines = [line for line in read_lines(path) if line.strip()]
    if any(_CONTROL.search(line) for line in lines):
        raise InputError(
            f"{path} holds control characters: it is not a text file of labels. Give one name per line."
        )
    suffix, first = path.suffix.lower(), lines[0].strip() if lines else ""
    if suffix == ".json" or first[:1] in ("{", "["):
        return _of_value(_json(path, lines), path)
    if suffix in (".yaml", ".yml"):
        return _of_value(_yaml(path, lines), path)
    if suffix == ".tsv" or _is_header(first.split("\t")):
        return _of_table(path, lines, "\t")
    if suffix == ".csv" or _is_header(first.split(",")):
        return _of_table(path, lines, ",")
    return _of_lines(path, [line.strip() for line in lines if line.strip()[0] != "#"])


def _of_lines(path: Path, lines: Sequence[str]) -> list[str]:
    """One name per line, or all with their numbers; anything that looks like another format is refused."""
    numbered = [match for match in map(_NUMBERED.fullmatch, lines) if match]
    if lines and len(numbered) == len(lines):
        ids = [int(match[1]) for match in numbered]
        if sorted(ids) not in (list(range(len(ids))), list(range(1, len(ids) + 1))):
            raise _malformed(path, f"every line has a number, but they are not 0 or 1 to {len(ids)}")
        return [match[2] for _, match in sorted(zip(ids, numbered, strict=True), key=lambda pair: pair[0])]
    if len(lines) > 1 and len(numbered) > len(lines) / 2:
        raise _malformed(path, f"{len(numbered)} of {len(lines)} lines have a number, the others do not")
    if lines and (_KEY.match(lines[0]) or lines[0][0] in "<%" or lines[0] == "---"):
        raise _malformed(
            path, f"its first line is {lines[0]!r}, as in YAML or a page; name a YAML file .yaml"
        )
    return list(lines)


def _of_table(path: Path, lines: Sequence[str], delimiter: str) -> list[str]:
    """Rows of id and name under a header, in any order of rows and columns."""
    header = "id,name".replace(",", "a tab" if delimiter == "\t" else ",")
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}. Write lines of {header}.") from error
    if not rows or not _is_header(rows[0]):
        raise InputError(f"{path}: the first line must be the header {header}, got {rows[:1]}. Add it.")
    id_at = [cell.strip().lower() for cell in rows[0]].index("id")
    pairs = []
    for row in rows[1:]:
        if len(row) != 2 or not row[id_at].strip().isdecimal():
            raise InputError(
                f"{path}: expected {header} (quote a name with a comma in it), got {row}. Correct the row."
            )
        pairs.append((int(row[id_at]), row[1 - id_at]))
    return _by_id(pairs, path)


def _of_value(value: object, path: Path) -> list[str]:
    """Names from a list or a mapping, at any of the places where these formats store them."""
    if isinstance(value, dict):
        key = next((key for key in _NAMES_KEYS if isinstance(value.get(key), dict | list)), None)
        if key is not None:
            return _of_value(value[key], path)
        if value and all(_is_id(key) and isinstance(name, str) for key, name in value.items()):
            return _by_id([(int(key), name) for key, name in value.items()], path)
        if value and all(_is_id(number) and isinstance(key, str) for key, number in value.items()):
            return _by_id([(int(number), key) for key, number in value.items()], path)
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return value
    raise _malformed(path, f"it has no list of names, and none under {', '.join(_NAMES_KEYS)}")


def _is_id(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and value.isascii() and value.isdecimal()
    )


def _by_id(pairs: Iterable[tuple[int, str]], path: Path) -> list[str]:
    """Names by id; ids must be 0 to K - 1, each once."""
    rows = sorted(pairs, key=lambda pair: pair[0])
    if [number for number, _ in rows] != list(range(len(rows))):
        raise InputError(
            f"{path}: {len(rows)} rows need the ids 0 to {len(rows) - 1}, each once. Correct the ids."
        )
    return [name for _, name in rows]


def _json(path: Path, lines: Sequence[str]) -> object:
    try:
        return json.loads("\n".join(lines), object_pairs_hook=lambda pairs: _unique(pairs, path))
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"it is not valid JSON ({error})") from error


def _unique(pairs: list[tuple[str, object]], path: Path) -> dict[str, object]:
    """A JSON object without duplicate keys, of which the last would silently win."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _malformed(path, "a key occurs twice")
    return values


def _yaml(path: Path, lines: Sequence[str]) -> object:
    import yaml

    try:
        return yaml.safe_load("\n".join(lines))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = str(error).replace("\n", " ")
        raise _malformed(path, f"it is not valid YAML ({problem})") from error


def _is_header(cells: Sequence[str]) -> bool:
    return sorted(cell.strip().lower() for cell in cells) == ["id", "name"]


def _malformed(path: Path, problem: str) -> InputError:
    return InputError(
        f"{path}: {problem}. Give one name per line, a .csv with the header id,name, or a JSON or YAML list of names."
    )
