"""Worker processes: their number, their end, and jobs isolated from each other's crashes."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from openxclip.errors import InputError

START_HELP = (
    'worker processes import the main module: call openxclip under `if __name__ == "__main__":` in a file, '
    "not from standard input, and keep files named like a Python module (types.py) out of the current folder"
)
_AHEAD = 2  # jobs per process that are started before the first result is taken

Job = TypeVar("Job")
Result = TypeVar("Result")


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """End this process when its parent is gone, even while it hangs on a file."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def in_order(
    work: Callable[[Job], Result], jobs: Iterable[Job], num_processes: int, crashed: Result
) -> Iterator[Result]:
    """Results in the order of the jobs, computed by parallel processes.

    When a process dies, the started jobs are repeated one by one, each in a separate process: resources used by its
    neighbours, mainly memory, do not count against it.

    Args:
        work: a function at the top of a module, for other processes.
        jobs: arguments of the calls.
        num_processes: number of processes.
        crashed: the result of a job whose process dies while it runs alone.

    Raises:
        InputError: processes do not start.
    """
    remaining = deque(jobs)
    begun: deque[tuple[Job, Future[Result]]] = deque()
    if not remaining:
        return
    num_processes = min(num_processes, len(remaining))
    pool = _started(num_processes)
    try:
        while remaining or begun:
            while remaining and len(begun) < _AHEAD * num_processes:
                job = remaining.popleft()
                begun.append((job, pool.submit(work, job)))
            try:
                result = begun[0][1].result()
            except BrokenProcessPool:
                pool.shutdown()
                yield from (_alone(work, job, crashed) for job, _ in begun)
                begun.clear()
                pool = _started(num_processes)
                continue
            begun.popleft()
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _alone(work: Callable[[Job], Result], job: Job, crashed: Result) -> Result:
    with _started(1) as pool:
        try:
            return pool.submit(work, job).result()
        except BrokenProcessPool:
            return crashed


def _started(num_processes: int) -> ProcessPoolExecutor:
    """Processes that have reported that they run."""
    pool = ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn"), _begin)
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise InputError(
            f"a process ended before it was ready (see its output above); {START_HELP}"
        ) from error
    return pool


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes itself
    end_with_parent()
