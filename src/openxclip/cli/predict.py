"""`openxclip predict`: name what happens in videos."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from openxclip.cli.options import (
    DescriptionsFile,
    Device,
    Dtype,
    ImageModel,
    Interpolate,
    Json,
    Model,
    NumFrames,
    ShortcutOptions,
    Templates,
    TokenizerSource,
    ViewsText,
)
from openxclip.inference.shortcuts import Shortcuts, cache_folder, keep_compiled_code

if TYPE_CHECKING:
    from openxclip.data.descriptions import Descriptions
    from openxclip.inference.recognizer import Prediction
    from openxclip.video.decode import VideoLimits

SHORTCUTS = Shortcuts(text_cache=cache_folder())


def predict(
    videos: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(help="video files, or folders searched for videos"),
    ],
    labels: Annotated[
        str,
        tyro.conf.arg(
            help='"a, b, c", a file (one a line, or id,name), or kinetics400, kinetics600, ucf101, hmdb51'
        ),
    ],
    model: Model = "microsoft/xclip-base-patch32",
    views: ViewsText = "1x1",
    top_k: Annotated[int, tyro.conf.arg(help="labels to show for each video")] = 5,
    templates: Templates = "name",
    descriptions: DescriptionsFile = None,
    json_lines: Json = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    num_frames: NumFrames = None,
    tokenizer: TokenizerSource = None,
    interpolate: Interpolate = None,
    image_model: ImageModel = None,
    max_seconds: Annotated[float | None, tyro.conf.arg(help="refuse longer videos")] = None,
    max_frame_px: Annotated[int | None, tyro.conf.arg(help="refuse frames of more pixels")] = None,
    shortcuts: ShortcutOptions = SHORTCUTS,
) -> int:
    """Rank your labels for each video, best first.

    A video that cannot be read gets its error in its row, the others go on, and the exit status is 1. With
    --json, each video is one line: {"path", "scores": [[label, probability], ...], "error"}.
    """
    from openxclip.text.labels import parse_labels
    from openxclip.text.templates import parse_templates

    if shortcuts.compile:
        keep_compiled_code()
    _check(top_k, views)
    names, prompts, paths = parse_labels(labels), parse_templates(templates), _find_videos(videos)
    texts = _described(names, descriptions)

    from openxclip.inference.recognizer import Recognizer

    recognizer = Recognizer.from_pretrained(
        model,
        names,
        prompts,
        device=device,
        dtype=dtype,
        num_frames=num_frames,
        tokenizer=tokenizer,
        interpolate=interpolate,
        image_model=image_model,
        limits=_limits(max_seconds, max_frame_px),
        descriptions=texts,
        shortcuts=shortcuts,
    )
    predictions = recognizer.predict_each(paths, top_k=top_k, views=views)
    return _show_all(_with_progress(predictions, len(paths)), json_lines)


def _check(top_k: int, views: str) -> None:
    from openxclip.errors import InputError
    from openxclip.inference.views import Views

    if top_k < 1:
        raise InputError(f"--top-k must be at least 1, got {top_k}")
    Views.parse(views)


def _described(labels: Sequence[str], descriptions: str | None) -> "Descriptions | None":
    """The texts of every label: one that lacks them shows before the model is loaded."""
    from openxclip.data.descriptions import parse_descriptions, texts_of

    found = parse_descriptions(descriptions)
    texts_of(labels, found)
    return found


def _find_videos(paths: Sequence[Path]) -> list[Path]:
    """The files given, and the videos inside the folders given, in order of name.

    A missing file and a folder without videos stay in the list: their row says so.
    """
    from openxclip.data.manifest import VIDEO_SUFFIXES
    from openxclip.errors import InputError

    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(
            file
            for file in path.rglob(
                "[!.]*"
            )  # not the hidden "._clip.mp4" that some systems put beside clip.mp4
            if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file()
        )
        found += inside or [path]
    if not found:
        raise InputError("no video given; name at least one file or folder")
    if all(path.is_dir() for path in found):
        raise InputError(f"{', '.join(map(str, found))}: {_no_videos()}")
    return found


def _no_videos() -> str:
    from openxclip.data.manifest import VIDEO_SUFFIXES

    return f"the folder holds no video; known endings are {', '.join(sorted(VIDEO_SUFFIXES))}"


def _limits(max_seconds: float | None, max_frame_px: int | None) -> "VideoLimits":
    from openxclip.video.decode import VideoLimits

    limits = VideoLimits()
    if max_seconds is not None:
        limits = replace(limits, max_seconds=max_seconds)
    if max_frame_px is not None:
        limits = replace(limits, max_frame_px=max_frame_px)
    return limits


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
    """Exit status: 1 if one of them failed."""
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
