"""Prompt templates: sentences with one {} for the class name; several form an ensemble."""

from pathlib import Path

from openxclip.errors import InputError
from openxclip.files import is_file, read_lines

SLOT = "{}"

# CLIP's templates for the actions of Kinetics-700 (Kinetics700 in openai/CLIP, data/prompts.md): these 4 x 7
# phrases, including "a example".
_CLIP_VIDEO = tuple(
    f"a {medium} of {phrase}{SLOT}."
    for medium in ("photo", "video", "example", "demonstration")
    for phrase in (
        "",
        "a person ",
        "a person using ",
        "a person doing ",
        "a person during ",
        "a person performing ",
        "a person practicing ",
    )
)

# CLIP's 80 general templates, made for ImageNet (openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb):
# each of these 38 with both articles, and four without an article.
_BOTH_ARTICLES = (
    "a photo of @ {}.",
    "a photo of @ clean {}.",
    "a photo of @ cool {}.",
    "a photo of @ dirty {}.",
    "a photo of @ hard to see {}.",
    "a photo of @ large {}.",
    "a photo of @ nice {}.",
    "a photo of @ small {}.",
    "a photo of @ weird {}.",
    "a bad photo of @ {}.",
    "a black and white photo of @ {}.",
    "a blurry photo of @ {}.",
    "a bright photo of @ {}.",
    "a close-up photo of @ {}.",
    "a cropped photo of @ {}.",
    "a dark photo of @ {}.",
    "a good photo of @ {}.",
    "a jpeg corrupted photo of @ {}.",
    "a low resolution photo of @ {}.",
    "a pixelated photo of @ {}.",
    "a doodle of @ {}.",
    "a drawing of @ {}.",
    "a painting of @ {}.",
    "a rendering of @ {}.",
    "a rendition of @ {}.",
    "a sculpture of @ {}.",
    "a sketch of @ {}.",
    "a tattoo of @ {}.",
    "art of @ {}.",
    "graffiti of @ {}.",
    "itap of @ {}.",  # "I took a picture", as people write on the web
    "@ cartoon {}.",
    "@ embroidered {}.",
    "@ origami {}.",
    "@ plastic {}.",
    "@ plushie {}.",
    "@ toy {}.",
    "@ {} in a video game.",
)
_CLIP_80 = (
    *(template.replace("@", article) for template in _BOTH_ARTICLES for article in ("a", "the")),
    "a photo of many {}.",
    "a photo of my {}.",
    "a photo of one {}.",
    "itap of my {}.",
)

BUILT_IN_TEMPLATES: dict[str, tuple[str, ...]] = {
    # The class name alone, as in the training of X-CLIP.
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
    "photo": ("a photo of a {}.",),  # ViFi-CLIP's
    "clip-video": _CLIP_VIDEO,
    "clip-80": _CLIP_80,
}


def parse_templates(text: str | None) -> tuple[str, ...]:
    """Read a `--templates` argument: a built-in name (None: "name"), or a file with one template per line.

    Raises:
        InputError: it is neither, or the file is malformed.
    """
    if text is None:
        return BUILT_IN_TEMPLATES["name"]
    if text in BUILT_IN_TEMPLATES:
        return BUILT_IN_TEMPLATES[text]
    if not is_file(text):
        names = ", ".join(BUILT_IN_TEMPLATES)
        raise InputError(f"Templates are one of {names}, or a file with one per line; {text!r} is neither.")
    return _read_template_file(Path(text))


def fill(template: str, label: str) -> str:
    """Put `label` into the slot of `template`."""
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
        raise InputError(f"{path} holds no template. Write one per line, such as: a video of {SLOT}")
    return tuple(templates)
