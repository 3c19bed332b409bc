"""One engine for many concurrent callers: videos that arrive together are batched together.

Unlike `pipeline.run`, which gets all videos and fills its batches, this never waits for a full batch: whenever the
model is free, it takes the decoded videos, up to a batch.

Shapes: V views, T frames, S input side, K labels, E joint embedding.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from openxclip.inference.engine import Engine
from openxclip.inference.label_set import LabelSet
from openxclip.inference.scoring import mean_over_views
from openxclip.models import VideoFeatures

Value = TypeVar("Value")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Video:
    """A decoded video that waits for the model."""

    pixels: Tensor
    """uint8 (V, T, 3, S, S)."""
    labels: LabelSet | None
    """Labels to compare with; None to get the embedding."""
    future: Future[Tensor]


@dataclass(frozen=True)
class _Work(Generic[Result]):
    """Other work for the model, step by step; other callers get their turn between steps."""

    steps: Generator[Any, None, Result]
    future: Future[Result]


class Online:
    """Decoders, one thread that runs the model, and the queue of decoded videos between them.

    A caller that no longer wants its result cancels the future. Work that has not started is then skipped.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        num_decoders: int | None = None,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        """
        Args:
            engine: the model.
            num_decoders: videos that are decoded at the same time; None for the engine's default.
            on_batch: called with the number of views and the seconds of each batch.
        """
        self.engine = engine
        self._on_batch = on_batch
        self._videos: deque[_Video] = deque()
        self._works: deque[_Work[Any]] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._decoders = ThreadPoolExecutor(num_decoders or engine.flow.num_decoders, "online-decode")
        self._model = threading.Thread(target=self._run_model, name="online-model", daemon=True)
        self._model.start()

    def score(self, read: Callable[[], Tensor], labels: LabelSet) -> Future[Tensor]:
        """Probabilities (K,) of a video; `read` decodes its views uint8 (V, T, 3, S, S) in a decoder's thread."""
        future: Future[Tensor] = Future()
        self._decode(read, future, lambda pixels: _Video(pixels, labels, future))
        return future

    def embed(self, read: Callable[[], Tensor]) -> Future[Tensor]:
        """The unit-length embedding (E,) of a video: the mean direction of its views."""
        future: Future[Tensor] = Future()
        self._decode(read, future, lambda pixels: _Video(pixels, None, future))
        return future

    def call(self, work: Callable[[], Result]) -> Future[Result]:
        """Run something on the model's thread, between batches."""
        future: Future[Result] = Future()
        self._put(_Work(_in_one_step(work), future))
        return future

    def after(
        self, read: Callable[[], Value], work: Callable[[Value], Generator[Any, None, Result]]
    ) -> Future[Result]:
        """Read in a decoder's thread, then work on the model's thread; at each `yield` other callers get their turn."""
        future: Future[Result] = Future()
        self._decode(read, future, lambda value: _Work(work(value), future))
        return future

    @property
    def is_alive(self) -> bool:
        """Whether the model's thread runs."""
        return self._model.is_alive()

    def close(self) -> None:
        """Finish accepted work, then stop. No new requests are allowed."""
        self._decoders.shutdown(wait=True)
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._model.join()

    def _decode(
        self, read: Callable[[], Value], future: Future[Any], ready: Callable[[Value], _Video | _Work[Any]]
    ) -> None:
        def run() -> None:
            if future.cancelled():
                return
            try:
                value = read()
            except BaseException as error:  # noqa: BLE001 the caller gets it from the future
                _fail(future, error)
            else:
                self._put(ready(value))

        self._decoders.submit(run)

    def _put(self, item: _Video | _Work[Any]) -> None:
        with self._changed:
            if isinstance(item, _Video):
                self._videos.append(item)
            else:
                self._works.append(item)
            self._changed.notify()

    def _run_model(self) -> None:
        """Alternate between a batch and a step of other work, as long as there is either."""
        while self._wait():
            batch = [video for video in self._batch() if video.future.set_running_or_notify_cancel()]
            if batch:
                _finish([video.future for video in batch], partial(self._results, batch))
            # One piece of work is finished before the next begins, to bound memory.
            if self._works and self._step(self._works[0]):
                self._works.popleft()

    def _wait(self) -> bool:
        """Wait for work -> False at the end."""
        with self._changed:
            while not (self._videos or self._works or self._is_closing):
                self._changed.wait()
            return bool(self._videos or self._works)

    def _batch(self) -> list[_Video]:
        """The decoded videos that wait, up to a batch."""
        batch: list[_Video] = []
        num_views = 0
        with self._changed:
            while self._videos:
                num_views += len(self._videos[0].pixels)
                if batch and num_views > self.engine.flow.batch_size:
                    break
                batch.append(self._videos.popleft())
        return batch

    def _step(self, work: _Work[Any]) -> bool:
        """Do the next step of some work -> whether it is done."""
        if work.future.cancelled():
            work.steps.close()
            return True
        try:
            next(work.steps)
        except StopIteration as end:
            if work.future.set_running_or_notify_cancel():
                work.future.set_result(end.value)
        except BaseException as error:  # noqa: BLE001 the model's thread continues, and the caller gets it
            _fail(work.future, error)
        else:
            return False
        return True

    def _results(self, batch: Sequence[_Video]) -> list[Tensor]:
        """One result for each video."""
        started = time.perf_counter()
        features = self._features(torch.cat([video.pixels for video in batch]))
        places = _places(batch)
        results: dict[int, Tensor] = {}
        for labels, members in _by_labels(batch):
            rows = torch.cat([torch.arange(*places[i]) for i in members]).to(features.video.device)
            own = VideoFeatures(*(None if f is None else f[rows] for f in features))  # type: ignore[arg-type]
            views = own.video if labels is None else self.engine.compare(own, labels)
            of_each = views.float().cpu().split([len(batch[i].pixels) for i in members])
            for i, view in zip(members, of_each, strict=True):
                results[i] = _mean_direction(view) if labels is None else mean_over_views(view)
        if self._on_batch is not None:
            self._on_batch(len(features.video), time.perf_counter() - started)
        return [results[i] for i in range(len(batch))]

    def _features(self, pixels: Tensor) -> VideoFeatures:
        """Features of views (B, T, 3, S, S), at most a batch of them at a time."""
        parts = [self.engine.encode(chunk) for chunk in pixels.split(self.engine.flow.batch_size)]
        if len(parts) == 1:
            return parts[0]
        videos, patches = zip(*parts, strict=True)
        return VideoFeatures(torch.cat(videos), None if patches[0] is None else torch.cat(patches))


