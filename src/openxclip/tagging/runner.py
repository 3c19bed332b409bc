"""From inputs to their rows: decoders in processes of their own feed one batched model.

What is computed and what a row is are functions: tagging and indexing differ in these alone. The rows of some inputs
depend on these inputs and their order, on nothing else.

Shapes: W windows, V views, D numbers for each view.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from torch import Tensor

from openxclip.inference import pipeline
from openxclip.inference.pipeline import Failure, Flow, Scored
from openxclip.tagging.decoding import WINDOWS_AT_ONCE, Facts, Piece
from openxclip.tagging.sources import Source
from openxclip.tagging.workers import Decoders

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Finished(Generic[Row]):
    """An input that is done."""

    number: int
    """Of the input among those given."""
    rows: tuple[Row, ...]
    """In the order of its windows; of an input that cannot be read what `failed` gives."""
    seconds: float
    """Length of the video; 0 where it could not be read."""
    error_kind: str | None = None


@dataclass(frozen=True, kw_only=True)
class Runner(Generic[Row]):
    """What makes rows."""

    flow: Flow
    """Batch size, and how many decoders."""
    decoders: Decoders
    compute: Callable[[Tensor], Tensor]
    """Views uint8 (B, T, 3, S, S) -> numbers for each (B, D)."""
    to_row: Callable[[Source, Facts, int, Tensor], Row]
    """An input, its facts, the number of a window among those of the facts, and the numbers of its views (V, D)."""
    failed: Callable[[Source, str, str], tuple[Row, ...]]
    """An input that cannot be read, the kind of its error, and the reason."""

    def run(self, sources: Sequence[Source]) -> Iterator[Finished[Row]]:
        """The rows of every input, in order; those of long videos, piece by piece, after the others."""
        pieces = [Piece(number=number, source=source) for number, source in enumerate(sources)]
        later: list[tuple[Piece, int, list[Row]]] = []
        for outcome in self._outcomes(pieces):
            if isinstance(outcome, Failure):
                yield self._finished_with(outcome)
                continue
            rows, facts = self._rows(outcome)
            number = outcome.item.number
            if facts.num_windows <= WINDOWS_AT_ONCE:
                yield Finished(number=number, rows=tuple(rows), seconds=facts.duration_seconds)
            else:
                later.append((outcome.item, facts.num_windows, rows))
        for piece, num_windows, rows in later:
            yield self._rest(piece, num_windows, rows)

    def _rest(self, first: Piece, num_windows: int, rows: list[Row]) -> Finished[Row]:
        """The windows of a long video behind the first ones."""
        starts = range(WINDOWS_AT_ONCE, num_windows, WINDOWS_AT_ONCE)
        seconds = 0.0
        for outcome in self._outcomes([replace(first, first_window=start) for start in starts]):
            if isinstance(outcome, Failure):
                return self._finished_with(outcome)
            more, facts = self._rows(outcome)
            rows = [*rows, *more]
            seconds = facts.duration_seconds
        return Finished(number=first.number, rows=tuple(rows), seconds=seconds)

    def _outcomes(self, pieces: Sequence[Piece]) -> Iterator[Scored[Piece] | Failure[Piece]]:
        # Threads only wait for the decoders' processes; results come in order, and so batches are the same each time.
        flow = replace(self.flow, num_decoders=self.decoders.num_decoders, ordered=True)
        return pipeline.run(pieces, self.decoders.read, self.compute, flow)

    def _rows(self, outcome: Scored[Piece]) -> tuple[list[Row], Facts]:
        facts = self.decoders.facts_of(outcome.item)
        of_windows = outcome.scores.float().chunk(len(facts.windows))  # (V, D) each
        source = outcome.item.source
        return [self.to_row(source, facts, window, views) for window, views in enumerate(of_windows)], facts

    def _finished_with(self, failure: Failure[Piece]) -> Finished[Row]:
        piece = failure.item
        rows = self.failed(piece.source, failure.kind, failure.reason)
        return Finished(number=piece.number, rows=rows, seconds=0.0, error_kind=failure.kind)
