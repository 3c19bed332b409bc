"""`openxclip tag`: label many videos into a Parquet dataset."""

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from openxclip.caches import cache_folder, keep_compiled_code
from openxclip.cli.options import Json, LabelNames, LimitOptions, LoadOptions, Model, PromptOptions
from openxclip.inference.options import InferenceOptions
from openxclip.tagging.options import RowOptions, RunOptions

if TYPE_CHECKING:
    from openxclip.tagging.tag import Job, Summary


@dataclass(frozen=True, kw_only=True)
class TagOptions:
    """Options of `openxclip tag`."""

    inputs: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(
            help="a folder, a manifest (CSV, TSV, JSON lines, Parquet) or tar shards; a path, or a URL such as "
            "s3://bucket/videos"
        ),
    ]
    labels: LabelNames
    output: Annotated[str, tyro.conf.arg(help="folder of the dataset; a path or a URL")]
    model: Model = "microsoft/xclip-base-patch32"
    print_json: Json = False
    rows: RowOptions = field(default_factory=RowOptions)
    run: RunOptions = field(default_factory=RunOptions)
    prompts: PromptOptions = field(default_factory=PromptOptions)
    load: LoadOptions = field(default_factory=LoadOptions)
    limits: LimitOptions = field(default_factory=LimitOptions)
    inference: InferenceOptions = field(default_factory=lambda: InferenceOptions(text_cache=cache_folder()))


def tag(options: Annotated[TagOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]) -> int:
    """Rank your labels for each of many videos, and write a Parquet dataset in parts.

    If interrupted, run the same command again to resume; every input appears exactly once in the output. A video that
    cannot be read gets a row with its error, and the exit status is then 1. A summary goes to stdout (--json).
    """
    from openxclip.text.labels import parse_labels

    options.rows.check()
    options.run.check()
    if options.inference.runtime.may_compile:
        keep_compiled_code()
    texts, limits = options.prompts.texts(tuple(parse_labels(options.labels))), options.limits.limits()
    from openxclip.inference.views import Views
    from openxclip.tagging.output import Output
    from openxclip.tagging.sources import list_sources

    Views.parse(options.rows.views)
    Output(options.output)
    sources = list_sources(options.inputs)

    from openxclip.inference.engine import Engine
    from openxclip.tagging.tag import Job

    source = options.load.source(options.model)
    job = Job(
        Engine.load(source, options.inference),
        source,
        texts,
        options.output,
        options.rows,
        options.run,
        limits,
    )
    _show_progress(job, sources)
    summary = job.summary()
    print(json.dumps(asdict(summary)) if options.print_json else _text(summary))
    return int(summary.num_errors > 0)


def _show_progress(job: "Job", sources: list) -> None:
    from openxclip.progress import progress_bar

    with progress_bar() as bar:
        task = bar.add_task("tagging", total=len(sources), note="")
        for state in job.run(sources):
            note = (
                f"{state.videos_per_second:.1f} videos/s, {state.video_hours_per_hour:.0f} hours of video per hour, "
                f"{state.num_errors} errors"
            )
            bar.update(task, total=state.num_inputs, completed=state.num_done, note=note)


def _text(summary: "Summary") -> str:
    lines = [
        f"{summary.output}: {summary.num_rows} rows of {summary.num_inputs} inputs, {summary.num_errors} errors",
        f"  this run: {summary.num_computed} inputs in {summary.seconds:.1f} s, {summary.videos_per_second:.1f} videos "
        f"per second, {summary.video_hours_per_hour:.0f} hours of video per hour",
    ]
    lines += [f"  {count} {kind}" for kind, count in sorted(summary.errors.items())]
    return "\n".join(lines)
