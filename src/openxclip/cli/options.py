"""Options shared by several commands: groups of options, and single ones as annotated types."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from openxclip.checkpoints.source import ModelSource

if TYPE_CHECKING:
    from openxclip.text.label_texts import LabelTexts
    from openxclip.video.source import VideoLimits

Device = Annotated[str, tyro.conf.arg(help="auto, cpu, cuda, cuda:1, mps")]
Model = Annotated[
    str,
    tyro.conf.arg(
        help="hub id, model folder (ours or Hugging Face's), run folder, official .pth, or openxclip-tiny, which "
        "needs no download (moving shapes only)"
    ),
]
TokenizerSource = Annotated[
    str | None,
    tyro.conf.arg(
        name="tokenizer",
        help="for models without one: a tokenizer.json, a hub id, or CLIP's merges file",
    ),
]
DescriptionsFile = Annotated[
    str | None,
    tyro.conf.arg(
        name="descriptions",
        help="text prompts used instead of label names: a JSON file of label -> text or list of texts, or "
        "moving-shapes for the built-in ones",
    ),
]
ViewsText = Annotated[
    str,
    tyro.conf.arg(
        help="temporal clips x spatial crops, e.g. 1x1 or 4x3; 3x1@16: each clip takes every 16th frame of a window"
    ),
]
Json = Annotated[bool, tyro.conf.arg(name="json", help="print JSON")]
LabelNames = Annotated[
    str,
    tyro.conf.arg(
        help='"a, b, c", a file (one per line, CSV, JSON or YAML), or kinetics400, kinetics600, ucf101, hmdb51'
    ),
]
Labels = Annotated[
    str | None,
    tyro.conf.arg(
        help='label set used instead of the labels.csv next to the list: a file, "a, b, c", or a built-in name'
    ),
]
MediaRoot = Annotated[
    Path | None, tyro.conf.arg(help="folder or .tar with the videos, if they are not next to the list")
]


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Options for loading a model."""

    device: Device = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"], tyro.conf.arg(help="precision of the weights")
    ] = "auto"
    num_frames: Annotated[
        int | None,
        tyro.conf.arg(
            name="frames", help="frames of a clip, if different from training (positions are interpolated)"
        ),
    ] = None
    tokenizer: TokenizerSource = None
    interpolate: Annotated[
        float | None,
        tyro.conf.arg(
            help="share of the fine-tuned weights, 0 to 1; the rest comes from the image model they started from "
            "(WiSE-FT)",
        ),
    ] = None
    image_model: Annotated[
        str | None,
        tyro.conf.arg(
            help="image model for --interpolate; for a training run, by default the one it started from"
        ),
    ] = None

    def source(self, model: str) -> ModelSource:
        """A model and the options for loading it."""
        return ModelSource(source=model, **vars(self))


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """Options for turning labels into sentences."""

    templates: Annotated[
        str,
        tyro.conf.arg(
            help="prompt templates: name, video, photo, clip-video or clip-80, or a file with one per line"
        ),
    ] = "name"
    descriptions: DescriptionsFile = None

    def check(self) -> None:
        """Read the templates and descriptions, to fail early.

        Raises:
            InputError: they cannot be read.
        """
        from openxclip.data.descriptions import parse_descriptions
        from openxclip.text.templates import parse_templates

        parse_templates(self.templates)
        parse_descriptions(self.descriptions)

    def texts(self, labels: Sequence[str]) -> "LabelTexts":
        """These labels with the templates and descriptions, read and checked."""
        from openxclip.data.descriptions import parse_descriptions
        from openxclip.text.label_texts import LabelTexts
        from openxclip.text.templates import parse_templates

        templates = parse_templates(self.templates)
        return LabelTexts(
            labels=labels, templates=templates, descriptions=parse_descriptions(self.descriptions)
        )


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """Limits beyond which videos are refused."""

    max_seconds: Annotated[float | None, tyro.conf.arg(help="refuse longer videos")] = None
    max_frame_px: Annotated[int | None, tyro.conf.arg(help="refuse frames of more pixels")] = None

    def limits(self) -> "VideoLimits":
        """The limits, with defaults for those not given."""
        from openxclip.video.source import VideoLimits

        return VideoLimits.given(max_seconds=self.max_seconds, max_frame_px=self.max_frame_px)

    def limits_of_any_length(self) -> "VideoLimits":
        """The same for playback in one pass: without --max-seconds the length is unlimited."""
        from openxclip.video.source import VideoLimits

        seconds = math.inf if self.max_seconds is None else self.max_seconds
        return VideoLimits.given(max_seconds=seconds, max_frame_px=self.max_frame_px)
