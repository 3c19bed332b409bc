"""Recipes: functions that return a complete, frozen TrainConfig.

A variant of a recipe is `dataclasses.replace` of another; `--set a.b=v` changes a setting for one run.
"""

from collections.abc import Callable
from pathlib import Path

from openxclip.errors import InputError
from openxclip.recipes.fine_tuning import FINE_TUNING
from openxclip.recipes.published import KINETICS, REGIMES
from openxclip.recipes.shapes import (
    shapes,
    shapes_clip,
    shapes_clip_large,
    shapes_clip_small,
    shapes_small,
    shapes_small_few,
)
from openxclip.recipes.ucf8 import ucf8_fewshot, ucf8_from_shapes
from openxclip.training.config import TrainConfig
from openxclip.training.contrastive import PretrainConfig

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    **{recipe.__name__: recipe for recipe in REGIMES},
    **{recipe.__name__: recipe for recipe in (ucf8_fewshot, ucf8_from_shapes)},
    **{recipe.__name__: recipe for recipe in (shapes, shapes_small, shapes_small_few)},
    **KINETICS,
    **{recipe.__name__: recipe for recipe in FINE_TUNING},
}
"""Name on the command line -> recipe."""


def recipe(name: str) -> TrainConfig:
    """The config of a recipe by name.

    Raises:
        InputError: there is no such recipe.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()


PRETRAIN_RECIPES: dict[str, Callable[[], PretrainConfig]] = {
    recipe.__name__: recipe for recipe in (shapes_clip, shapes_clip_small, shapes_clip_large)
}
"""Name on the command line -> recipe of a language-image pretraining."""


def pretrain_recipe(name: str) -> PretrainConfig:
    """The config of a pretraining by name.

    Raises:
        InputError: there is no such recipe.
    """
    if name not in PRETRAIN_RECIPES:
        raise InputError(
            f"there is no pretraining recipe {name!r}; choose one of {', '.join(PRETRAIN_RECIPES)}"
        )
    return PRETRAIN_RECIPES[name]()


IMAGE_MODELS = {
    Path("runs/tiny-clip"): shapes_clip,
    Path("runs/clip-small"): shapes_clip_small,
    Path("runs/clip-large"): shapes_clip_large,
}
"""Path of one of our image models in recipes -> the recipe that trains it."""


def check_start(config: TrainConfig) -> None:
    """Refuse to start from one of our image models that was not trained yet.

    Raises:
        InputError: the model is missing; the message says which command to run first.
    """
    path = Path(config.init or "")
    if path in IMAGE_MODELS and not path.exists():
        raise InputError(
            f"there is no image model {path} for recipe {config.recipe} to start from; train it first with "
            f"`openxclip pretrain --recipe {IMAGE_MODELS[path].__name__} --output {path}`, or give another one with "
            "--set init=FOLDER"
        )
