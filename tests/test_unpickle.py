"""Hostile and damaged files: nothing that they name is run, nothing large is allocated, each is a CheckpointError."""

import collections
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from openxclip.checkpoints.load import load
from openxclip.checkpoints.unpickle import (
    Inert,
    Storage,
    StoredTensor,
    TorchFile,
    read_torch_tensors,
    tensors_of,
)
from openxclip.errors import CheckpointError

Archive = Callable[..., Path]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Writes a file as torch.save would, around a given pickle."""

    def write(data: bytes, storages: dict[str, bytes] | None = None, order: bytes = b"little") -> Path:
        path = tmp_path / "model.pth"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("model/data.pkl", data)
            file.writestr("model/byteorder", order)
            for key, content in (storages or {}).items():
                file.writestr(f"model/data/{key}", content)
        return path

    return write


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def tensor(offset: bytes, shape: bytes, stride: bytes, pid: bytes | None = None) -> bytes:
    """The pickle of one float32 tensor in storage "0", which holds 4 elements."""
    storage = (
        b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + number(4) + b"t"
    )
    arguments = (pid or storage) + b"Q" + offset + shape + stride + b"\x89)"
    return b"\x80\x02}" + text("w") + name("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tRs."


def sizes(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def test_reads_what_torch_saves(tmp_path: Path):
    base = torch.arange(24.0).view(4, 6)
    saved = {
        "whole": base,
        "transposed": base.T,
        "slice": base[1:3, 2:5],
        "parameter": nn.Parameter(torch.randn(3, dtype=torch.float64)),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "half": torch.randn(5).half(),
        "bfloat16": torch.randn(5).bfloat16(),
        "int64": torch.arange(3),
        "bool": torch.tensor([True, False]),
    }
    torch.save(saved, tmp_path / "a.pth")
    loaded = read_torch_tensors(tmp_path / "a.pth")
    assert loaded.keys() == saved.keys()
    for key, expected in saved.items():
        assert loaded[key].dtype == expected.dtype
        assert torch.equal(loaded[key], expected.detach())


def test_reads_a_module_s_state_dict_with_its_metadata(tmp_path: Path):
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    torch.save(module.state_dict(), tmp_path / "a.pth")
    assert all(
        torch.equal(v, module.state_dict()[k]) for k, v in read_torch_tensors(tmp_path / "a.pth").items()
    )


def test_tensors_that_nobody_asks_for_stay_in_the_file(archive: Archive, tmp_path: Path):
    torch.save({"model": {"w": torch.ones(2)}, "optimizer": torch.zeros(1000)}, tmp_path / "a.pth")
    damaged = (tmp_path / "a.pth").read_bytes().replace(bytes(4000), b"\x01" * 4000)
    (tmp_path / "a.pth").write_bytes(damaged)  # the checksum of the optimizer's storage is now wrong
    assert torch.equal(read_torch_tensors(tmp_path / "a.pth")["w"], torch.ones(2))
    file = TorchFile(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="damaged"):
        file.tensors({"w": file.content["optimizer"]})


def hostile_objects(marker: Path) -> dict[str, Any]:
    touch = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Calls(os.system, touch),
        "eval": Calls(eval, python),
        "exec": Calls(exec, python),
        "Popen": Calls(subprocess.Popen, ["touch", str(marker)]),
        "nested": [{"a": (Calls(getattr, Calls(__import__, "os"), "system"),)}, Calls(os.system, touch)],
        "in a dict key": {Calls(os.system, touch): 1},
        "torch.load": Calls(torch.load, "other.pth"),
        "through map": Calls(list, Calls(map, os.system, [touch])),
    }


@pytest.mark.parametrize("case", hostile_objects(Path("x")))
def test_calls_are_recorded_and_not_made(case: str, archive: Archive, tmp_path: Path):
    marker = tmp_path / "marker"
    path = archive(pickle.dumps(hostile_objects(marker)[case], protocol=2))
    TorchFile(path)
    with pytest.raises(CheckpointError):
        load(path)
    assert not marker.exists()


def test_the_marker_shows_what_a_real_unpickler_would_do(tmp_path: Path):
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(hostile_objects(marker)["os.system"], protocol=2))
    assert marker.exists()


def test_build_imports_nothing_and_runs_no_setstate(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    marker = tmp_path / "marker"
    run = f"open({str(marker)!r}, 'w').close()"
    (tmp_path / "hostile_module.py").write_text(
        f"{run}\nclass Hostile:\n    def __setstate__(self, state):\n        {run}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = b"\x80\x02" + name("hostile_module", "Hostile") + b")\x81" + text("state") + b"b."
    content = TorchFile(archive(data)).content
    assert isinstance(content, Inert)
    assert content.state == "state"
    assert not marker.exists()
    assert "hostile_module" not in sys.modules
    pickle.loads(data)  # and this is what it would have done
    assert marker.exists()


def test_items_of_unknown_objects_are_not_set(archive: Archive):
    data = b"\x80\x02" + name("os", "_Environ") + b")\x81(" + text("HOSTILE") + text("1") + b"u."
    assert isinstance(TorchFile(archive(data)).content, Inert)
    assert "HOSTILE" not in os.environ


def test_a_pickle_cannot_change_what_it_is_given(archive: Archive):
    before = dict(vars(collections.OrderedDict))
    attributes = b"}" + text("update") + text("changed") + b"s"
    for target in (name("collections", "OrderedDict"), name("torch", "FloatStorage")):
        with pytest.raises(CheckpointError):
            TorchFile(archive(b"\x80\x02" + target + b"N" + attributes + b"\x86b."))
    assert dict(vars(collections.OrderedDict)) == before
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    hostile = (
        b"\x80\x02"
        + rebuild
        + b"N}"
        + text("__defaults__")
        + b")s\x86b0"
        + tensor(number(0), sizes(4), sizes(1))[2:]
    )
    assert read_torch_tensors(archive(hostile, {"0": bytes(16)}))["w"].shape == (4,)


@pytest.mark.parametrize("opcode", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"\x97"])
def test_forbidden_opcodes(opcode: bytes, archive: Archive):
    with pytest.raises(CheckpointError, match="opcode"):
        TorchFile(archive(b"\x80\x02" + opcode + b"."))


@pytest.mark.parametrize(
    "pid",
    [
        text("storage"),
        sizes(1, 2, 3, 4, 5),
        b"(" + text("module") + name("torch", "FloatStorage") + text("0") + text("cpu") + number(4) + b"t",
        b"(" + text("storage") + name("os", "system") + text("0") + text("cpu") + number(4) + b"t",
        b"("
        + text("storage")
        + name("torch", "FloatStorage")
        + text("../0")
        + text("cpu")
        + number(4)
        + b"t",
        b"("
        + text("storage")
        + name("torch", "FloatStorage")
        + text("0")
        + text("cpu")
        + number(2**60)
        + b"t",
        b"(" + text("storage") + name("torch", "DoubleStorage") + text("0") + text("cpu") + number(4) + b"t",
    ],
    ids=["no tuple", "numbers", "other kind", "other type", "other file", "huge", "other size"],
)
def test_persistent_ids_of_a_wrong_shape(pid: bytes, archive: Archive):
    with pytest.raises(CheckpointError):
        TorchFile(archive(tensor(number(0), sizes(4), sizes(1), pid), {"0": bytes(16)}))


def test_a_right_place_is_read(archive: Archive):
    storage = struct.pack("<4f", 0, 1, 2, 3)
    path = archive(tensor(number(1), sizes(3, 1), sizes(1, 7)), {"0": storage})
    assert read_torch_tensors(path)["w"].tolist() == [[1], [2], [3]]


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (number(1), sizes(4), sizes(1)),
        (number(-1), sizes(4), sizes(1)),
        (number(0), sizes(2, 2), sizes(3, 1)),
        (number(0), sizes(4), sizes(-1)),
        (number(0), sizes(-4), sizes(1)),
        (number(0), sizes(2**40), sizes(0)),
        (number(0), sizes(2**40, 2**40), sizes(0, 0)),
        (number(2**70), sizes(1), sizes(1)),
        (number(0), sizes(2, 2), sizes(1)),
        (number(0), sizes(*[1] * 100), sizes(*[1] * 100)),
        (text("0"), sizes(4), sizes(1)),
        (number(0), text("4"), sizes(1)),
        (b"\x88", sizes(1), sizes(1)),
    ],
)
def test_places_outside_the_storage(offset: bytes, shape: bytes, stride: bytes, archive: Archive):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        TorchFile(archive(tensor(offset, shape, stride), {"0": bytes(16)}))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a memo of 2**31 slots
        b"\x80\x02p2000000000\n.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of 2**63
        b"\x80\x02T\xff\xff\xff\x7f.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"",
        b".",
        b"\x80\x02R.",
        b"\x80\x02",
        b"\xff\xff\xff",
        b"(" * 100_000 + b".",
    ],
)
def test_malformed_pickles(data: bytes, archive: Archive):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        TorchFile(archive(data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_compressed_entries_are_refused(tmp_path: Path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/data.pkl", bytes(10_000_000))
    with pytest.raises(CheckpointError, match="no uncompressed"):
        TorchFile(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_compressed_entry_cannot_hide_behind_a_plain_one(archive: Archive):
    path = archive(tensor(number(0), sizes(4), sizes(1)), {"0": bytes(16)})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("model/data/0", bytes(10_000_000), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="missing"):
        read_torch_tensors(path)


def test_other_byte_order_is_refused(archive: Archive):
    with pytest.raises(CheckpointError, match="byte order is 'big'"):
        TorchFile(archive(pickle.dumps({}, protocol=2), order=b"big"))


def test_zip_files_of_others_are_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match="not torch's"):
        TorchFile(tmp_path / "a.pth")


def test_files_of_old_torch_are_refused_with_the_way_out(tmp_path: Path):
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"save it again: torch\.save"):
        TorchFile(tmp_path / "a.pth")


def test_every_truncation_is_an_error(tmp_path: Path):
    torch.save({"w": torch.ones(64)}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    for end in range(0, len(whole), 37):
        (tmp_path / "a.pth").write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match=r"a\.pth"):
            read_torch_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize("content", [[1], {}, {"w": torch.ones(1), "epoch": 3}, "text", {1: torch.ones(1)}])
def test_files_without_weights_by_name(content: Any, tmp_path: Path):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        read_torch_tensors(tmp_path / "a.pth")


def test_modules_within_themselves(tmp_path: Path):
    module = Inert()
    module.state = {"child": module, "w": StoredTensor(Storage("0", torch.float32, 1), 0, (1,), (1,))}
    with pytest.raises(CheckpointError, match="not a tree of modules: child is also another"):
        tensors_of(module, tmp_path)


def test_modules_nested_too_deep(tmp_path: Path):
    module = Inert()
    for _ in range(100):
        outer = Inert()
        outer.state = {"child": module}
        module = outer
    with pytest.raises(CheckpointError, match="deeper than 64"):
        tensors_of(module, tmp_path)


def test_modules_on_many_paths_are_not_walked_along_each_of_them(archive: Archive):
    """60 modules, each twice in the one before: a small file with 2**60 paths."""
    new = name("hostile", "Module") + b")\x81"
    data = new
    for level in range(60):  # {"a": module, "b": the same from the memo} is the state of a new one
        slot = bytes([level])
        data = new + b"}(" + text("a") + data + b"q" + slot + text("b") + b"h" + slot + b"ub"
    with pytest.raises(CheckpointError, match=r"model\.pth is not a tree of modules"):
        read_torch_tensors(archive(b"\x80\x02" + data + b"."))


def test_tensors_that_share_a_storage_may_not_claim_much_more_than_the_file_has(tmp_path: Path):
    """Each is small; 1,000 copies of them would not be."""
    base = torch.ones(10_000)
    torch.save({"a": base, "b": base.view(100, 100)}, tmp_path / "tied.pth")
    assert torch.equal(read_torch_tensors(tmp_path / "tied.pth")["b"], base.view(100, 100))
    torch.save({str(i): base.view(100, 100) for i in range(1000)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth has .* bytes, its tensors 40,000,000"):
        read_torch_tensors(tmp_path / "a.pth")


def test_a_pickle_cannot_change_a_tensor_s_place(archive: Archive):
    """A tensor is checked when it is built; no later opcode may change it."""
    built = tensor(number(0), sizes(4), sizes(1))[:-2]  # without the item of the dict, and the end
    state = b"}" + text("shape") + sizes(2**40) + b"s"
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        read_torch_tensors(archive(built + state + b"bs.", {"0": bytes(16)}))
    read_torch_tensors(archive(built + b"s.", {"0": bytes(16)}))


def test_entries_that_lie_about_their_place(archive: Archive):
    """An entry of the directory that overlaps others, or lies beyond the file."""
    path = archive(tensor(number(0), sizes(4), sizes(1)), {"0": bytes(16)})
    whole = path.read_bytes()
    record = whole.rindex(b"PK\x01\x02")  # of the last entry, the storage; its offset is the last of 46 bytes
    for place in (0, 2**31 - 1):
        path.write_bytes(whole[: record + 42] + struct.pack("<I", place) + whole[record + 46 :])
        with pytest.raises(CheckpointError, match=r"model\.pth is damaged"):
            read_torch_tensors(path)
    sizes_at = record + 20  # compressed, then uncompressed
    path.write_bytes(whole[:sizes_at] + struct.pack("<II", 2**30, 2**30) + whole[sizes_at + 8 :])
    with pytest.raises(CheckpointError, match="claim more bytes than the file has"):
        read_torch_tensors(path)
