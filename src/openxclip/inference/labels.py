"""Class names become text features, once per label set.

Shapes: K labels, P templates, E joint embedding.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from openxclip.checkpoints.tokenizer import MissingTokenizer, Tokenizer
from openxclip.data.templates import fill
from openxclip.errors import InputError
from openxclip.models import XCLIP
from openxclip.models.discrete import DiscreteLabels


@torch.inference_mode()
def encode_labels(
    model: XCLIP,
    tokenizer: Tokenizer | MissingTokenizer,
    labels: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
) -> Tensor:
    """Features (K, E) of the labels, once: see `label_encoder`."""
    return label_encoder(model, tokenizer, labels, templates, batch_size)()


def label_encoder(
    model: XCLIP,
    tokenizer: Tokenizer | MissingTokenizer,
    labels: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
) -> Callable[[], Tensor]:
    """What gives the features (K, E) of the labels with the model's weights of that moment, with gradients.

    A model of discrete labels gives its table: the labels are those of its training, in the same order.

    Raises:
        InputError: there is no label or template, a template has no slot for the label, or the model has other
            discrete labels.
    """
    discrete = model.discrete
    if discrete is not None:
        _check_discrete(discrete, labels)
        return lambda: discrete.table
    if isinstance(templates, str) or not templates:
        raise InputError(
            f"templates must be a list of at least one, got {templates!r}; for one pass [template]"
        )
    device = model.logit_scale.device
    tokens = [tokenizer([fill(template, label) for label in labels]).to(device) for template in templates]
    return lambda: label_features(model, tokens, batch_size)


def label_features(model: XCLIP, tokens: Sequence[Tensor], batch_size: int = 256) -> Tensor:
    """Text features (K, E) of labels written into templates: P x (K, C) tokens, one tensor a template.

    One template gives the model's own features. Several give the mean of their directions, as CLIP's prompt
    ensembles do, at the mean length of the features: video-specific prompting reads lengths, too.
    """
    features = [
        torch.cat([model.encode_text(chunk) for chunk in sentences.split(batch_size)]) for sentences in tokens
    ]
    if len(features) == 1:
        return features[0]
    stacked = torch.stack(features)  # (P, K, E)
    direction = F.normalize(F.normalize(stacked, dim=-1).mean(dim=0), dim=-1)
    return direction * stacked.norm(dim=-1, keepdim=True).mean(dim=0)


def _check_discrete(discrete: DiscreteLabels, labels: Sequence[str]) -> None:
    """Refuse labels that are not those of the table's rows: by number, and by name where it has names."""
    problem = None
    if len(labels) != len(discrete.table):
        problem = f"{len(labels)} labels are given, but this model was trained on {len(discrete.table)}"
    elif discrete.labels is not None:
        pairs = enumerate(zip(labels, discrete.labels, strict=True))
        problem = next(
            (
                f"label {i} (counted from 0) is {new!r}, but in this model's training it was {old!r}"
                for i, (new, old) in pairs
                if new != old
            ),
            None,
        )
    if problem is not None:
        raise InputError(
            f"{problem}: its labels are discrete, one learned vector each, and it knows no texts; give exactly the "
            "labels of its training, in their order, or load a model trained with texts"
        )
