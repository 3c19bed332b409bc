"""Work in steps: a generator that pauses for a progress bar, or for others, and returns its result."""

from collections.abc import Generator
from typing import Any, TypeVar

Result = TypeVar("Result")


def finished(steps: Generator[Any, None, Result]) -> Result:
    """Take all steps -> what they give at the end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
