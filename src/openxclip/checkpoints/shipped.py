"""The model that comes with the package."""

from importlib import resources
from pathlib import Path

from openxclip.checkpoints.formats import native
from openxclip.errors import CheckpointError
from openxclip.text.tokenizer_folder import TOKENIZER_FILE

SHIPPED = ("openxclip-tiny",)
"""Names that `openxclip.load` takes without a download."""

ROOT = Path(str(resources.files("openxclip"))) / "pretrained"
TRAINING_LABELS_FILE = "training_labels.txt"
"""In a model folder: the class names that the model was trained on, one per line."""

FILES = (*native.FORMAT.config_files, *native.FORMAT.weights, TOKENIZER_FILE, TRAINING_LABELS_FILE)


def shipped_folder(name: str) -> Path:
    """The folder of a shipped model.

    Raises:
        CheckpointError: one of its files is missing from this installation.
    """
    folder = ROOT / name
    if absent := [file for file in FILES if not (folder / file).is_file()]:
        raise CheckpointError(
            f"{name} should come with the package, but {folder} has no {', '.join(absent)}; reinstall openxclip, "
            "or train the model with `make tiny`"
        )
    return folder
