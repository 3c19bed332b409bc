"""One door for every source of a model."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from openxclip.checkpoints.checkpoint import CONFIG_FILE, Checkpoint
from openxclip.checkpoints.formats.huggingface import MODEL_TYPE, read_huggingface
from openxclip.checkpoints.formats.huggingface_clip import TABLES as LANGUAGE_IMAGE_MODELS
from openxclip.checkpoints.formats.huggingface_clip import read_huggingface_clip
from openxclip.checkpoints.formats.native import read_native
from openxclip.checkpoints.formats.official import is_official, read_official
from openxclip.checkpoints.formats.open_clip import (
    OPEN_CLIP_CONFIG_FILE,
    OPEN_CLIP_WEIGHTS_FILES,
    cleaning_of,
    read_open_clip,
)
from openxclip.checkpoints.formats.openai_clip import read_openai_clip
from openxclip.checkpoints.hub import download_model, download_tokenizer, is_hub_id
from openxclip.checkpoints.shipped import SHIPPED, shipped_folder
from openxclip.checkpoints.unpickle import TorchFile, tensors_of
from openxclip.checkpoints.weights import WEIGHTS_FILES, find_weights
from openxclip.errors import CheckpointError, InputError, TokenizerError
from openxclip.files import existing_folder, read_json
from openxclip.models import XCLIP
from openxclip.models.config import TextConfig
from openxclip.models.interpolate import check_share, interpolate_weights
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer
from openxclip.text.tokenizer_folder import CONFIG_FILE as TOKENIZER_CONFIG_FILE
from openxclip.text.tokenizer_folder import FILES as TOKENIZER_FILES
from openxclip.text.tokenizer_folder import read_huggingface_tokenizer
from openxclip.video.transforms import Preprocessor

logger = logging.getLogger(__name__)

Format = Literal["openxclip", "huggingface", "open-clip", "official", "openai-clip"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHTS_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
CHECKPOINTS_OF_A_RUN = ("average", "best", "last")


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """How a model was read."""

    source: str
    """The folder or file."""
    format: Format
    """The format it is in."""
    is_image_model: bool
    """Whether nothing in the model looks across frames."""
    notes: tuple[str, ...]
    """What is worth knowing."""


class Loaded(NamedTuple):
    """What `openxclip.load` gives."""

    model: XCLIP
    tokenizer: Tokenizer | MissingTokenizer
    preprocess: Preprocessor


def load(
    source: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    num_frames: int | None = None,
    tokenizer: str | Path | None = None,
    revision: str | None = None,
    interpolate: float | None = None,
    image_model: str | Path | None = None,
) -> Loaded:
    """Model in eval mode, tokenizer and preprocessor.

    Args:
        source: hub id, folder (ours, Hugging Face's, open_clip's, or that of a training run), official `.pth`, OpenAI
            CLIP `.pt`, or "openxclip-tiny", which comes with the package. A language-image model (CLIP, SigLIP, ...) is
            taken as it is: it recognises by the mean over frames.
        device: "auto" is CUDA where there is one, else the CPU; any device that torch knows by name.
        dtype: "auto" is bfloat16 on GPUs and processors that compute in it (AMX, AVX512-BF16), else float32; or the
            name of a type.
        num_frames: frames of a clip, where not those of the training: time positions are then interpolated.
        tokenizer: tokenizer.json, CLIP's merges file, a folder, or a hub id; where the source has none.
        revision: branch, tag or commit of a hub source.
        interpolate: share of the source's weights, 0 to 1; the rest is `image_model`'s, for all parameters that both
            have (WiSE-FT).
        image_model: any source; None is what the training started from, where the source is the folder of a run.

    Raises:
        CheckpointError: the source cannot be read, or is neither an X-CLIP nor a language-image model.
        InputError: there is no such device, dtype or number of frames, or no image model to interpolate with.
        HubError: it cannot be downloaded.
        TokenizerError: the tokenizer cannot be read or is not that of the model.
    """
    loaded, report = load_with_report(
        source,
        device=device,
        dtype=dtype,
        num_frames=num_frames,
        tokenizer=tokenizer,
        revision=revision,
        interpolate=interpolate,
        image_model=image_model,
    )
    log_report(report)
    return loaded


def log_report(report: LoadReport) -> None:
    """Warn of what a model cannot see, and of what was read otherwise than one may expect."""
    if report.is_image_model:
        logger.warning(
            "%s is an image model: it looks at each frame alone and takes the mean, so the order of frames says "
            "nothing to it",
            report.source,
        )
    for note in report.notes:
        logger.warning("%s: %s", report.source, note)


def load_with_report(
    source: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    num_frames: int | None = None,
    tokenizer: str | Path | None = None,
    revision: str | None = None,
    interpolate: float | None = None,
    image_model: str | Path | None = None,
) -> tuple[Loaded, LoadReport]:
    """`load`, and how the source was read."""
    target = resolve_device(device)
    precision = resolve_dtype(dtype, target)
    _check_num_frames(num_frames)
    if interpolate is None and image_model is not None:
        raise InputError("image_model is only read to interpolate with it; give interpolate, too, e.g. 0.5")
    other = None if interpolate is None else _image_model(source, image_model, interpolate)
    path = _locate(source, revision)
    checkpoint, format = _read(path)
    model, notes = checkpoint.model, checkpoint.notes
    if num_frames is not None and num_frames != model.config.num_frames:
        if model.integration is not None:
            notes += (f"time positions interpolated from {model.config.num_frames} frames to {num_frames}",)
        model = model.with_num_frames(num_frames)
    if interpolate is not None and other is not None:
        notes += (_interpolate(model, other, interpolate),)
    words = _tokenizer(tokenizer, path, str(source), model.config.text)
    loaded = Loaded(model.to(device=target, dtype=precision), words, checkpoint.preprocess)
    report = LoadReport(
        source=str(path), format=format, is_image_model=model.config.is_image_model, notes=notes
    )
    return loaded, report


def _image_model(source: str | Path, given: str | Path | None, share: float) -> str | Path:
    """The image model to interpolate with: the given one, or the start of the run whose folder the source is."""
    check_share(share)
    if given is not None:
        return given
    file = Path(source) / CONFIG_FILE
    settings = read_json(file).get("config") if file.is_file() else None
    init = settings.get("init") if isinstance(settings, dict) else None
    if not isinstance(init, str):
        raise InputError(
            f"{source} does not say which image model it was fine-tuned from (it is no folder of a training run, or "
            "that run started from scratch); give it as image_model (on the command line --image-model)"
        )
    return _recorded(init, Path(source))


def _recorded(init: str, run: Path) -> str | Path:
    """What a run started from, recorded as it was given: a relative path may count from a folder above the run."""
    places = (Path(init), *(folder / init for folder in run.resolve().parents))
    return next((place for place in places if place.exists()), init)


def _interpolate(model: XCLIP, image_model: str | Path, share: float) -> str:
    """Interpolate in place -> a note about it."""
    checkpoint, _ = _read(_locate(image_model, None))
    other = checkpoint.model.with_num_frames(model.config.num_frames)
    num_interpolated, num_kept = interpolate_weights(model, other, share)
    return (
        f"{num_interpolated:,} parameters are {share:g} times these and {1 - share:g} times those of {image_model}; "
        f"{num_kept:,}, which only these weights have, are kept"
    )


def _check_num_frames(num_frames: int | None) -> None:
    if num_frames is not None and (type(num_frames) is not int or num_frames < 1):
        raise InputError(f"num_frames must be a whole number of at least 1, got {num_frames}")


def resolve_device(device: str) -> torch.device:
    """The device of a name; "auto" never picks Apple's, on which no test has run: ask for "mps" by name.

    Raises:
        InputError: torch knows no such device, or it is not there.
    """
    if device == "auto":
        import os
        named=os.environ.get("OPENXCLIP_DEVICE","")
        if named in ("","auto"):
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        device=named
    try:
        probe = torch.zeros(1, device=device)
        probe.item()  # the meta device has no values
        return probe.device
    except (RuntimeError, AssertionError) as error:  # torch builds without CUDA raise the latter
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"device {device!r} cannot be used ({reason}); take 'auto', 'cpu' or 'cuda'"
        ) from error


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The type of a name; "auto" is bfloat16 on devices that compute in it, else float32.

    Raises:
        InputError: there is no such type.
    """
    if dtype == "auto":
        return torch.bfloat16 if _computes_in_bfloat16(device) else torch.float32
    if dtype not in DTYPES:
        raise InputError(f"no dtype {dtype!r}; choose 'auto' or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it: elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # older torch cannot tell
        return False
    has = torch.cpu.get_capabilities()
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))


