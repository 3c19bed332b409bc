"""Slots for requests: limits concurrent requests, from the first byte to the response."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from openxclip.serving.problems import Problem

PATIENCE_SECONDS = 2.0  # a request may take this long to arrive before it has to make room


class Place:
    """One or more slots held by a request."""

    def __init__(self, num_places: int) -> None:
        self.num_places = num_places
        self.since = time.monotonic()
        self.is_arriving = True
        """Whether the body of the request is still being received."""
        self.must_leave = asyncio.Event()
        """Set when the request has to make room for others."""


class Places:
    """Counts the slots in use. For one event loop.

    If all are taken, a request that has been arriving for a while makes room for a new one: slow clients cannot block
    the others.
    """

    def __init__(self, num_places: int) -> None:
        self.num_places = num_places
        self._held: set[Place] = set()

    @property
    def num_taken(self) -> int:
        """Slots in use."""
        return sum(place.num_places for place in self._held)

    @contextmanager
    def taken(self, num_wanted: int = 1, *, is_arriving: bool = True) -> Iterator[Place]:
        """Hold slots while the block runs. A fully received request does not make room for others.

        Raises:
            Problem: not enough slots are free.
        """
        if self.num_taken + num_wanted > self.num_places and not self._make_room(num_wanted):
            raise Problem(
                "queue-full",
                f"all {self.num_places} slots are taken, or fewer than {num_wanted} are free; try again soon",
                limit=self.num_places,
            )
        place = Place(num_wanted)
        place.is_arriving = is_arriving
        self._held.add(place)
        try:
            yield place
        finally:
            self._held.discard(place)

    def _make_room(self, num_wanted: int) -> bool:
        """Drop the slowest arriving requests, if that frees enough slots."""
        latest = time.monotonic() - PATIENCE_SECONDS
        slow = sorted((p for p in self._held if p.is_arriving and p.since < latest), key=lambda p: p.since)
        num_missing = self.num_taken + num_wanted - self.num_places
        if sum(place.num_places for place in slow) < num_missing:
            return False
        for place in slow[:num_missing]:
            place.must_leave.set()
            self._held.discard(place)
        return True
