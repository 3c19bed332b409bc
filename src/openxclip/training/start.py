"""The start of a run: weights to fine-tune, or a new model with its own tokenizer."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import TypeVar

import torch

from openxclip.checkpoints.load import Loaded, log_report, read_model
from openxclip.checkpoints.source import ModelSource
from openxclip.errors import InputError
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.models.config import IntegrationConfig, PromptingConfig
from openxclip.models.expand import expand
from openxclip.models.initialisation import draw_as_released, enlarge_new_parts
from openxclip.text.labels import SPOKEN_LABEL_SETS, built_in_labels
from openxclip.text.tokenizer import train_small_tokenizer
from openxclip.training.config import ExpansionConfig, TrainConfig
from openxclip.video.transforms import Preprocessor

Part = TypeVar("Part", IntegrationConfig, PromptingConfig)


def starting_point(config: TrainConfig, labels: Sequence[str]) -> Loaded:
    """Model (float32, on the CPU), tokenizer and preprocessing for a config.

    Args:
        config: has `init` or `model`.
        labels: class names; a new tokenizer is also trained on them, and discrete labels without names get these.
    """
    start = _start(config, labels)
    discrete = start.model.discrete
    if discrete is not None and discrete.labels is None:
        discrete.labels = tuple(labels)
    return start


def _start(config: TrainConfig, labels: Sequence[str]) -> Loaded:
    if config.model is not None:
        return _from_scratch(config.model, labels, config.seed)
    if config.init is None:
        raise InputError("a TrainConfig without a model needs init, a source of weights")
    loaded, report = read_model(
        ModelSource(
            source=config.init,
            device="cpu",
            dtype="float32",
            num_frames=config.num_frames,
            tokenizer=config.tokenizer,
        )
    )
    log_report(dataclasses.replace(report, is_image_model=report.is_image_model and config.expansion is None))
    if config.preprocessing == "official":
        loaded = loaded._replace(preprocess=Preprocessor.official(loaded.preprocess.input_size_px))
    if config.expansion is None:
        return loaded
    model = loaded.model
    if model.discrete is not None and model.discrete.labels != tuple(labels):
        model.discrete = None  # vectors of other classes: the run initialises its own
    expanded = _expanded(model.config, config.expansion, len(labels))
    model, _ = expand(model, expanded, config.seed, _redraw(config.expansion))
    return loaded._replace(model=model)


def _redraw(expansion: ExpansionConfig) -> Callable[[XCLIP], None] | None:
    """A function that changes the initial values of new parts, or None."""
    if expansion.initialisation == "as_released":
        return draw_as_released
    if expansion.new_parts_gain is not None:
        return partial(enlarge_new_parts, gain=expansion.new_parts_gain)
    return None


def _expanded(config: XCLIPConfig, expansion: ExpansionConfig, num_labels: int) -> XCLIPConfig:
    """The towers of `config` with the parts of the expansion."""
    return dataclasses.replace(
        config,
        vision=dataclasses.replace(
            config.vision, message_tokens=expansion.message_tokens, drop_path=expansion.drop_path
        ),
        text=dataclasses.replace(config.text, num_context_vectors=expansion.num_context_vectors),
        integration=_heads_kept(expansion.integration, config.integration),
        prompting=_heads_kept(expansion.prompting, config.prompting),
        frame_mean=expansion.frame_mean,
        num_discrete_labels=num_labels if expansion.discrete_labels else None,
    )


def _heads_kept(wanted: Part | None, have: Part | None) -> Part | None:
    """Keep an existing part's number of heads if the expansion does not set it."""
    if wanted is None or have is None or wanted.num_heads is not None:
        return wanted
    return dataclasses.replace(wanted, num_heads=have.num_heads)


def _from_scratch(config: XCLIPConfig, labels: Sequence[str], seed: int) -> Loaded:
    """A small vocabulary from built-in class names and the user's, which can encode any other text."""
    texts = chain(labels, *(built_in_labels(name) for name in SPOKEN_LABEL_SETS))
    return fresh(config, texts, Preprocessor.official(config.vision.image_size_px), seed)


def fresh(config: XCLIPConfig, texts: Iterable[str], preprocess: Preprocessor, seed: int) -> Loaded:
    """A new model, on the CPU, and a tokenizer trained on `texts`."""
    tokenizer = train_small_tokenizer(texts, config.text.vocab_size, config.text.context_length)
    text = dataclasses.replace(config.text, vocab_size=tokenizer.vocab_size)
    torch.manual_seed(seed)
    model = XCLIP(dataclasses.replace(config, text=text))
    return Loaded(model, tokenizer, preprocess)
