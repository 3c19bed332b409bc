"""Reads the zip files of `torch.save` and `torch.jit.save` without running anything that they contain.

A pickle is a program: it can name any function and call it. Here only the few names that tensors need are resolved;
every other name becomes an `Inert` object. Tensors are views into the mapped file, so unused ones, such as an
optimizer's state, are never read.

`torch.load(weights_only=True)` is not enough: from a file of a few bytes it makes a `bytearray` of any size or a view
of 2**40 elements, it unpacks compressed entries of any size, and it refuses TorchScript.
"""

import io
import math
import mmap
import pickle
import pickletools
import re
import sys
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from openxclip.checkpoints.wrappers import unwrapped, weights_in
from openxclip.errors import CheckpointError
from openxclip.files import refuse_pointer

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

# The extension registry bypasses `find_class`; a file has no out-of-band buffers.
FORBIDDEN_OPCODES = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}
MEMO_OPCODES = {"PUT", "BINPUT", "LONG_BINPUT"}


class Storage(NamedTuple):
    """Elements in the file; `entry` exists and has this size."""

    entry: str
    dtype: torch.dtype
    num_elements: int


class StoredTensor(NamedTuple):
    """A tensor in the file whose location has been checked; offset and stride count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Inert:
    """Placeholder for an object of an unknown class. It records its state and runs nothing."""

    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def _ignore(self, *args: Any) -> None:
        pass

    __setitem__ = append = extend = add = _ignore


def read_torch_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict, the weights in a trainer's checkpoint, or a TorchScript module's, under the model's names.

    Raises:
        CheckpointError: the file is damaged, or contains something else.
    """
    file = TorchFile(path)
    return file.tensors(unwrapped(tensors_of(weights_in(file.content), path), path))


