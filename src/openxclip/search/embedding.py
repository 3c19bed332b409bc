"""Windows of videos as rows of an index: their feature, and the context for video-specific prompts.

Shapes: B views, N patches, E joint embedding.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openxclip.inference.engine import Engine
from openxclip.tagging.decoding import Facts
from openxclip.tagging.runner import PieceReader, Runner
from openxclip.tagging.sources import Source

IndexRow = dict[str, Any]


def index_runner(engine: Engine, decoders: PieceReader, *, with_context: bool) -> Runner[IndexRow]:
    """A runner that computes the rows of inputs; an unreadable input has none."""
    compute = partial(window_numbers, engine, with_context)
    to_row = partial(window_row, engine.model.config.embed_dim)
    return Runner(flow=engine.flow, decoders=decoders, compute=compute, to_row=to_row, failed=_none)


def num_context(engine: Engine) -> int:
    """Size of a window's context for prompts: N times E, the mean over frames of the patches; 0 without prompting."""
    config = engine.model.config
    return config.vision.num_patches * config.embed_dim if config.prompting else 0


@torch.inference_mode()
def window_numbers(engine: Engine, with_context: bool, pixels: Tensor) -> Tensor:
    """Views uint8 (B, T, 3, S, S) -> the video feature, followed by the context if it is kept (B, E [+ N E])."""
    video = engine.encode(pixels)
    parts = [video.video.float()]
    if with_context and video.patches is not None:
        parts.append(video.patches.float().flatten(1))
    return torch.cat(parts, dim=1)


def window_row(embed_dim: int, source: Source, facts: Facts, window: int, views: Tensor) -> IndexRow:
    """The single view of a window: several would have to be compared separately."""
    numbers = views[0].numpy().astype(np.float16)
    start, end = facts.windows[window]
    return {
        "path": source.path,
        "start_seconds": start,
        "end_seconds": end,
        "duration_seconds": facts.duration_seconds,
        "fps": facts.fps,
        "width": facts.width,
        "height": facts.height,
        "codec": facts.codec,
        "embedding": numbers[:embed_dim],
        "context": numbers[embed_dim:],
    }


def _none(source: Source, kind: str, reason: str) -> tuple[IndexRow, ...]:
    del source, kind, reason
    return ()
