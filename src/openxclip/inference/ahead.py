"""Decode ahead of the model: the next videos are read while this one is being recognised."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from openxclip.errors import VideoError

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Result], num_threads: int
) -> Iterator[tuple[Item, Result | VideoError]]:
    """Each item with what `read` gives for it, in order; a `VideoError` takes the place of a result.

    At most `num_threads + 1` results wait in memory. Decoding releases the interpreter lock: threads suffice.
    """
    remaining = iter(items)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        try:
            for item in islice(remaining, num_threads + 1):
                waiting.append((item, pool.submit(read, item)))
            while waiting:
                item, future = waiting.popleft()
                try:
                    outcome: Result | VideoError = future.result()
                except VideoError as error:
                    outcome = error
                for following in islice(remaining, 1):
                    waiting.append((following, pool.submit(read, following)))
                yield item, outcome
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
