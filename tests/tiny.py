"""Tiny models and inputs for tests: every part present, no width equal to another, nothing left at a trivial value."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from openxclip.checkpoints.load import Loaded
from openxclip.inference.engine import Engine
from openxclip.inference.label_set import encode_label_set
from openxclip.inference.options import InferenceOptions
from openxclip.inference.recognizer import Recognizer
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.models.config import IntegrationConfig, PromptingConfig, TextConfig, VisionConfig
from openxclip.runtimes.options import RuntimeOptions
from openxclip.text.label_texts import LabelTexts
from openxclip.text.tokenizer import Tokenizer, train_small_tokenizer
from openxclip.video.source import VideoLimits
from openxclip.video.transforms import Preprocessor

TINY = XCLIPConfig(
    embed_dim=128,
    num_frames=4,
    vision=VisionConfig(image_size_px=32, patch_size_px=16, width=192, num_layers=2, num_heads=3),
    text=TextConfig(vocab_size=600, context_length=16, width=64, num_layers=2, num_heads=1),
    integration=IntegrationConfig(num_layers=1, num_heads=2),
    prompting=PromptingConfig(num_layers=2, num_heads=2),
)
"""Heads are width / 64, as in every published model, so that a file without a configuration can be read too."""


def tiny_model(config: XCLIPConfig = TINY, seed: int = 0) -> XCLIP:
    """In eval mode. Noise on every parameter: a swapped norm or bias shows only where it is not 1 or 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = XCLIP(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model.eval()


def tiny_pixels(config: XCLIPConfig = TINY, num_videos: int = 2, seed: int = 0) -> Tensor:
    """Random normalised pixels (B, T, 3, S, S)."""
    size = config.vision.image_size_px
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_videos, config.num_frames, 3, size, size, generator=generator)


def tiny_tokens(config: XCLIPConfig = TINY, num_texts: int = 5, seed: int = 0) -> Tensor:
    """Random texts of different lengths (K, C), each ended by the highest id and padded with zeros."""
    vocab, context = config.text.vocab_size, config.text.context_length
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, vocab - 2, (num_texts, context), generator=generator)
    for row, text in enumerate(tokens):
        end = 2 + row % (context - 2)
        text[end] = vocab - 1
        text[end + 1 :] = 0
    return tokens


def tiny_tokenizer(config: XCLIPConfig = TINY) -> Tokenizer:
    """A tokenizer with exactly the model's number of ids."""
    sounds = ("ba", "de", "ki", "lo", "mu", "ne", "pi", "ro", "su", "ta", "ve", "zo")
    texts = [first + second for first in sounds for second in sounds]
    return train_small_tokenizer(texts, config.text.vocab_size, config.text.context_length)


def recognizer_of(
    model: XCLIP,
    tokenizer: Tokenizer,
    preprocess: Preprocessor,
    labels: Sequence[str],
    templates: Sequence[str] = ("{}",),
    *,
    descriptions: Mapping[str, Any] | None = None,
    options: InferenceOptions | None = None,
    limits: VideoLimits | None = None,
) -> Recognizer:
    """A recognizer around a model in memory."""
    texts = LabelTexts(labels=labels, templates=templates, descriptions=descriptions)
    return Recognizer(Engine(Loaded(model, tokenizer, preprocess), options), texts, limits)


def label_features_of(
    model: XCLIP,
    tokenizer: Tokenizer,
    labels: Sequence[str],
    templates: Sequence[str] = ("{}",),
    descriptions: Mapping[str, Any] | None = None,
) -> Tensor:
    """Text features (K, E) of labels."""
    texts = LabelTexts(labels=labels, templates=templates, descriptions=descriptions)
    return encode_label_set(model, tokenizer, texts).features


def runtime_options(**settings: bool) -> InferenceOptions:
    """Inference with settings of the runtime alone."""
    return InferenceOptions(runtime=RuntimeOptions(**settings))
