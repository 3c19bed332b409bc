"""Prompt templates: sentences with one {} for the class name. Several make an ensemble."""

from pathlib import Path

from openxclip.data.labels import is_file, read_lines
from openxclip.errors import InputError

SLOT = "{}"

BUILT_IN_TEMPLATES: dict[str, tuple[str, ...]] = {
    # The bare class name: what X-CLIP is trained with.
    "name": ("{}",),
    "video": (
        "a video of {}.",
        "a video of a person {}.",
        "a video of someone {}.",
        "a video of people {}.",
        "a short clip of a person {}.",
        "in this video somebody is {}.",
        "footage that shows {}.",
        "the action in this video is {}.",
    ),
}


def parse_templates(text: str | None) -> tuple[str, ...]:
    """Read a `--templates` argument: a built-in name (None: "name"), or a file with one template a line."""
    if text is None:
        return BUILT_IN_TEMPLATES["name"]
    if text in BUILT_IN_TEMPLATES:
        return BUILT_IN_TEMPLATES[text]
    if not is_file(text):
        names = ", ".join(BUILT_IN_TEMPLATES)
        raise InputError(f"Templates are one of {names}, or a file with one a line; {text!r} is neither.")
    return _read_template_file(Path(text))


def fill(template: str, label: str) -> str:
    """Put `label` in the slot of `template`."""
    if template.count(SLOT) != 1:
        raise InputError(f"A template holds {SLOT} exactly once, for the class name; got {template!r}.")
    return template.replace(SLOT, label)


def _read_template_file(path: Path) -> tuple[str, ...]:
    templates = []
    for number, line in enumerate(read_lines(path), start=1):
        template = line.strip()
        if not template or template[0] == "#":
            continue
        try:
            fill(template, "")
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
        templates.append(template)
    if not templates:
        raise InputError(f"{path} holds no template. Write one a line, such as: a video of {SLOT}")
    return tuple(templates)
