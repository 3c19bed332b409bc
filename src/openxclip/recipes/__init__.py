"""Recipes: functions that give a full, frozen TrainConfig.

A variant of a recipe is `dataclasses.replace` of another; `--set a.b=v` changes a setting for one run.
"""

from collections.abc import Callable

from openxclip.errors import InputError
from openxclip.recipes.published import KINETICS, REGIMES
from openxclip.recipes.ucf8 import ucf8_fewshot
from openxclip.training.config import TrainConfig

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe for recipe in (*REGIMES, ucf8_fewshot, *KINETICS)
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
