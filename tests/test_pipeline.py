"""Many videos through one model: order, batches, bounded memory, failures, and consumers that give up."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from openxclip.errors import InputError, VideoError
from openxclip.inference import pipeline
from openxclip.inference.pipeline import Decoded, Failure, Flow, Scored


def flow(batch_size: int = 1, num_decoders: int = 2, **settings: object) -> Flow:
    return Flow(batch_size=batch_size, num_decoders=num_decoders, **settings)


def pixels_of(number: int, num_views: int = 1) -> Tensor:
    """Views (V, 1, 3, 1, 1) that say which item they are of."""
    return torch.full((num_views, 1, 3, 1, 1), number % 256, dtype=torch.uint8)


def first_value(pixels: Tensor) -> Tensor:
    """A model: views (B, T, 3, S, S) -> one score each (B, 1)."""
    return pixels[:, 0, 0, 0].float()


def decode_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def soon(condition: Callable[[], bool]) -> bool:
    """Whether something comes true within some seconds."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@settings(deadline=None, max_examples=60)
@given(
    views=st.lists(st.integers(0, 4), max_size=12),  # 0: the video cannot be read
    batch_size=st.integers(1, 6),
    num_decoders=st.integers(1, 4),
    num_in_flight=st.integers(0, 2),
    ordered=st.booleans(),
)
def test_every_item_comes_out_once_with_its_own_scores(
    views: list[int], batch_size: int, num_decoders: int, num_in_flight: int, ordered: bool
) -> None:
    def read(item: tuple[int, int]) -> Tensor:
        number, num_views = item
        if num_views == 0:
            raise VideoError(str(number), f"{number} is broken")
        return pixels_of(number, num_views)

    items = list(enumerate(views))
    how = flow(batch_size, num_decoders, num_in_flight=num_in_flight, ordered=ordered)
    outcomes = list(pipeline.run(items, read, first_value, how))
    found = [outcome.item for outcome in outcomes]
    assert (found if ordered else sorted(found)) == items
    for outcome in outcomes:
        number, num_views = outcome.item
        if num_views == 0:
            assert outcome == Failure((number, 0), f"{number} is broken")
        else:
            assert isinstance(outcome, Scored)
            assert outcome.scores.tolist() == [[number]] * num_views


@given(st.lists(st.integers(0, 5), max_size=15), st.integers(1, 6))
def test_batches_hold_as_many_views_as_fit_and_keep_videos_together(sizes: list[int], limit: int) -> None:
    outcomes = [
        Decoded(i, pixels_of(i, size)) if size else Failure(i, "broken") for i, size in enumerate(sizes)
    ]
    batches = list(pipeline.batches(outcomes, limit))
    assert [outcome.item for batch in batches for outcome in batch] == list(range(len(sizes)))
    views = [[sizes[outcome.item] for outcome in batch] for batch in batches]
    assert all(len(batch) <= limit for batch in views)
    for batch, following in pairwise(views):
        full = sum(batch) >= limit or sum(batch) + following[0] > limit or len(batch) == limit
        assert full or batch == [0], "a failure waits for nothing"
    assert all(sum(batch) <= limit or len(list(filter(None, batch))) == 1 for batch in views)


def test_a_model_gets_no_more_views_than_a_batch_holds() -> None:
    seen: list[int] = []

    def compute(pixels: Tensor) -> Tensor:
        seen.append(len(pixels))
        return first_value(pixels)

    list(pipeline.run(range(5), lambda n: pixels_of(n, 7 if n == 2 else 1), compute, flow(3)))
    assert seen == [2, 3, 3, 1, 2]


def test_results_come_as_soon_as_they_are_there() -> None:
    release = threading.Event()

    def read(number: int) -> Tensor:
        if number == 0:
            assert release.wait(timeout=30)
        return pixels_of(number)

    results = pipeline.run(range(4), read, first_value, flow(num_decoders=2, ordered=False))
    assert [next(results).item for _ in range(3)] == [1, 2, 3]
    release.set()
    assert [outcome.item for outcome in results] == [0]


def test_decoder_and_model_work_at_the_same_time() -> None:
    """The model computes on an item only while a decoder reads a later one."""
    meeting = threading.Barrier(2, timeout=30)

    def read(number: int) -> Tensor:
        if number == 3:
            meeting.wait()
        return pixels_of(number)

    def compute(pixels: Tensor) -> Tensor:
        if int(pixels[0, 0, 0, 0, 0]) == 2:
            meeting.wait()
        return first_value(pixels)

    assert len(list(pipeline.run(range(5), read, compute, flow(num_decoders=1)))) == 5


def test_a_batch_is_prepared_while_an_asynchronous_device_computes() -> None:
    begun: list[int] = []

    def compute(pixels: Tensor) -> Tensor:
        begun.append(int(pixels[0, 0, 0, 0, 0]))
        return first_value(pixels)

    results = pipeline.run(range(6), pixels_of, compute, flow(batch_size=2, num_in_flight=1))
    assert next(results).item == 0
    assert begun == [0, 2]


class Meter:
    """Counts the pixels that are alive, and the most that ever were."""

    def __init__(self) -> None:
        self.alive = 0
        self.most = 0
        self.lock = threading.Lock()

    def count(self, pixels: Tensor) -> Tensor:
        with self.lock:
            self.alive += 1
            self.most = max(self.most, self.alive)
        weakref.finalize(pixels, self._gone)
        return pixels

    def _gone(self) -> None:
        with self.lock:
            self.alive -= 1


