"""What `openxclip ablate` trains and tests, on moving shapes or on any data, and what it leaves behind."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from openxclip.configuration import with_overrides
from openxclip.data.manifest import read_manifest
from openxclip.data.media import Manifest
from openxclip.data.moving_shapes import LIST_FILE, shapes_manifest, write_shapes
from openxclip.data.subsets import few_shot, missing_text, restrict, without_missing
from openxclip.errors import InputError
from openxclip.evaluation.protocols import check_disjoint, occurring, of_trained_classes
from openxclip.experiments.ablations import Ablation, AblationResult
from openxclip.experiments.study import Regime, Regimes, Study, alone
from openxclip.processes import current
from openxclip.progress import progress_bar
from openxclip.recipes import pretrain_recipe, recipe
from openxclip.reports.plots import plot_lines, plot_trade_off
from openxclip.reports.table import Table
from openxclip.shapes.words import MOTIONS
from openxclip.training.config import TrainConfig
from openxclip.training.contrastive import PretrainConfig, pretrain

logger = logging.getLogger(__name__)

Recipes = Mapping[Regime, Callable[[int], TrainConfig]]
"""The config of a regime for a seed; "zero" is tested with what "full" trains."""


def shapes_recipes(output: Path, settings: Sequence[str]) -> Recipes:
    """The small recipes of moving shapes, each from the image model of its seed below `output`."""

    def config(name: str, seed: int) -> TrainConfig:
        changed = with_overrides(recipe(name), settings)
        return replace(changed, init=str(_image_model(output, seed).resolve()), seed=seed)

    return {"full": partial(config, "shapes_small"), "few": partial(config, "shapes_small_few")}


def image_model_config(settings: Sequence[str]) -> PretrainConfig:
    """The pretraining of the image models that `shapes_recipes` start from; its seed is replaced."""
    return with_overrides(pretrain_recipe("shapes_clip_small"), settings)


def pretrain_image_models(config: PretrainConfig, output: Path, seeds: Iterable[int], device: str) -> None:
    """The image model of each seed; one that is finished is left as it is."""
    for seed in seeds:
        folder = _image_model(output, seed)
        with alone(output / "locks" / f"{folder.name}.lock"):
            current().from_first(partial(pretrain, replace(config, seed=seed), folder, device))


def _image_model(output: Path, seed: int) -> Path:
    return output / f"clip-seed{seed}"


def shapes_regimes(output: Path, num_shots: int) -> Regimes:
    """Training clips are rendered as they are needed; tests are read from real video files below `output`."""
    few, lists = _few(shapes_manifest("small-few-train"), num_shots), output / "lists"
    novel = _from_files("small-test-novel", lists)
    return Regimes(
        full=(shapes_manifest("small-train"), _from_files("small-test-base", lists)),
        few=(few, _from_files("small-few-test", lists)),
        zero=novel,
        motion=tuple(
            restrict(novel, novel.labels[start : start + len(MOTIONS)])
            for start in range(0, len(novel.labels), len(MOTIONS))
        ),
    )


def _few(train: Manifest, num_shots: int) -> Callable[[int], Manifest]:
    """The few videos of a seed."""
    few_shot(train, num_shots, seed=0)  # whatever the seed: too few videos of a class show now
    return partial(few_shot, train, num_shots)


def _from_files(list_name: str, lists: Path) -> Manifest:
    """A list of moving shapes as .mp4 files, written by the first call in the first process."""
    with alone(lists.with_name("locks") / f"{list_name}.lock"):
        return current().from_first(partial(_written, list_name, lists))


def _written(list_name: str, lists: Path) -> Manifest:
    folder, clips = lists / list_name, shapes_manifest(list_name)
    if folder.exists():
        found = read_manifest(folder, list_name=LIST_FILE)
        if found.fingerprint() == clips.fingerprint():
            return found
        logger.warning("%s holds another list than %s is now; it is written anew", folder, clips.name)
    with progress_bar() as bar:
        task = bar.add_task(f"rendering {list_name}", total=len(clips.items), note="")
        write_shapes(clips, folder, lambda: bar.advance(task))
    return read_manifest(folder, list_name=LIST_FILE)


def data_recipes(config: TrainConfig) -> Recipes:
    """One recipe for the full and the few videos alike."""

    def with_seed(seed: int) -> TrainConfig:
        return replace(config, seed=seed)

    return {"full": with_seed, "few": with_seed}


def data_regimes(
    train: Manifest, test: Manifest, novel: Manifest | None, num_shots: int, skip_missing: bool
) -> Regimes:
    """The regimes of any data. The classes of a list are those of its videos: all lists may share one file of labels.

    Training videos that are missing are left out before any are drawn, if `skip_missing` allows it.

    Raises:
        InputError: a class has too few videos, a video is missing, or `novel` shares classes with `train`.
    """
    train, test = of_trained_classes(train, test)
    train, _ = without_missing(train, skip_missing)
    if novel is not None:
        novel = occurring(novel)
        check_disjoint(train.labels, novel)
    for tested in (test, novel):
        if tested is not None and (missing := tested.missing()):
            raise InputError(
                f"{missing_text(tested, missing)}; say where they are with --media-root, or take them off the list"
            )
    return Regimes(full=(train, test), few=(_few(train, num_shots), test), zero=novel)


def check_configs(ablations: Iterable[Ablation], recipes: Recipes) -> None:
    """Make the config of every variant, so that one that is impossible shows before any work.

    Raises:
        InputError: the recipe has not what an ablation varies.
        ConfigError: a variant's settings are not allowed.
    """
    for ablation in ablations:
        for variant, _ in ablation.rows:
            for config in recipes.values():
                changed = variant.change(config(0))
                if variant.interpolate is not None and changed.init is None:
                    raise InputError(
                        f"recipe {changed.recipe} starts from no image model, so it cannot be interpolated; "
                        "set init, or leave the ablation out"
                    )


def run_ablation(
    name: str,
    ablation: Ablation,
    study: Study,
    seeds: Sequence[int],
    command: str,
    notes: Sequence[str] = (),
) -> Table:
    """Train and score what is not there yet -> the table, which is left as NAME.json beside a picture NAME.png."""
    result = AblationResult(ablation, study, seeds)
    table = result.table(command, Path(study.data).name)
    table = replace(table, notes=(*table.notes, *notes))
    if not current().is_first:
        return table
    table.save(study.output / f"{name}.json")
    picture, title = study.output / f"{name}.png", table.title.removesuffix(", %")
    if ablation.is_trade_off and {"zero", "full"} <= {*result.regimes}:
        plot_trade_off(picture, title, result.trade_off())
    else:
        plot_lines(picture, title, ablation.x_label, result.points())
    return table
