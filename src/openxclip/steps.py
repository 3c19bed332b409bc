"""Work in steps: generators that yield for a progress bar, or for other work, and return a result."""

from collections.abc import Callable, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")
Step = TypeVar("Step")


def _pass_over(step: Any) -> None:
    """Nobody looks."""


def finished(steps: Generator[Step, None, Result], on_step: Callable[[Step], None] = _pass_over) -> Result:
    """Run all steps, passing each to `on_step`, which may raise -> the generator's result."""
    try:
        while True:
            on_step(next(steps))
    except StopIteration as end:
        return end.value
    finally:
        steps.close()
