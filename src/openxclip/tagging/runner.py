"""Computes the rows of inputs: decoders in separate processes feed one batched model.

The computation and the form of a row are functions: tagging and indexing differ only in these. The rows of some inputs
depend only on these inputs and their order.

Shapes: W windows, V views, D numbers for each view.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from openxclip.inference import pipeline
from openxclip.inference.pipeline import Failure, Flow, Scored
from openxclip.tagging.decoding import WINDOWS_AT_ONCE, Facts, Piece
from openxclip.tagging.sources import Source

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Finished(Generic[Row]):
    """A finished input, or a piece of it."""

    number: int
    """Number of the input among the given ones."""
    rows: tuple[Row, ...]
    """Rows in the order of its windows; for an unreadable input, the result of `failed`."""
    num_windows: int = 0
    """Windows of the whole video; 0 if it could not be read."""
    seconds: float = 0.0
    """Length of the video; 0 if it could not be read."""
    error_kind: str | None = None
    error: str | None = None
    """Why the input cannot be read."""


class PieceReader(Protocol):
    """Source of the pixels of pieces, and facts about them."""

    num_decoders: int

    def read(self, piece: Piece) -> Tensor:
        """Views uint8 (W * V, T, 3, S, S) of a piece. For many threads.

        Raises:
            VideoError: the video cannot be read.
        """

    def facts_of(self, piece: Piece) -> Facts:
        """The facts about a piece that was read; can be taken once."""


@dataclass(frozen=True, kw_only=True)
class Runner(Generic[Row]):
    """Computes rows."""

    flow: Flow
    """Batch size, and how many decoders."""
    decoders: PieceReader
    compute: Callable[[Tensor], Tensor]
    """Views uint8 (B, T, 3, S, S) -> numbers for each (B, D)."""
    to_row: Callable[[Source, Facts, int, Tensor], Row]
    """An input, its facts, the number of a window among those of the facts, and the numbers of its views (V, D)."""
    failed: Callable[[Source, str, str], tuple[Row, ...]]
    """An input that cannot be read, the kind of its error, and the reason."""

    def run(self, sources: Sequence[Source]) -> Iterator[Finished[Row]]:
        """The rows of every input, in order; those of long videos, piece by piece, after the others."""
        later: list[Finished[Row]] = []
        first_pieces = [Piece(number=number, source=source) for number, source in enumerate(sources)]
        for done in self.run_pieces(first_pieces):
            if done.num_windows <= WINDOWS_AT_ONCE:
                yield done
            else:
                later.append(done)
        for first in later:
            yield self._rest(first, sources[first.number])

    def _rest(self, first: Finished[Row], source: Source) -> Finished[Row]:
        """A long video: its first windows and the following ones."""
        starts = range(WINDOWS_AT_ONCE, first.num_windows, WINDOWS_AT_ONCE)
        rows = [*first.rows]
        for done in self.run_pieces(
            [Piece(number=first.number, source=source, first_window=start) for start in starts]
        ):
            if done.error is not None:
                return done
            rows += done.rows
        return replace(first, rows=tuple(rows))

    def run_pieces(self, pieces: Sequence[Piece]) -> Iterator[Finished[Row]]:
        """The rows of every piece, in order."""
        # Threads only wait for the decoder processes; results come in order, so batches are the same each time.
        flow = replace(self.flow, num_decoders=self.decoders.num_decoders, ordered=True)
        for outcome in pipeline.run(pieces, self.decoders.read, self.compute, flow):
            yield self._failed(outcome) if isinstance(outcome, Failure) else self._scored(outcome)

    def _scored(self, outcome: Scored[Piece]) -> Finished[Row]:
        source, facts = outcome.item.source, self.decoders.facts_of(outcome.item)
        of_windows = outcome.scores.float().chunk(len(facts.windows))  # (V, D) each
        return Finished(
            number=outcome.item.number,
            rows=tuple(self.to_row(source, facts, window, views) for window, views in enumerate(of_windows)),
            num_windows=facts.num_windows,
            seconds=facts.duration_seconds,
        )

    def _failed(self, failure: Failure[Piece]) -> Finished[Row]:
        piece = failure.item
        rows = self.failed(piece.source, failure.kind, failure.reason)
        return Finished(number=piece.number, rows=rows, error_kind=failure.kind, error=failure.reason)
