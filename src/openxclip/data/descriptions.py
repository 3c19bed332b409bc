"""Reads class descriptions by name: from a JSON file, or those of moving shapes."""

from pathlib import Path

from openxclip.data.moving_shapes import is_world
from openxclip.errors import InputError
from openxclip.files import is_file
from openxclip.shapes.splits import WORLD
from openxclip.shapes.words import shapes_descriptions
from openxclip.text.descriptions import EXAMPLE, Descriptions, read_descriptions


def parse_descriptions(text: str | None) -> Descriptions | None:
    """Read a `--descriptions` argument: a JSON file, or "moving-shapes"; None means no descriptions.

    Raises:
        InputError: there is no such file, or it is malformed.
    """
    if text is None:
        return None
    if is_world(Path(text)):
        return shapes_descriptions()
    if not is_file(text):
        raise InputError(f"Descriptions are a JSON file, such as {EXAMPLE}, or {WORLD}; {text!r} is neither.")
    return read_descriptions(Path(text))
