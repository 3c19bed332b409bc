"""Compares video and text features: logits for all labels or for a shortlist, and probabilities.

Shapes: B views, K labels, M of them on the shortlist, E joint embedding.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from openxclip.errors import CheckpointError
from openxclip.models import XCLIP, VideoFeatures

Scorer = Callable[[VideoFeatures, Tensor], Tensor]
"""Video features of B views and text features (K, E) -> logits (B, K)."""


def build_scorer(model: XCLIP, shortlist: int | None = None) -> Scorer:
    """The model's own logits, with its prompting if it has one, for all labels or for a shortlist of them."""
    return model.logits if shortlist is None else partial(shortlist_logits, model, num_prompted=shortlist)


def shortlist_logits(model: XCLIP, video: VideoFeatures, text: Tensor, num_prompted: int) -> Tensor:
    """Logits (B, K) of text features (K, E): the model's for the M = `num_prompted` best by cosine, -inf for others.

    Prompting (section 3.3) attends from every label to every patch, for each video; the cosine is one product.
    Without prompting, or with no more labels than M, these are the model's own logits.
    """
    if model.prompting is None or num_prompted >= len(text):
        return model.logits(video, text)
    best = cosine(video.video, text).topk(num_prompted, dim=1).indices  # (B, M)
    rows = []
    for i, prompted in enumerate(best):
        patches = None if video.patches is None else video.patches[i : i + 1]
        view = VideoFeatures(video.video[i : i + 1], patches)
        rows.append(model.logits(view, text[prompted])[0])
    logits = torch.stack(rows)  # (B, M)
    return logits.new_full((len(best), len(text)), -torch.inf).scatter(1, best, logits)


def cosine(video: Tensor, text: Tensor) -> Tensor:
    """(B, E), (K, E) -> (B, K), in float32."""
    return F.normalize(video.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T


def mean_over_views(logits: Tensor) -> Tensor:
    """Logits of the views of one video (V, K) -> probabilities (K,): the mean of softmax(logits).

    Raises:
        CheckpointError: the logits are NaN.
    """
    probabilities = logits.float().softmax(dim=-1).mean(dim=0)
    if probabilities.isnan().any():
        raise CheckpointError(
            "the model's scores are NaN: its weights are damaged, or too large for its precision; try "
            "float32, or download the weights again"
        )
    return probabilities