def _in_one_step(work: Callable[[], Result]) -> Generator[Any, None, Result]:
    return work()
    yield


def _places(batch: Sequence[_Video]) -> list[tuple[int, int]]:
    """The row range of each video's views among those of all."""
    places, start = [], 0
    for video in batch:
        places.append((start, start + len(video.pixels)))
        start += len(video.pixels)
    return places


def _by_labels(batch: Sequence[_Video]) -> list[tuple[LabelSet | None, list[int]]]:
    """Each label set with the indices of the videos that are compared with it."""
    groups: dict[int, tuple[LabelSet | None, list[int]]] = {}
    for i, video in enumerate(batch):
        groups.setdefault(id(video.labels), (video.labels, []))[1].append(i)
    return list(groups.values())


def _mean_direction(views: Tensor) -> Tensor:
    """Features of the views of a video (V, E) -> (E,), of unit length."""
    return F.normalize(F.normalize(views, dim=-1).mean(dim=0), dim=-1)


def _finish(futures: Sequence[Future[Any]], compute: Callable[[], Sequence[Any]]) -> None:
    """Give each future its result, or all of them the error."""
    try:
        results = compute()
    except BaseException as error:  # noqa: BLE001 the model's thread continues, and the callers get it
        for future in futures:
            future.set_exception(error)
    else:
        for future, result in zip(futures, results, strict=True):
            future.set_result(result)


def _fail(future: Future[Any], error: BaseException) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)
