"""Rows of a tagging job, computed on this machine.

Shapes: V views, E joint embedding, K labels.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openxclip.inference.engine import Engine
from openxclip.inference.label_set import LabelSet
from openxclip.inference.scoring import mean_over_views
from openxclip.tagging.decoding import Facts
from openxclip.tagging.rows import Layout, error_row, scored_row
from openxclip.tagging.runner import PieceReader, Runner
from openxclip.tagging.sources import Source

TagRow = dict[str, Any]


def tag_runner(engine: Engine, label_set: LabelSet, layout: Layout, decoders: PieceReader) -> Runner[TagRow]:
    """A runner that computes the rows of inputs."""
    return Runner(
        flow=engine.flow,
        decoders=decoders,
        compute=partial(_compute, engine, label_set, layout.embed_dim is not None),
        to_row=partial(_row, layout),
        failed=partial(_failed, layout),
    )


@torch.inference_mode()
def _compute(engine: Engine, label_set: LabelSet, with_embedding: bool, pixels: Tensor) -> Tensor:
    """Views uint8 (B, T, 3, S, S) -> logits (B, K), followed by the embedding if requested (B, K + E)."""
    video = engine.encode(pixels)
    logits = engine.compare(video, label_set)
    if not with_embedding:
        return logits
    return torch.cat([logits.float(), torch.nn.functional.normalize(video.video.float(), dim=-1)], dim=1)


def _row(layout: Layout, source: Source, facts: Facts, window: int, views: Tensor) -> TagRow:
    num_labels = len(layout.labels)
    scores = mean_over_views(views[:, :num_labels]).numpy()
    embedding = None if layout.embed_dim is None else _mean_direction(views[:, num_labels:])
    return scored_row(layout, source, facts, window, scores, embedding)


def _failed(layout: Layout, source: Source, kind: str, reason: str) -> tuple[TagRow, ...]:
    return (error_row(layout, source, kind, reason),)


def _mean_direction(views: Tensor) -> np.ndarray:
    """Unit-length features (V, E) of views -> the unit-length mean (E,)."""
    return torch.nn.functional.normalize(views.mean(dim=0), dim=-1).numpy()
