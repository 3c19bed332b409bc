"""Places for requests: a bounded number is in the house at the same time, from the first byte to the answer."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from openxclip.serving.problems import Problem

PATIENCE_SECONDS = 2.0  # a request may take this long to arrive before it has to make room


class Place:
    """One or more places that a request holds."""

    def __init__(self, num_places: int) -> None:
        self.num_places = num_places
        self.since = time.monotonic()
        self.is_arriving = True
        """Whether its body is still being received."""
        self.must_leave = asyncio.Event()
        """Set when it has to make room for others."""


class Places:
    """Counts the places in use. For one event loop.

    Where all are taken, a request that has been arriving for a while makes room for one that comes: clients that send
    slowly cannot keep the others out.
    """

    def __init__(self, num_places: int) -> None:
        self.num_places = num_places
        self._held: set[Place] = set()

    @property
    def num_taken(self) -> int:
        """Places in use."""
        return sum(place.num_places for place in self._held)

    @contextmanager
    def taken(self, num_wanted: int = 1, *, is_arriving: bool = True) -> Iterator[Place]:
        """Hold places for as long as the block runs. A request that has arrived makes no room for others.

        Raises:
            Problem: there are not as many free.
        """
        if self.num_taken + num_wanted > self.num_places and not self._make_room(num_wanted):
            raise Problem(
                "queue-full",
                f"all {self.num_places} places are taken, or fewer than {num_wanted} are free; try again soon",
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
        """Let the slowest arrivals go, if that is enough."""
        latest = time.monotonic() - PATIENCE_SECONDS
        slow = sorted((p for p in self._held if p.is_arriving and p.since < latest), key=lambda p: p.since)
        num_missing = self.num_taken + num_wanted - self.num_places
        if sum(place.num_places for place in slow) < num_missing:
            return False
        for place in slow[:num_missing]:
            place.must_leave.set()
            self._held.discard(place)
        return True
