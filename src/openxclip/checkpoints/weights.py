"""The weights of a model folder: one file, or several with an index."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from openxclip.checkpoints.checkpoint import WEIGHTS_FILE
from openxclip.checkpoints.unpickle import read_torch_tensors
from openxclip.checkpoints.wrappers import unwrapped
from openxclip.errors import CheckpointError
from openxclip.files import read_json, refuse_pointer

TRANSFORMERS_WEIGHTS = (WEIGHTS_FILE, "pytorch_model.bin")
"""The names that transformers writes, the current one first."""

INDEX_SUFFIX = ".index.json"


def read_weights(folder: Path, names: Sequence[str]) -> tuple[Path, dict[str, Tensor]]:
    """Read the first of the named files, or of their indices, that exists -> its path, and all tensors.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    path = find_weights(folder, names)
    if path is None:
        raise CheckpointError(f"{folder} has no weights: neither {' nor '.join(names)}, nor their index")
    return path, _read_shards(path) if path.name.endswith(INDEX_SUFFIX) else _read_file(path)


def find_weights(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of the named files, or of their indices, that exists."""
    paths = (folder / patterns[0] for patterns in weights_files(names))
    return next((path for path in paths if path.exists()), None)


def weights_files(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The ways to store weights, the preferred one first: file names, and for an index a pattern of its shards."""
    for name in names:
        stem, _, suffix = name.rpartition(".")
        yield (name,)
        yield (name + INDEX_SUFFIX, f"{stem}-*.{suffix}")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name."""
    refuse_pointer(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".bin":
        return read_torch_tensors(path)
    return unwrapped(read_safetensors(path), path)


def _read_shards(index: Path) -> dict[str, Tensor]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(shard, str) for shard in names.values()):
        raise CheckpointError(f"{index} has no weight_map of file names; download the folder again")
    shards = sorted(set(names.values()))
    if any(Path(shard).name != shard for shard in shards):
        raise CheckpointError(f"{index} names files outside its folder: {shards}")
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        tensors |= _read_file(index.parent / shard)
    return tensors
