"""Types that describe a format and what its reader returns, and helpers for readers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from openxclip.errors import CheckpointError, ConfigError
from openxclip.files import read_json
from openxclip.models import XCLIP
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer
from openxclip.video.transforms import Preprocessor

T = TypeVar("T")

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class Checkpoint(NamedTuple):
    """A model as read: float32, on the CPU, in eval mode."""

    model: XCLIP
    preprocess: Preprocessor
    notes: tuple[str, ...] = ()
    """Notes for the user, e.g. on deviations from the file."""


Writer = Callable[[Path, XCLIP, Tokenizer | MissingTokenizer, Preprocessor], None]
"""Writes a model into an existing folder."""


@dataclass(frozen=True, kw_only=True)
class FolderFormat:
    """A kind of model folder."""

    name: str
    config_files: tuple[str, ...]
    """Every file that the reader may read, other than weights and tokenizer."""
    weights: tuple[str, ...]
    """Names of the weights, the preferred one first; each may also be an index of several files."""
    recognises: Callable[[Path], bool]
    """Whether a folder is in this format, by its configuration."""
    read: Callable[[Path], Checkpoint]
    write: Writer | None = None
    model_types: tuple[str, ...] = ()
    """Values of `model_type` in config.json, for formats of transformers."""


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """A kind of weights file without a configuration."""

    name: str
    recognises: Callable[[Iterable[str]], bool]
    """Whether a file is in this format, by the names of its tensors."""
    read: Callable[[Mapping[str, Tensor], Path], Checkpoint]
    """Tensors by name, and the file they are from, for messages."""


def read_config_file(folder: Path) -> dict[str, Any]:
    """The values of a folder's config.json; empty if it has no such file."""
    path = folder / CONFIG_FILE
    return read_json(path) if path.exists() else {}


def parse(build: Callable[[dict[str, Any]], T], values: dict[str, Any], path: Path) -> T:
    """Build an object from a file's values.

    Raises:
        CheckpointError: a value is missing or malformed; the message names the file.
    """
    try:
        return build(values)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{path}: a value is missing or malformed: {error!r}") from error
