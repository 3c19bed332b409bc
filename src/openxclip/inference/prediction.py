"""What is recognised in a video. Imports nothing heavy, so that a client of a server can give the same."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The labels recognised in a video."""

    path: str
    """The video."""
    scores: list[tuple[str, float]]
    """(label, probability), best first; empty where the video could not be read."""
    error: str | None = None
    """Why it could not be read."""


def ranking(labels: Sequence[str], probabilities: Sequence[float], top_k: int) -> list[tuple[str, float]]:
    """The `top_k` best labels with their probabilities; equal ones in the order of the labels."""
    best = sorted(range(len(labels)), key=lambda k: -probabilities[k])[:top_k]
    return [(labels[k], probabilities[k]) for k in best]
