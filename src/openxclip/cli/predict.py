"""`openxclip predict`: recognise what happens in videos."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from openxclip.caches import cache_folder, keep_compiled_code
from openxclip.cli.options import Json, LabelNames, LimitOptions, LoadOptions, Model, PromptOptions, ViewsText
from openxclip.inference.options import InferenceOptions

if TYPE_CHECKING:
    from openxclip.inference.recognizer import Prediction


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of `openxclip predict`."""

    videos: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(help="video files, or folders searched for videos"),
    ]
    labels: LabelNames
    model: Model = "microsoft/xclip-base-patch32"
    views: ViewsText = "1x1"
    top_k: Annotated[int, tyro.conf.arg(help="number of labels to show for each video")] = 5
    any_order: Annotated[
        bool, tyro.conf.arg(help="print each video as soon as it is recognised, not in the given order")
    ] = False
    print_json: Json = False
    prompts: PromptOptions = field(default_factory=PromptOptions)
    load: LoadOptions = field(default_factory=LoadOptions)
    limits: LimitOptions = field(default_factory=LimitOptions)
    inference: InferenceOptions = field(default_factory=lambda: InferenceOptions(text_cache=cache_folder()))


def predict(options: Annotated[PredictOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]) -> int:
    """Rank your labels for each video, best first.

    A video that cannot be read is reported as an error; the others continue, and the exit status is 1. With --json,
    each video is one line: {"path", "scores": [[label, probability], ...], "error"}.
    """
    from openxclip.text.labels import parse_labels

    if options.inference.runtime.may_compile:
        keep_compiled_code()
    _check(options.top_k, options.views)
    labels, paths = parse_labels(options.labels), _find_videos(options.videos)
    texts, limits = options.prompts.texts(tuple(labels)), options.limits.limits()

    from openxclip.inference.engine import Engine
    from openxclip.inference.recognizer import Recognizer

    engine = Engine.load(options.load.source(options.model), options.inference)
    recognizer = Recognizer(engine, texts, limits)
    predictions = recognizer.predict_each(
        paths, top_k=options.top_k, views=options.views, ordered=not options.any_order
    )
    return _show_all(_with_progress(predictions, len(paths)), options.print_json)


def _check(top_k: int, views: str) -> None:
    from openxclip.errors import InputError
    from openxclip.inference.views import Views

    if top_k < 1:
        raise InputError(f"--top-k must be at least 1, got {top_k}")
    Views.parse(views)


def _find_videos(paths: Sequence[Path]) -> list[Path]:
    """The files given, and the videos inside the folders given, sorted by name.

    Missing files and folders without videos stay in the list: their rows report the error.
    """
    from openxclip.data.manifest import VIDEO_SUFFIXES
    from openxclip.errors import InputError

    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        visible = path.rglob("[!.]*")  # some systems put a hidden "._clip.mp4" next to clip.mp4
        inside = sorted(file for file in visible if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
        found += inside or [path]
    if not found:
        raise InputError("no video given; name at least one file or folder")
    if all(path.is_dir() for path in found):
        raise InputError(f"{', '.join(map(str, found))}: {_no_videos()}")
    return found


def _no_videos() -> str:
    from openxclip.data.manifest import VIDEO_SUFFIXES

    return f"the folder holds no video; known endings are {', '.join(sorted(VIDEO_SUFFIXES))}"


def _with_progress(predictions: "Iterator[Prediction]", total: int) -> "Iterator[Prediction]":
    from openxclip.progress import progress_bar

    if total == 1:
        yield from predictions
        return
    with progress_bar() as bar:
        task = bar.add_task("recognising", total=total, note="")
        for prediction in predictions:
            bar.advance(task)
            yield prediction


def _show_all(predictions: "Iterator[Prediction]", as_json: bool) -> int:
    """Exit status: 1 if a video failed."""
    failed = False
    for prediction in predictions:
        if Path(prediction.path).is_dir():
            prediction = replace(prediction, error=_no_videos())
        _show(prediction, as_json)
        failed |= prediction.error is not None
    return int(failed)


def _show(prediction: "Prediction", as_json: bool) -> None:
    print(json.dumps(asdict(prediction)) if as_json else _text(prediction), flush=True)
    if prediction.error is not None:
        print(f"openxclip: {prediction.path}: {prediction.error}", file=sys.stderr)


def _text(prediction: "Prediction") -> str:
    lines = [f"  {probability:6.1%}  {label}" for label, probability in prediction.scores]
    if prediction.error is not None:
        lines.append(f"  cannot be read: {prediction.error}")
    return "\n".join([prediction.path, *lines])
