"""`openxclip evaluate few-shot`: train on a few videos per class, and measure."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from openxclip.cli.options import Device, Json, Labels, MediaRoot, TokenizerSource, ViewsText
from openxclip.cli.scoring import (
    Data,
    check_once,
    command,
    missing_notes,
    prepare,
    report_unreadable,
    unreadable_notes,
)

if TYPE_CHECKING:
    from openxclip.data.media import Manifest
    from openxclip.experiments.few_shot import FewShot
    from openxclip.training.config import TrainConfig

DEFAULT_SHOTS = (2, 4, 8, 16)


@dataclass(frozen=True, kw_only=True)
class FewShotOptions:
    """Options of `openxclip evaluate few-shot`."""

    recipe: Annotated[str, tyro.conf.arg(help="as `openxclip train` takes it")]
    data: Data
    test_list: Annotated[str, tyro.conf.arg(help="list of the data to test on")]
    output: Annotated[
        Path,
        tyro.conf.arg(
            help="folder for the runs, the table and the plot; an unfinished experiment is resumed"
        ),
    ]
    train_list: Annotated[
        str | None, tyro.conf.arg(help="list of the data to draw the training videos from")
    ] = None
    shots: Annotated[tuple[int, ...], tyro.conf.arg(help="videos per class; 2 4 8 16 if not given")] = ()
    train_lists: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="lists to train on as they are, instead of --train-list"),
    ] = ()
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(help="random seeds of the draws and of the training")] = (
        1,
        2,
        3,
    )
    targets: Annotated[
        Literal["text", "discrete", "both"],
        tyro.conf.arg(help="class names, as X-CLIP learns, or a free vector for each class, without text"),
    ] = "text"
    settings: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(name="set", help="change a setting of the recipe, e.g. --set optim.epochs=10"),
    ] = ()
    labels: Labels = None
    media_root: MediaRoot = None
    tokenizer: TokenizerSource = None
    views: ViewsText = "1x1"
    print_json: Json = False
    device: Device = "auto"

    def config(self) -> "TrainConfig":
        """The recipe with the settings."""
        from openxclip.configuration import with_overrides
        from openxclip.recipes import check_start, recipe

        config = with_overrides(recipe(self.recipe), self.settings)
        if not any(self.output.glob("*/*/last")):  # resumed runs do not need their initial weights
            check_start(config)
        return config if self.tokenizer is None else replace(config, tokenizer=self.tokenizer)

    def manifest(self, list_name: str) -> "Manifest":
        """A list of the data."""
        from openxclip.data.manifest import read_manifest

        return read_manifest(self.data, list_name=list_name, labels=self.labels, media_root=self.media_root)

    def check(self) -> None:
        """Fail early: checks that need no data."""
        from openxclip.errors import InputError

        if self.train_lists and (self.train_list or self.shots):
            raise InputError("--train-lists replaces --train-list and --shots; leave them out")
        if not (self.train_lists or self.train_list):
            raise InputError("nothing to train on; give --train-list (with --shots) or --train-lists")
        check_once("--train-lists", [Path(name).stem for name in self.train_lists])
        check_once("--shots", self.shots)

    def train_manifests(self) -> "list[Manifest]":
        """The training lists, or the list to draw training videos from."""
        return [self.manifest(name) for name in self.train_lists or (str(self.train_list),)]

    def experiment(self, lists: "Sequence[Manifest]") -> "FewShot":
        """The checked experiment over the lists of `train_manifests`."""
        from openxclip.data.subsets import without_missing
        from openxclip.evaluation.protocols import of_trained_classes
        from openxclip.experiments.few_shot import FewShot, fixed, sampled
        from openxclip.inference.views import Views

        config, test = self.config(), self.manifest(self.test_list)
        if self.train_list is not None:
            whole, test = of_trained_classes(lists[0], test)
            lists = [whole]
        # Before the draw, so that only existing videos are drawn.
        found = [without_missing(clips, config.data.skip_missing)[0] for clips in lists]
        if self.train_list is not None:
            clips = sampled(found[0], self.shots or DEFAULT_SHOTS)
        else:
            names = [Path(name).stem for name in self.train_lists]
            clips = fixed(dict(zip(names, found, strict=True)))
        return FewShot(
            config=config,
            clips=clips,
            test=test,
            seeds=self.seeds,
            targets=("text", "discrete") if self.targets == "both" else (self.targets,),
            views=Views.parse(self.views),
        )


def few_shot(options: Annotated[FewShotOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]) -> int:
    """Train on K videos per class, for several K and seeds, and measure: mean and std over seeds.

    Videos are drawn by seed; the videos of fewer shots are a subset of those of more. If interrupted, run the same
    command again to resume.
    """
    options.check()
    lists = options.train_manifests()
    experiment = options.experiment(lists)
    prepare(options.output)

    from openxclip.experiments.few_shot import few_shot_points, few_shot_table, run_few_shot
    from openxclip.processes import current
    from openxclip.reports.plots import plot_lines
    from openxclip.training.train import data_name

    outcome = run_few_shot(
        experiment,
        options.output,
        data=data_name(options.data),
        device=options.device,
        on_run=lambda text: print(text, file=sys.stderr),
    )
    evaluations = outcome.evaluations.values()
    notes = [*missing_notes(lists), *unreadable_notes(evaluations)]
    table = few_shot_table(experiment, outcome, command(), notes)
    if current().is_first:
        table.save(options.output / "few-shot.json")
        points = few_shot_points(experiment, outcome)
        title = table.title.removesuffix(", %")
        plot_lines(options.output / "few-shot.png", title, experiment.clips_name, points)
    print(json.dumps(asdict(table)) if options.print_json else table.text())
    return max(report_unreadable(evaluations), int(outcome.num_unreadable > 0))
