"""Few-shot learning (section 4.3): K videos of each class, with texts and with discrete labels as targets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

from openxclip.checkpoints.load import load, read_model
from openxclip.checkpoints.source import ModelSource
from openxclip.data.descriptions import parse_descriptions
from openxclip.data.media import Manifest
from openxclip.data.subsets import few_shot
from openxclip.errors import InputError
from openxclip.evaluation.evaluate import Evaluation, evaluate, views_text
from openxclip.files import read_json
from openxclip.inference.engine import Engine
from openxclip.inference.recognizer import Recognizer
from openxclip.inference.views import Views
from openxclip.processes import current
from openxclip.progress import progress_bar
from openxclip.reports.table import Table, mean_std, percent
from openxclip.text.label_texts import LabelTexts
from openxclip.training.config import ExpansionConfig, TrainConfig
from openxclip.training.train import train_on, video_limits

Targets = Literal["text", "discrete"]
"""What the classes are to the model: their names, or one free vector each."""


class FewShotRun(NamedTuple):
    """One training of an experiment."""

    targets: Targets
    shots: str
    """Column of the picture: K, or the name of a list."""
    seed: int
    folder: Path
    clips: Manifest


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """The experiment: every kind of targets x every set of clips x every seed."""

    config: TrainConfig
    """The recipe; its seed is replaced, and with discrete targets its text."""
    clips: Mapping[str, Callable[[int], Manifest]]
    """K, or the name of a list -> the training clips for a seed."""
    test: Manifest
    """The same labels as the clips'."""
    seeds: tuple[int, ...]
    """Of the choice of clips, of new weights and of every draw of the training."""
    targets: tuple[Targets, ...]
    """Which kinds to compare."""
    views: Views
    """Of the evaluation."""

    def __post_init__(self) -> None:
        if not (self.clips and self.seeds) or len(set(self.seeds)) < len(self.seeds):
            raise InputError(
                f"shots {', '.join(self.clips) or 'none'}, seeds {self.seeds}: give at least one of both, seeds once"
            )

    @property
    def clips_name(self) -> str:
        """What the keys of `clips` are, for tables and pictures."""
        return "K" if all(shots.isdecimal() for shots in self.clips) else "training list"

    def runs(self, output: Path) -> Iterator[FewShotRun]:
        """Every training, below `output`.

        Raises:
            InputError: clips and test have other labels, or a class has too few videos.
        """
        for targets, (shots, clips), seed in product(self.targets, self.clips.items(), self.seeds):
            name = f"{shots}shot" if shots.isdecimal() else shots
            run = FewShotRun(targets, shots, seed, output / targets / f"{name}-seed{seed}", clips(seed))
            if run.clips.labels != self.test.labels:
                raise InputError(
                    f"{run.clips.name} and {self.test.name} have different labels; give both the same labels.csv"
                )
            yield run


class Outcome(NamedTuple):
    """What the runs of an experiment found."""

    evaluations: dict[FewShotRun, Evaluation]
    num_unreadable: int
    """Training clips that could not be read, over all runs."""


def sampled(train: Manifest, shots: Sequence[int]) -> dict[str, Callable[[int], Manifest]]:
    """K videos of each class, drawn by seed; fewer shots are a part of more."""
    return {str(k): partial(few_shot, train, k) for k in shots}


def fixed(lists: Mapping[str, Manifest]) -> dict[str, Callable[[int], Manifest]]:
    """Given lists instead of drawn ones: the same clips for each seed."""
    return {name: partial(_same_clips, clips) for name, clips in lists.items()}


def _same_clips(clips: Manifest, seed: int) -> Manifest:
    return clips


def run_few_shot(
    experiment: FewShot, output: Path, *, data: str, device: str, on_run: Callable[[str], None]
) -> Outcome:
    """Train and evaluate every run below `output`; what an earlier call has finished is not done again.

    Args:
        experiment: what to compare.
        output: gets a run folder, with evaluation.json, for each run.
        data: the name of the data in the runs' config.json.
        device: as `openxclip.load` takes it.
        on_run: called with a description of each run before it begins.
    """
    runs = list(experiment.runs(output))  # fail early: a class may have too few videos
    descriptions = parse_descriptions(experiment.config.descriptions)
    configs = {
        targets: with_targets(experiment.config, targets, len(experiment.test.labels))
        for targets in experiment.targets
    }
    evaluations: dict[FewShotRun, Evaluation] = {}
    num_unreadable = 0
    for number, run in enumerate(runs, start=1):
        on_run(f"{number} of {len(runs)}: {run.folder}")
        config = replace(configs[run.targets], seed=run.seed)
        state = train_on(
            config, run.clips, None, run.folder, descriptions=descriptions, device=device, data=data
        )
        num_unreadable += len(state.unreadable)
        texts = LabelTexts(
            labels=experiment.test.labels, templates=config.templates, descriptions=descriptions
        )
        evaluations[run] = _evaluation(run.folder, texts, experiment, device)
    return Outcome(evaluations, num_unreadable)