def _locate(source: str | Path, revision: str | None) -> Path:
    if not str(source):
        raise CheckpointError("the source of the model is empty; give a folder, a file or a hub id")
    path = Path(source)
    folder = existing_folder(path)
    if folder is not None:
        return _model_folder(folder)
    if path.exists():
        return path
    if str(source) in SHIPPED:
        return shipped_folder(str(source))
    is_file_name = path.suffix in WEIGHTS_SUFFIXES  # a missing file, not a repository to ask the hub for
    if isinstance(source, str) and is_hub_id(source) and not is_file_name:
        return download_model(source, revision)
    raise CheckpointError(
        f"{source} does not exist and is no hub id; give a folder, a .pth or .pt file, or an id like owner/name"
    )


def _model_folder(folder: Path) -> Path:
    """The folder itself, or the checkpoint that counts in the folder of a training run: average, best or last."""
    config = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).exists() else {}
    if "format" in config or "model_type" in config or (folder / OPEN_CLIP_CONFIG_FILE).exists():
        return folder
    for name in CHECKPOINTS_OF_A_RUN:
        checkpoint = existing_folder(folder / name)
        if checkpoint is not None and (checkpoint / CONFIG_FILE).exists():
            return checkpoint
    raise CheckpointError(
        f"{folder} is no model folder: its {CONFIG_FILE} is missing or names no format, and it holds neither "
        f"{' nor '.join(CHECKPOINTS_OF_A_RUN)} of a training run"
    )


