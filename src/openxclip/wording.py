"""Helpers for messages: shortened lists, and suggestions for misspelt names."""

import difflib
from collections.abc import Iterable, Sequence


def shortened(names: Sequence[str], limit: int = 10) -> str:
    """The first names, and the number of further ones: "a, b and 3 more"."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most similar to this one, ignoring case; None if none reaches `cutoff`."""
    by_folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=cutoff)
    return by_folded[close[0]] if close else None
