"""Options that several commands share, as annotated types."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from openxclip.inference.shortcuts import Shortcuts

Device = Annotated[str, tyro.conf.arg(help="auto, cpu, cuda, cuda:1, mps")]
Dtype = Annotated[Literal["auto", "float32", "bfloat16"], tyro.conf.arg(help="precision of the weights")]
Model = Annotated[
    str,
    tyro.conf.arg(
        help="hub id, model folder (ours or Hugging Face's), run folder, official .pth, or openxclip-tiny, which "
        "needs no download (moving shapes only)"
    ),
]
NumFrames = Annotated[
    int | None,
    tyro.conf.arg(
        name="frames",
        help="run the model on another number of frames than it was trained with (positions interpolated)",
    ),
]
TokenizerSource = Annotated[
    str | None,
    tyro.conf.arg(
        name="tokenizer",
        help="for models that bring none: a tokenizer.json, a hub id, or CLIP's merges file",
    ),
]
Templates = Annotated[
    str,
    tyro.conf.arg(
        help="prompt templates: a built-in name (name, video, clip-video, clip-80), or a file with one a line"
    ),
]
DescriptionsFile = Annotated[
    str | None,
    tyro.conf.arg(
        name="descriptions",
        help="texts that stand for the labels in place of their names: a JSON file of label -> text or list of texts, "
        "or moving-shapes for that world's own",
    ),
]
ViewsText = Annotated[str, tyro.conf.arg(help="temporal clips x spatial crops, e.g. 1x1 or 4x3")]
Interpolate = Annotated[
    float | None,
    tyro.conf.arg(
        help="share of the fine-tuned weights, 0 to 1; the rest is the image model's that they started from (WiSE-FT)",
    ),
]
ImageModel = Annotated[
    str | None,
    tyro.conf.arg(
        help="the image model for --interpolate; where --model is a run folder, the start of that run"
    ),
]
ShortcutOptions = Annotated[Shortcuts, tyro.conf.OmitArgPrefixes]
Json = Annotated[bool, tyro.conf.arg(name="json", help="print JSON for machines")]
Labels = Annotated[
    str | None,
    tyro.conf.arg(
        help='label set in place of the labels.csv beside the list: a file, "a, b, c", or a built-in name'
    ),
]
MediaRoot = Annotated[
    Path | None, tyro.conf.arg(help="folder or .tar that holds the videos, if they are not beside the list")
]
