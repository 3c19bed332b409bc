"""Configs to and from plain values, and overrides."""

import dataclasses
import json

import pytest

from openxclip.configuration import from_dict, with_overrides
from openxclip.errors import ConfigError
from openxclip.recipes import RECIPES, recipe
from openxclip.training.config import OptimConfig, TrainConfig


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_survives_json(name):
    config = recipe(name)
    assert config.recipe == name
    assert from_dict(TrainConfig, json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_overrides_replace_only_what_they_name():
    config = recipe("supervised")
    changed = with_overrides(
        config,
        [
            "optim.epochs=7",
            "optim.learning_rate=1",
            "data.train_list=a.txt",
            "optim.betas=[0.5, 0.6]",
            "data.val_list=null",
        ],
    )
    assert changed.optim == dataclasses.replace(config.optim, epochs=7, learning_rate=1.0, betas=(0.5, 0.6))
    assert changed.data == dataclasses.replace(config.data, train_list="a.txt", val_list=None)
    assert with_overrides(config, []) == config


def test_a_part_switched_off_comes_back_with_its_defaults():
    config = recipe("ucf8_fewshot")
    without = with_overrides(config, ["model.integration=null"])
    assert without.model.integration is None
    again = with_overrides(without, ["model.integration.num_heads=4"])
    assert (again.model.integration.num_layers, again.model.integration.num_heads) == (1, 4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.epochs", "setting=value"),
        ("optim.epoch=3", "unknown setting optim.epoch"),
        ("optimizer.epochs=3", "unknown setting optimizer"),
        ("optim.epochs.x=3", "optim.epochs is a plain value"),
        ("optim.epochs=many", "optim.epochs must be int"),
        ("optim.epochs=2.5", "optim.epochs must be int"),
        ("optim.epochs=true", "optim.epochs must be int"),
        ("gradient_checkpointing=1", "gradient_checkpointing must be bool"),
        ("precision=float16", "'float32' or 'bfloat16'"),
        ("optim.betas=[0.9]", "takes 2 values"),
        ("optim.epochs=0", "at least 1"),
        ("optim.accumulation_steps=7", "multiple of"),
        ("optim=3", "optim must be an object"),
        ("num_frames=null", "num_frames must be int"),
        ("optim.batch_size=0", "optim.batch_size must be at least 1"),
        ("optim.learning_rate=NaN", "a number of 0 or more"),
        ("optim.weight_decay=-1", "a number of 0 or more"),
        ("optim.betas=[2, 2]", "betas must be in"),
        ("optim.final_factor=2", "final_factor must be in"),
        ("optim.clip_grad_norm=-1", "above 0, or null"),
        ("optim.factors.visual=-1", "factors.visual must be 0"),
        ("data.samples_per_epoch=0", "at least 1, or null"),
        ("data.num_workers=-1", "0 or more"),
        ("mix.label_smoothing=2", "must be in 0..1"),
        ("mix.mixup_alpha=-1", "must be 0 or more"),
        ("seed=-1", "seed must be 0 to"),
        ("num_frames=0", "num_frames must be at least 1"),
        ("data.cached_frames=8", "needs data.num_workers=0"),
        ("optim.warmup_epochs=31", "in 0..30"),
    ],
)
def test_wrong_overrides_say_what_is_allowed(override, message):
    with pytest.raises(ConfigError, match=message):
        with_overrides(recipe("supervised"), [override])


def test_missing_required_setting():
    with pytest.raises(ConfigError, match=r"optim\.epochs is missing"):
        from_dict(TrainConfig, {"recipe": "x", "init": "y", "optim": {"learning_rate": 1.0}})


def test_exactly_one_of_init_and_model():
    optim = OptimConfig(epochs=5, learning_rate=1.0)
    with pytest.raises(ConfigError, match="exactly one of init"):
        TrainConfig(recipe="x", optim=optim)
    with pytest.raises(ConfigError, match="exactly one of init"):
        TrainConfig(recipe="x", optim=optim, init="a", model=recipe("ucf8_fewshot").model)


def test_unknown_recipe_lists_the_known():
    with pytest.raises(ValueError, match="ucf8_fewshot"):
        recipe("nonsense")


def test_a_model_from_scratch_takes_no_tokenizer():
    with pytest.raises(ConfigError, match="tokenizer is for an init"):
        with_overrides(recipe("ucf8_fewshot"), ["tokenizer=words.json"])
