"""Code shared by the protocols of `openxclip evaluate`: options, scoring with each model, output."""

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from openxclip.caches import keep_compiled_code
from openxclip.cli.options import Json, Labels, LimitOptions, LoadOptions, MediaRoot, PromptOptions, ViewsText
from openxclip.inference.options import InferenceOptions
from openxclip.runtimes.options import RuntimeOptions

if TYPE_CHECKING:
    from openxclip.data.media import Manifest
    from openxclip.evaluation.evaluate import Evaluation
    from openxclip.evaluation.protocols import Result, Score
    from openxclip.reports.table import Table

MAX_NAMED_VIDEOS = 20
EVALUATION_FILES = ("evaluation.json", "confusion.png")

Data = Annotated[
    Path,
    tyro.conf.arg(
        help="list of `path label_id` lines, a folder with labels.csv and lists, or official lists"
    ),
]
Output = Annotated[
    Path | None,
    tyro.conf.arg(
        help="output folder: the table, and a folder for each evaluation with evaluation.json and confusion.png"
    ),
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every protocol that measures trained models."""

    model: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(help="as for predict; repeat --model for mean and std over several models"),
    ]
    data: Data
    labels: Labels = None
    output: Output = None
    views: ViewsText = "1x1"
    print_json: Json = False
    media_root: MediaRoot = None
    prompts: PromptOptions = field(default_factory=PromptOptions)
    # Results must not depend on the processor.
    load: LoadOptions = field(default_factory=lambda: LoadOptions(dtype="float32"))
    limits: LimitOptions = field(default_factory=LimitOptions)
    batch_size: Annotated[
        int | None,
        tyro.conf.arg(help="views per forward pass; by default as many as pay off"),
    ] = None
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)

    def manifest(self, list_name: str | None) -> "Manifest":
        """A list of the data; a folder's test.txt if none is named."""
        from openxclip.data.manifest import read_manifest

        if list_name is None and (self.data / "test.txt").is_file():
            list_name = "test.txt"
        return read_manifest(self.data, list_name=list_name, labels=self.labels, media_root=self.media_root)


def measure(
    name: str, options: Options, protocol: Callable[["Score"], "Result"], notes: Sequence[str] = ()
) -> int:
    """Run a protocol with each model and print its figures -> exit status."""
    from openxclip.errors import InputError
    from openxclip.inference.views import Views
    from openxclip.processes import current

    if not options.model:
        raise InputError("no model given; name at least one with --model")
    if options.runtime.may_compile:
        keep_compiled_code()
    Views.parse(options.views)
    options.prompts.check()
    if options.output is not None:
        prepare(options.output)
    results = [_result(source, options, protocol) for source in options.model]
    evaluations = [evaluation for result in results for evaluation in result.evaluations.values()]
    table = _table(name, options.model, results, [*notes, *unreadable_notes(evaluations)])
    if options.output is not None and current().is_first:
        _write(name, options.output, table, results)
    if options.print_json:
        models = [{"model": m, **r.to_dict()} for m, r in zip(options.model, results, strict=True)]
        print(json.dumps({"protocol": name, "models": models, "table": asdict(table)}))
    else:
        single = name == "supervised" and len(results) == 1
        print(f"{classes(evaluations[0])}\n" * single + table.text())
    return report_unreadable(evaluations)


def _result(source: str, options: Options, protocol: Callable[["Score"], "Result"]) -> "Result":
    """Load a model and run the protocol with it, with a progress bar for each list."""
    from openxclip.evaluation.protocols import scorer
    from openxclip.inference.engine import Engine
    from openxclip.inference.views import Views
    from openxclip.progress import progress_bar

    engine = Engine.load(
        options.load.source(source), InferenceOptions(batch_size=options.batch_size, runtime=options.runtime)
    )
    with progress_bar() as bar:

        def progress(manifest: "Manifest") -> Callable[[], None]:
            task = bar.add_task(manifest.name, total=len(manifest.items), note="")
            return lambda: bar.advance(task)

        limits = options.limits.limits()
        score = scorer(engine, Views.parse(options.views), options.prompts.texts, progress, limits=limits)
        return protocol(score)


def _table(name: str, models: Sequence[str], results: Sequence["Result"], notes: Sequence[str]) -> "Table":
    from openxclip.reports.table import Table, percent

    rows = []
    for figure in results[0].figures:
        values = [result.figures[figure] for result in results]
        summary = [percent(values)] if len(values) > 1 else []
        rows.append((figure, *(percent([value]) for value in values), *summary))
    summary = ["mean ± std over models"] if len(models) > 1 else []
    explained = ["± is the sample standard deviation over models."] if len(models) > 1 else []
    evaluations = results[0].evaluations.values()
    data = "; ".join(dict.fromkeys(evaluation.data for evaluation in evaluations))
    first = next(iter(evaluations))
    return Table(
        title=f"{name}: {data}, views {first.views}, %",
        command=command(),
        columns=("", *models, *summary),
        rows=tuple(rows),
        notes=(*explained, *notes),
    )


def command() -> str:
    """The command line as typed."""
    return shlex.join(["openxclip", *(argument for argument in sys.argv[1:] if argument != "--debug")])


def check_once(option: str, values: Sequence[object]) -> None:
    """Refuse a value that is given twice.

    Raises:
        InputError: a value occurs more than once.
    """
    from openxclip.errors import InputError

    if twice := [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]:
        raise InputError(
            f"{option} has {', '.join(twice)} more than once; give each once, under its own name"
        )


def prepare(output: Path) -> None:
    """Fail early: matplotlib is installed, and the folder can be written."""
    import openxclip.reports.plots  # noqa: F401
    from openxclip.errors import InputError

    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; give a folder, new or existing")
    output.mkdir(parents=True, exist_ok=True)


def _write(name: str, output: Path, table: "Table", results: Sequence["Result"]) -> None:
    """Write the table, and a folder for each evaluation; replaces the files of an earlier run of this protocol."""
    for folder in output.glob(f"evaluation-{name}-*/"):
        for file in EVALUATION_FILES:
            (folder / file).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    table.save(output / f"{name}.json")
    for number, result in enumerate(results, start=1):
        for key, evaluation in result.evaluations.items():
            place = f"{number}-{key}" if len(results) > 1 else key
            write_evaluation(evaluation, output / f"evaluation-{name}-{place.replace('/', '-')}")


def write_evaluation(evaluation: "Evaluation", folder: Path) -> None:
    """Write an evaluation as JSON, and its confusion matrix as an image."""
    from openxclip.reports.plots import plot_confusion

    folder.mkdir(parents=True, exist_ok=True)
    values, picture = (folder / file for file in EVALUATION_FILES)
    evaluation.save(values)
    plot_confusion(evaluation.confusion, [row.label for row in evaluation.classes], picture)


def classes(result: "Evaluation") -> str:
    """A line for each class."""
    width = max(len(row.label) for row in result.classes)
    lines = [
        f"{row.label:{width}}  {row.num_videos:4} videos  "
        + ("     -" if row.accuracy is None else f"{row.accuracy:6.1%}")
        for row in result.classes
    ]
    return "\n".join([*lines, ""])


def missing_notes(lists: Iterable["Manifest"]) -> list[str]:
    """A note for each training list with missing videos."""
    from openxclip.data.subsets import missing_text

    missing = [(clips, clips.missing()) for clips in lists]
    return [
        f"{missing_text(clips, paths)}; they were not used for training" for clips, paths in missing if paths
    ]


def unreadable_notes(evaluations: Iterable["Evaluation"]) -> list[str]:
    """A note for each list with unreadable videos."""
    lines = [
        f"{result.data}: {result.num_unreadable} of {result.num_videos} videos could not be read and are not counted"
        for result in evaluations
        if result.num_unreadable
    ]
    return list(dict.fromkeys(lines))


def report_unreadable(evaluations: Iterable["Evaluation"]) -> int:
    """Print each unreadable video once -> exit status."""
    errors = {
        video.path: video.error
        for result in evaluations
        for video in result.videos
        if video.error is not None
    }
    for path, reason in list(errors.items())[:MAX_NAMED_VIDEOS]:
        print(f"openxclip: {path}: {reason}", file=sys.stderr)
    if len(errors) > MAX_NAMED_VIDEOS:
        print(
            f"openxclip: and {len(errors) - MAX_NAMED_VIDEOS} more of {len(errors)}; --json and --output list them all",
            file=sys.stderr,
        )
    return int(bool(errors))
