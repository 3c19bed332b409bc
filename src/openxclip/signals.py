"""Graceful stop on Ctrl-C and SIGTERM: current work is finished and saved."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME_SECONDS = 2.0
"""Signals this close together count as one. SLURM signals every process of a job step, including torch's launcher,
which passes the signal on to processes that already have it."""


class Stop(threading.Event):
    """Set by a signal."""

    number: int | None = None
    """Number of the signal; a shell reports it as exit status 128 + number."""
    at: float = 0.0
    """Time of arrival, by `time.monotonic`."""


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """An event that SIGINT and SIGTERM set; a second signal, a while later, ends the process as usual."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if not stop.is_set():
            stop.number, stop.at = number, time.monotonic()
            stop.set()
        elif time.monotonic() - stop.at > SAME_SECONDS:
            signal.signal(number, previous[signal.Signals(number)])
            signal.raise_signal(number)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
