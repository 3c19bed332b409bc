"""Tensors of a run that may lie in parts in its processes, and the file or folder of an optimizer's."""

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
    """A tensor with all its parts; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def cut_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A tensor that each process has, on the device of another one and cut into parts as it is."""
    tensor = tensor.to(other.device)
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)


def save_optimizer(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors into the folder of a checkpoint: as one file, or in parts where they lie in parts.

    Both are safetensors: torch's own format for parts would have to be unpickled.

    Raises:
        InputError: this torch cannot write parts so.
    """
    if any(isinstance(tensor, DTensor) for tensor in tensors.values()):
        if not hasattr(checkpoint, "HuggingFaceStorageWriter"):
            raise InputError(
                "checkpoints of weights in parts need torch 2.9 or newer; install it, or leave --shard out"
            )
        writer = checkpoint.HuggingFaceStorageWriter(str(folder / FOLDER), save_distributed=True)
        checkpoint.save(dict(tensors), storage_writer=writer)
    elif current().is_first:
        whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, folder / FILE)


def load_optimizer(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors, however they lie here, from the folder of a checkpoint, however they lay there.

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
            raise CheckpointError(f"{folder / FILE} lacks {name}; choose another --output to start anew")
        tensor.copy_(cut_like(saved[name], tensor))
