"""Class names become text features, once per label set.

Shapes: K labels, P templates, E joint embedding.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from openxclip.checkpoints.tokenizer import MissingTokenizer, Tokenizer
from openxclip.data.templates import fill
from openxclip.errors import InputError
from openxclip.models import XCLIP


@torch.inference_mode()
def encode_labels(
    model: XCLIP,
    tokenizer: Tokenizer | MissingTokenizer,
    labels: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
) -> Tensor:
    """Text features (K, E) of the labels written into each template.

    One template gives the model's own features. Several give the mean of their directions, as CLIP's prompt
    ensembles do, at the mean length of the features: video-specific prompting reads lengths, too.

    Raises:
        InputError: there is no label or template, or a template has no slot for the label.
    """
    if isinstance(templates, str) or not templates:
        raise InputError(
            f"templates must be a list of at least one, got {templates!r}; for one pass [template]"
        )
    features = []
    for template in templates:
        tokens = tokenizer([fill(template, label) for label in labels]).to(model.logit_scale.device)
        features.append(torch.cat([model.encode_text(chunk) for chunk in tokens.split(batch_size)]))
    if len(features) == 1:
        return features[0]
    stacked = torch.stack(features)  # (P, K, E)
    direction = F.normalize(F.normalize(stacked, dim=-1).mean(dim=0), dim=-1)
    return direction * stacked.norm(dim=-1, keepdim=True).mean(dim=0)
