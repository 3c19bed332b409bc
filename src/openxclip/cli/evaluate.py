"""`openxclip evaluate`: accuracy on labelled videos."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from openxclip.cli.options import (
    Device,
    Dtype,
    Json,
    Labels,
    MediaRoot,
    Model,
    NumFrames,
    Templates,
    TokenizerSource,
    ViewsText,
)

if TYPE_CHECKING:
    from openxclip.evaluation.evaluate import Evaluation


def evaluate(
    model: Model,
    data: Annotated[
        Path, tyro.conf.arg(help="list of `path label_id` lines, or a folder with labels.csv and lists")
    ],
    list_name: Annotated[str | None, tyro.conf.arg(name="list", help="which list of the folder")] = None,
    labels: Labels = None,
    output: Annotated[
        Path | None, tyro.conf.arg(help="folder for evaluation.json and the confusion matrix as a picture")
    ] = None,
    views: ViewsText = "1x1",
    templates: Templates = "name",
    print_json: Json = False,
    media_root: MediaRoot = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    num_frames: NumFrames = None,
    tokenizer: TokenizerSource = None,
) -> int:
    """Top-1, top-5, accuracy of each class and the confusion matrix of a model on labelled videos.

    A folder's test.txt is taken where --list says nothing else. Videos that cannot be read are counted and
    listed, and make the exit status 1.
    """
    from openxclip.data.manifest import read_manifest
    from openxclip.data.templates import parse_templates
    from openxclip.inference.views import Views

    parsed, prompts = Views.parse(views), parse_templates(templates)
    if list_name is None and (data / "test.txt").is_file():
        list_name = "test.txt"
    manifest = read_manifest(data, list_name=list_name, labels=labels, media_root=media_root)
    if output is not None:
        _prepare(output)

    from openxclip.evaluation.evaluate import evaluate as score
    from openxclip.inference.recognizer import Recognizer
    from openxclip.progress import progress_bar

    recognizer = Recognizer.from_pretrained(
        model,
        manifest.labels,
        prompts,
        device=device,
        dtype=dtype,
        num_frames=num_frames,
        tokenizer=tokenizer,
    )
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=len(manifest.items), note="")
        result = score(recognizer, manifest, parsed, lambda: bar.advance(task))
    if output is not None:
        _write(result, output)
    print(json.dumps(asdict(result)) if print_json else _table(result))
    for video in result.videos:
        if "error" in video:
            print(f"openxclip: {video['path']}: {video['error']}", file=sys.stderr)
    return int(result.num_unreadable > 0)


def _prepare(output: Path) -> None:
    """Miss now what would be missing at the end."""
    import openxclip.evaluation.plots  # noqa: F401
    from openxclip.errors import InputError

    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; give a folder, new or existing")
    output.mkdir(parents=True, exist_ok=True)


def _write(result: "Evaluation", output: Path) -> None:
    from openxclip.evaluation.plots import plot_confusion

    result.save(output / "evaluation.json")
    plot_confusion(result.confusion, [row.label for row in result.classes], output / "confusion.png")


def _table(result: "Evaluation") -> str:
    width = max(len(row.label) for row in result.classes)
    lines = [
        f"{row.label:{width}}  {row.num_videos:4} videos  "
        + ("     -" if row.accuracy is None else f"{row.accuracy:6.1%}")
        for row in result.classes
    ]
    lines.append("")
    lines.append(f"top-1 {result.top1:.1%}   top-5 {result.top5:.1%}   {result.data}, views {result.views}")
    if result.num_unreadable:
        lines.append(
            f"{result.num_unreadable} of {result.num_videos} videos could not be read and are not counted"
        )
    return "\n".join(lines)
