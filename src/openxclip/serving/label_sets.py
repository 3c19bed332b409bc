"""Label sets are encoded once and kept, the least recently used are dropped."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from openxclip.inference.label_set import LabelSet
from openxclip.text.label_texts import LabelTexts

Key = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass
class _Entry:
    future: Future[LabelSet]
    num_waiting: int = 0


class LabelSets:
    """Encoded label sets by their texts. For one event loop.

    They are encoded in a thread of their own: a long list keeps nobody waiting but those who want it.
    """

    def __init__(self, encode: Callable[[LabelTexts], LabelSet], max_label_sets: int) -> None:
        self._encode = encode
        self._max_label_sets = max_label_sets
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "label-sets")
        self.num_hits = 0
        self.num_misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, texts: LabelTexts) -> LabelSet:
        """The encoded set: kept from before, on its way for somebody else, or encoded now.

        Raises:
            InputError: the model cannot take these labels.
        """
        key = (tuple(texts.labels), tuple(texts.templates))
        entry = self._entries.get(key)
        if entry is None:
            self.num_misses += 1
            entry = self._entries[key] = _Entry(self._thread.submit(self._encode, texts))
            while len(self._entries) > self._max_label_sets:
                self._entries.popitem(last=False)
        else:
            self.num_hits += 1
            self._entries.move_to_end(key)
        entry.num_waiting += 1
        try:
            return await asyncio.shield(asyncio.wrap_future(entry.future))
        except BaseException:
            # Nobody waits for it any more, or it cannot be encoded: the next request tries anew.
            failed = entry.future.done() and not entry.future.cancelled() and entry.future.exception()
            if failed or (entry.num_waiting == 1 and entry.future.cancel()):
                self._forget(key, entry)
            raise
        finally:
            entry.num_waiting -= 1

    def close(self) -> None:
        """Finish what is being encoded, then stop."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _forget(self, key: Key, entry: _Entry) -> None:
        if self._entries.get(key) is entry:
            del self._entries[key]
