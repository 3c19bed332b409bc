"""The native format: a folder of weights and human-readable files."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from openxclip.checkpoints.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    FolderFormat,
    parse,
    read_config_file,
)
from openxclip.checkpoints.names import NATIVE
from openxclip.checkpoints.tables import build
from openxclip.checkpoints.weights import read_safetensors
from openxclip.configuration import require
from openxclip.errors import CheckpointError
from openxclip.files import read_json, write_json
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer
from openxclip.text.tokenizer_folder import TOKENIZER_FILE
from openxclip.video.transforms import Preprocessor

NAME = "openxclip"
VERSION = 1
PREPROCESSOR_FILE = "preprocessor.json"
DISCRETE_LABELS = "discrete_labels"
"""Key in config.json: the class names of a model without a text tower."""


def write_folder(
    folder: Path, model: XCLIP, tokenizer: Tokenizer | MissingTokenizer, preprocess: Preprocessor
) -> None:
    """Write the files into an existing folder."""
    values = {"format": NAME, "version": VERSION} | model.config.to_dict()
    if model.discrete is not None and model.discrete.labels is not None:
        values[DISCRETE_LABELS] = model.discrete.labels
    write_json(folder / CONFIG_FILE, values)
    write_json(folder / PREPROCESSOR_FILE, preprocess.to_dict())
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    if isinstance(tokenizer, Tokenizer):
        tokenizer.save(folder / TOKENIZER_FILE)


def read_native(folder: Path) -> Checkpoint:
    """Read a model from its folder.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights do not fit the configuration.
    """
    config, labels = read_native_config(folder)
    file = folder / PREPROCESSOR_FILE
    preprocess = parse(Preprocessor.from_dict, read_json(file), file)
    if preprocess.input_size_px != config.vision.image_size_px:
        raise CheckpointError(
            f"{file}: input_size_px is {preprocess.input_size_px}, but the model's input is "
            f"{config.vision.image_size_px} px; download both files again"
        )
    weights_file = folder / WEIGHTS_FILE
    model = build(read_safetensors(weights_file), config, NATIVE, str(weights_file))
    if model.discrete is None:
        return Checkpoint(model, preprocess)
    model.discrete.labels = labels
    unnamed = "its discrete labels have no names, so their order cannot be checked"
    return Checkpoint(model, preprocess, notes=(unnamed,) if labels is None else ())


def read_native_config(folder: Path) -> tuple[XCLIPConfig, tuple[str, ...] | None]:
    """The configuration of a model folder, and the names of its discrete labels, if it has any.

    Raises:
        CheckpointError: the file is missing or damaged, or another version wrote it.
    """
    path = folder / CONFIG_FILE
    values = read_json(path)
    if (values.pop("format", None), version := values.pop("version", None)) != (NAME, VERSION):
        raise CheckpointError(
            f"{path}: this is not version {VERSION} of the format {NAME!r} but {version!r}; "
            "install the version of openxclip that wrote it, or a newer one"
        )
    labels = parse(_pop_discrete_labels, values, path)
    return parse(XCLIPConfig.from_dict, values, path), labels


def _pop_discrete_labels(values: dict[str, Any]) -> tuple[str, ...] | None:
    """Remove the names of discrete labels from the values of a file."""
    names, num_labels = values.pop(DISCRETE_LABELS, None), values.get("num_discrete_labels")
    if names is None:
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    require(
        is_list and len(names) == num_labels,
        f"{DISCRETE_LABELS} must be num_discrete_labels = {num_labels} names, got {names!r}; download the file again",
    )
    return tuple(names)


FORMAT = FolderFormat(
    name=NAME,
    config_files=(CONFIG_FILE, PREPROCESSOR_FILE),
    weights=(WEIGHTS_FILE,),
    recognises=lambda folder: "format" in read_config_file(folder),
    read=read_native,
    write=write_folder,
)
