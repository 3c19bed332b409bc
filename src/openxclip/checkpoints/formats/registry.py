"""The formats that can be read; a new one is added to a list here."""

from pathlib import Path

from openxclip.checkpoints.checkpoint import (
    CONFIG_FILE,
    Checkpoint,
    FileFormat,
    FolderFormat,
    read_config_file,
)
from openxclip.checkpoints.formats import (
    huggingface,
    huggingface_clip,
    native,
    official,
    open_clip,
    openai_clip,
)
from openxclip.checkpoints.unpickle import read_torch_tensors
from openxclip.checkpoints.weights import find_weights
from openxclip.errors import CheckpointError

FOLDER_FORMATS: tuple[FolderFormat, ...] = (
    native.FORMAT,
    huggingface.FORMAT,
    huggingface_clip.FORMAT,
    open_clip.FORMAT,
)
"""In order of preference: many repositories hold the same weights for transformers and for open_clip."""

FILE_FORMATS: tuple[FileFormat, ...] = (official.FORMAT, openai_clip.FORMAT)
"""The first that recognises a file reads it; the last one recognises any file."""


def read_checkpoint(path: Path) -> tuple[Checkpoint, str]:
    """Read a model folder or a weights file -> the model, and the name of its format.

    Raises:
        CheckpointError: it is in no known format, or damaged.
    """
    if path.is_dir():
        folder_format = _format_of(path)
        return folder_format.read(path), folder_format.name
    if path.suffix == ".safetensors" or any(path.name in format.weights for format in FOLDER_FORMATS):
        raise CheckpointError(
            f"{path} is a part of a model: give the folder that holds it and its configuration, {CONFIG_FILE} or "
            f"{open_clip.CONFIG_FILE}"
        )
    state = read_torch_tensors(path)
    file_format = next(format for format in FILE_FORMATS if format.recognises(state))
    return file_format.read(state, path), file_format.name


def is_model_folder(folder: Path) -> bool:
    """Whether a known format recognises the folder."""
    return any(format.recognises(folder) for format in FOLDER_FORMATS)


def _format_of(folder: Path) -> FolderFormat:
    """The first format that recognises the folder, and preferably finds its weights there."""
    found = [format for format in FOLDER_FORMATS if format.recognises(folder)]
    if found:
        return next((format for format in found if find_weights(folder, format.weights)), found[0])
    kind = read_config_file(folder).get("model_type")
    if kind is not None:
        known = ", ".join(kind for format in FOLDER_FORMATS for kind in format.model_types)
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: model_type is {kind!r}; models that can be read are {known}"
        )
    raise CheckpointError(
        f"{folder} is not a model folder: its {CONFIG_FILE} is missing or names no format, and it has no checkpoint "
        "of a training run"
    )
