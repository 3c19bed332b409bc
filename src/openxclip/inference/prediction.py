"""A prediction for a video. Imports nothing heavy, so that the client of a server can return it as well."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The labels recognised in a video."""

    path: str
    """The video."""
    scores: list[tuple[str, float]]
    """(label, probability), best first; empty if the video could not be read."""
    error: str | None = None
    """Why the video could not be read."""


def ranking(labels: Sequence[str], probabilities: Sequence[float], top_k: int) -> list[tuple[str, float]]:
    """The `top_k` best labels with their probabilities; ties in the order of the labels."""
    best = sorted(range(len(labels)), key=lambda k: -probabilities[k])[:top_k]
    return [(labels[k], probabilities[k]) for k in best]