class TorchFile:
    """A torch file: `content` is the saved object, with `StoredTensor` for tensors and `Inert` for unknown objects.

    Raises:
        CheckpointError: the file is damaged, or not of this kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_pointer(path)
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise CheckpointError(
                f"{path} cannot be opened ({error}): it is damaged, or not a zip file as torch writes since 1.6. If "
                "you trust its source, save it again: torch.save(torch.load(path, weights_only=True), path)"
            ) from error
        try:
            with archive, path.open("rb") as file:
                self._entries = _plain_entries(archive, path.stat().st_size)
                self._root = _root(self._entries)
                self._check_byte_order(archive)
                data = archive.read(f"{self._root}/data.pkl")
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            _check_opcodes(data)
            self.content = _Unpickler(data, self._storage).load()
        except Exception as error:  # a hostile pickle can raise anything
            raise CheckpointError(f"{path} cannot be read: {error}") from error

    def tensors(self, stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
        """These tensors as views into the file.

        Raises:
            CheckpointError: their bytes are damaged, or they share so much memory that copies would not fit.
        """
        num_bytes = sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in stored.values())
        if num_bytes > 2 * len(self._bytes):
            raise CheckpointError(f"{self.path} has {len(self._bytes):,} bytes, its tensors {num_bytes:,}")
        storages = {storage: self._elements(storage) for storage in {t.storage for t in stored.values()}}
        return {
            name: storages[t.storage].as_strided(t.shape, t.stride, t.offset).contiguous()
            for name, t in stored.items()
        }

    def _elements(self, storage: Storage) -> Tensor:
        """A storage as a view into the file, after a check of its bytes."""
        if storage.num_elements == 0:
            return torch.empty(0, dtype=storage.dtype)
        entry = self._entries[storage.entry]
        lengths = (entry.header_offset + 26, entry.header_offset + 28)  # of the name and of the extra field
        start = entry.header_offset + 30
        start += sum(int.from_bytes(self._bytes[at : at + 2], "little") for at in lengths)
        content = memoryview(self._bytes)[start : start + entry.file_size]
        if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
            raise CheckpointError(
                f"{self.path} is damaged: {storage.entry} has another checksum than recorded"
            )
        return torch.frombuffer(content, dtype=storage.dtype)

    def _check_byte_order(self, archive: zipfile.ZipFile) -> None:
        name = f"{self._root}/byteorder"
        order = archive.read(name).decode("ascii") if name in self._entries else "little"
        if order != sys.byteorder:
            raise CheckpointError(f"its byte order is {order!r}, this machine's is {sys.byteorder!r}")

    def _storage(self, key: str, dtype: torch.dtype, num_elements: int) -> Storage:
        entry = f"{self._root}/data/{key}"
        if entry not in self._entries or num_elements * dtype.itemsize != self._entries[entry].file_size:
            raise pickle.UnpicklingError(f"{entry} is missing or not {num_elements} of {dtype}")
        return Storage(entry, dtype, num_elements)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, storage: Callable[[str, torch.dtype, int], Storage]) -> None:
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
            # New functions each time, because a pickle can set attributes on them.
            case "torch._utils", "_rebuild_tensor_v2":
                return lambda storage, offset, shape, stride, *_: _tensor(storage, offset, shape, stride)
            case "torch._utils", "_rebuild_parameter":
                return lambda data, *_: data
        return type(name, (Inert,), {"__module__": module})

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(num_elements)):
                return self._storage(key, dtype, num_elements)
        raise pickle.UnpicklingError("a persistent id is not that of a tensor's storage")


def tensors_of(content: Any, path: Path) -> dict[str, StoredTensor]:
    """The tensors of a state dict, or of a TorchScript module's tree, under their dotted names.

    Raises:
        CheckpointError: it is neither.
    """
    if isinstance(content, Inert):
        return dict(_walk(content, "", path, set()))
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__} instead of weights by name")
    others = [
        str(name)
        for name, value in content.items()
        if not isinstance(name, str) or not isinstance(value, StoredTensor)
    ]
    if others:
        raise CheckpointError(f"{path} is not a state dict: not named tensors are {', '.join(others[:10])}")
    return content


def _walk(module: Inert, prefix: str, path: Path, seen: set[int]) -> list[tuple[str, StoredTensor]]:
    """The tensors in `module` and its children; `seen` holds the ids of all modules visited."""
    if prefix.count(".") > MAX_DEPTH:
        raise CheckpointError(f"{path} nests modules deeper than {MAX_DEPTH}")
    if id(module) in seen:  # a few shared modules in a row would give too many paths to walk
        raise CheckpointError(f"{path} is not a tree of modules: {prefix[:-1]} is also another of them")
    seen.add(id(module))
    found = []
    for name, value in module.state.items() if isinstance(module.state, dict) else ():
        if isinstance(value, StoredTensor):
            found.append((f"{prefix}{name}", value))
        elif isinstance(value, Inert):
            found += _walk(value, f"{prefix}{name}.", path, seen)
    return found


def _tensor(storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> StoredTensor:
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise pickle.UnpicklingError(f"a tensor's place is not made of counts: {numbers[:10]}")
    if len(shape) != len(stride) or len(shape) > MAX_DIMS:
        raise pickle.UnpicklingError(f"a tensor has {len(shape)} sizes and {len(stride)} strides")
    num_elements = math.prod(shape)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    # No more elements than stored: an expanded view is small here and huge once it is copied.
    if num_elements > storage.num_elements or (num_elements and last >= storage.num_elements):
        raise pickle.UnpicklingError(f"a tensor of {shape} is outside its {storage.num_elements} elements")
    return StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _plain_entries(archive: zipfile.ZipFile, file_size: int) -> dict[str, zipfile.ZipInfo]:
    """Entries that are stored as they are, by name; torch compresses only TorchScript's code, which is never read."""
    entries = {
        name: archive.getinfo(name) for name in archive.namelist()
    }  # of two entries with one name, the one that is read
    plain = {name: entry for name, entry in entries.items() if _is_plain(entry)}
    if sum(entry.file_size for entry in plain.values()) > file_size:
        raise CheckpointError("its entries claim more bytes than the file has")
    return plain


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    is_stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
    is_encrypted = entry.flag_bits & 1
    return is_stored and not is_encrypted


def _root(entries: Iterable[str]) -> str:
    roots = [name.removesuffix("/data.pkl") for name in entries if re.fullmatch("[^/]*/data.pkl", name)]
    if len(roots) != 1:
        raise CheckpointError("it is a zip file, but not torch's: it has no uncompressed data.pkl")
    return roots[0]


def _check_opcodes(data: bytes) -> None:
    """Refuse opcodes that bypass `find_class`, and numbers that make the unpickler allocate memory."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in FORBIDDEN_OPCODES:
            raise pickle.UnpicklingError(f"opcode {opcode.name} is not allowed in weights")
        if opcode.name in MEMO_OPCODES and int(argument or 0) > len(data):
            raise pickle.UnpicklingError(f"memo index {argument} is larger than the pickle")
