"""Tensors that may be sharded over the processes of a run, and the files of optimizer tensors."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor
from torch import distributed as dist
from torch.distributed import checkpoint
from torch.distributed.tensor import DTensor, distribute_tensor

from openxclip.errors import CheckpointError, InputError
from openxclip.processes import current

FILE, FOLDER = "optimizer.safetensors", "optimizer"


def full(tensor: Tensor) -> Tensor:
    """A full tensor; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def cut_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A full tensor, placed and sharded like another one."""
    tensor = tensor.to(other.device)
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)


def save_optimizer(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors into the folder of a checkpoint: as one file, or as shards if they are sharded.

    Both are safetensors: torch's own format for shards would require unpickling.

    Raises:
        InputError: this torch cannot write shards as safetensors.
    """
    if any(isinstance(tensor, DTensor) for tensor in tensors.values()):
        if not hasattr(checkpoint, "HuggingFaceStorageWriter"):
            raise InputError(
                "checkpoints of sharded weights need torch 2.9 or newer; install it, or leave --shard out"
            )
        writer = checkpoint.HuggingFaceStorageWriter(str(folder / FOLDER), save_distributed=True)
        checkpoint.save(dict(tensors), storage_writer=writer)
    elif current().is_first:
        whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, folder / FILE)


def load_optimizer(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors, sharded or not, from the folder of a checkpoint, sharded or not.

    Raises:
        CheckpointError: it lacks one of them.
    """
    if (folder / FOLDER).is_dir():
        reader = checkpoint.HuggingFaceStorageReader(str(folder / FOLDER))
        checkpoint.load(dict(tensors), storage_reader=reader, no_dist=not dist.is_initialized())
        return
    saved = load_file(folder / FILE)
    for name, tensor in tensors.items():
        if name not in saved:
            raise CheckpointError(f"{folder / FILE} lacks {name}; choose another --output to start over")
        tensor.copy_(cut_like(saved[name], tensor))
