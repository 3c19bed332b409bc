"""Writes a model folder in one of the supported formats."""

from pathlib import Path
from typing import Literal

from openxclip.checkpoints.checkpoint import WEIGHTS_FILE
from openxclip.checkpoints.formats.registry import FOLDER_FORMATS
from openxclip.errors import InputError
from openxclip.files import atomic_folder
from openxclip.models import XCLIP
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer
from openxclip.video.transforms import Preprocessor

WRITERS = {format.name: format.write for format in FOLDER_FORMATS if format.write is not None}


def save_as(
    folder: str | Path,
    model: XCLIP,
    tokenizer: Tokenizer | MissingTokenizer,
    preprocess: Preprocessor,
    format: Literal["openxclip", "huggingface"] = "openxclip",
) -> None:
    """Write a model folder atomically; an existing model folder is replaced with everything in it.

    Raises:
        CheckpointError: the format cannot express the model.
        InputError: there is no such format, or `folder` exists and is not a model folder.
    """
    if format not in WRITERS:
        raise InputError(f"no format {format!r}; choose one of {', '.join(WRITERS)}")
    path = Path(folder).resolve()
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / WEIGHTS_FILE).exists()):
        raise InputError(
            f"{folder} exists and is not a model folder; choose another name, or remove it first"
        )
    with atomic_folder(path) as temporary:
        WRITERS[format](temporary, model, tokenizer, preprocess)
