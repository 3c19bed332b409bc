"""Scores many videos: decoders ahead of the model, batches across videos, results in any order.

Memory is bounded: besides the current batch, only the views that the next one and the decoders need are decoded.
Closing the iterator of results cancels pending work. The stages are independent of models, labels and files.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from openxclip.errors import InputError, VideoError

Item = TypeVar("Item")

_END: Any = object()
"""Marks the end of the items."""


@dataclass(frozen=True)
class Decoded(Generic[Item]):
    """An item and its pixels."""

    item: Item
    pixels: Tensor
    """uint8 (V, T, 3, S, S): its V views."""


@dataclass(frozen=True)
class Scored(Generic[Item]):
    """An item and its scores."""

    item: Item
    scores: Tensor
    """(V, K) on the CPU: a row for each view."""


@dataclass(frozen=True)
class Failure(Generic[Item]):
    """An item that cannot be read, and why."""

    item: Item
    reason: str
    kind: str = "unreadable"
    """The VideoError's kind."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Limits on concurrent work."""

    batch_size: int
    """Views per forward pass. A video's views stay together, unless there are more than this."""
    num_decoders: int
    """Videos that are decoded at the same time."""
    num_in_flight: int = 0
    """Batches that an asynchronous device may still be computing while the next one is prepared."""
    ordered: bool = True
    """Whether results come in the order of the items, or as soon as their batch is computed."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_decoders"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


def run(
    items: Iterable[Item],
    read: Callable[[Item], Tensor],
    compute: Callable[[Tensor], Tensor],
    flow: Flow,
) -> Iterator[Scored[Item] | Failure[Item]]:
    """Score every item; one that cannot be read becomes a `Failure`.

    Args:
        items: what to score; taken one by one as capacity becomes free.
        read: an item -> its views uint8 (V, T, 3, S, S), or a VideoError; called in threads.
        compute: views uint8 (B, T, 3, S, S) -> a row of scores for each (B, K), on any device.
        flow: batch size, decoders, order.
    """
    outcomes = decode(items, read, flow)
    in_flight: deque[tuple[list[Decoded[Item] | Failure[Item]], Tensor | None]] = deque()
    try:
        for batch in batches(outcomes, flow.batch_size, flow.ordered):
            scores = _computed(batch, compute, flow.batch_size)
            if scores is None and not (in_flight and flow.ordered):
                yield from _results(batch, None)
                continue
            in_flight.append((batch, scores))
            while len(in_flight) > flow.num_in_flight:
                yield from _results(*in_flight.popleft())
        while in_flight:
            yield from _results(*in_flight.popleft())
    finally:
        outcomes.close()


def decode(
    items: Iterable[Item], read: Callable[[Item], Tensor], flow: Flow
) -> Generator[Decoded[Item] | Failure[Item]]:
    """Read items in threads, ahead of the consumer. Decoding releases the interpreter lock, so threads suffice.

    Besides one item per decoder, as many items are read ahead as fill a batch, judging by the views of the last one;
    before the first is read, one. While a result is ready, one item is taken for each result handed out.
    """
    remaining = iter(items)
    batch_items = 1
    waiting: dict[Future[Tensor], Item] = {}  # in the order of the items
    with ThreadPoolExecutor(flow.num_decoders, thread_name_prefix="decode") as pool:
        try:
            while True:
                while len(waiting) < flow.num_decoders + batch_items:
                    was_ready = _is_ready(waiting, flow.ordered)
                    item = next(remaining, _END)
                    if item is _END:
                        break
                    waiting[pool.submit(read, item)] = item
                    if was_ready:  # enough to keep a decoder busy while the consumer works
                        break
                if not waiting:
                    return
                future = _next(waiting, flow.ordered)
                outcome = _outcome(waiting.pop(future), future)
                if isinstance(outcome, Decoded):
                    batch_items = max(1, flow.batch_size // len(outcome.pixels))
                yield outcome
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _is_ready(waiting: dict[Future[Tensor], Item], ordered: bool) -> bool:
    """Whether `_next` would return without waiting."""
    return any(future.done() for future in islice(waiting, 1 if ordered else None))


def _next(waiting: dict[Future[Tensor], Item], ordered: bool) -> Future[Tensor]:
    """The first item's future, or the first one that is ready."""
    if ordered:
        return next(iter(waiting))
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    return next(future for future in waiting if future in done)


def _outcome(item: Item, future: Future[Tensor]) -> Decoded[Item] | Failure[Item]:
    try:
        return Decoded(item, future.result())
    except VideoError as error:
        return Failure(item, error.reason, error.kind)


def batches(
    outcomes: Iterable[Decoded[Item] | Failure[Item]], batch_size: int, ordered: bool = True
) -> Iterator[list[Decoded[Item] | Failure[Item]]]:
    """Groups of items with as many views as fit into `batch_size`, and no more items; at least one item in each.

    Failures do not wait: they come at once or, in order, with the batch that began before them. Which items share a
    batch depends only on the order of the outcomes, not on timing: in order, results are exactly reproducible.
    """
    batch: list[Decoded[Item] | Failure[Item]] = []
    num_views = 0
    for outcome in outcomes:
        added = len(outcome.pixels) if isinstance(outcome, Decoded) else 0
        if not added and not (batch and ordered):
            yield [outcome]
            continue
        if batch and num_views + added > batch_size:
            yield batch
            batch, num_views = [], 0
        batch.append(outcome)
        num_views += added
        if max(num_views, len(batch)) >= batch_size:
            yield batch
            batch, num_views = [], 0
    if batch:
        yield batch


def _computed(
    batch: list[Decoded[Item] | Failure[Item]], compute: Callable[[Tensor], Tensor], batch_size: int
) -> Tensor | None:
    """Scores of all views of a batch, at most `batch_size` views at a time; None if nothing could be read."""
    pixels = [outcome.pixels for outcome in batch if isinstance(outcome, Decoded)]
    if not pixels:
        return None
    views = torch.cat(pixels) if len(pixels) > 1 else pixels[0]
    chunks = [compute(chunk) for chunk in views.split(batch_size)]
    return torch.cat(chunks) if len(chunks) > 1 else chunks[0]


def _results(
    batch: list[Decoded[Item] | Failure[Item]], scores: Tensor | None
) -> Iterator[Scored[Item] | Failure[Item]]:
    """Assign a batch's scores to its items; waits for the device."""
    rows = None if scores is None else scores.cpu()
    start = 0
    for outcome in batch:
        if isinstance(outcome, Failure):
            yield outcome
            continue
        assert rows is not None  # something was read
        stop = start + len(outcome.pixels)
        yield Scored(outcome.item, rows[start:stop])
        start = stop
