"""Options that several commands share: bundles of options, and single ones as annotated types."""

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
        "moving-shapes for that world's own",
    ),
]
ViewsText = Annotated[
    str,
    tyro.conf.arg(
        help="temporal clips x spatial crops, e.g. 1x1 or 4x3; 3x1@16: each clip every 16th frame of a window"
    ),
]
Json = Annotated[bool, tyro.conf.arg(name="json", help="print JSON for machines")]
LabelNames = Annotated[
    str,
    tyro.conf.arg(
        help='"a, b, c", a file (one a line, CSV, JSON or YAML), or kinetics400, kinetics600, ucf101, hmdb51'
    ),
]
Labels = Annotated[
    str | None,
    tyro.conf.arg(
        help='label set used instead of the labels.csv beside the list: a file, "a, b, c", or a built-in name'
    ),
]
MediaRoot = Annotated[
    Path | None, tyro.conf.arg(help="folder or .tar that holds the videos, if they are not beside the list")
]


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a model is loaded."""

    device: Device = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"], tyro.conf.arg(help="precision of the weights")
    ] = "auto"
    num_frames: Annotated[
        int | None,
        tyro.conf.arg(
            name="frames", help="frames of a clip, if other than in training (positions are interpolated)"
        ),
    ] = None
    tokenizer: TokenizerSource = None
    interpolate: Annotated[
        float | None,
        tyro.conf.arg(
            help="share of the fine-tuned weights, 0 to 1; the rest is those of the image model they started from "
            "(WiSE-FT)",
        ),
    ] = None
    image_model: Annotated[
        str | None,
        tyro.conf.arg(
            help="the image model for --interpolate; for a training run, by default the one it started from"
        ),
    ] = None

    def source(self, model: str) -> ModelSource:
        """A model, loaded this way."""
        return ModelSource(source=model, **vars(self))


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """How labels become sentences."""

    templates: Annotated[
        str,
        tyro.conf.arg(
            help="prompt templates: name, video, photo, clip-video or clip-80, or a file with one a line"
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
    """Which videos are refused."""

    max_seconds: Annotated[float | None, tyro.conf.arg(help="refuse longer videos")] = None
    max_frame_px: Annotated[int | None, tyro.conf.arg(help="refuse frames of more pixels")] = None

    def limits(self) -> "VideoLimits":
        """With the defaults for those not given."""
        from openxclip.video.source import VideoLimits

        return VideoLimits.given(max_seconds=self.max_seconds, max_frame_px=self.max_frame_px)

    def limits_of_any_length(self) -> "VideoLimits":
        """The same for what is played once: without --max-seconds a video may last as long as it likes."""
        from openxclip.video.source import VideoLimits

        seconds = math.inf if self.max_seconds is None else self.max_seconds
        return VideoLimits.given(max_seconds=seconds, max_frame_px=self.max_frame_px)
