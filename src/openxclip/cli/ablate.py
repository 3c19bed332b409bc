"""`openxclip ablate`: vary one choice at a time and measure it in each regime."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from openxclip.cli.options import DescriptionsFile, Device, Json, Labels, MediaRoot
from openxclip.cli.scoring import command, missing_notes, prepare

if TYPE_CHECKING:
    from openxclip.data.media import Manifest
    from openxclip.experiments.ablations import Ablation
    from openxclip.experiments.bench import Recipes
    from openxclip.experiments.study import Regime, Regimes


@dataclass(frozen=True, kw_only=True)
class AblateOptions:
    """Options of `openxclip ablate`."""

    names: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(
            metavar="NAME [NAME ...]",
            help="components, targets, branches, prompts, frames, sampling, views, interpolation, fine-tuning; or "
            "all",
        ),
    ]
    output: Annotated[
        Path,
        tyro.conf.arg(
            help="folder for runs, tables and plots; an unfinished study is resumed, and ablations share runs"
        ),
    ]
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(help="random seeds of weights and draws")] = (1, 2, 3)
    shots: Annotated[int, tyro.conf.arg(help="videos per class in the few-shot regime")] = 8
    settings: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(name="set", help="change a setting of the training runs, e.g. --set optim.epochs=10"),
    ] = ()
    pretrain_settings: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(name="pretrain-set", help="change a setting of the image models' pretraining"),
    ] = ()
    data: Annotated[
        Path | None,
        tyro.conf.arg(help="your own data, as `openxclip train` takes it; moving shapes if not given"),
    ] = None
    train_list: Annotated[str | None, tyro.conf.arg(help="list of --data to train on")] = None
    test_list: Annotated[
        str | None, tyro.conf.arg(help="list of --data to test on, with the same classes")
    ] = None
    novel_list: Annotated[
        str | None,
        tyro.conf.arg(help="list of --data with other classes, for zero-shot (skipped without it)"),
    ] = None
    recipe: Annotated[
        str | None, tyro.conf.arg(help="recipe for --data, in all regimes; as `openxclip train` takes it")
    ] = None
    descriptions: DescriptionsFile = None
    labels: Labels = None
    media_root: MediaRoot = None
    print_json: Json = False
    device: Device = "auto"

    def check(self) -> None:
        """Fail early: checks that need no data."""
        from openxclip.errors import InputError

        if not self.names:
            raise InputError(
                "no ablation named; `openxclip ablate --help` lists them, and all runs all of them"
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds {self.seeds}: give at least one, without repetitions")
        own: dict[str, object] = {
            "--train-list": self.train_list,
            "--test-list": self.test_list,
            "--recipe": self.recipe,
        }
        if self.data is None:
            own |= {
                "--novel-list": self.novel_list,
                "--descriptions": self.descriptions,
                "--labels": self.labels,
                "--media-root": self.media_root,
            }
            if given := [name for name, value in own.items() if value is not None]:
                raise InputError(f"{', '.join(given)}: these options need --data; add it, or leave them out")
        elif lacking := [name for name, value in own.items() if value is None]:
            raise InputError(f"--data also needs {', '.join(lacking)}")
        elif self.pretrain_settings:
            raise InputError(
                "--pretrain-set is for moving shapes; with --data, the recipe names the initial weights"
            )

    def recipes(self) -> "Recipes":
        """The recipe of each regime."""
        from openxclip.configuration import with_overrides
        from openxclip.experiments.bench import data_recipes, shapes_recipes
        from openxclip.recipes import recipe

        if self.recipe is None:
            return shapes_recipes(self.output, self.settings)
        return data_recipes(with_overrides(recipe(self.recipe), self.settings))

    def regimes(self, recipes: "Recipes") -> "Regimes":
        """Training and test lists of each regime."""
        from openxclip.experiments.bench import data_regimes, shapes_regimes

        if self.data is None:
            return shapes_regimes(self.output, self.shots)
        novel = None if self.novel_list is None else self.manifest(self.novel_list)
        train, test = self.manifest(self.train_list), self.manifest(self.test_list)
        return data_regimes(train, test, novel, self.shots, recipes["full"](0).data.skip_missing)

    def ablations(self) -> "dict[str, Ablation]":
        """The named ablations; without descriptions, the rows that need them are left out."""
        from openxclip.experiments.ablations import named, without_descriptions

        found = named(self.names)
        if self.texts() is not None:
            return found
        return {name: without_descriptions(ablation) for name, ablation in found.items()}

    def texts(self) -> str | None:
        """The descriptions of the classes; moving shapes have their own."""
        from openxclip.shapes.splits import WORLD

        return WORLD if self.data is None else self.descriptions

    def notes(self) -> list[str]:
        """Notes about the data, for the tables."""
        return [] if self.data is None else missing_notes([self.manifest(self.train_list)])

    def manifest(self, list_name: str | None) -> "Manifest":
        """A list of the data."""
        from openxclip.data.manifest import read_manifest

        assert self.data is not None  # `regimes` asks for lists only then
        return read_manifest(self.data, list_name=list_name, labels=self.labels, media_root=self.media_root)


def ablate(options: Annotated[AblateOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]) -> int:
    """Vary one choice at a time and measure: zero-shot, few-shot and with all videos, mean and std over seeds.

    Each ablation gives a table (also NAME.json) and a plot (NAME.png); in one folder they share their training runs.
    If interrupted, run the same command again to resume.
    """
    options.check()

    from openxclip.experiments.bench import (
        check_configs,
        image_model_config,
        pretrain_image_models,
        run_ablation,
    )
    from openxclip.experiments.study import Study
    from openxclip.shapes.splits import WORLD
    from openxclip.training.train import data_name

    ablations = options.ablations()
    recipes, image_model = options.recipes(), image_model_config(options.pretrain_settings)
    check_configs(ablations.values(), recipes)
    prepare(options.output)
    regimes, notes = options.regimes(recipes), options.notes()
    if options.data is None:
        pretrain_image_models(image_model, options.output, options.seeds, options.device)
    data = WORLD if options.data is None else data_name(options.data)
    study = Study(
        regimes, recipes, options.output, data=data, descriptions=options.texts(), device=options.device
    )
    for name, ablation in ablations.items():
        study.on_work = _progress(ablation, regimes.names(), options.seeds)
        table = run_ablation(name, ablation, study, options.seeds, command(), notes)
        print(json.dumps(asdict(table)) if options.print_json else f"{table.text()}\n", flush=True)
    return 0


def _progress(
    ablation: "Ablation", regimes: "Sequence[Regime]", seeds: Sequence[int]
) -> Callable[[str], None]:
    """Prints which result of the ablation is being computed."""
    results = [
        f"{variant.name}, {regime}, seed {seed}"
        for regime in ablation.regimes
        if regime in regimes
        for variant, _ in ablation.rows
        for seed in seeds
    ]

    def tell(result: str) -> None:
        print(f"{results.index(result) + 1} of {len(results)}: {result}", file=sys.stderr)

    return tell
