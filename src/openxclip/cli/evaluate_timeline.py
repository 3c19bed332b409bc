"""`openxclip evaluate timeline`: compare segments with annotations."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from openxclip.cli.options import Json, Labels, LimitOptions, LoadOptions, Model, PromptOptions
from openxclip.cli.timeline import shown_by
from openxclip.inference.options import InferenceOptions
from openxclip.timelines.options import SegmentRules, WindowOptions

if TYPE_CHECKING:
    from openxclip.evaluation.timeline import Case, TimelineEvaluation
    from openxclip.evaluation.timeline_metrics import TimelineMetrics
    from openxclip.reports.table import Table
    from openxclip.timelines.watcher import Watcher

WORLD = "moving-shapes"


@dataclass(frozen=True, kw_only=True)
class TimelineProtocolOptions:
    """Options of `openxclip evaluate timeline`."""

    model: Model
    data: Annotated[
        str,
        tyro.conf.arg(
            help="annotations: ActivityNet's .json, a folder of THUMOS'14's .txt files, or a .csv of "
            "video,label,start_seconds,end_seconds; or moving-shapes: long videos rendered on the fly"
        ),
    ]
    videos: Annotated[
        Path | None, tyro.conf.arg(help="folder of the videos; by default the folder of the annotations")
    ] = None
    subset: Annotated[str | None, tyro.conf.arg(help="subset of the annotations, such as validation")] = None
    labels: Labels = None
    background: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(
            metavar="FILE",
            help="as for openxclip timeline; in moving-shapes each camera has its own quiet footage",
        ),
    ] = ()
    hours: Annotated[float, tyro.conf.arg(help="total length of moving-shapes")] = 1.0
    only_events: Annotated[
        bool, tyro.conf.arg(help="moving-shapes without overlapping events and without unlabelled passers-by")
    ] = False
    seed: Annotated[int, tyro.conf.arg(help="random seed of moving-shapes: selects the long videos")] = 1
    output: Annotated[
        Path | None, tyro.conf.arg(help="folder for evaluation.json and the segments of each video as .csv")
    ] = None
    print_json: Json = False
    windows: WindowOptions = field(default_factory=WindowOptions)
    rules: SegmentRules = field(default_factory=SegmentRules)
    prompts: PromptOptions = field(default_factory=PromptOptions)
    # Results must not depend on the processor.
    load: LoadOptions = field(default_factory=lambda: LoadOptions(dtype="float32"))
    limits: LimitOptions = field(default_factory=LimitOptions)
    inference: InferenceOptions = field(default_factory=InferenceOptions)


def timeline(
    options: Annotated[TimelineProtocolOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")],
) -> int:
    """Segments of long videos: mean average precision at IoU 0.3 to 0.7, F1, boundary errors, false alarms per hour.

    Predictions are the segments that `openxclip timeline` gives with the same options. Videos that cannot be read are
    skipped and listed; the exit status is then 1.
    """
    options.windows.check()
    options.rules.check()
    from openxclip.evaluation.timeline import annotated_cases, shapes_cases

    _check_world(options)
    if options.data == WORLD:
        cases = shapes_cases(options.hours, options.seed, only_events=options.only_events)
    else:
        cases = annotated_cases(Path(options.data), options.videos, options.subset)
    evaluation = _measured(_watcher(options, cases), cases)
    table = _table(evaluation.metrics)
    if options.output is not None:
        _write(options.output, evaluation, table)
    if options.print_json:
        print(json.dumps({**asdict(evaluation.metrics), "unreadable": evaluation.unreadable}))
    else:
        print(table.text())
    for name, reason in evaluation.unreadable.items():
        print(f"openxclip: {name}: {reason}", file=sys.stderr)
    return int(bool(evaluation.unreadable))


def _check_world(options: TimelineProtocolOptions) -> None:
    """Refuse options that would be ignored."""
    from openxclip.errors import InputError

    given = {"--videos": options.videos, "--subset": options.subset, "--background": options.background}
    if options.data == WORLD and (names := [name for name, value in given.items() if value]):
        raise InputError(f"{names[0]} is for annotated files; {WORLD} has its own videos and footage")
    usual = {field.name: field.default for field in fields(options)}
    names = [name for name in ("hours", "only_events", "seed") if getattr(options, name) != usual[name]]
    if options.data != WORLD and names:
        raise InputError(f"--{names[0].replace('_', '-')} is for --data {WORLD}; leave it out")


def _watcher(options: TimelineProtocolOptions, cases: "Sequence[Case]") -> "Watcher":
    from openxclip.errors import InputError
    from openxclip.inference.engine import Engine
    from openxclip.progress import progress_bar
    from openxclip.shapes.long import usual_labels
    from openxclip.text.labels import parse_labels
    from openxclip.timelines.watcher import Watcher

    has_background = options.data == WORLD or bool(options.background)
    if options.labels is not None:
        labels = parse_labels(options.labels, takes_one=has_background)
        _check_labels(labels, cases)
    elif options.data == WORLD:
        labels = list(usual_labels())
    else:
        labels = list(dict.fromkeys(event.label for case in cases for event in case.truth.events))
        if len(labels) == 1 and not has_background:
            raise InputError(
                f"only {labels[0]!r} is annotated, with nothing to compare it to; give --background or --labels"
            )
    watcher = Watcher(
        Engine.load(options.load.source(options.model), options.inference),
        options.prompts.texts(tuple(labels)),
        windows=options.windows,
        rules=options.rules,
        limits=options.limits.limits_of_any_length(),
        model=options.model,
    )
    if options.background:
        with progress_bar() as bar:
            watcher.calibrate_with(options.background, shown_by(bar, "calibrating"))
    return watcher


def _check_labels(labels: Sequence[str], cases: "Sequence[Case]") -> None:
    """Refuse labels if none of them is annotated: every figure would be 0."""
    from openxclip.errors import InputError
    from openxclip.wording import shortened

    annotated = list(dict.fromkeys(event.label for case in cases for event in case.truth.events))
    if not set(labels) & set(annotated):
        raise InputError(
            f"none of the labels {shortened(labels, 3)} is annotated; annotated labels: {shortened(annotated, 5)}"
        )


def _measured(watcher: "Watcher", cases: "Sequence[Case]") -> "TimelineEvaluation":
    from openxclip.evaluation.timeline import evaluate_timelines
    from openxclip.progress import progress_bar

    with progress_bar() as bar:
        return evaluate_timelines(watcher, cases, lambda what: shown_by(bar, what))


def _table(metrics: "TimelineMetrics") -> "Table":
    from openxclip.evaluation.timeline_metrics import THRESHOLD_COLUMNS
    from openxclip.reports.table import Table

    return Table(
        title="Segments",
        command=shlex.join(["openxclip", *sys.argv[1:]]),
        columns=THRESHOLD_COLUMNS,
        rows=metrics.rows(),
        notes=metrics.notes(),
    )


def _write(folder: Path, evaluation: "TimelineEvaluation", table: "Table") -> None:
    from openxclip.evaluation.timeline_metrics import CLASS_COLUMNS
    from openxclip.files import atomic_write
    from openxclip.timelines.formats import output_names, write

    folder.mkdir(parents=True, exist_ok=True)
    metrics = evaluation.metrics
    with atomic_write(folder / "evaluation.json") as temporary:
        temporary.write_text(
            json.dumps({**asdict(metrics), "unreadable": evaluation.unreadable}, indent=1) + "\n"
        )
    table.save(folder / "table.json")
    replace(table, title="Labels", columns=CLASS_COLUMNS, rows=metrics.class_rows(), notes=()).save(
        folder / "labels.json"
    )
    names = output_names([found.path for found in evaluation.timelines.values()], folder)
    for name, found in zip(names, evaluation.timelines.values(), strict=True):
        write(found, folder, ("csv",), name)
