"""The published recipes: their settings, and the page that gives their commands and numbers."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from string import Template

import pytest
from paths import DATA, needs_data

from openxclip.checkpoints.hub import is_hub_id
from openxclip.cli.main import run
from openxclip.data.manifest import read_manifest
from openxclip.errors import InputError
from openxclip.recipes import IMAGE_MODELS, PRETRAIN_RECIPES, RECIPES, check_start, recipe
from openxclip.recipes.fine_tuning import FINE_TUNING, froster, open_vclip, vifi_clip
from openxclip.recipes.published import KINETICS, MODELS, REGIMES, few_shot, supervised, zero_shot
from openxclip.text.labels import built_in_labels
from openxclip.training.config import DistillationConfig, InterpolatedConfig, MixConfig, OptimConfig

PAGE = (Path(__file__).parents[1] / "docs" / "published.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.split("\n") if line.startswith("| K")]
COMMANDS = re.findall(r"`openxclip (.+?)`|^openxclip (.+)$", PAGE, re.MULTILINE)
SETTINGS = {  # weights, frames, clips that one GPU held and mixed
    "b32_8": ("ViT-B-32.pt", 8, 8),
    "b32_16": ("ViT-B-32.pt", 16, 8),
    "b16_8": ("ViT-B-16.pt", 8, 8),
    "b16_16": ("ViT-B-16.pt", 16, 4),
    "b16_32": ("ViT-B-16.pt", 32, 4),
    "l14_8": ("ViT-L-14.pt", 8, 4),
    "l14_336_16": ("ViT-L-14-336px.pt", 16, 1),
}


@pytest.mark.parametrize("name", KINETICS)
def test_kinetics_recipes_differ_in_weights_frames_and_mixing_alone(name: str) -> None:
    init, num_frames, micro_batch = SETTINGS[name.removeprefix("k400_").removeprefix("k600_")]
    base = supervised()
    mix = replace(base.mix, micro_batch=micro_batch)
    assert recipe(name) == replace(base, recipe=name, init=init, num_frames=num_frames, mix=mix)


def test_all_seven_models_are_there() -> None:
    assert {f"{data}_{model}" for data in ("k400", "k600") for model in SETTINGS} <= set(RECIPES)


def test_settings_of_the_three_regimes() -> None:
    """As published: epochs, learning rate, batch size; all else is the same."""
    published = {supervised: (30, 8e-6, 256), few_shot: (50, 2e-6, 64), zero_shot: (10, 8e-6, 256)}
    for regime, (epochs, learning_rate, batch_size) in published.items():
        optim = OptimConfig(
            epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, schedule="as_released"
        )
        assert regime().optim == optim
        assert (optim.warmup_epochs, optim.weight_decay, optim.betas) == (5, 0.001, (0.9, 0.98))
        assert (optim.epsilon, optim.final_factor) == (1e-8, 0.01)
        assert (optim.factors.new, optim.factors.text, optim.factors.logit_scale) == (10, 0, 0)
        assert regime().mix == MixConfig(
            label_smoothing=0.1,
            mixup_alpha=0.8,
            cutmix_alpha=1.0,
            switch_probability=0.5,
            partners="random",
            micro_batch=8 if regime is supervised else 4,
        )
        assert regime().data.jitter_frames
        assert regime().expansion.initialisation == "as_released"
        assert regime().seed == 1024
    assert (few_shot().init, few_shot().num_frames) == ("ViT-B-16.pt", 32)
    assert (zero_shot().init, zero_shot().num_frames) == ("ViT-B-16.pt", 32)


def test_settings_of_the_later_fine_tunings() -> None:
    """As in the authors' code."""
    for function in FINE_TUNING:
        config = function()
        assert (config.recipe, config.init) == (function.__name__, "ViT-B-16.pt")
        parts = config.expansion
        assert (parts.message_tokens, parts.integration, parts.prompting) == (False, None, None)
        factors = config.optim.factors
        assert (factors.visual, factors.logit_scale) == (1, 1)
        assert factors.text == (0 if function is open_vclip else 1)
        assert factors.token_embedding == (0 if function is vifi_clip else None)
    vifi = vifi_clip()
    optim = replace(vifi.optim, factors=zero_shot().optim.factors, decay_everything=False)
    assert optim == zero_shot().optim
    assert vifi.optim.decay_everything
    assert (vifi.num_frames, vifi.averaging, vifi.templates) == (32, None, ("a photo of a {}.",))
    assert (vifi.mix, vifi.data) == (zero_shot().mix, zero_shot().data)
    assert (open_vclip().expansion.frame_mean, froster().expansion.frame_mean) == ("logits", "features")
    assert (open_vclip().template_draw, froster().template_draw) == ("all", "one")
    assert open_vclip().interpolated == InterpolatedConfig(max_share=0.6, weight=0.5)
    assert froster().distillation == DistillationConfig(weight=2.0, residual_share=0.1)
    for config in (open_vclip(), froster()):
        optim = config.optim
        assert (optim.epochs, optim.learning_rate, optim.batch_size) == (22, 3.33e-6, 64)
        assert (optim.warmup_epochs, optim.weight_decay, optim.clip_grad_norm) == (2, 0.01, 1)
        assert (optim.schedule, optim.final_factor) == ("after_warmup", 0.01)
        assert len(config.templates) == 28
        assert (config.data.crop, min(config.data.crop_scales), config.data.dense_stride) == (
            "uniform",
            224 / 256,
            16,
        )
        assert [epoch for epoch in range(1, 23) if epoch / 22 > config.averaging.start] == [*range(2, 23)]


