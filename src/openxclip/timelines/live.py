"""Watches a live stream: an event for each window, segment, alert and loss, as they happen.

Memory use is constant. A separate thread reads the stream. Input that arrives faster than it plays, such as a file
through a pipe, is held back; if the model is slower than the stream, the oldest waiting windows are dropped as a whole
and counted.

Shapes: V views, K labels.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from openxclip.errors import InputError
from openxclip.timelines.segments import Segment, Segmenter
from openxclip.timelines.watcher import Watcher
from openxclip.timelines.windows import Unseen, Window, WindowCollector
from openxclip.video.live import LivePlayer
from openxclip.video.playback import Break
from openxclip.wording import shortened

MAX_WAITING = 2  # windows: the next one, and the latest
MAX_ITEMS = 1000  # windows, breaks and unseen windows: they pile up while stdout is blocked
POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event of a stream. Times are seconds from its first frame."""

    kind: str
    """window, segment, alert, dropped, end; or for a break in the stream: gap, damage, jump, lost."""
    start_seconds: float
    end_seconds: float
    wall_time: str
    """When the stream showed `end_seconds`, as ISO 8601 in UTC."""
    label: str | None = None
    score: float | None = None
    peak: float | None = None
    threshold: float | None = None
    scores: dict[str, float] | None = None
    """For a window: the best labels."""
    none: float | None = None
    """For a window: the score of "none of these"."""
    late_seconds: float | None = None
    """Delay from the last frame of a window to its event."""
    num_windows: int | None = None
    """Windows dropped since the last such event."""
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without unset ones."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class _Arrived:
    """An item of the stream and its time of arrival."""

    item: Window | Unseen | Break
    wall: float


class _Waiting:
    """The queue from the reading thread to the computing one: at most `MAX_WAITING` windows."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[_Arrived] = deque()
        self._num_dropped = 0
        self._error: BaseException | None = None
        self._began = time.monotonic()
        self.is_over = False

    def put(self, item: Window | Unseen | Break, stop: "_Either") -> None:
        """Add an item. If too many windows wait, this waits while the item is early; then the oldest one is dropped."""
        with self._changed:
            while self._is_full(item) and not stop.is_set():
                self._changed.wait(POLL_SECONDS)
            self._items.append(_Arrived(item, time.time()))
            windows = self._windows()
            if len(windows) > MAX_WAITING:
                self._items.remove(windows[0])
                self._num_dropped += 1
            self._changed.notify_all()

    def _is_full(self, item: Window | Unseen | Break) -> bool:
        is_held_up = len(self._windows()) >= MAX_WAITING and self._is_early(item)
        return is_held_up or len(self._items) >= MAX_ITEMS

    def _windows(self) -> list[_Arrived]:
        return [arrived for arrived in self._items if isinstance(arrived.item, Window)]

    def _is_early(self, item: Window | Unseen | Break) -> bool:
        """Whether the item came earlier than real-time playback from the start would show it."""
        return item.end_seconds > time.monotonic() - self._began

    def end(self, error: BaseException | None = None) -> None:
        """Mark the end of the stream."""
        with self._changed:
            self.is_over, self._error = True, error
            self._changed.notify()

    def take(self) -> tuple[_Arrived | None, int]:
        """The next item, or None if none comes soon; and the number of windows dropped since the last call.

        Raises:
            BaseException: the error that ended reading.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self.is_over, POLL_SECONDS)
            dropped, self._num_dropped = self._num_dropped, 0
            if self._items:
                self._changed.notify_all()
                return self._items.popleft(), dropped
            if self._error is not None:
                raise self._error
            return None, dropped


class _Either:
    """An event that is set by itself or through another event."""

    def __init__(self, other: threading.Event) -> None:
        self._other, self._own = other, threading.Event()

    def set(self) -> None:
        """Set only this event."""
        self._own.set()

    def is_set(self) -> bool:
        """Whether either event is set."""
        return self._own.is_set() or self._other.is_set()


def check_live(alerts: Mapping[str, float], labels: Sequence[str], *, is_own_background: bool) -> None:
    """Refuse options that streams do not support, before a model is loaded.

    Raises:
        InputError: an alert for an unknown label, an invalid score, or a stream as its own background.
    """
    if is_own_background:
        raise InputError("a stream cannot be its own background; give --background footage of it")
    for label, score in alerts.items():
        if label not in labels:
            raise InputError(f"--alert {label}: this is not one of the labels, {shortened(labels)}")
        if not 0 < score <= 1:
            raise InputError(f"--alert {label}={score:g}: a score must be between 0 and 1")


