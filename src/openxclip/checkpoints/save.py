"""Write a model in either format, whole or not at all."""

from pathlib import Path
from typing import Literal

from openxclip.checkpoints import huggingface, native
from openxclip.checkpoints.tokenizer import MissingTokenizer, Tokenizer
from openxclip.errors import InputError
from openxclip.files import atomic_folder
from openxclip.models import XCLIP
from openxclip.video.transforms import Preprocessor

WRITERS = {"openxclip": native.write_folder, "huggingface": huggingface.write_folder}


def save_as(
    folder: str | Path,
    model: XCLIP,
    tokenizer: Tokenizer | MissingTokenizer,
    preprocess: Preprocessor,
    format: Literal["openxclip", "huggingface"] = "openxclip",
) -> None:
    """Write a model folder; one that is there already is replaced.

    Raises:
        CheckpointError: the format cannot express the model.
        InputError: there is no such format.
    """
    if format not in WRITERS:
        raise InputError(f"no format {format!r}; choose one of {', '.join(WRITERS)}")
    with atomic_folder(Path(folder)) as temporary:
        WRITERS[format](temporary, model, tokenizer, preprocess)
