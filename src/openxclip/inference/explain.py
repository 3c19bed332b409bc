"""Explains the score of a label for a video: where the model looks, and which frames and words matter.

The score of a label is its log-odds: its logit against those of all other labels together. Unlike a probability it does
not saturate. Nothing here is drawn at random: the same video gives the same explanation.

Shapes: T frames, S input side in pixels, h x w = N patches of a frame, K labels, E joint embedding.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from openxclip.errors import InputError
from openxclip.inference.engine import Engine
from openxclip.inference.label_set import LabelSet, label_features
from openxclip.inference.scoring import mean_over_views
from openxclip.models import VideoFeatures
from openxclip.steps import finished
from openxclip.text.descriptions import texts_of
from openxclip.text.label_texts import LabelTexts
from openxclip.text.templates import fill
from openxclip.wording import nearest

SENTENCES_AT_ONCE = 64  # shortened labels per batch: a longer one would keep others waiting


@dataclass(frozen=True, kw_only=True)
class LabelExplanation:
    """Explanation of one label's score."""

    label: str
    """Its name."""
    probability: float
    """Probability of this label among all, for one view of the video."""
    prompt_attention: Tensor | None
    """(h, w), sums to 1: what its video-specific prompt reads (section 3.3). The prompt reads the mean over frames, so
    this is one map for all of them. None in a model without prompting."""
    sensitivity: Tensor
    """(T, h, w), sums to 1: how strongly the score changes with the pixels of each patch of each frame (gradient)."""
    frame_relevance: Tensor
    """(T,): loss of the score, in log-odds, when a frame is replaced by its neighbour; negative: a gain."""
    words: tuple[tuple[str, float], ...]
    """(word, loss of the score without it, in log-odds); empty for a single word and for discrete labels."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a model saw in a video, and explanations of its labels."""

    path: str
    """The video."""
    frames: Tensor
    """uint8 (T, 3, H, W): the sampled frames, cropped as the model sees them, at a viewable size."""
    message_attention: Tensor | None
    """(T, T), rows sum to 1: from which frames (columns) each frame (rows) takes its message (section 3.2). The same
    for all labels. None in a model without message tokens."""
    labels: tuple[LabelExplanation, ...]
    """The explained labels, best first unless they were asked for by name."""

    def numbers(self) -> dict[str, Any]:
        """Everything but the pixels, as plain values for JSON."""
        return {
            "path": self.path,
            "num_frames": len(self.frames),
            "message_attention": _rounded(self.message_attention),
            "labels": [
                {
                    "label": label.label,
                    "probability": label.probability,
                    "prompt_attention": _rounded(label.prompt_attention),
                    "sensitivity": _rounded(label.sensitivity),
                    "frame_relevance": _rounded(label.frame_relevance),
                    "words": [[word, round(relevance, 4)] for word, relevance in label.words],
                }
                for label in self.labels
            ],
        }


def _rounded(values: Tensor | None) -> Any:
    return None if values is None else torch.round(values.double(), decimals=5).tolist()


Explained = tuple[Tensor | None, tuple[LabelExplanation, ...]]
"""Message attention, and an explanation for each label."""


def explain_clip(
    engine: Engine,
    texts: LabelTexts,
    label_set: LabelSet,
    clip: Tensor,
    chosen: Sequence[int] | None,
    top_k: int,
) -> Explained:
    """Explain labels for one clip.

    Args:
        engine: the model.
        texts: the labels as text.
        label_set: the same labels, encoded.
        clip: uint8 (T, 3, S, S).
        chosen: ids of the labels to explain; None for the best.
        top_k: how many of the best.
    """
    return finished(explain_in_steps(engine, texts, label_set, clip, chosen, top_k))


