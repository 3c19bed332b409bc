"""Variants in processes of their own, so that peak memory is each one's own; they still take turns.

Processes also keep apart what a library changes for the whole process.
"""

import multiprocessing
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import torch

from benchmarks.harness import Timing, interleave
from openxclip.errors import OpenXCLIPError
from openxclip.runtimes import memory

Step = Callable[[], float]
"""One unit of work; gives a number to compare."""


class WorkerError(OpenXCLIPError, RuntimeError):
    """A worker's process ended before it was told to."""


@dataclass(frozen=True, kw_only=True)
class Builder:
    """How a variant is made in its process."""

    build: Callable[..., Step]
    """A function at the top of a module."""
    arguments: Mapping[str, Any]
    """What it is called with."""


class Worker:
    """A process that builds a step and does it each time it is told to. Use it in a `with` statement."""

    def __init__(self, builder: Builder) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, builder.build, dict(builder.arguments)))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()  # ends the process's loop
        self._process.join()

    def step(self, _: object = None) -> float:
        """Do a step and wait for it -> its number. A round's item is not looked at."""
        return self._ask("step")

    def peak_bytes(self) -> int:
        """The most memory that the process has held at once."""
        return int(self._ask("peak"))

    def _ask(self, what: str) -> float:
        try:
            self._connection.send(what)
            return self._connection.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join()
            raise WorkerError(
                f"a process that measures ended with exit code {self._process.exitcode}; its error stands above, "
                "and -9 means that memory ran out"
            ) from error


def _serve(connection: Any, build: Callable[..., Step], arguments: dict[str, Any]) -> None:
    """Answer until the other end is closed."""
    answers: dict[str, Callable[[], float]] = {"step": build(**arguments), "peak": peak_bytes}
    while True:
        try:
            what = connection.recv()
        except EOFError:
            return
        connection.send(answers[what]())


def peak_bytes() -> int:
    """The most that this process has held at once: of the GPU's memory where it uses one."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    peak = memory.peak_bytes()
    assert peak is not None, "Linux and macOS count it"
    return peak


@dataclass(frozen=True, kw_only=True)
class Turns:
    """What `take_turns` finds, by the variants' names."""

    timings: dict[str, Timing]
    """Of a step."""
    peaks_bytes: dict[str, int]
    """Most memory held at once."""
    firsts: dict[str, float]
    """What the first step gave."""


def take_turns(builders: Mapping[str, Builder], num_rounds: int, title: str, num_warmups: int = 1) -> Turns:
    """Steps of all variants in turns, each variant in its own process."""
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(builder)) for name, builder in builders.items()}
        firsts = {name: worker.step() for name, worker in workers.items()}
        steps = {name: worker.step for name, worker in workers.items()}
        timings = interleave(steps, range(num_rounds), title, num_warmups).timings
        peaks = {name: worker.peak_bytes() for name, worker in workers.items()}
    return Turns(timings=timings, peaks_bytes=peaks, firsts=firsts)
