"""Class descriptions: texts instead of a bare class name, from a JSON file of label -> one text or several.

A label's feature is then the mean direction of its texts' features (see `inference/label_set.py`); a prediction
still shows the label. With texts written by a language model, CuPL (Pratt et al., ICCV 2023) gains more than a point
of top-1 on ImageNet without any training.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openxclip.errors import InputError
from openxclip.wording import nearest, shortened

Descriptions = Mapping[str, Sequence[str]]
"""Label -> its texts."""

MAX_BYTES = 4 * 2**20  # twenty texts of 200 characters for each of a thousand classes
MAX_NAMED = 5  # labels in a message

EXAMPLE = '{"surfing": ["a person rides a wave on a board"]}'


def check_descriptions(values: object, source: str) -> Descriptions:
    """Strip labels and texts, and refuse malformed descriptions; `source` is their origin, for messages."""
    if not isinstance(values, Mapping) or not values:
        raise InputError(
            f"{source}: expected labels with their texts, such as {EXAMPLE}, got {_short(values)}."
        )
    checked: dict[str, tuple[str, ...]] = {}
    for label, texts in values.items():
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"{source}: {_short(label)} is not a label. Give each a name.")
        checked[label.strip()] = _texts(texts, f"{source}: {_short(label)}")
    if len({label.casefold() for label in checked}) < len(values):
        raise InputError(f"{source}: a label occurs more than once. Give all texts of a label in one place.")
    return checked


def texts_of(labels: Sequence[str], descriptions: Descriptions | None) -> list[Sequence[str]]:
    """The texts of each label, found ignoring case; its name if there are no descriptions.

    Raises:
        InputError: labels have no texts; the message lists them and the nearest known ones.
    """
    if descriptions is None:
        return [(label,) for label in labels]
    known = {label.casefold(): texts for label, texts in descriptions.items()}
    if lacking := [label for label in labels if label.casefold() not in known]:
        named = shortened([_beside_nearest(label, known) for label in lacking], MAX_NAMED)
        raise InputError(
            f"{len(lacking)} of {len(labels)} labels have no description: {named}. Add their texts, or correct "
            "the spelling"
        )
    return [known[label.casefold()] for label in labels]


def fingerprint(labels: Sequence[str], descriptions: Descriptions | None) -> str | None:
    """A digest of the texts of these labels, independent of the file's location; None without descriptions.

    Raises:
        InputError: labels have no texts.
    """
    if descriptions is None:
        return None
    return hashlib.sha256(json.dumps(texts_of(labels, descriptions)).encode()).hexdigest()[:16]


def read_descriptions(path: Path) -> Descriptions:
    """The descriptions in a JSON file.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    return check_descriptions(_read(path), str(path))


def _read(path: Path) -> object:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(
                f"{path} has {size / 2**20:.1f} MiB; the limit is {MAX_BYTES // 2**20} MiB. Keep only "
                "the classes you need."
            )
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once_each)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as JSON: {error}. Write it as {EXAMPLE}.") from error


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate keys, of which JSON would silently keep the last."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a label occurs more than once")
    return values


def _texts(texts: object, where: str) -> tuple[str, ...]:
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list | tuple) or not texts:
        raise InputError(
            f"{where}: expected a text or a list of texts, got {_short(texts)}. Give at least one."
        )
    for text in texts:
        if not isinstance(text, str) or not text.strip() or _has_surrogates(text):
            raise InputError(f"{where}: expected a text, got {_short(text)}. Correct or remove it.")
    return tuple(text.strip() for text in texts)


def _has_surrogates(text: str) -> bool:
    """Lone surrogates, which JSON can hold but no tokenizer can read."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _short(value: object) -> str:
    """A value shortened for a one-line message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _beside_nearest(label: str, known: Mapping[str, object]) -> str:
    close = nearest(label, known)
    return repr(label) if close is None else f"{label!r} (nearest: {_short(close)})"
