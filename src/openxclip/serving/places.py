"""Places for requests: a bounded number is in the house at the same time, from the first byte to the answer."""

from collections.abc import Iterator
from contextlib import contextmanager

from openxclip.serving.problems import Problem


class Places:
    """Counts the places in use. For one event loop."""

    def __init__(self, num_places: int) -> None:
        self.num_places = num_places
        self.num_taken = 0

    @contextmanager
    def taken(self, num_wanted: int = 1) -> Iterator[None]:
        """Hold places for as long as the block runs.

        Raises:
            Problem: there are not as many free.
        """
        if self.num_taken + num_wanted > self.num_places:
            raise Problem(
                "queue-full",
                f"all {self.num_places} places are taken, or fewer than {num_wanted} are free; try again soon",
                limit=self.num_places,
            )
        self.num_taken += num_wanted
        try:
            yield
        finally:
            self.num_taken -= num_wanted
