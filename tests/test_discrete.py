"""Discrete labels: a vector for each class where its text would be; everything else is the same."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import TINY, label_features_of, recognizer_of, tiny_model, tiny_pixels, tiny_tokenizer, tiny_tokens

from openxclip.checkpoints.load import load
from openxclip.checkpoints.save import save_as
from openxclip.errors import CheckpointError, ConfigError, InputError
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.models.parts import group_of
from openxclip.text.tokenizer import MissingTokenizer
from openxclip.training.config import ExpansionConfig, OptimConfig, TrainConfig
from openxclip.training.start import starting_point
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
    assert group_of("discrete.table") == "new"
    F.cross_entropy(
        model.logits(model.encode_video(tiny_pixels()), table(model)), torch.tensor([0, 3])
    ).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def named(model: XCLIP) -> XCLIP:
    """With the labels as the names of its rows."""
    assert model.discrete is not None
    model.discrete.labels = LABELS
    return model


@pytest.mark.parametrize("model", [tiny_model(DISCRETE), named(tiny_model(DISCRETE))])
def test_labels_are_counted_and_no_tokenizer_is_needed(model) -> None:
    assert torch.equal(label_features_of(model, NO_WORDS, LABELS, ("{}",)), table(model))
    with pytest.raises(InputError, match="4 labels are given, but this model was trained on 5"):
        label_features_of(model, NO_WORDS, LABELS[:4], ("{}",))
    with pytest.raises(InputError, match="no text tower; leave the descriptions out"):
        label_features_of(model, NO_WORDS, LABELS, ("{}",), descriptions=dict.fromkeys(LABELS, ("a",)))


@pytest.mark.parametrize(
    ("labels", "difference"),
    [
        (
            ("a", "b", "c", "d", "x"),
            r"label 4 \(counted from 0\) is 'x', but in this model's training it was 'e'",
        ),
        (
            ("a", "c", "b", "d", "e"),
            r"label 1 \(counted from 0\) is 'c', but in this model's training it was 'b'",
        ),
    ],
)
def test_other_classes_and_another_order_are_refused(labels, difference) -> None:
    with pytest.raises(InputError, match=difference):
        recognizer_of(named(tiny_model(DISCRETE)), NO_WORDS, PREPROCESS, labels)
    assert recognizer_of(tiny_model(DISCRETE), NO_WORDS, PREPROCESS, labels).labels == labels  # without names


def start_folder(folder, config: XCLIPConfig, labels: tuple[str, ...] | None = None) -> str:
    model = tiny_model(config)
    if model.discrete is not None:
        model.discrete.labels = labels
    save_as(folder, model, tiny_tokenizer(), PREPROCESS)
    return str(folder)


OPTIM = OptimConfig(epochs=1, learning_rate=1e-3, batch_size=2, warmup_epochs=0)
EXPANSION = ExpansionConfig(integration=TINY.integration, prompting=None, discrete_labels=True)


def run_from(init: str, expansion: ExpansionConfig | None = None) -> TrainConfig:
    return TrainConfig(recipe="test", init=init, num_frames=4, expansion=expansion, optim=OPTIM)


def test_a_training_names_them(tmp_path) -> None:
    images = start_folder(tmp_path / "images", TINY)
    fresh = TrainConfig(recipe="test", model=DISCRETE, num_frames=4, optim=OPTIM)
    for config in (run_from(images, EXPANSION), fresh):
        model = starting_point(config, LABELS).model
        assert model.discrete is not None
        assert model.discrete.labels == LABELS
    unnamed = start_folder(tmp_path / "unnamed", DISCRETE)
    goes_on = starting_point(run_from(unnamed), LABELS).model
    assert goes_on.discrete is not None
    assert goes_on.discrete.labels == LABELS
    assert torch.equal(table(goes_on), table(tiny_model(DISCRETE)))


def test_vectors_are_no_start_for_other_classes(tmp_path) -> None:
    """A table whose shape fits is kept for its own classes, drawn anew for others, and refused where it must stay."""
    init = start_folder(tmp_path / "model", DISCRETE, LABELS)
    others = ("v", "w", "x", "y", "z")
    same = starting_point(run_from(init, EXPANSION), LABELS).model
    new = starting_point(run_from(init, EXPANSION), others).model
    assert torch.equal(table(same), table(tiny_model(DISCRETE)))
    assert not torch.isclose(table(new), table(same)).any()
    assert new.discrete is not None
    assert new.discrete.labels == others
    first, second = same.visual.state_dict(), new.visual.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    start = starting_point(run_from(init), others)
    with pytest.raises(InputError, match=r"label 0 .* is 'v', but in this model's training it was 'a'"):
        label_features_of(start.model, NO_WORDS, others, ("{}",))


def test_a_recognizer_ranks_the_labels_of_the_training() -> None:
    model = tiny_model(DISCRETE)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, 4, 3, 32, 32), np.uint8))
    probabilities = recognizer_of(model, NO_WORDS, PREPROCESS, LABELS).probabilities(pixels)
    with torch.no_grad():
        video = model.encode_video(PREPROCESS.normalise(pixels, torch.float32))
        expected = model.logits(video, table(model))[0].softmax(dim=0)
    torch.testing.assert_close(probabilities, expected)


@pytest.mark.parametrize("labels", [("été", "a, b", "two\nlines", "'", "e"), None])
def test_it_is_saved_and_loaded(labels, tmp_path, caplog) -> None:
    model = tiny_model(DISCRETE)
    assert model.discrete is not None
    model.discrete.labels = labels
    save_as(tmp_path / "model", model, NO_WORDS, PREPROCESS)
    loaded = load(tmp_path / "model", device="cpu", dtype="float32").model
    assert loaded.config == DISCRETE
    assert loaded.discrete is not None
    assert loaded.discrete.labels == labels
    assert loaded.with_num_frames(8).discrete.labels == labels
    assert ("its discrete labels have no names" in caplog.text) == (labels is None)
    first, second = model.state_dict(), loaded.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("names", [["a", "b"], "abcde", [1, 2, 3, 4, 5], {}])
def test_damaged_names_are_explained(names, tmp_path) -> None:
    folder = tmp_path / "model"
    save_as(folder, named(tiny_model(DISCRETE)), NO_WORDS, PREPROCESS)
    values = json.loads((folder / "config.json").read_text())
    assert values["discrete_labels"] == list(LABELS)
    (folder / "config.json").write_text(json.dumps(values | {"discrete_labels": names}))
    with pytest.raises(CheckpointError, match=r"discrete_labels must be num_discrete_labels = 5 names, got"):
        load(folder)


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
    with pytest.raises(ConfigError, match="cannot be prompted"):
        XCLIPConfig(num_discrete_labels=5)
    with pytest.raises(ConfigError, match="cannot be prompted"):
        dataclasses.replace(DISCRETE, text=dataclasses.replace(TINY.text, num_context_vectors=2))
    with pytest.raises(ConfigError, match="num_discrete_labels must be 1"):
        dataclasses.replace(DISCRETE, num_discrete_labels=0)