def _read(path: Path) -> tuple[Checkpoint, Format]:
    if path.is_dir():
        return _read_folder(path)
    if path.suffix == ".safetensors" or path.name in (*WEIGHTS_FILES, *OPEN_CLIP_WEIGHTS_FILES):
        raise CheckpointError(
            f"{path} is a part of a model: give the folder that holds it and its configuration, {CONFIG_FILE} or "
            f"{OPEN_CLIP_CONFIG_FILE}"
        )
    with TorchFile(path) as file:
        content = file.content
        if isinstance(content, dict) and isinstance(content.get("model"), dict):
            content = content["model"]
        state = file.tensors(tensors_of(content, path))
    if is_official(state):
        return read_official(state, path), "official"
    return read_openai_clip(state, path), "openai-clip"


def _read_folder(folder: Path) -> tuple[Checkpoint, Format]:
    values = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).exists() else {}
    if "format" in values:
        return read_native(folder), "openxclip"
    # Many hold the same weights for transformers and for open_clip; some a config.json of no model that is there.
    if (folder / OPEN_CLIP_CONFIG_FILE).exists() and find_weights(folder, WEIGHTS_FILES) is None:
        return read_open_clip(folder), "open-clip"
    kind = values.get("model_type")
    if kind == MODEL_TYPE:
        return read_huggingface(folder), "huggingface"
    if isinstance(kind, str) and kind in LANGUAGE_IMAGE_MODELS:
        return read_huggingface_clip(folder), "huggingface"
    raise CheckpointError(
        f"{folder / CONFIG_FILE}: model_type is {kind!r}; models that can be read are "
        f"{', '.join((MODEL_TYPE, *LANGUAGE_IMAGE_MODELS))}"
    )


def _tokenizer(
    given: str | Path | None, model_path: Path, source: str, config: TextConfig
) -> Tokenizer | MissingTokenizer:
    path = model_path if given is None else _given_tokenizer(given)
    if given is None and not _has_tokenizer(path):
        return MissingTokenizer(source)
    if path.is_dir():
        cleaning = cleaning_of(path) if given is None else None
        tokenizer = read_huggingface_tokenizer(path, config.context_length, cleaning)
    else:
        tokenizer = Tokenizer.from_file(path, config.context_length)
    _check_vocabulary(tokenizer, path, config)
    return tokenizer


def _check_vocabulary(tokenizer: Tokenizer, path: Path, config: TextConfig) -> None:
    """A causal tower finds the end of a text as the highest id; for others it is enough that it knows every id."""
    size = tokenizer.vocab_size
    if size > config.vocab_size or (config.causal and size != config.vocab_size):
        raise TokenizerError(
            f"{path} has {size} ids, the model {config.vocab_size}: it belongs to other weights; give the model's own"
        )


def _given_tokenizer(given: str | Path) -> Path:
    """The file, or the folder of one, that was given."""
    path = Path(given)
    if path.is_file():  # with a tokenizer_config.json beside it, that has a say, too
        return path.parent if (path.parent / TOKENIZER_CONFIG_FILE).is_file() else path
    if not path.is_dir() and isinstance(given, str) and is_hub_id(given):
        path = download_tokenizer(given)
    if not _has_tokenizer(path):
        raise TokenizerError(
            f"no tokenizer at {given}: give a tokenizer.json, CLIP's merges file, a folder with one, or a hub id"
        )
    return path


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)
