"""What every reader gives, and what readers share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from openxclip.errors import CheckpointError, ConfigError
from openxclip.models import XCLIP
from openxclip.video.transforms import Preprocessor

T = TypeVar("T")

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class Checkpoint(NamedTuple):
    """A model as read: float32, on the CPU, in eval mode."""

    model: XCLIP
    preprocess: Preprocessor
    notes: tuple[str, ...] = ()
    """What is worth knowing about how the file was read."""


def parse(build: Callable[[dict[str, Any]], T], values: dict[str, Any], path: Path) -> T:
    """Build an object from a file's values; what is wrong with them names the file."""
    try:
        return build(values)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{path}: a value is missing or malformed: {error!r}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
