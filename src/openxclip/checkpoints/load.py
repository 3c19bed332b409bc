"""Loads a model from any source."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from openxclip.checkpoints.device import resolve_device, resolve_dtype
from openxclip.checkpoints.formats.registry import read_checkpoint
from openxclip.checkpoints.model_tokenizer import tokenizer_of
from openxclip.checkpoints.resolve import locate
from openxclip.checkpoints.runs import start_of
from openxclip.checkpoints.source import ModelSource
from openxclip.errors import InputError
from openxclip.models import XCLIP
from openxclip.models.interpolate import check_share, interpolate_weights
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer
from openxclip.video.transforms import Preprocessor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """How a model was read."""

    source: str
    """The folder or file."""
    format: str
    """Name of the format."""
    is_image_model: bool
    """Whether no part of the model looks across frames."""
    notes: tuple[str, ...]
    """Deviations from the source, and other notes for the user."""


class Loaded(NamedTuple):
    """A loaded model, its tokenizer and its preprocessing."""

    model: XCLIP
    tokenizer: Tokenizer | MissingTokenizer
    preprocess: Preprocessor


def load(
    source: str | Path | ModelSource,
    *,
    device: str = "auto",
    dtype: str = "auto",
    num_frames: int | None = None,
    tokenizer: str | Path | None = None,
    revision: str | None = None,
    interpolate: float | None = None,
    image_model: str | Path | None = None,
) -> Loaded:
    """Load a model in eval mode, its tokenizer and its preprocessing.

    Args:
        source: hub id, folder (ours, Hugging Face's, open_clip's, or of a training run), official `.pth`, OpenAI CLIP
            `.pt`, or "openxclip-tiny", which comes with the package. A language-image model (CLIP, SigLIP, ...) is
            loaded as it is: it recognises by the mean over frames. A `ModelSource` holds all of these arguments.
        device: the name of any torch device; "auto" is the device named by $OPENXCLIP_DEVICE, else CUDA if it is
            available, else the CPU.
        dtype: the name of a dtype; "auto" is bfloat16 on GPUs and CPUs that support it (AMX, AVX512-BF16),
            else float32.
        num_frames: frames of a clip, if different from training: time positions are then interpolated.
        tokenizer: tokenizer.json, CLIP's merges file, a folder, or a hub id, for a source without one.
        revision: branch, tag or commit of a hub source.
        interpolate: share of the source's weights, 0 to 1; the rest is `image_model`'s, for all parameters that both
            have (WiSE-FT).
        image_model: any source; None is the start of the run, if the source is a run folder.

    Raises:
        CheckpointError: the source cannot be read, or is neither an X-CLIP nor a language-image model.
        InputError: there is no such device, dtype or number of frames, or no image model to interpolate with.
        HubError: the source cannot be downloaded.
        TokenizerError: the tokenizer cannot be read, or belongs to another model.
    """
    options = ModelSource(
        source="" if isinstance(source, ModelSource) else _text(source),
        device=device,
        dtype=dtype,
        num_frames=num_frames,
        tokenizer=None if tokenizer is None else _text(tokenizer),
        revision=revision,
        interpolate=interpolate,
        image_model=None if image_model is None else _text(image_model),
    )
    if isinstance(source, ModelSource):
        if options != ModelSource(source=""):
            raise InputError("a ModelSource holds all options; set them there, not as arguments of load")
        options = source
    loaded, report = read_model(options)
    log_report(report)
    return loaded


def read_model(source: ModelSource) -> tuple[Loaded, LoadReport]:
    """Load a model without logging, and report how it was read. Raises as `load` does."""
    device = resolve_device(source.device)
    dtype = resolve_dtype(source.dtype, device)
    _check_num_frames(source.num_frames)
    image_model = _image_model(source)
    path = locate(source.source, source.revision)
    checkpoint, format = read_checkpoint(path)
    model, notes = checkpoint.model, checkpoint.notes
    num_frames, trained = source.num_frames, model.config.num_frames
    if num_frames is not None and num_frames != trained:
        if model.integration is not None:
            notes += (f"time positions interpolated from {trained} frames to {num_frames}",)
        model = model.with_num_frames(num_frames)
    if source.interpolate is not None and image_model is not None:
        notes += (_interpolate(model, image_model, source.interpolate),)
    tokenizer = tokenizer_of(source, path, model.config.text)
    report = LoadReport(
        source=str(path), format=format, is_image_model=model.config.is_image_model, notes=notes
    )
    return Loaded(model.to(device=device, dtype=dtype), tokenizer, checkpoint.preprocess), report


def log_report(report: LoadReport) -> None:
    """Log every note as a warning, and warn if the model cannot see motion."""
    if report.is_image_model:
        logger.warning(
            "%s is an image model: it looks at each frame alone and takes the mean, so it ignores the order of frames",
            report.source,
        )
    for note in report.notes:
        logger.warning("%s: %s", report.source, note)


def _text(source: str | Path) -> str:
    """The source as text; "./" distinguishes a relative path from a hub id."""
    return str(source) if isinstance(source, str) or source.is_absolute() else f"./{source}"


def _check_num_frames(num_frames: int | None) -> None:
    if num_frames is not None and (type(num_frames) is not int or num_frames < 1):
        raise InputError(f"num_frames must be a whole number of at least 1, got {num_frames}")


def _image_model(source: ModelSource) -> str | None:
    """The image model to interpolate with: the given one, or the start of the run that the source is."""
    if source.interpolate is None:
        if source.image_model is not None:
            raise InputError("image_model is only used for interpolation; also give interpolate, e.g. 0.5")
        return None
    check_share(source.interpolate)
    return source.image_model or start_of(source.source)


def _interpolate(model: XCLIP, image_model: str, share: float) -> str:
    """Interpolate in place -> a note about it."""
    checkpoint, _ = read_checkpoint(locate(image_model))
    other = checkpoint.model.with_num_frames(model.config.num_frames)
    num_interpolated, num_kept = interpolate_weights(model, other, share)
    return (
        f"{num_interpolated:,} parameters are {share:g} times these and {1 - share:g} times those of {image_model}; "
        f"{num_kept:,}, which only these weights have, are kept"
    )
