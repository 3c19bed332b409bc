"""An LRU cache of encoded label sets."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from openxclip.inference.label_set import LabelSet
from openxclip.text.label_texts import LabelTexts

Key = tuple[tuple[str, ...], tuple[str, ...]]
Encode = Callable[[LabelTexts, Callable[[], None]], LabelSet]
"""Encodes a set, and calls the second argument between batches of texts."""


class _AbandonedError(Exception):
    """No request waits for this set any more, and one waits for another."""


@dataclass
class _Entry:
    future: Future[LabelSet]
    num_waiting: int = 0


class LabelSets:
    """Encoded label sets by their texts. For one event loop.

    They are encoded in a separate thread, one after the other: a long list delays only other new lists, and is given up
    once no request wants it any more.
    """

    def __init__(self, encode: Encode, max_label_sets: int) -> None:
        self._encode = encode
        self._max_label_sets = max_label_sets
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "label-sets")
        self.num_hits = 0
        self.num_misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, texts: LabelTexts) -> LabelSet:
        """The encoded set: cached, being encoded for another request, or encoded now.

        Raises:
            InputError: the model cannot take these labels.
        """
        key = tuple(texts.labels), tuple(texts.templates)
        while True:
            entry = self._entry(key, texts)
            entry.num_waiting += 1
            try:
                return await asyncio.shield(asyncio.wrap_future(entry.future))
            except _AbandonedError:  # given up just before this request came: try again
                continue
            except asyncio.CancelledError:
                if (
                    entry.num_waiting == 1 and entry.future.cancel()
                ):  # not started, and no other request wants it
                    self._forget(key, entry)
                raise
            finally:
                entry.num_waiting -= 1
                if _has_failed(entry):
                    self._forget(key, entry)

    async def features(self, encode: Callable[[], Tensor]) -> Tensor:
        """Encode something without caching it, in the same thread."""
        return await asyncio.wrap_future(self._thread.submit(encode))

    def close(self) -> None:
        """Finish the current encoding, then stop."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _entry(self, key: Key, texts: LabelTexts) -> _Entry:
        entry = self._entries.get(key)
        if entry is not None and not _has_failed(entry):
            self.num_hits += 1
            self._entries.move_to_end(key)
            return entry
        self.num_misses += 1
        future = self._thread.submit(self._encode, texts, partial(self._check, key))
        entry = self._entries[key] = _Entry(future)
        while len(self._entries) > self._max_label_sets:
            self._entries.popitem(last=False)
        return entry

    def _check(self, key: Key) -> None:
        """Between batches: continue if a request waits for this set, or none for another one."""
        entries = list(self._entries.items())
        own = [entry for other, entry in entries if other == key]
        others = [entry for other, entry in entries if other != key and not entry.future.done()]
        if own and not own[0].num_waiting and any(entry.num_waiting for entry in others):
            raise _AbandonedError

    def _forget(self, key: Key, entry: _Entry) -> None:
        if self._entries.get(key) is entry:
            del self._entries[key]


def _has_failed(entry: _Entry) -> bool:
    return entry.future.done() and (entry.future.cancelled() or entry.future.exception() is not None)
