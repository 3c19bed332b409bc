"""Worker processes: how many, how they end, and a job for each whose death takes no other job with it."""

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
    'worker processes import the main module: call openxclip below `if __name__ == "__main__":` in a file, '
    "not from standard input, and keep files named like a module of Python (types.py) out of the current folder"
)
_AHEAD = 2  # jobs for each process that are begun before the first result is taken

Job = TypeVar("Job")
Result = TypeVar("Result")


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """End this process when its parent is gone, also while it hangs on a file."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def in_order(
    work: Callable[[Job], Result], jobs: Iterable[Job], num_processes: int, crashed: Result
) -> Iterator[Result]:
    """Results in the order of the jobs, by processes side by side.

    When a process dies, the jobs that were begun are done again one by one, each in a process of its own: what its
    neighbours took, memory above all, does not count against it.

    Args:
        work: a function at the top of a module, for other processes.
        jobs: what it is called with.
        num_processes: how many.
        crashed: the result of a job whose process dies while it is alone.

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
    """Processes that have shown that they run."""
    pool = ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn"), _begin)
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise InputError(
            f"a process ended before it began (what it printed stands above); {START_HELP}"
        ) from error
    return pool


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes itself
    end_with_parent()
