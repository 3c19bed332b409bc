"""The parts of the model: their parameters, and the setting that leaves a part out.

One table for all uses: initial values, learning rates, reading other formats, expanding an image model.
"""

import re
from typing import NamedTuple

from openxclip.errors import ConfigError


class AddedPart(NamedTuple):
    """A part that X-CLIP, or a method it is compared with, adds to CLIP's two towers."""

    name: str
    switch: str
    """The setting that leaves it out."""
    pattern: str
    """Regular expression of its parameters' names, in our format or any other."""


ADDED_PARTS = (
    AddedPart("video-specific prompting", "prompting=None", r"prompt(s_\w+|ing)\b.*"),
    AddedPart("the multi-frame integration transformer", "integration=None", r"(mit|integration)\..*"),
    AddedPart(
        "message tokens",
        "vision.message_tokens=False",
        r"vis\w+\..*\.(message_\w+|cross_norm|cross_attn)\..*",
    ),
    AddedPart("learnable context", "text.num_context_vectors=None", r"text\.context\..*"),
    AddedPart("discrete labels", "num_discrete_labels=None", r"discrete\..*"),
)

ADDED = "|".join(f"({part.pattern})" for part in ADDED_PARTS)
"""Pattern of the parameters of all added parts."""

GROUPS = {
    "new": ADDED,
    "visual": rf"(?!{ADDED})visual\..*",
    "token_embedding": r"text\.token_embedding\..*",
    "text": rf"(?!{ADDED}|text\.token_embedding)text\..*",
    "logit_scale": r"logit_(scale|bias)",
}
"""Group with one learning rate -> pattern of our parameter names; every parameter matches exactly one."""


def is_added(name: str) -> bool:
    """Whether a parameter, by its name in any format, belongs to a part that CLIP lacks."""
    return re.fullmatch(ADDED, name) is not None


def part_of(name: str) -> AddedPart:
    """The added part that a parameter belongs to, by its name in any format."""
    return next(part for part in ADDED_PARTS if re.fullmatch(part.pattern, name))


def group_of(name: str) -> str:
    """The group of `GROUPS` that one of our parameters belongs to.

    Raises:
        ConfigError: no group, or more than one, matches the name.
    """
    matches = [group for group, pattern in GROUPS.items() if re.fullmatch(pattern, name)]
    if len(matches) != 1:
        raise ConfigError(
            f"parameter {name!r} must match exactly one of {list(GROUPS)}, it matches {matches}"
        )
    return matches[0]