class LiveWatcher:
    """A watcher of a stream. Iterate over `events` once."""

    def __init__(
        self, watcher: Watcher, *, alerts: Mapping[str, float] | None = None, top_k: int = 5
    ) -> None:
        """
        Args:
            watcher: model, labels and rules.
            alerts: labels and the score that triggers an alert; re-armed when the score falls below `leave`.
            top_k: labels of a window's event.

        Raises:
            InputError: see `check_live`.
        """
        self._watcher, self._alerts, self._top_k = watcher, dict(alerts or {}), top_k
        check_live(self._alerts, watcher.labels, is_own_background=watcher.is_own_background)
        self._is_on = dict.fromkeys(self._alerts, False)
        self._middle: float | None = None
        self._cut_seconds = 0.0  # where the connection was last lost
        self._end = 0.0

    def events(self, player: LivePlayer, stop: threading.Event) -> Iterator[Event]:
        """Events until the stream ends or `stop` is set; then open segments end, and the stream is closed.

        Raises:
            VideoError: the stream can no longer be read, and does not reconnect.
        """
        waiting, is_over = _Waiting(), _Either(stop)
        thread = threading.Thread(
            target=self._read, args=(player, waiting, is_over), daemon=True, name="stream"
        )
        thread.start()
        try:
            yield from self._until_over(waiting, stop)
        finally:  # also if the caller stops iterating
            is_over.set()
            thread.join(timeout=1.0)
            if not thread.is_alive():  # otherwise it blocks on a silent sender, and cannot be interrupted
                player.close()

    def _until_over(self, waiting: _Waiting, stop: threading.Event) -> Iterator[Event]:
        segmenter = Segmenter(self._watcher.labels, self._watcher.rules)
        wall = time.time()
        error: Exception | None = None
        while not stop.is_set():
            try:
                arrived, num_dropped = waiting.take()
            except Exception as found:  # noqa: BLE001 raised again after open segments are reported
                error = found
                break
            if num_dropped:
                yield self._dropped(num_dropped, wall)
            if arrived is not None:
                wall = arrived.wall
                yield from self._events_of(arrived, segmenter)
            elif waiting.is_over:
                break
        yield from (self._of_segment(segment, wall) for segment in segmenter.close(self._end))
        reason = (
            "stopped"
            if stop.is_set()
            else "the stream ended"
            if error is None
            else "it can no longer be read"
        )
        yield Event(kind="end", start_seconds=0.0, end_seconds=self._end, wall_time=_iso(wall), reason=reason)
        if error is not None:
            raise error

    def _read(self, player: LivePlayer, waiting: _Waiting, stop: "_Either") -> None:
        try:
            player.connect()
            collector = WindowCollector(player, self._watcher.plan(), self._watcher.engine.preprocess)
            for item in collector.windows(player):
                waiting.put(item, stop)
                if stop.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 handed to the thread that computes
            waiting.end(error)
        else:
            waiting.end()

    def _events_of(self, arrived: _Arrived, segmenter: Segmenter) -> Iterator[Event]:
        item, wall = arrived.item, arrived.wall
        if isinstance(item, Break):
            if item.kind == "lost":  # the next item may take long
                self._middle, self._cut_seconds = None, item.start_seconds
                yield from (self._of_segment(segment, wall) for segment in segmenter.cut(item.start_seconds))
            yield Event(
                kind=item.kind,
                start_seconds=item.start_seconds,
                end_seconds=item.end_seconds,
                wall_time=_iso(wall),
                reason=item.reason,
            )
            return
        scores = self._scores(item) if isinstance(item, Window) else None
        segments = segmenter.add(self._cell_start(item), scores)
        self._end = item.end_seconds
        if scores is not None:
            yield self._of_window(item, scores, wall)
            yield from self._alarms(item, scores, wall)
        yield from (self._of_segment(segment, wall) for segment in segments)

    def _scores(self, window: Window) -> np.ndarray:
        watcher = self._watcher
        logits = watcher.engine.logits(window.pixels, watcher.label_set).float().cpu().numpy()
        return watcher.probabilities(logits, watcher.background)

    def _cell_start(self, window: Window | Unseen) -> float:
        """The cell of a window: times nearest to its middle, but not before a lost connection."""
        middle = (window.start_seconds + window.end_seconds) / 2
        before, self._middle = self._middle, middle
        start = window.start_seconds if before is None else (before + middle) / 2
        return max(start, self._cut_seconds)

    def _of_window(self, window: Window | Unseen, scores: np.ndarray, wall: float) -> Event:
        best = np.argsort(-scores, kind="stable")[: self._top_k]
        has_none = self._watcher.background is not None
        return Event(
            kind="window",
            start_seconds=window.start_seconds,
            end_seconds=window.end_seconds,
            wall_time=_iso(wall),
            scores={self._watcher.labels[k]: round(float(scores[k]), 4) for k in best},
            none=round(1 - float(scores.sum()), 4) if has_none else None,
            late_seconds=round(time.time() - wall, 3),
        )

    def _alarms(self, window: Window | Unseen, scores: np.ndarray, wall: float) -> Iterator[Event]:
        for label, threshold in self._alerts.items():
            score = float(scores[self._watcher.labels.index(label)])
            if score >= threshold and not self._is_on[label]:
                self._is_on[label] = True
                yield Event(
                    kind="alert",
                    start_seconds=window.start_seconds,
                    end_seconds=window.end_seconds,
                    wall_time=_iso(wall),
                    label=label,
                    score=round(score, 4),
                    threshold=threshold,
                )
            elif score < min(threshold, self._watcher.rules.leave):
                self._is_on[label] = False

    def _dropped(self, count: int, wall: float) -> Event:
        return Event(
            kind="dropped",
            start_seconds=self._end,
            end_seconds=self._end,
            wall_time=_iso(wall),
            num_windows=count,
            reason="the model is slower than the stream; use a longer stride or a smaller model",
        )

    def _of_segment(self, segment: Segment, wall: float) -> Event:
        return Event(
            kind="segment",
            start_seconds=segment.start_seconds,
            end_seconds=segment.end_seconds,
            wall_time=_iso(wall - max(0.0, self._end - segment.end_seconds)),
            label=segment.label,
            score=round(segment.score, 4),
            peak=round(segment.peak, 4),
        )


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
