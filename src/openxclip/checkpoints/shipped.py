"""The model that comes with the package."""

from importlib import resources
from pathlib import Path

from openxclip.checkpoints.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from openxclip.checkpoints.formats.native import PREPROCESSOR_FILE
from openxclip.errors import CheckpointError
from openxclip.text.tokenizer_folder import TOKENIZER_FILE

SHIPPED = ("openxclip-tiny",)
"""Names that `openxclip.load` takes without any download."""

ROOT = Path(str(resources.files("openxclip"))) / "pretrained"
TRAINING_LABELS_FILE = "training_labels.txt"  # beside a model: the class names it was trained on, one a line
FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, PREPROCESSOR_FILE, TRAINING_LABELS_FILE)


def shipped_folder(name: str) -> Path:
    """The folder of a shipped model.

    Raises:
        CheckpointError: this installation lacks it, or a part of it.
    """
    folder = ROOT / name
    if absent := [file for file in FILES if not (folder / file).is_file()]:
        raise CheckpointError(
            f"{name} should come with the package, but {folder} has no {', '.join(absent)}; install openxclip again, "
            "or train the model with `make tiny`"
        )
    return folder
