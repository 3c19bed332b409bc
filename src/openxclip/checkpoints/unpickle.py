"""Reads the zip files of `torch.save` and `torch.jit.save` without running anything that they say.

A pickle is a program: it may name any function and call it. Here only the few names that tensors need have a meaning;
every other one becomes an `Inert` object that records what the pickle does to it. Tensors stay in the file until they
are asked for, so that the optimizer's state beside the weights costs nothing.
"""

import io
import math
import pickle
import pickletools
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from openxclip.errors import CheckpointError

DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

MAX_DIMS = 8
MAX_DEPTH = 64  # of modules within modules

# The extension registry bypasses `find_class`; out-of-band buffers have no place in a file.
FORBIDDEN_OPCODES = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}
MEMO_OPCODES = {"PUT", "BINPUT", "LONG_BINPUT"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that still lies in the file; its place has been checked against the file."""

    entry: str
    dtype: torch.dtype
    offset: int
    """In elements, as `shape` and `stride`."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Storage:
    entry: str
    dtype: torch.dtype
    num_elements: int


class Inert:
    """Stands for an object of a class that has no meaning here. Records; runs nothing."""

    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self.state = None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def _ignore(self, *args: Any) -> None:
        pass

    __setitem__ = append = extend = add = _ignore


class TorchFile:
    """An open file: `content` is what was saved, with `StoredTensor` for tensors and `Inert` for unknown objects.

    Raises:
        CheckpointError: the file is damaged, or not of this kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise CheckpointError(
                f"{path} cannot be opened ({error}): it is damaged, or not a zip file as torch writes since 1.6. If "
                "you trust its source, save it again: torch.save(torch.load(path, weights_only=True), path)"
            ) from error
        try:
            self._entries = _stored_entries(self._zip, path.stat().st_size)
            self._root = _root(self._entries)
            self._check_byte_order()
            self.content = self._unpickle(self._zip.read(f"{self._root}/data.pkl"))
        except Exception as error:  # a hostile pickle can raise anything
            self._zip.close()
            raise CheckpointError(f"{path} cannot be read: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def tensors(self, stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
        """Read these tensors, and no others, into memory."""
        storages: dict[str, Tensor] = {}
        try:
            return {name: self._read(tensor, storages) for name, tensor in stored.items()}
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{self.path} is damaged: {error}") from error

    def _read(self, stored: StoredTensor, storages: dict[str, Tensor]) -> Tensor:
        if math.prod(stored.shape) == 0:
            return torch.empty(stored.shape, dtype=stored.dtype)
        if stored.entry not in storages:
            storages[stored.entry] = torch.frombuffer(
                bytearray(self._zip.read(stored.entry)), dtype=torch.uint8
            )
        elements = storages[stored.entry].view(stored.dtype)
        return elements.as_strided(stored.shape, stored.stride, stored.offset).contiguous()

    def _unpickle(self, data: bytes) -> Any:
        _check_opcodes(data)
        return _Unpickler(data, self._storage).load()

    def _check_byte_order(self) -> None:
        name = f"{self._root}/byteorder"
        order = self._zip.read(name).decode("ascii") if name in self._entries else "little"
        if order != sys.byteorder:
            raise CheckpointError(f"its byte order is {order!r}, this machine's is {sys.byteorder!r}")

    def _storage(self, key: str, dtype: torch.dtype, num_elements: int) -> _Storage:
        entry = f"{self._root}/data/{key}"
        size = self._entries.get(entry, -1)
        if num_elements * dtype.itemsize != size:
            raise pickle.UnpicklingError(f"{entry} is missing or not {num_elements} of {dtype}")
        return _Storage(entry, dtype, num_elements)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, storage: Callable[[str, torch.dtype, int], _Storage]) -> None:
        super().__init__(io.BytesIO(data))
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "builtins" | "__builtin__", "set":
                return set
            # New functions each time: a pickle can set attributes on what it gets.
            case "torch._utils", "_rebuild_tensor_v2":
                return lambda storage, offset, shape, stride, *_: _tensor(storage, offset, shape, stride)
            case "torch._utils", "_rebuild_parameter":
                return lambda data, *_: data
        return type(name, (Inert,), {"__module__": module})

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(num_elements)):
                return self._storage(key, dtype, num_elements)
        raise pickle.UnpicklingError("a persistent id is not that of a tensor's storage")


def read_torch_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file that holds a plain state dict, by name."""
    with TorchFile(path) as file:
        return file.tensors(tensors_of(file.content, path))


def tensors_of(content: Any, path: Path) -> dict[str, StoredTensor]:
    """The tensors of a state dict, or of a TorchScript module's tree, under their dotted names.

    Raises:
        CheckpointError: it is neither.
    """
    if isinstance(content, Inert):
        return dict(_walk(content, "", path, set()))
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds no weights by name, but a {type(content).__name__}")
    others = [
        str(name)
        for name, value in content.items()
        if not isinstance(name, str) or not isinstance(value, StoredTensor)
    ]
    if others:
        raise CheckpointError(f"{path} is no state dict: no named tensors are {', '.join(others[:10])}")
    return content


def _walk(module: Inert, prefix: str, path: Path, seen: set[int]) -> list[tuple[str, StoredTensor]]:
    """The tensors below `module`; `seen` holds the ids of all modules of this walk."""
    if prefix.count(".") > MAX_DEPTH:
        raise CheckpointError(f"{path} nests modules deeper than {MAX_DEPTH}")
    if id(module) in seen:  # a few shared ones in a row have more paths to them than can ever be walked
        raise CheckpointError(f"{path} is no tree of modules: {prefix[:-1]} is also another of them")
    seen.add(id(module))
    found = []
    for name, value in module.state.items() if isinstance(module.state, dict) else ():
        if isinstance(value, StoredTensor):
            found.append((f"{prefix}{name}", value))
        elif isinstance(value, Inert):
            found += _walk(value, f"{prefix}{name}.", path, seen)
    return found


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> StoredTensor:
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise pickle.UnpicklingError(f"a tensor's place is not made of counts: {numbers[:10]}")
    if len(shape) != len(stride) or len(shape) > MAX_DIMS:
        raise pickle.UnpicklingError(f"a tensor has {len(shape)} sizes and {len(stride)} strides")
    num_elements = math.prod(shape)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    # No more elements than stored: an expanded view is small here and huge once it is copied.
    if num_elements > storage.num_elements or (num_elements and last >= storage.num_elements):
        raise pickle.UnpicklingError(f"a tensor of {shape} lies outside its {storage.num_elements} elements")
    return StoredTensor(storage.entry, storage.dtype, offset, tuple(shape), tuple(stride))


def _stored_entries(archive: zipfile.ZipFile, file_size: int) -> dict[str, int]:
    """Name -> size in bytes of what may be read: entries that cannot unpack to more than the file has.

    torch compresses only the code of TorchScript, which is never read.
    """
    entries = [
        archive.getinfo(name) for name in set(archive.namelist())
    ]  # of two with one name, the one read
    stored = [entry for entry in entries if _is_plain(entry)]
    if sum(entry.file_size for entry in stored) > file_size:
        raise CheckpointError("its entries claim more bytes than the file has")
    return {entry.filename: entry.file_size for entry in stored}


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    encrypted = entry.flag_bits & 1
    return (
        entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size and not encrypted
    )


def _root(entries: Mapping[str, int]) -> str:
    roots = [
        name.removesuffix("/data.pkl") for name in entries if name.count("/") == 1 and "/data.pkl" in name
    ]
    if len(roots) != 1:
        raise CheckpointError("it is a zip file, but not one of torch: it has no uncompressed data.pkl")
    return roots[0]


def _check_opcodes(data: bytes) -> None:
    """Refuse what would slip past the unpickler: the registry, and numbers that make it allocate memory."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in FORBIDDEN_OPCODES:
            raise pickle.UnpicklingError(f"opcode {opcode.name} has no place in weights")
        if opcode.name in MEMO_OPCODES and int(argument or 0) > len(data):
            raise pickle.UnpicklingError(f"memo index {argument} is larger than the pickle")
