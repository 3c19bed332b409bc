"""Many labels: video-specific prompts for the few that a video's plain cosine finds, in place of all.

Prompting (section 3.3) attends from every label to every patch, for each video anew; the cosine is one product.
Shapes: B videos, K labels, M of them on the shortlist, E joint embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from openxclip.models import XCLIP
from openxclip.models.xclip import VideoFeatures


def shortlist_logits(model: XCLIP, video: VideoFeatures, text: Tensor, num_prompted: int) -> Tensor:
    """Logits (B, K) of text features (K, E): the M = `num_prompted` best by cosine as the model sees them, -inf for
    the others, which thus have no share in the probabilities.

    Without prompting, or with no more labels than M, these are the model's own logits.
    """
    if model.prompting is None or num_prompted >= len(text):
        return model.logits(video, text)
    best = cosine(video.video, text).topk(num_prompted, dim=1).indices  # (B, M)
    rows = []
    for i, chosen in enumerate(best):
        one = VideoFeatures(
            video.video[i : i + 1], None if video.patches is None else video.patches[i : i + 1]
        )
        rows.append(model.logits(one, text[chosen])[0])
    logits = torch.stack(rows)  # (B, M)
    return logits.new_full((len(best), len(text)), -torch.inf).scatter(1, best, logits)


def cosine(video: Tensor, text: Tensor) -> Tensor:
    """(B, E), (K, E) -> (B, K), in float32."""
    return F.normalize(video.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