@pytest.mark.parametrize("slow", ["decoder", "model"])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_memory_is_bounded_whoever_is_slow(slow: str, ordered: bool, batch_size: int) -> None:
    """Failing items among them; the source is endless and taken no further than needed."""
    meter, taken = Meter(), []

    def items() -> Iterator[int]:
        for number in range(10_000):
            taken.append(number)
            yield number

    def read(number: int) -> Tensor:
        if slow == "decoder":
            time.sleep(0.002)
        if number % 5 == 3:
            raise VideoError(str(number), "broken")
        return meter.count(pixels_of(number))

    def compute(pixels: Tensor) -> Tensor:
        if slow == "model":
            time.sleep(0.005)
        return first_value(pixels)

    results = pipeline.run(items(), read, compute, flow(batch_size, num_decoders=3, ordered=ordered))
    outcomes = [next(results) for _ in range(60)]
    ahead = 3 + batch_size  # read or being read
    assert meter.most <= ahead + batch_size + 1
    assert len(taken) <= 60 + ahead + 2 * batch_size
    assert sum(isinstance(outcome, Failure) for outcome in outcomes) >= 10
    results.close()
    del outcomes
    assert soon(lambda: not decode_threads())
    assert soon(lambda: gc.collect() >= 0 and meter.alive == 0), "nothing leaks"


@pytest.mark.parametrize("ordered", [True, False])
def test_failures_come_as_they_are_found(ordered: bool) -> None:
    """A long run of them fills no batch: it must neither wait for one nor be kept."""
    taken = []

    def items() -> Iterator[int]:
        for number in range(10_000):
            taken.append(number)
            yield number

    def read(number: int) -> Tensor:
        if number != 1:
            raise VideoError(str(number), "broken")
        return pixels_of(number)

    results = pipeline.run(items(), read, first_value, flow(32, num_decoders=2, ordered=ordered))
    found = [next(results) for _ in range(5)]
    assert isinstance(found[0], Failure)
    assert len(taken) <= 5 + 2 + 2 * 32 + 2
    results.close()


def test_the_views_of_a_video_count_and_not_the_videos() -> None:
    """With many views a video, one fills a batch: only the decoders work ahead."""
    meter = Meter()
    read = lambda number: meter.count(pixels_of(number, num_views=300))  # noqa: E731
    results = pipeline.run(
        range(1000), read, lambda pixels: pixels[:, 0, 0, 0].float(), flow(32, num_decoders=4)
    )
    for _ in range(20):
        next(results)
        time.sleep(0.005)
    assert meter.most <= 4 + 1 + 2
    results.close()


def test_one_item_is_taken_while_a_result_is_ready() -> None:
    """A source that hands out its items slowly, as a camera or a queue does."""
    taken = []

    def items() -> Iterator[int]:
        for number in range(20):
            time.sleep(0.02)
            taken.append(number)
            yield number

    results = pipeline.run(items(), pixels_of, first_value, flow(1, num_decoders=8))
    next(results)
    assert len(taken) <= 3
    results.close()


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": -1}, {"num_decoders": 0}])
def test_a_flow_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        flow(**wrong)


def test_nothing_begins_before_the_first_result_is_asked_for() -> None:
    started: list[int] = []
    results = pipeline.run(range(9), lambda n: started.append(n) or pixels_of(n), first_value, flow())
    assert started == []
    assert decode_threads() == []
    results.close()


def test_closing_early_gives_up_items_that_have_not_begun() -> None:
    started: list[int] = []
    hold = threading.Event()

    def read(number: int) -> Tensor:
        started.append(number)
        if number == 1:
            hold.wait(timeout=30)
        return pixels_of(number)

    results = pipeline.run(range(9), read, first_value, flow(num_decoders=1))
    next(results)
    assert soon(lambda: 1 in started)
    threading.Timer(0.1, hold.set).start()  # closing waits for the item that has begun
    results.close()
    assert soon(lambda: not decode_threads())
    assert started == [0, 1]
    with pytest.raises(StopIteration):
        next(results)


class UnexpectedError(Exception):
    """Anything but a VideoError."""


@pytest.mark.parametrize("place", ["read", "compute", "items"])
def test_other_errors_are_not_swallowed(place: str) -> None:
    def fail(number: int, where: str) -> None:
        if number == 2 and place == where:
            raise UnexpectedError(number)

    def items() -> Iterator[int]:
        for number in range(9):
            fail(number, "items")
            yield number

    def read(number: int) -> Tensor:
        fail(number, "read")
        return pixels_of(number)

    def compute(pixels: Tensor) -> Tensor:
        fail(int(pixels[0, 0, 0, 0, 0]), "compute")
        return first_value(pixels)

    with pytest.raises(UnexpectedError, match="2"):
        list(pipeline.run(items(), read, compute, flow(num_decoders=2)))
    assert soon(lambda: not decode_threads())


def test_reads_run_beside_each_other() -> None:
    meeting = threading.Barrier(3, timeout=30)

    def read(number: int) -> Tensor:
        meeting.wait()
        return pixels_of(number)

    outcomes = list(pipeline.run(range(3), read, first_value, flow(num_decoders=3)))
    assert [outcome.item for outcome in outcomes] == [0, 1, 2]
