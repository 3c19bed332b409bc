"""Language-image pretraining: the loss, what is shown, and runs that repeat, resume and learn."""

import json
import math
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import openxclip
from openxclip.errors import ConfigError, InputError, TrainingError
from openxclip.models.config import IntegrationConfig, PromptingConfig, TextConfig, VisionConfig, XCLIPConfig
from openxclip.recipes import PRETRAIN_RECIPES, pretrain_recipe
from openxclip.shapes.splits import WORLDS
from openxclip.shapes.words import ALL_CLASSES, ShapesClass
from openxclip.training import contrastive, loop
from openxclip.training.contrastive import (
    CaptionBatches,
    Contrast,
    PretrainConfig,
    contrastive_loss,
    pretrain,
)
from openxclip.training.optim import build_optimizer
from openxclip.training.options import RunOptions

CONFIG = PretrainConfig(
    recipe="test",
    model=XCLIPConfig(
        embed_dim=32,
        num_frames=1,
        vision=VisionConfig(
            image_size_px=16, patch_size_px=8, width=64, num_layers=1, num_heads=2, message_tokens=False
        ),
        text=TextConfig(vocab_size=700, context_length=32, width=32, num_layers=1, num_heads=1),
        integration=None,
        prompting=None,
    ),
    num_steps=6,
    batch_size=8,
    learning_rate=1e-3,
    warmup_steps=2,
    save_every=2,
    seed=5,
)


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "last" / "model.safetensors")


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("pretrain") / "run"
    pretrain(CONFIG, run, "cpu")
    return run


# The loss


def naive_loss(images: list[list[float]], texts: list[list[float]], scale: float) -> float:
    """-log softmax of each pair's own cosine, once among all texts and once among all images."""

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.dist(a, [0] * 5) / math.dist(b, [0] * 5)

    total = 0.0
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        among_texts = [scale * cosine(image, other) for other in texts]
        among_images = [scale * cosine(other, text) for other in images]
        for logits in (among_texts, among_images):
            total -= logits[i] - math.log(sum(map(math.exp, logits)))
    return total / (2 * len(images))


def test_the_loss_is_a_naive_loop():
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64)
    loss = contrastive_loss(images, texts, torch.tensor(7.0, dtype=torch.float64).log())
    assert loss.item() == pytest.approx(naive_loss(images.tolist(), texts.tolist(), 7.0), rel=1e-12)
    assert contrastive_loss(texts, images, torch.tensor(1.0)).item() == pytest.approx(
        contrastive_loss(images, texts, torch.tensor(1.0)).item()
    )


@pytest.mark.parametrize("size", [1, 4, 64])
def test_the_loss_of_equal_pairs_is_the_logarithm_of_their_number(size):
    alike = torch.ones(size, 3)
    assert contrastive_loss(alike, alike, torch.tensor(2.0)).item() == pytest.approx(math.log(size), abs=1e-6)


def test_the_loss_of_pairs_that_have_found_each_other_is_nothing():
    pairs = torch.eye(6)
    assert contrastive_loss(pairs, 3 * pairs, torch.tensor(math.log(100.0))).item() < 1e-6
    assert contrastive_loss(pairs, pairs.roll(1, 0), torch.tensor(math.log(100.0))).item() > 90


# What is shown


@pytest.mark.parametrize("world", WORLDS)
def test_no_caption_and_no_image_shows_a_class_that_is_not_trained(finished, monkeypatch, world):
    shown: list[ShapesClass] = []
    original = contrastive.captioned_image

    def watched(kind, side_px, rng):
        shown.append(kind)
        return original(kind, side_px, rng)

    monkeypatch.setattr(contrastive, "captioned_image", watched)
    batches = CaptionBatches(replace(CONFIG, world=world, batch_size=200), openxclip.load(finished)[1])
    for step in range(8):
        batches[step]
    base = set(WORLDS[world].base)
    assert set(shown) <= base
    assert len(set(shown)) > 0.9 * len(base)


def test_a_batch_follows_from_seed_and_step_alone(finished):
    tokenizer = openxclip.load(finished)[1]
    first, again = (CaptionBatches(CONFIG, tokenizer)[3] for _ in range(2))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.tokens, again.tokens)
    assert (first.pixels.shape, first.pixels.dtype) == ((8, 3, 16, 16), torch.uint8)
    assert first.tokens.shape == (2, 8, 32)
    assert not torch.equal(*first.tokens), "two captions of each image"
    for other in (
        CaptionBatches(CONFIG, tokenizer)[4],
        CaptionBatches(replace(CONFIG, seed=6), tokenizer)[3],
    ):
        assert not torch.equal(first.pixels, other.pixels)
        assert not torch.equal(first.tokens, other.tokens)


