"""Work in steps: a generator that pauses for a progress bar, or for others, and returns its result."""

from collections.abc import Callable, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")
Step = TypeVar("Step")


def _pass_over(step: Any) -> None:
    """Nobody looks."""


def finished(steps: Generator[Step, None, Result], on_step: Callable[[Step], None] = _pass_over) -> Result:
    """Take all steps, and show each to `on_step`, which may raise -> what they give at the end."""
    try:
        while True:
            on_step(next(steps))
    except StopIteration as end:
        return end.value
    finally:
        steps.close()
