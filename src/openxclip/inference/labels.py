"""Class names become text features, once per label set.

Shapes: K labels, N texts of all of them, E joint embedding.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from openxclip.data.descriptions import Descriptions, texts_of
from openxclip.errors import InputError
from openxclip.inference.text_cache import cached, text_key
from openxclip.models import XCLIP
from openxclip.models.discrete import DiscreteLabels
from openxclip.text.templates import fill
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer

MIN_KEPT_SENTENCES = 200  # encoding fewer takes no longer than to find out whether they are kept


@torch.inference_mode()
def encode_labels(
    model: XCLIP,
    tokenizer: Tokenizer | MissingTokenizer,
    labels: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
    descriptions: Descriptions | None = None,
    cache: Path | None = None,
) -> Tensor:
    """Features (K, E) of the labels, once: see `label_encoder`; many are kept below the folder `cache`, if given."""
    if model.discrete is not None:
        return label_encoder(model, tokenizer, labels, templates, batch_size, descriptions)()
    tokens, num_sentences = _sentences(model, tokenizer, labels, templates, descriptions)

    def compute() -> Tensor:
        return label_features(model, tokens, num_sentences, batch_size)

    if cache is None or len(tokens) < MIN_KEPT_SENTENCES:
        return compute()
    return cached(cache, text_key(model, tokens, num_sentences), compute).to(tokens.device)


def label_encoder(
    model: XCLIP,
    tokenizer: Tokenizer | MissingTokenizer,
    labels: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
    descriptions: Descriptions | None = None,
) -> Callable[[], Tensor]:
    """What gives the features (K, E) of the labels with the model's weights of that moment, with gradients.

    Each text of a label, which without descriptions is its name alone, is written into each template. A model of
    discrete labels gives its table: the labels are those of its training, in the same order.

    Raises:
        InputError: there is no label or template, a template has no slot for the label, a label has no
            description, or the model has other discrete labels.
    """
    discrete = model.discrete
    if discrete is not None:
        if descriptions is not None:
            raise InputError(
                "this model's labels are discrete and it knows no texts; leave the descriptions out"
            )
        _check_discrete(discrete, labels)
        return lambda: discrete.table
    tokens, num_sentences = _sentences(model, tokenizer, labels, templates, descriptions)
    return lambda: label_features(model, tokens, num_sentences, batch_size)


def _sentences(
    model: XCLIP,
    tokenizer: Tokenizer | MissingTokenizer,
    labels: Sequence[str],
    templates: Sequence[str],
    descriptions: Descriptions | None,
) -> tuple[Tensor, tuple[int, ...]]:
    """Tokens (N, C) of every text of the labels in every template, and how many of them each label has."""
    if isinstance(templates, str) or not templates:
        raise InputError(
            f"templates must be a list of at least one, got {templates!r}; for one pass [template]"
        )
    texts = texts_of(labels, descriptions)
    sentences = [fill(template, text) for own in texts for text in own for template in templates]
    num_sentences = tuple(len(own) * len(templates) for own in texts)
    return tokenizer(sentences).to(model.logit_scale.device), num_sentences


def label_features(
    model: XCLIP, tokens: Tensor, num_sentences: Sequence[int], batch_size: int = 256
) -> Tensor:
    """Text features (K, E) of labels from tokens (N, C): so many sentences of the first label, then the second's ...

    One sentence a label gives the model's own features. Several give the mean of their directions, as CLIP's prompt
    ensembles do, at the mean length of the features: video-specific prompting reads lengths, too.
    """
    features = _encode(model, tokens, batch_size)
    if len(features) == len(num_sentences):
        return features
    return torch.stack([_mean_direction(own) for own in features.split(list(num_sentences))])


def _encode(model: XCLIP, tokens: Tensor, batch_size: int) -> Tensor:
    """Text features (N, E) of tokens (N, C), where they are many in batches of like length: each is trimmed to its
    longest text."""
    if len(tokens) <= batch_size or not model.config.text.causal:
        return torch.cat([model.encode_text(chunk) for chunk in tokens.split(batch_size)])
    order = tokens.argmax(dim=1).argsort(stable=True)
    features = torch.cat([model.encode_text(chunk) for chunk in tokens[order].split(batch_size)])
    return features[order.argsort()]


def _mean_direction(features: Tensor) -> Tensor:
    """Features of one label's sentences (P, E) -> (E,)."""
    direction = F.normalize(F.normalize(features, dim=-1).mean(dim=0), dim=-1)
    return direction * features.norm(dim=-1).mean()


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