# Runs


def test_a_run_leaves_an_image_model_and_a_log(finished):
    model, tokenizer, preprocess = openxclip.load(finished)
    assert (model.config.num_frames, model.config.integration, model.config.prompting) == (1, None, None)
    assert model.config.text.vocab_size == tokenizer.vocab_size <= 700
    assert preprocess.input_size_px == 16
    assert [row["step"] for row in rows(finished)] == [1, 2, 3, 4, 5, 6]
    rates = [row["learning_rate"] for row in rows(finished)]
    assert rates.index(max(rates)) in (1, 2)
    assert max(rates) <= 1e-3
    assert all(row["seconds"] > 0 for row in rows(finished))
    assert json.loads((finished / "config.json").read_text())["config"]["recipe"] == "test"


@torch.no_grad()
def test_it_begins_as_one_who_knows_nothing():
    """At temperature 1 a fresh model guesses: ln B. (CLIP's own start of 14 makes much of chance likenesses.)"""
    model, tokenizer, preprocess = contrastive.begin(CONFIG)
    pixels, tokens = CaptionBatches(replace(CONFIG, batch_size=64), tokenizer)[0]
    images = model.encode_video(preprocess.normalise(pixels)[:, None]).video
    loss = contrastive_loss(images, model.encode_text(tokens[0]), torch.tensor(0.0))
    assert loss.item() == pytest.approx(math.log(64), abs=0.1)


def first_loss(config: PretrainConfig) -> tuple[float, dict[str, float]]:
    """Of the first step, and what it is made of, measured before that step."""
    start = contrastive.begin(config)
    batch = CaptionBatches(config, start.tokenizer)[0]
    with torch.no_grad():
        images = start.model.encode_video(start.preprocess.normalise(batch.pixels)[:, None]).video
        first, second = map(start.model.encode_text, batch.tokens)
        scale = start.model.logit_scale
        parts = {
            "images": contrastive_loss(images, first, scale).item(),
            "texts": contrastive_loss(first, second, scale).item(),
        }
    return Contrast(start, config.text_weight).backward(batch, 0), parts


@pytest.mark.parametrize("text_weight", [0.0, 0.5, 2.0])
def test_the_two_captions_attract_each_other_by_the_weight_given(text_weight):
    """0 is CLIP's own loss."""
    loss, parts = first_loss(replace(CONFIG, text_weight=text_weight))
    assert loss == pytest.approx(parts["images"] + text_weight * parts["texts"], rel=1e-5)
    assert parts["texts"] > 0.1


def test_the_temperature_learns_faster_than_all_else():
    model = contrastive.begin(CONFIG).model
    groups = build_optimizer(model, CONFIG.optim).param_groups
    rates = {id(p): group["peak_lr"] for group in groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters())), "each parameter is in one group"
    fast = {name for name, p in model.named_parameters() if rates[id(p)] != CONFIG.learning_rate}
    assert fast == {"logit_scale"}
    assert rates[id(model.logit_scale)] == pytest.approx(10 * CONFIG.learning_rate)


def test_a_stopped_run_saves_first_and_ends_in_the_same_weights(finished, tmp_path):
    stop = threading.Event()
    stop.set()
    assert pretrain(CONFIG, tmp_path / "run", "cpu", RunOptions(stop=stop)).step == 1
    assert json.loads((tmp_path / "run" / "last" / "training_state.json").read_text())["step"] == 1
    assert pretrain(CONFIG, tmp_path / "run", "cpu").step == 6
    assert same(weights(finished), weights(tmp_path / "run"))


@pytest.mark.parametrize("interrupted_at", [1, 3, 4])
def test_an_interrupted_run_ends_in_the_same_weights(finished, tmp_path, monkeypatch, interrupted_at):
    whole_step = loop.TrainingLoop.step

    def step(self, batch, number, backward):
        if number == interrupted_at - 1:
            raise KeyboardInterrupt
        return whole_step(self, batch, number, backward)

    monkeypatch.setattr(loop.TrainingLoop, "step", step)
    with pytest.raises(KeyboardInterrupt):
        pretrain(CONFIG, tmp_path / "run", "cpu")
    monkeypatch.undo()
    assert pretrain(CONFIG, tmp_path / "run", "cpu").step == 6
    assert same(weights(finished), weights(tmp_path / "run"))
    assert same(
        load_file(finished / "last" / "optimizer.safetensors"),
        load_file(tmp_path / "run" / "last" / "optimizer.safetensors"),
    )
    keys = ("step", "loss", "learning_rate")
    found, expected = (
        [[row[key] for key in keys] for row in rows(run)] for run in (tmp_path / "run", finished)
    )
    assert found == expected


