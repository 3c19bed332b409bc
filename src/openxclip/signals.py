"""Ctrl-C and SIGTERM as a wish to stop: what is under way is finished, and kept."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop(threading.Event):
    """Set by a signal."""

    number: int | None = None
    """Of the signal; a shell tells a process that it ended by 128 more."""


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """An event that SIGINT and SIGTERM set; a second one ends the process as usual."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        stop.number = number
        stop.set()
        signal.signal(number, previous[signal.Signals(number)])

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
