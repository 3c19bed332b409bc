"""Encodes class names into text features, once per label set. One model can serve any number of them.

Shapes: K labels, N sentences of all of them, C tokens of a sentence, E joint embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from openxclip.errors import InputError
from openxclip.inference.text_cache import cached, text_key
from openxclip.models import XCLIP
from openxclip.models.discrete import DiscreteLabels
from openxclip.models.text import ends
from openxclip.text.label_texts import LabelTexts
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer

MIN_CACHED_SENTENCES = 200  # encoding fewer is as fast as a cache lookup
BATCH_SIZE = 256  # sentences encoded at once


@dataclass(frozen=True)
class LabelSet:
    """Labels and their text features."""

    labels: tuple[str, ...]
    features: Tensor
    """(K, E), on the model's device."""


@torch.inference_mode()
def encode_label_set(
    model: XCLIP,
    tokenizer: Tokenizer | MissingTokenizer,
    texts: LabelTexts,
    cache: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> LabelSet:
    """Encode labels; the features of many labels are cached in the folder `cache`, if given.

    `check` is called between batches of sentences, and may raise.

    Raises:
        InputError: the model has discrete labels, and these differ from them.
    """
    if model.discrete is not None:
        return LabelSet(tuple(texts.labels), label_encoder(model, tokenizer, texts)())
    tokens, counts = _tokens(model, tokenizer, texts)

    def compute() -> Tensor:
        return label_features(model, tokens, counts, check=check)

    if cache is None or len(tokens) < MIN_CACHED_SENTENCES:
        return LabelSet(tuple(texts.labels), compute())
    features = cached(cache, text_key(model, tokens, tuple(counts)), compute)
    return LabelSet(tuple(texts.labels), features.to(tokens.device))


@torch.inference_mode()
def embed_texts(model: XCLIP, tokenizer: Tokenizer | MissingTokenizer, texts: Sequence[str]) -> Tensor:
    """Texts as they are, including repetitions -> their features (K, E), of unit length, in float32 on the CPU.

    Raises:
        InputError: a text is empty, or the model has discrete labels.
    """
    tokens = tokenizer(list(texts)).to(model.logit_scale.device)
    return F.normalize(label_features(model, tokens, [1] * len(texts)).float(), dim=-1).cpu()


def label_encoder(
    model: XCLIP, tokenizer: Tokenizer | MissingTokenizer, texts: LabelTexts
) -> Callable[[], Tensor]:
    """A function that computes the features (K, E) with the model's current weights, with gradients.

    For a model of discrete labels it returns their table.

    Raises:
        InputError: the model has discrete labels, and these differ from them.
    """
    discrete = model.discrete
    if discrete is None:
        tokens, counts = _tokens(model, tokenizer, texts)
        return lambda: label_features(model, tokens, counts)
    if texts.descriptions is not None:
        raise InputError("this model has discrete labels and no text tower; leave the descriptions out")
    _check_discrete(discrete, texts.labels)
    return lambda: discrete.table


def _tokens(
    model: XCLIP, tokenizer: Tokenizer | MissingTokenizer, texts: LabelTexts
) -> tuple[Tensor, list[int]]:
    """Tokens (N, C) of every sentence, and the number of sentences of each label."""
    sentences = texts.sentences()
    tokens = tokenizer([sentence for of_label in sentences for sentence in of_label])
    return tokens.to(model.logit_scale.device), [len(of_label) for of_label in sentences]


def label_features(
    model: XCLIP,
    tokens: Tensor,
    num_sentences: Sequence[int],
    batch_size: int = BATCH_SIZE,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Text features (K, E) of labels from tokens (N, C), where label k has `num_sentences[k]` rows.

    One sentence per label gives the model's own features. Several give the mean of their directions, as in CLIP's
    prompt ensembles, scaled to the mean length of the features: video-specific prompting depends on lengths.
    """
    features = _encode(model, tokens, batch_size, check)
    if len(features) == len(num_sentences):
        return features
    return torch.stack([_mean_direction(own) for own in features.split(list(num_sentences))])


def _encode(model: XCLIP, tokens: Tensor, batch_size: int, check: Callable[[], None]) -> Tensor:
    """Text features (N, E) of tokens (N, C). Many are sorted by length first: each batch is cut to its longest."""

    def encoded(rows: Tensor) -> Tensor:
        parts = []
        for chunk in rows.split(batch_size):
            check()
            parts.append(model.encode_text(chunk))
        return torch.cat(parts)

    if len(tokens) <= batch_size or not model.config.text.causal:
        return encoded(tokens)
    order = ends(tokens, model.config.text.end_id).argsort(stable=True)
    features = encoded(tokens[order])
    return features[order.argsort()]


def _mean_direction(features: Tensor) -> Tensor:
    """Features of one label's sentences (P, E) -> (E,)."""
    direction = F.normalize(F.normalize(features, dim=-1).mean(dim=0), dim=-1)
    return direction * features.norm(dim=-1).mean()


def _check_discrete(discrete: DiscreteLabels, labels: Sequence[str]) -> None:
    """Refuse labels that differ from the table's rows in number or, if it has names, in name."""
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
            f"{problem}: its labels are discrete, one learned vector each, and it has no text tower; give exactly the "
            "training labels, in the same order, or load a model trained with texts"
        )
