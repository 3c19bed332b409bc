"""The native format: a folder of weights beside files that a person can read."""

from pathlib import Path

from safetensors.torch import save_file

from openxclip.checkpoints.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    parse,
    read_json,
    read_safetensors,
    write_json,
)
from openxclip.checkpoints.tables import NATIVE, build
from openxclip.checkpoints.tokenizer import MissingTokenizer, Tokenizer
from openxclip.errors import CheckpointError
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.video.transforms import Preprocessor

FORMAT = "openxclip"
VERSION = 1
PREPROCESSOR_FILE = "preprocessor.json"


def write_folder(
    folder: Path, model: XCLIP, tokenizer: Tokenizer | MissingTokenizer, preprocess: Preprocessor
) -> None:
    """Write the files into an existing folder."""
    write_json(folder / CONFIG_FILE, {"format": FORMAT, "version": VERSION} | model.config.to_dict())
    write_json(folder / PREPROCESSOR_FILE, preprocess.to_dict())
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
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
    config = parse(XCLIPConfig.from_dict, values, folder / CONFIG_FILE)
    preprocessor_file = folder / PREPROCESSOR_FILE
    preprocess = parse(Preprocessor.from_dict, read_json(preprocessor_file), preprocessor_file)
    weights_file = folder / WEIGHTS_FILE
    return Checkpoint(build(read_safetensors(weights_file), config, NATIVE, str(weights_file)), preprocess)