def with_targets(config: TrainConfig, targets: Targets, num_labels: int) -> TrainConfig:
    """A recipe with its text, or with discrete labels and therefore without prompting."""
    if targets == "text":
        return config
    if config.model is not None:
        text = replace(config.model.text, num_context_vectors=None)
        model = replace(config.model, text=text, prompting=None, num_discrete_labels=num_labels)
        return replace(config, model=model)
    expansion = config.expansion or _parts_of(config)
    return replace(
        config,
        expansion=replace(expansion, prompting=None, num_context_vectors=None, discrete_labels=True),
    )


def _parts_of(config: TrainConfig) -> ExpansionConfig:
    """The parts that stand around the towers of `init`, to be kept as they are."""
    if config.init is None:
        raise InputError("a TrainConfig without a model needs init, a source of weights")
    loaded, _ = read_model(
        ModelSource(
            source=config.init, device="cpu", num_frames=config.num_frames, tokenizer=config.tokenizer
        )
    )
    model = loaded.model.config
    return ExpansionConfig(
        message_tokens=model.vision.message_tokens,
        integration=model.integration,
        drop_path=model.vision.drop_path,
    )


def _evaluation(folder: Path, texts: LabelTexts, experiment: FewShot, device: str) -> Evaluation:
    path, test = folder / "evaluation.json", experiment.test
    if known := current().from_first(lambda: _known_evaluation(path, test, experiment.views)):
        return known
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=len(test.items), note="")
        engine = Engine(load(folder, device=device, dtype="float32"))
        recognizer = Recognizer(engine, texts, video_limits(experiment.config.data))
        evaluation = evaluate(recognizer, test, experiment.views, lambda: bar.advance(task))
    if current().is_first:
        evaluation.save(path)
    return evaluation


def _known_evaluation(path: Path, test: Manifest, views: Views) -> Evaluation | None:
    """What an earlier call found."""
    if path.exists() and _is_of(read_json(path), test, views):
        return Evaluation.read(path)
    return None


def _is_of(values: Mapping[str, object], test: Manifest, views: Views) -> bool:
    """Whether a saved evaluation is one of this list, as a whole. Earlier versions did not say of which list."""
    found = values.get("fingerprint"), values.get("views"), values.get("num_unreadable")
    return found == (test.fingerprint(), views_text(views), 0)


def few_shot_table(experiment: FewShot, outcome: Outcome, command: str, notes: Sequence[str] = ()) -> Table:
    """A row for each K or list, a column for each kind of targets."""
    rows = [
        (shots, *(percent(_top1(outcome, targets, shots)) for targets in experiment.targets))
        for shots in experiment.clips
    ]
    seeds = ", ".join(map(str, experiment.seeds))
    setting = f"Recipe {experiment.config.recipe}, seeds {seeds}, views {views_text(experiment.views)}."
    spread = ["± is the sample standard deviation over seeds."] if len(experiment.seeds) > 1 else []
    return Table(
        title=f"few-shot: top-1 on {experiment.test.name}, %",
        command=command,
        columns=(experiment.clips_name, *(f"{targets} targets" for targets in experiment.targets)),
        rows=tuple(rows),
        notes=(setting, *spread, *notes),
    )


def few_shot_points(
    experiment: FewShot, outcome: Outcome
) -> dict[str, list[tuple[float | str, float, float | None]]]:
    """For `plot_lines`: a line for each kind of targets."""
    return {
        f"{targets} targets": [
            (int(shots) if shots.isdecimal() else shots, *mean_std(_top1(outcome, targets, shots)))
            for shots in experiment.clips
        ]
        for targets in experiment.targets
    }


def _top1(outcome: Outcome, targets: Targets, shots: str) -> list[float]:
    """By seed."""
    return [
        evaluation.top1
        for run, evaluation in outcome.evaluations.items()
        if (run.targets, run.shots) == (targets, shots)
    ]
