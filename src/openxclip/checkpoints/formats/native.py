"""The native format: a folder of weights beside files that a person can read."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from openxclip.checkpoints.checkpoint import CONFIG_FILE, WEIGHTS_FILE, Checkpoint, parse, read_safetensors
from openxclip.checkpoints.names import NATIVE
from openxclip.checkpoints.tables import build
from openxclip.configuration import require
from openxclip.errors import CheckpointError
from openxclip.files import read_json, write_json
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer
from openxclip.text.tokenizer_folder import TOKENIZER_FILE
from openxclip.video.transforms import Preprocessor

FORMAT = "openxclip"
VERSION = 1
PREPROCESSOR_FILE = "preprocessor.json"
DISCRETE_LABELS = "discrete_labels"  # in the config's file: the class names of a model that knows no texts


def write_folder(
    folder: Path, model: XCLIP, tokenizer: Tokenizer | MissingTokenizer, preprocess: Preprocessor
) -> None:
    """Write the files into an existing folder."""
    values = {"format": FORMAT, "version": VERSION} | model.config.to_dict()
    if model.discrete is not None and model.discrete.labels is not None:
        values[DISCRETE_LABELS] = model.discrete.labels
    write_json(folder / CONFIG_FILE, values)
    write_json(folder / PREPROCESSOR_FILE, preprocess.to_dict())
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    if isinstance(tokenizer, Tokenizer):
        tokenizer.save(folder / TOKENIZER_FILE)


def read_native(folder: Path) -> Checkpoint:
    """A model from its folder.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights are not those of the configuration.
    """
    values = read_json(folder / CONFIG_FILE)
    if (values.pop("format", None), version := values.pop("version", None)) != (FORMAT, VERSION):
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: this is not version {VERSION} of the format {FORMAT!r} but {version!r}; "
            "install the version of openxclip that wrote it, or a newer one"
        )
    labels = parse(_discrete_labels, values, folder / CONFIG_FILE)
    config = parse(XCLIPConfig.from_dict, values, folder / CONFIG_FILE)
    preprocessor_file = folder / PREPROCESSOR_FILE
    preprocess = parse(Preprocessor.from_dict, read_json(preprocessor_file), preprocessor_file)
    if preprocess.input_size_px != config.vision.image_size_px:
        raise CheckpointError(
            f"{preprocessor_file}: input_size_px is {preprocess.input_size_px}, but the model's input is "
            f"{config.vision.image_size_px} px; get both files again"
        )
    weights_file = folder / WEIGHTS_FILE
    model = build(read_safetensors(weights_file), config, NATIVE, str(weights_file))
    if model.discrete is None:
        return Checkpoint(model, preprocess)
    model.discrete.labels = labels
    unnamed = "its discrete labels have no names: which class is which cannot be checked"
    return Checkpoint(model, preprocess, notes=(unnamed,) if labels is None else ())


def _discrete_labels(values: dict[str, Any]) -> tuple[str, ...] | None:
    """Take the names of a model's discrete labels out of the values of its file."""
    names, num_labels = values.pop(DISCRETE_LABELS, None), values.get("num_discrete_labels")
    if names is None:
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    require(
        is_list and len(names) == num_labels,
        f"{DISCRETE_LABELS} must be num_discrete_labels = {num_labels} names, got {names!r}; get the file again",
    )
    return tuple(names)
