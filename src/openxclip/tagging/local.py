"""The local engine: decoders in processes of their own feed one batched model.

A part is computed from its inputs alone, in their order, so that its rows are the same however often it is computed.

Shapes: W windows, V views, E joint embedding, K labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openxclip.inference import pipeline
from openxclip.inference.engine import Engine
from openxclip.inference.label_set import LabelSet
from openxclip.inference.pipeline import Failure, Flow, Scored
from openxclip.inference.scoring import mean_over_views
from openxclip.tagging.decoding import WINDOWS_AT_ONCE, Facts, Piece
from openxclip.tagging.rows import Layout, error_row, scored_row
from openxclip.tagging.sources import Source
from openxclip.tagging.workers import Decoders


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An input that is done."""

    number: int
    """Of the input in its part."""
    rows: tuple[dict[str, Any], ...]
    seconds: float
    """Length of the video; 0 where it could not be read."""
    error_kind: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tagger:
    """What computes the rows of inputs."""

    engine: Engine
    label_set: LabelSet
    layout: Layout
    decoders: Decoders
    num_decoders: int

    def run(self, sources: Sequence[Source]) -> Iterator[Finished]:
        """The rows of every input, in order; long videos, window by window, after the others."""
        flow = self._flow()
        pieces = [Piece(number=number, source=source) for number, source in enumerate(sources)]
        begun: dict[int, list[dict[str, Any]]] = {}
        later: list[tuple[Piece, int]] = []
        for outcome in self._outcomes(pieces, flow):
            if isinstance(outcome, Failure):
                yield self._failed(outcome)
                continue
            rows, facts = self._rows(outcome)
            if facts.num_windows <= WINDOWS_AT_ONCE:
                yield Finished(number=outcome.item.number, rows=tuple(rows), seconds=facts.duration_seconds)
                continue
            begun[outcome.item.number] = rows
            later.append((outcome.item, facts.num_windows))
        for piece, num_windows in later:
            yield self._rest(piece, num_windows, begun.pop(piece.number), flow)

    def _rest(self, first: Piece, num_windows: int, rows: list[dict[str, Any]], flow: Flow) -> Finished:
        """The windows of a long video behind the first ones."""
        starts = range(WINDOWS_AT_ONCE, num_windows, WINDOWS_AT_ONCE)
        pieces = [replace(first, first_window=start) for start in starts]
        for outcome in self._outcomes(pieces, flow):
            if isinstance(outcome, Failure):
                return self._failed(outcome)
            more, facts = self._rows(outcome)
            rows += more
        return Finished(number=first.number, rows=tuple(rows), seconds=facts.duration_seconds)

    def _flow(self) -> Flow:
        # Threads only wait for the decoders' processes; results come in order, and so do batches.
        return replace(self.engine.flow, num_decoders=self.num_decoders, ordered=True)

    def _outcomes(self, pieces: Sequence[Piece], flow: Flow) -> Iterator[Scored[Piece] | Failure[Piece]]:
        return pipeline.run(pieces, self.decoders.read, self._compute, flow)

    @torch.inference_mode()
    def _compute(self, pixels: Tensor) -> Tensor:
        """Views uint8 (B, T, 3, S, S) -> a row for each: logits (K), behind them the embedding (E) if it is wanted."""
        video = self.engine.encode(pixels)
        logits = self.engine.compare(video, self.label_set)
        if self.layout.embed_dim is None:
            return logits
        embedding = torch.nn.functional.normalize(video.video.float(), dim=-1)
        return torch.cat([logits.float(), embedding], dim=1)

    def _rows(self, outcome: Scored[Piece]) -> tuple[list[dict[str, Any]], Facts]:
        facts = self.decoders.facts_of(outcome.item)
        of_windows = outcome.scores.float().chunk(len(facts.windows))  # (V, K [+ E]) each
        num_labels = len(self.layout.labels)
        rows = []
        for window, views in enumerate(of_windows):
            scores = mean_over_views(views[:, :num_labels]).numpy()
            embedding = None if self.layout.embed_dim is None else _mean_direction(views[:, num_labels:])
            rows.append(scored_row(self.layout, outcome.item.source, facts, window, scores, embedding))
        return rows, facts

    def _failed(self, failure: Failure[Piece]) -> Finished:
        piece = failure.item
        row = error_row(self.layout, piece.source, failure.kind, failure.reason)
        return Finished(number=piece.number, rows=(row,), seconds=0.0, error_kind=failure.kind)


def _mean_direction(views: Tensor) -> np.ndarray:
    """Unit-length features (V, E) of views -> the unit-length mean (E,)."""
    return torch.nn.functional.normalize(views.mean(dim=0), dim=-1).numpy()
