"""Discrete labels: a vector for each class where its text would be; everything else is the same."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import TINY, tiny_model, tiny_pixels, tiny_tokenizer, tiny_tokens

from openxclip.checkpoints.load import load
from openxclip.checkpoints.save import save_as
from openxclip.checkpoints.tokenizer import MissingTokenizer
from openxclip.errors import CheckpointError, ConfigError, InputError
from openxclip.inference.labels import encode_labels
from openxclip.inference.recognizer import Recognizer
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.training.optim import part_of
from openxclip.video.transforms import Preprocessor

DISCRETE = dataclasses.replace(TINY, prompting=None, num_discrete_labels=5)
LABELS = ("a", "b", "c", "d", "e")
PREPROCESS = Preprocessor.official(32)
NO_WORDS = MissingTokenizer("nothing")


def table(model: XCLIP) -> torch.Tensor:
    assert model.discrete is not None
    return model.discrete.table


def test_the_table_takes_the_place_of_the_text_features() -> None:
    """Same video, same vectors: a model with texts gives the same logits."""
    model = tiny_model(DISCRETE)
    video = model.encode_video(tiny_pixels())
    texts = tiny_model(dataclasses.replace(TINY, prompting=None))
    logits = model.logits(video, table(model))
    assert torch.equal(
        texts.logits(video, table(model)), texts.logit_scale.exp() / model.logit_scale.exp() * logits
    )
    cosine = F.normalize(video.video, dim=-1) @ F.normalize(table(model), dim=-1).T
    torch.testing.assert_close(logits, model.logit_scale.exp() * cosine)


def test_there_is_no_text_tower() -> None:
    model = tiny_model(DISCRETE)
    assert not any(name.startswith("text.") for name, _ in model.named_parameters())
    with pytest.raises(InputError, match="trained on 5 discrete labels"):
        model.encode_text(tiny_tokens())


def test_the_table_starts_small_and_learns_as_a_new_part() -> None:
    torch.manual_seed(0)
    model = XCLIP(DISCRETE)
    assert float(table(model).detach().std()) == pytest.approx(0.02, rel=4 / math.sqrt(2 * 5 * 128))
    assert part_of("discrete.table") == "new"
    F.cross_entropy(
        model.logits(model.encode_video(tiny_pixels()), table(model)), torch.tensor([0, 3])
    ).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_labels_are_counted_and_no_tokenizer_is_needed() -> None:
    model = tiny_model(DISCRETE)
    assert torch.equal(encode_labels(model, NO_WORDS, LABELS, ("{}",)), table(model))
    with pytest.raises(
        InputError, match="4 labels are given, but this model was trained on 5 discrete labels"
    ):
        encode_labels(model, NO_WORDS, LABELS[:4], ("{}",))


def test_a_recognizer_ranks_the_labels_of_the_training() -> None:
    model = tiny_model(DISCRETE)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, 4, 3, 32, 32), np.uint8))
    probabilities = Recognizer(model, NO_WORDS, PREPROCESS, LABELS).probabilities(pixels)
    with torch.no_grad():
        video = model.encode_video(PREPROCESS.normalise(pixels, torch.float32))
        expected = model.logits(video, table(model))[0].softmax(dim=0)
    torch.testing.assert_close(probabilities, expected)


def test_it_is_saved_and_loaded(tmp_path) -> None:
    model = tiny_model(DISCRETE)
    save_as(tmp_path / "model", model, NO_WORDS, PREPROCESS)
    loaded = load(tmp_path / "model", device="cpu", dtype="float32").model
    assert loaded.config == DISCRETE
    first, second = model.state_dict(), loaded.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_hugging_faces_format_cannot_hold_it(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="discrete labels"):
        save_as(tmp_path / "model", tiny_model(DISCRETE), tiny_tokenizer(), PREPROCESS, "huggingface")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_other_kind_is_explained(tmp_path) -> None:
    folder = tmp_path / "model"
    save_as(folder, tiny_model(DISCRETE), NO_WORDS, PREPROCESS)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace('"num_discrete_labels": 5', '"num_discrete_labels": null')
    )
    with pytest.raises(CheckpointError, match="trained with discrete labels"):
        load(folder)


def test_there_is_nothing_to_prompt() -> None:
    with pytest.raises(ConfigError, match="nothing to prompt"):
        XCLIPConfig(num_discrete_labels=5)
    with pytest.raises(ConfigError, match="nothing to prompt"):
        dataclasses.replace(DISCRETE, text=dataclasses.replace(TINY.text, num_context_vectors=2))
    with pytest.raises(ConfigError, match="num_discrete_labels must be 1"):
        dataclasses.replace(DISCRETE, num_discrete_labels=0)
