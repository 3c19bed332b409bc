"""Write a model in either format, whole or not at all."""

from pathlib import Path
from typing import Literal

from openxclip.checkpoints.checkpoint import WEIGHTS_FILE
from openxclip.checkpoints.formats import huggingface, native
from openxclip.errors import InputError
from openxclip.files import atomic_folder
from openxclip.models import XCLIP
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer
from openxclip.video.transforms import Preprocessor

WRITERS = {"openxclip": native.write_folder, "huggingface": huggingface.write_folder}


def save_as(
    folder: str | Path,
    model: XCLIP,
    tokenizer: Tokenizer | MissingTokenizer,
    preprocess: Preprocessor,
    format: Literal["openxclip", "huggingface"] = "openxclip",
) -> None:
    """Write a model folder; one that is there already is replaced, with all that is in it.

    Raises:
        CheckpointError: the format cannot express the model.
        InputError: there is no such format, or something that is no model would be lost.
    """
    if format not in WRITERS:
        raise InputError(f"no format {format!r}; choose one of {', '.join(WRITERS)}")
    path = Path(folder).resolve()
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / WEIGHTS_FILE).exists()):
        raise InputError(f"{folder} exists and is no model folder; choose another name, or remove it first")
    with atomic_folder(path) as temporary:
        WRITERS[format](temporary, model, tokenizer, preprocess)
