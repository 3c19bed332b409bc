"""Class descriptions by name: a JSON file, or those of the rendered world."""

from pathlib import Path

from openxclip.data.shapes.splits import WORLD, is_world
from openxclip.data.shapes.words import ALL_CLASSES, PARAPHRASES, SYNONYMS, ShapesClass
from openxclip.errors import InputError
from openxclip.text.descriptions import EXAMPLE, Descriptions, read_descriptions
from openxclip.text.labels import is_file


def parse_descriptions(text: str | None) -> Descriptions | None:
    """Read a `--descriptions` argument: a JSON file, or "moving-shapes" for the rendered world; None is none.

    Raises:
        InputError: there is no such file, or it is not of this form.
    """
    if text is None:
        return None
    if is_world(Path(text)):
        return shapes_descriptions()
    if not is_file(text):
        raise InputError(f"Descriptions are a JSON file, such as {EXAMPLE}, or {WORLD}; {text!r} is neither.")
    return read_descriptions(Path(text))


def shapes_descriptions() -> Descriptions:
    """Texts of every class of moving shapes: what the captions of its stills call the same thing and motion."""
    return {kind.name: _described(kind) for kind in ALL_CLASSES}


def _described(kind: ShapesClass) -> tuple[str, ...]:
    """Two names of the thing with two of the motion; always the same texts."""
    things = [f"{SYNONYMS[kind.colour][i]} {SYNONYMS[kind.shape][i]}" for i in (0, 1)]
    return tuple(
        f"a {thing} {motion}" for thing in things for motion in (kind.motion, PARAPHRASES[kind.motion])
    )