def test_worker_processes_change_nothing(finished, tmp_path):
    pretrain(replace(CONFIG, num_workers=1), tmp_path / "run", "cpu")
    assert same(weights(finished), weights(tmp_path / "run"))


def test_a_finished_run_stays_as_it_is(finished):
    before = {path: path.stat().st_mtime_ns for path in (finished / "last").iterdir()}
    assert pretrain(CONFIG, finished, "cpu").step == 6
    assert {path: path.stat().st_mtime_ns for path in (finished / "last").iterdir()} == before


def test_another_seed_gives_other_weights(finished, tmp_path):
    pretrain(replace(CONFIG, seed=6), tmp_path / "run", "cpu")
    assert not same(weights(finished), weights(tmp_path / "run"))


def test_other_settings_do_not_go_on_with_a_run(finished):
    with pytest.raises(InputError, match=r"config\.learning_rate: was 0\.001, now 0\.1"):
        pretrain(replace(CONFIG, learning_rate=0.1), finished, "cpu")


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """A setting that it did not have counts as its default; one that is gone makes it another run."""
    pretrain(CONFIG, tmp_path / "run", "cpu")
    path = tmp_path / "run" / "config.json"
    whole = path.read_text()
    values = json.loads(whole)
    del values["config"]["model"]["vision"]["rotary"]
    del values["config"]["model"]["logit_bias"]
    del values["config"]["text_weight"]
    path.write_text(json.dumps(values))
    assert pretrain(CONFIG, tmp_path / "run", "cpu").step == 6
    assert path.read_text() == whole
    values["config"]["gone"] = 1
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"config\.gone: was 1, now None"):
        pretrain(CONFIG, tmp_path / "run", "cpu")


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    with pytest.raises(
        TrainingError, match=r"the loss is nan and its gradient .*; the last checkpoint is kept"
    ):
        pretrain(replace(CONFIG, learning_rate=1e30, save_every=1), tmp_path / "run", "cpu")
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())


def test_it_learns(tmp_path):
    """In a few dozen steps the pairs of a batch are told apart better than by chance."""
    config = replace(CONFIG, num_steps=60, batch_size=32, learning_rate=3e-3, warmup_steps=5)
    pretrain(config, tmp_path / "run", "cpu")
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]


# Configurations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"save_every": 0}, "save_every must be at least 1, got 0"),
        ({"warmup_steps": 7}, r"warmup_steps must be in 0\.\.6 \(num_steps\), got 7"),
        ({"warmup_steps": -1}, r"warmup_steps must be in 0\.\.6 \(num_steps\), got -1"),
        ({"seed": -1}, "seed must be 0 to 9223372036854775807, got -1"),
        ({"seed": 2**63}, "seed must be 0 to 9223372036854775807, got 9223372036854775808"),
        ({"model": replace(CONFIG.model, num_frames=2)}, "model must be an image model"),
        (
            {"model": replace(CONFIG.model, integration=IntegrationConfig(num_heads=1))},
            "must be an image model",
        ),
        ({"model": replace(CONFIG.model, prompting=PromptingConfig(num_heads=1))}, "must be an image model"),
        (
            {"model": replace(CONFIG.model, vision=replace(CONFIG.model.vision, message_tokens=True))},
            "must be an image model",
        ),
        (
            {"model": replace(CONFIG.model, num_discrete_labels=3)},
            "must be an image model, .* got num_frames 1 and num_discrete_labels",
        ),
        (
            {"model": replace(CONFIG.model, text=replace(CONFIG.model.text, num_context_vectors=4))},
            "must be an image model, .* got num_frames 1 and text.num_context_vectors",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **changes)


@pytest.mark.parametrize("name", PRETRAIN_RECIPES)
def test_recipes_have_their_name_and_room_for_every_class_name(name):
    config = pretrain_recipe(name)
    assert config.recipe == name
    tokenizer = contrastive.begin(config).tokenizer
    names = [text for kind in ALL_CLASSES for text in (kind.name, kind.paraphrase)]
    longest = max(len(tokenizer._encode(text)) for text in names)
    assert longest <= config.model.text.context_length - 2
    tokens = tokenizer(names)
    assert len({tuple(row) for row in tokens.tolist()}) == len(names)


def test_the_small_recipe_knows_few_words():
    assert {name: pretrain_recipe(name).world for name in PRETRAIN_RECIPES} == {
        "shapes_clip": "full",
        "shapes_clip_small": "small",
        "shapes_clip_large": "full",
    }


def test_a_recipe_that_is_none():
    with pytest.raises(
        InputError, match="no pretraining recipe 'shapes'; choose one of shapes_clip, shapes_clip_small"
    ):
        pretrain_recipe("shapes")
