"""`openxclip timeline`: find what happens when, in long videos and live streams."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from openxclip.caches import cache_folder, keep_compiled_code
from openxclip.cli.options import Json, LabelNames, LimitOptions, LoadOptions, Model, PromptOptions
from openxclip.inference.options import InferenceOptions
from openxclip.timelines.options import SegmentRules, WindowOptions

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from openxclip.text.label_texts import LabelTexts
    from openxclip.timelines.live import Event
    from openxclip.timelines.timeline import Timeline
    from openxclip.timelines.watcher import Watcher


FORMATS = "json,html"  # written if none are named


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """Options for a stream."""

    alert: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(metavar="LABEL=SCORE", help="print an event when a label reaches this score"),
    ] = ()
    webhook: Annotated[
        str | None, tyro.conf.arg(metavar="URL", help="post each alert to this URL, as JSON")
    ] = None
    once: Annotated[
        bool,
        tyro.conf.arg(help="stop when the stream first ends: for a URL that sends a video from its start"),
    ] = False


@dataclass(frozen=True, kw_only=True)
class TimelineOptions:
    """Options of `openxclip timeline`."""

    videos: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(
            help="video files; or one stream: - for standard input, a pipe, a camera such as /dev/video0, a URL "
            "such as rtsp://camera/stream"
        ),
    ]
    labels: LabelNames
    model: Model = "microsoft/xclip-base-patch32"
    threshold: Annotated[
        float | None,
        tyro.conf.arg(
            help="score that a label must reach: sets --enter to it and --leave to 0.6 times as much"
        ),
    ] = None
    background: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(
            metavar="FILE",
            help='footage in which none of the labels happens, to calibrate "none of these"; or the .json of an '
            "earlier timeline; or self: each video is mostly quiet",
        ),
    ] = ()
    output: Annotated[Path | None, tyro.conf.arg(help="folder to write results into")] = None
    formats: Annotated[
        str, tyro.conf.arg(help="formats to write there: any of json, csv, vtt, srt, html, png")
    ] = FORMATS
    print_json: Json = False
    windows: WindowOptions = field(default_factory=WindowOptions)
    rules: SegmentRules = field(default_factory=SegmentRules)
    live: LiveOptions = field(default_factory=LiveOptions)
    prompts: PromptOptions = field(default_factory=PromptOptions)
    load: LoadOptions = field(default_factory=LoadOptions)
    limits: LimitOptions = field(default_factory=LimitOptions)
    inference: InferenceOptions = field(default_factory=lambda: InferenceOptions(text_cache=cache_folder()))


def timeline(options: Annotated[TimelineOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]) -> int:
    """Find what happens when in videos: scores of windows over the whole length, and the segments of each label.

    For a stream, each window, segment, alert and loss is printed as a line of JSON as it happens, until the stream ends
    or Ctrl-C. A video that cannot be read is named on stderr, the others continue, and the exit status is then 1.
    """
    from openxclip.errors import InputError
    from openxclip.text.labels import parse_labels
    from openxclip.video.live import is_live

    if not options.videos:
        raise InputError("no video given; name at least one file, or a stream")
    rules = _rules(options)
    options.windows.check()
    alerts = _alerts(options.live)
    streams = [video for video in options.videos if is_live(video)]
    if streams and len(options.videos) > 1:
        raise InputError(f"{streams[0]} is a stream; give it alone, and run one command per stream")
    if streams and _is_for_files(options):
        raise InputError(
            "--output, --formats, --shots and --suppress are for files; for a stream, save the lines of stdout"
        )
    if not streams and (alerts or options.live.webhook or options.live.once):
        raise InputError("--alert, --webhook and --once are for streams; for files, read the segments")
    formats = _formats(options)
    if options.inference.runtime.may_compile:
        keep_compiled_code()
    texts = options.prompts.texts(tuple(parse_labels(options.labels, takes_one=bool(options.background))))
    if streams:
        _check_stream(streams[0], alerts, texts, options)
    watcher = _watcher(options, rules, texts)
    if streams:
        return _watch_stream(watcher, streams[0], alerts, options)
    return _watch_files(watcher, formats, options)


def _is_for_files(options: TimelineOptions) -> bool:
    """Whether options were given that streams do not support."""
    has_output = options.output is not None or options.formats != FORMATS
    return has_output or options.windows.shots or options.rules.suppress is not None


def _rules(options: TimelineOptions) -> SegmentRules:
    from dataclasses import replace

    from openxclip.errors import InputError

    rules = options.rules
    if options.threshold is not None:
        usual = SegmentRules()
        if (rules.enter, rules.leave) != (usual.enter, usual.leave):
            raise InputError("--threshold sets --enter and --leave; give either it or these")
        rules = replace(rules, enter=options.threshold, leave=0.6 * options.threshold)
    rules.check()
    return rules


def _alerts(options: LiveOptions) -> dict[str, float]:
    from openxclip.errors import InputError

    alerts: dict[str, float] = {}
    for text in options.alert:
        label, sign, score = text.rpartition("=")
        try:
            alerts[label.strip()] = float(score)
        except ValueError:
            sign = ""
        if not sign or not label.strip():
            raise InputError(f"--alert {text}: write a label and a score, such as --alert 'falling=0.8'")
    if options.webhook is not None and not alerts:
        raise InputError("--webhook posts alerts; define them with --alert LABEL=SCORE")
    return alerts


def _formats(options: TimelineOptions) -> tuple[str, ...]:
    from openxclip.errors import InputError
    from openxclip.reports.timeline import check_formats

    formats = tuple(name.strip() for name in options.formats.split(",") if name.strip())
    if options.output is None:
        if options.formats != FORMATS:
            raise InputError("--formats sets what --output writes; also give --output FOLDER")
        return ()
    if not formats:
        raise InputError("--formats is empty; give some, such as --formats json,html")
    check_formats(formats)
    _make(options.output)
    return formats


def _make(folder: Path) -> None:
    """Fail early, before a long video is watched."""
    import os

    from openxclip.errors import InputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output {folder} cannot be created ({error.strerror}); give another folder"
        ) from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"--output {folder} cannot be written; give another folder")


def _watcher(options: TimelineOptions, rules: SegmentRules, texts: "LabelTexts") -> "Watcher":
    from openxclip.inference.engine import Engine
    from openxclip.progress import progress_bar
    from openxclip.timelines.watcher import Watcher

    watcher = Watcher(
        Engine.load(options.load.source(options.model), options.inference),
        texts,
        windows=options.windows,
        rules=rules,
        limits=options.limits.limits_of_any_length(),
        model=options.model,
    )
    if options.background:
        with progress_bar() as bar:
            watcher.calibrate_with(options.background, shown_by(bar, "calibrating"))
    return watcher


def shown_by(bar: "Progress", what: str) -> "Callable[[tuple[float, float | None]], None]":
    """A task of the bar for the seconds seen of a video, out of its length if known, from the first step on."""
    task: TaskID | None = None

    def show(step: tuple[float, float | None]) -> None:
        nonlocal task
        if task is None:
            task = bar.add_task(what, total=None, note="")
        done, total = step
        note = f"{_time(done)} of {_time(total)}" if total else _time(done)
        bar.update(task, completed=done, total=total and max(total, done), note=note)

    return show


# --- files --------------------------------------------------------------------------------------------------------


def _watch_files(watcher: "Watcher", formats: Sequence[str], options: TimelineOptions) -> int:
    from openxclip.errors import VideoError
    from openxclip.timelines.formats import json_line, output_names

    failed = False
    names = output_names(options.videos, options.output or Path())
    for video, name in zip(options.videos, names, strict=True):
        try:
            found = _with_progress(watcher, video, thumbnails=options.output is not None)
        except VideoError as error:
            failed = True
            print(f"openxclip: {error}", file=sys.stderr)
            if options.print_json:
                print(json.dumps({"video": video, "error": error.reason, "kind": error.kind}), flush=True)
            continue
        if options.print_json:
            sys.stdout.writelines(json_line(found))
            print(flush=True)
        else:
            print(_text(found), flush=True)
        if options.output is not None:
            _write(found, options.output, formats, name)
    return int(failed)


def _with_progress(watcher: "Watcher", video: str, *, thumbnails: bool) -> "Timeline":
    from openxclip.progress import progress_bar
    from openxclip.steps import finished

    with progress_bar() as bar:
        return finished(watcher.watch_in_steps(video, thumbnails=thumbnails), shown_by(bar, "watching"))


def _write(found: "Timeline", folder: Path, formats: Sequence[str], name: str) -> None:
    from openxclip.reports.timeline import write

    for path in write(found, folder, formats, name):
        print(f"openxclip: wrote {path}", file=sys.stderr)


def _text(found: "Timeline") -> str:
    lines = [f"{found.path}  {_time(found.duration_seconds)}, {len(found.starts_seconds)} windows"]
    for segment in found.segments:
        lines.append(
            f"  {_time(segment.start_seconds)} - {_time(segment.end_seconds)}  {segment.score:6.1%}  {segment.label}"
        )
    if not found.segments:
        lines.append("  none of the labels")
    for item in found.breaks:
        lines.append(f"  {_time(item.start_seconds)} - {_time(item.end_seconds)}  {item.kind}: {item.reason}")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


# --- streams ------------------------------------------------------------------------------------------------------


def _check_stream(
    source: str, alerts: dict[str, float], texts: "LabelTexts", options: TimelineOptions
) -> None:
    """Fail early, before a model is loaded and a background is calibrated."""
    from openxclip.timelines.live import check_live
    from openxclip.timelines.webhook import check_address
    from openxclip.video.live import check_kind

    check_kind(source)
    check_live(alerts, texts.labels, is_own_background="self" in options.background)
    if options.live.webhook is not None:
        check_address(options.live.webhook)


def _watch_stream(watcher: "Watcher", source: str, alerts: dict[str, float], options: TimelineOptions) -> int:
    from contextlib import closing

    from openxclip.signals import stopped_by_signals
    from openxclip.timelines.live import LiveWatcher
    from openxclip.timelines.webhook import Webhook
    from openxclip.video.live import LivePlayer

    live = LiveWatcher(watcher, alerts=alerts)
    webhook = None if options.live.webhook is None else Webhook(options.live.webhook)
    with stopped_by_signals() as stop:
        player = LivePlayer(source, limits=watcher.limits, reconnects=not options.live.once, wait=stop.wait)
        with closing(webhook) if webhook is not None else _nothing():
            for event in live.events(player, stop):
                _show(event)
                if webhook is not None and event.kind == "alert":
                    webhook.post(event.to_dict())
    return 0


def _show(event: "Event") -> None:
    print(json.dumps(event.to_dict()), flush=True)
    if event.reason is not None and event.kind != "end":
        print(f"openxclip: {event.kind}: {event.reason}", file=sys.stderr, flush=True)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
