"""The weights of a model folder, in one file or in several with an index."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from openxclip.checkpoints.checkpoint import WEIGHTS_FILE, read_safetensors
from openxclip.checkpoints.unpickle import read_torch_tensors
from openxclip.errors import CheckpointError
from openxclip.files import read_json

WEIGHTS_FILES = (WEIGHTS_FILE, "pytorch_model.bin")
"""What transformers writes: today's name, then the one of before."""

INDEX_SUFFIX = ".index.json"


def read_weights(folder: Path, names: Sequence[str]) -> tuple[Path, dict[str, Tensor]]:
    """The first of the named files that is there, or its index, and all tensors.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    path = find_weights(folder, names)
    if path is None:
        raise CheckpointError(f"{folder} has no weights: neither {' nor '.join(names)}, nor their index")
    return path, _read_shards(path) if path.name.endswith(INDEX_SUFFIX) else _read_file(path)


def find_weights(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of the named files, or its index, that is there."""
    candidates = (folder / (name + suffix) for name in names for suffix in ("", INDEX_SUFFIX))
    return next((path for path in candidates if path.exists()), None)


def _read_file(path: Path) -> dict[str, Tensor]:
    return read_torch_tensors(path) if path.suffix == ".bin" else read_safetensors(path)


def _read_shards(index: Path) -> dict[str, Tensor]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(shard, str) for shard in names.values()):
        raise CheckpointError(f"{index} has no weight_map of names of files; download the folder again")
    shards = sorted(set(names.values()))
    if any(Path(shard).name != shard for shard in shards):
        raise CheckpointError(f"{index} names files outside its folder: {shards}")
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        tensors |= _read_file(index.parent / shard)
    return tensors