def explain_in_steps(
    engine: Engine,
    texts: LabelTexts,
    label_set: LabelSet,
    clip: Tensor,
    chosen: Sequence[int] | None,
    top_k: int,
) -> Generator[int, None, Explained]:
    """`explain_clip` as a generator that lets others use the model between batches; yields the number of steps."""
    ids = best_labels(engine, label_set, clip, top_k) if chosen is None else chosen
    sentences = {k: _sentences_without_words(engine, texts, k) for k in ids}
    num_steps = 2 + -(-(len(clip) + 1) // engine.flow.batch_size)
    num_steps += sum(1 + -(-len(variants) // _variants_at_once(variants)) for variants in sentences.values())
    messages = message_attention(engine, clip)
    yield num_steps
    features = label_set.features.clone()  # made in inference mode, and gradients pass through here
    parts = []
    for chunk in without_each_frame(clip).split(engine.flow.batch_size):
        parts.append(_logits(engine, label_set, chunk))
        yield num_steps
    scores = torch.cat(parts)  # (T + 1, K)
    probabilities = mean_over_views(scores[:1])
    pixels, video, odds = _forward(engine, features, clip, ids)
    attention = _attention(engine, features, video, ids)
    yield num_steps
    labels = []
    for i, k in enumerate(ids):
        sensitivity = _sensitivity(engine, odds[i], pixels)
        yield num_steps
        words: list[tuple[str, float]] = []
        size = _variants_at_once(sentences[k])
        for start in range(0, len(sentences[k]), size):
            words += _words(engine, sentences[k][start : start + size], features, video, k)
            yield num_steps
        labels.append(
            LabelExplanation(
                label=label_set.labels[k],
                probability=float(probabilities[k]),
                prompt_attention=None if attention is None else attention[i],
                sensitivity=sensitivity,
                frame_relevance=log_odds(scores[0], k) - log_odds(scores[1:], k),
                words=tuple(words),
            )
        )
    return messages, tuple(labels)


def message_attention(engine: Engine, clip: Tensor) -> Tensor | None:
    """Which frames each frame of a clip uint8 (T, 3, S, S) reads -> (T, T); None without message tokens."""
    with torch.inference_mode():
        attention = engine.model.visual.message_attention(_pixels(engine, clip))
    return None if attention is None else attention[0].float().cpu()


def best_labels(engine: Engine, label_set: LabelSet, clip: Tensor, top_k: int) -> list[int]:
    """Ids of the best labels of a clip uint8 (T, 3, S, S), best first."""
    logits = engine.logits(clip[None], label_set)[0]
    return logits.argsort(descending=True, stable=True)[:top_k].tolist()


def ids_of(labels: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Indices of the wanted labels.

    Raises:
        InputError: one of them is not among the labels.
    """
    known = {label.casefold(): place for place, label in enumerate(labels)}
    for label in wanted:
        if label.strip().casefold() not in known:
            close = nearest(label, labels)
            hint = f"; the nearest is {close!r}" if close else ""
            raise InputError(
                f"{label!r} is not one of the labels{hint}. Explain a label that is in the list."
            )
    return [known[label.strip().casefold()] for label in wanted]


def log_odds(logits: Tensor, k: int) -> Tensor:
    """Logits (..., K) -> the log-odds (...) of label k; its logit if it is the only one."""
    others = torch.cat([logits[..., :k], logits[..., k + 1 :]], dim=-1)
    return logits[..., k] - others.logsumexp(dim=-1) if others.shape[-1] else logits[..., k]


def _pixels(engine: Engine, clip: Tensor) -> Tensor:
    """A clip uint8 (T, 3, S, S) as the model's own input (1, T, 3, S, S)."""
    parameter = engine.model.visual.patch_embedding.weight
    return engine.preprocess.normalise(clip.to(parameter.device), parameter.dtype)[None]


def without_each_frame(clip: Tensor) -> Tensor:
    """The clip (T, ...) and, for each of its frames, the clip with that frame replaced -> (T + 1, T, ...).

    A frame is replaced by the one before it, the first by the second. The only frame of a clip stays.
    """
    num_frames = len(clip)
    order = torch.arange(num_frames).repeat(num_frames + 1, 1)
    for t in range(num_frames):
        order[t + 1, t] = t - 1 if t else min(1, num_frames - 1)
    return clip[order]


def _logits(engine: Engine, label_set: LabelSet, clips: Tensor) -> Tensor:
    """Clips uint8 (B, T, 3, S, S) -> logits (B, K) for all labels, on the CPU in float32."""
    with torch.inference_mode():
        video = _as_model(engine, engine.encode(clips))
        return engine.model.logits(video, label_set.features).float().cpu()


def _as_model(engine: Engine, video: VideoFeatures) -> VideoFeatures:
    """Features in the model's dtype, from which a runtime's may differ."""
    dtype = engine.model.logit_scale.dtype
    return VideoFeatures(video.video.to(dtype), None if video.patches is None else video.patches.to(dtype))


def _forward(
    engine: Engine, features: Tensor, clip: Tensor, chosen: Sequence[int]
) -> tuple[Tensor, VideoFeatures, list[Tensor]]:
    """The model's input, the features and the log-odds of each chosen label, with gradients between them."""
    with torch.enable_grad():
        pixels = _pixels(engine, clip).requires_grad_()
        video = engine.model.encode_video(pixels)
        logits = engine.model.logits(video, features)[0]
        return pixels, video, [log_odds(logits, k) for k in chosen]


def _sensitivity(engine: Engine, odds: Tensor, pixels: Tensor) -> Tensor:
    """How strongly a score changes with the pixels (1, T, 3, S, S) of each patch -> (T, h, w), sums to 1."""
    patch, grid = engine.model.config.vision.patch_size_px, _grid(engine)
    (gradient,) = torch.autograd.grad(odds, pixels, retain_graph=True)
    change = gradient[0].float().abs().sum(dim=1)[:, : grid * patch, : grid * patch]  # (T, h P, w P)
    change = change.unflatten(2, (grid, patch)).unflatten(1, (grid, patch)).sum(dim=(2, 4))  # (T, h, w)
    return (change / change.sum().clamp(min=torch.finfo(change.dtype).tiny)).cpu()


def _attention(
    engine: Engine, features: Tensor, video: VideoFeatures, chosen: Sequence[int]
) -> Tensor | None:
    prompting = engine.model.prompting
    if prompting is None or video.patches is None:
        return None
    with torch.no_grad():
        own = torch.stack([features[k] for k in chosen])
        attention = prompting.attention(own, video.patches)[0]  # (M, N)
    return attention.unflatten(-1, (_grid(engine), _grid(engine))).float().cpu()


def _grid(engine: Engine) -> int:
    vision = engine.model.config.vision
    return vision.image_size_px // vision.patch_size_px


Variant = tuple[str, list[str]]
"""A word, and the sentences of its label without it."""


def _sentences_without_words(engine: Engine, texts: LabelTexts, k: int) -> list[Variant]:
    """The sentences of label k without each of its words in turn."""
    if engine.model.discrete is not None:
        return []
    own = texts_of(texts.labels, texts.descriptions)[k]
    return [
        (word, [fill(template, text) for text in rest for template in texts.templates])
        for word, rest in without_each_word(own)
    ]


def _variants_at_once(variants: Sequence[Variant]) -> int:
    """Groups of words with about `SENTENCES_AT_ONCE` sentences in total, at least one word each."""
    return max(1, SENTENCES_AT_ONCE // len(variants[0][1])) if variants else 1


def _words(
    engine: Engine, variants: Sequence[Variant], features: Tensor, video: VideoFeatures, k: int
) -> list[tuple[str, float]]:
    """Loss of label k's score without each of some words, with the other labels unchanged."""
    tokens = engine.tokenizer([sentence for _, sentences in variants for sentence in sentences])
    counts = [len(sentences) for _, sentences in variants]
    with torch.no_grad():
        changed_features = label_features(engine.model, tokens.to(features.device), counts)
        logits = engine.model.logits(video, torch.cat([features, changed_features]))[0].float().cpu()
    logits, changed = logits[: len(features)], logits[len(features) :]
    losses = [
        float(log_odds(logits, k) - log_odds(torch.cat([logits[:k], new[None], logits[k + 1 :]]), k))
        for new in changed
    ]
    return [(word, loss) for (word, _), loss in zip(variants, losses, strict=True)]


def without_each_word(texts: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each word of texts, and the texts without it. A text of one word is kept, since nothing would be left of it."""
    variants = []
    for i, text in enumerate(texts):
        words = text.split()
        for j, word in enumerate(words if len(words) > 1 else ()):
            rest = " ".join(words[:j] + words[j + 1 :])
            variants.append((word, [*texts[:i], rest, *texts[i + 1 :]]))
    return variants