def test_the_page_has_every_published_recipe_and_no_other() -> None:
    published = {f.__name__: f for f in (*REGIMES, *FINE_TUNING)} | KINETICS
    assert set(re.findall(r"--recipe (\w+)", PAGE)) == set(published)
    assert all(RECIPES[name] is recipe for name, recipe in published.items())


def test_the_page_gives_the_published_numbers() -> None:
    rows = {re.findall(r"--recipe (\w+)", row)[0]: row for row in ROWS if "--recipe" in row}
    assert set(rows) == set(KINETICS)
    for model in MODELS:
        for data in ("k400", "k600"):
            row = rows[f"{data}_{model.name}"]
            *_, number = (cell.strip() for cell in row.strip("|").split("|"))
            top1 = getattr(model, data)
            assert number.removesuffix(" %") == ("none published" if top1 is None else str(top1))
            assert f"--model runs/{data}_{model.name}/last " in row
    for function, numbers in (
        (few_shot, ("53.0, 57.3, 62.8, 64.0", "76.4, 83.4, 88.3, 91.4")),
        (zero_shot, ("44.6 ± 5.2", "72.0 ± 2.3", "65.2 ± 0.4")),
        (vifi_clip, ("76.8 ± 0.7", "51.3 ± 0.6", "71.2 ± 1.0")),
        (open_vclip, ("83.4 ± 1.2", "53.9 ± 1.2", "73.0 ± 0.8")),
        (froster, ("84.8 ± 1.1", "54.8 ± 1.3", "74.8 ± 0.9")),
    ):
        for text in numbers:
            assert text in str(function.__doc__)
            assert text in PAGE


def test_the_commands_of_the_page_are_understood(tmp_path, monkeypatch, capsys) -> None:
    """Each of them gets as far as looking for the data set, which is not there."""
    monkeypatch.chdir(tmp_path)
    variables = dict(re.findall(r'^(\w+)="(.*)"$', PAGE, re.MULTILINE))
    assert len(COMMANDS) == 2 * len(KINETICS) + 2 + 1 + 3 + len(FINE_TUNING)
    for inline, in_block in COMMANDS:
        text = inline or in_block
        while "$" in text:
            text = Template(text).substitute(variables)
        assert run(shlex.split(text)) == 2
        assert re.match(r"openxclip: There is no (kinetics|ucf101|hmdb51)", capsys.readouterr().err), text
    assert list(tmp_path.iterdir()) == []


def test_what_the_page_says_about_shared_names_is_so() -> None:
    trained = set(built_in_labels("kinetics400"))
    assert len(trained.intersection(built_in_labels("ucf101"))) == 19
    assert trained.intersection(built_in_labels("hmdb51")) == {"situp"}


@needs_data("splits")
def test_the_lists_that_the_page_names_can_be_read() -> None:
    for folder in ("ucf101", "hmdb51"):
        for name in re.findall(r"\b(?:train|test)[1-3]\b", PAGE):
            assert read_manifest(DATA / "splits" / folder, list_name=name).items


STARTS = {
    "shapes": "shapes_clip",
    "shapes_small": "shapes_clip_small",
    "shapes_small_few": "shapes_clip_small",
    "ucf8_from_shapes": "shapes_clip_large",
}


@pytest.mark.parametrize("name", STARTS)
def test_a_recipe_says_what_to_train_before_it(name: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    init = recipe(name).init
    assert not is_hub_id(init)
    path = Path(init)
    command = f"openxclip pretrain --recipe {STARTS[name]} --output {path}"
    assert run(["train", "--recipe", name, "--data", "moving-shapes", "--output", "run"]) == 2
    assert (
        f"there is no image model {path} for recipe {name} to start from; train it first with `{command}`"
        in (capsys.readouterr().err)
    )
    with pytest.raises(InputError, match="train it first"):
        check_start(replace(recipe(name), init=str(path)))  # given without "./"
    assert list(tmp_path.iterdir()) == []
    path.mkdir(parents=True)
    check_start(recipe(name))


def test_every_image_model_has_its_own_place() -> None:
    assert [function.__name__ for function in IMAGE_MODELS.values()] == list(PRETRAIN_RECIPES)
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for path, function in IMAGE_MODELS.items():
        if f"--recipe {function.__name__} " in readme:
            assert f"--recipe {function.__name__} --output {path}" in readme
