"""`openxclip index`: index videos for search."""

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from openxclip.cli.options import Json, LimitOptions, LoadOptions, Model
from openxclip.inference.options import InferenceOptions
from openxclip.tagging.options import RowOptions

if TYPE_CHECKING:
    from openxclip.search.index import Index, Update


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """Options of `openxclip index`."""

    inputs: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(
            help="a folder, a manifest or tar shards; or, with --from-tags, the output of openxclip tag --embedding"
        ),
    ]
    index: Annotated[str, tyro.conf.arg(help="folder of the index; a path or a URL")]
    model: Model = "microsoft/xclip-base-patch32"
    windows: Annotated[
        str | None,
        tyro.conf.arg(metavar="SECONDS", help="a row per window of this length, e.g. 4s, not per video"),
    ] = None
    stride: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="SECONDS", help="time from one window to the next; by default the window length"
        ),
    ] = None
    from_tags: Annotated[bool, tyro.conf.arg(help="take the embeddings of a tag output")] = False
    context: Annotated[
        bool,
        tyro.conf.arg(
            help="store the context for prompts: searches need not decode candidates again, but the index is larger"
        ),
    ] = True
    decoders: Annotated[
        int | None, tyro.conf.arg(help="number of decoding processes; by default one per core")
    ] = None
    print_json: Json = False
    load: LoadOptions = field(default_factory=LoadOptions)
    limits: LimitOptions = field(default_factory=LimitOptions)
    inference: InferenceOptions = field(default_factory=InferenceOptions)


def index(options: Annotated[IndexOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]) -> int:
    """Update an index of videos: add new videos, read changed ones again, drop deleted ones.

    A video that cannot be read is named on stderr, and the exit status is then 1; the next update tries it again.
    """
    RowOptions(windows=options.windows, stride=options.stride).check()
    limits = options.limits.limits()
    import openxclip.search.index as search
    from openxclip.inference.engine import Engine
    from openxclip.tagging.sources import list_sources

    if not options.from_tags and search.read_settings(options.index) is None:
        list_sources(options.inputs)  # fail early; an existing index follows an emptied folder
    engine = Engine.load(options.load.source(options.model), options.inference)
    found = search.Index.open(
        options.index,
        engine,
        options.model,
        windows=options.windows,
        stride=options.stride,
        keep_context=options.context and not options.from_tags,
        limits=limits,
    )
    update = found.update_from_tags(options.inputs) if options.from_tags else _update(found, options)
    return _show(update, options.print_json)


def _update(found: "Index", options: IndexOptions) -> "Update":
    from openxclip.progress import progress_bar
    from openxclip.steps import finished

    steps = found.update_in_steps(options.inputs, options.decoders)
    _, total = next(steps)  # raises errors before a bar is drawn
    with progress_bar() as bar:
        task = bar.add_task("indexing", total=total, note="")
        return finished(steps, lambda step: bar.update(task, completed=step[0], total=step[1]))


def _show(update: "Update", as_json: bool) -> int:
    import sys

    if as_json:
        print(json.dumps(asdict(update)))
    else:
        print(
            f"{update.num_added} added, {update.num_changed} changed, {update.num_deleted} deleted, "
            f"{update.num_unchanged} unchanged; {update.num_rows} rows"
        )
    for path, reason in update.errors.items():
        print(f"openxclip: {path}: {reason}", file=sys.stderr)
    return int(bool(update.errors))
