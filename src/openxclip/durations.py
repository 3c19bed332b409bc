"""Parses durations such as "4s"."""

import re

from openxclip.errors import InputError


def seconds_of(option: str, text: str) -> float:
    """Seconds from "4s", "4", "0.5s" or "2m".

    Raises:
        InputError: the text has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m)?", text.strip())
    if not match or not float(match[1]) > 0:
        raise InputError(f"{option} must be a length such as 4s or 0.5s, got {text!r}")
    return float(match[1]) * (60 if match[2] == "m" else 1)
