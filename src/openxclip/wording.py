"""Pieces of messages: lists that stay short, and suggestions for misspelt names."""

import difflib
from collections.abc import Iterable, Sequence


def shortened(names: Sequence[str], limit: int = 10) -> str:
    """The first names, and how many more there are: "a, b and 3 more"."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most like this one, without regard to case; None where none is at least `cutoff` alike."""
    by_folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=cutoff)
    return by_folded[close[0]] if close else None
