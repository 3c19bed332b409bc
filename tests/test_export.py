"""Models as graphs: every family, every format, and a program without torch that reproduces the scores."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from test_runtimes import TOWERS
from tiny import tiny_model, tiny_tokenizer

import openxclip
from openxclip.checkpoints.load import Loaded
from openxclip.checkpoints.source import ModelSource
from openxclip.cli.main import run
from openxclip.errors import InputError
from openxclip.inference.reading import read_video
from openxclip.inference.views import Views
from openxclip.runtimes.export import export
from openxclip.runtimes.export_options import ExportOptions
from openxclip.runtimes.formats import WRITERS, Run, write_for_torch
from openxclip.runtimes.openvino_runtime import core
from openxclip.shapes.examples import example_clips
from openxclip.video.transforms import Preprocessor

pytestmark = [
    pytest.mark.on_cpu,
    pytest.mark.filterwarnings("ignore"),  # of what torch's exporters themselves still use
]

ROOT = Path(__file__).parent.parent


def loaded(name: str) -> Loaded:
    config = TOWERS[name]
    return Loaded(
        tiny_model(config), tiny_tokenizer(config), Preprocessor.official(config.vision.image_size_px)
    )


@pytest.mark.parametrize("format", ["onnx", "openvino", "torch-export"])
@pytest.mark.parametrize("name", TOWERS)
def test_every_family_in_every_format(name, format, tmp_path) -> None:
    differences = export(
        loaded(name), tmp_path / "out", ExportOptions(format=format), source=name
    ).differences
    assert set(differences) == {"video_encoder", "text_encoder", "scorer", "pixels to logits"}
    assert max(differences.values()) <= 1e-4
    about = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert about["largest_differences"] == differences
    has_patches = TOWERS[name].prompting is not None
    assert ("patches" in about["graphs"]["scorer"]["inputs"]) == has_patches
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_the_program_of_the_docs_reproduces_predict(tmp_path, monkeypatch) -> None:
    """In a process of its own, which imports neither torch nor this package."""
    page = (ROOT / "docs" / "exporting.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    assert (
        run(["export", "openxclip-tiny", "--output", "exported", "--labels", "red circle, green ring"]) == 0
    )
    assert json.loads(Path("exported/metadata.json").read_text())["labels"] == ["red circle", "green ring"]
    clip = example_clips()[0]
    Path("clip.mp4").write_bytes(clip.encode())
    labels = ["red circle moving left", "green ring rising"]
    source = ModelSource(source="openxclip-tiny", device="cpu", dtype="float32")
    recognizer = openxclip.Recognizer.from_pretrained(source, labels)
    np.save("frames.npy", read_video(recognizer.engine, "clip.mp4", Views())[0].numpy())
    checked = code + "import sys\nassert not {'torch', 'openxclip'} & set(sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [float(line.split("%")[0]) / 100 for line in done.stdout.splitlines()]
    expected = dict(recognizer.predict("clip.mp4").scores)
    assert found == pytest.approx([expected[label] for label in labels], abs=6e-4)  # it prints a digit


def test_a_graph_that_computes_something_else_is_an_error_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    def wrong(*arguments: object) -> Run:
        right = write_for_torch(*arguments)
        return lambda inputs: tuple(tensor + 0.01 for tensor in right(inputs))

    monkeypatch.setitem(WRITERS, "torch-export", wrong)
    with pytest.raises(InputError, match=r"video_encoder as torch-export differs from torch by 0\.01"):
        export(loaded("CLIP"), tmp_path / "out", ExportOptions(format="torch-export"), source="x")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_one_line(tmp_path, capsys) -> None:
    (tmp_path / "there").mkdir()
    assert run(["export", "openxclip-tiny", "--output", str(tmp_path / "there")]) == 2
    assert "exists; choose another folder" in capsys.readouterr().err
    model = loaded("X-CLIP")
    model.model.text = None
    with pytest.raises(InputError, match="no text tower"):
        export(model, tmp_path / "out", ExportOptions(), source="x")


def test_graphs_take_other_numbers_of_videos_and_labels(tmp_path) -> None:
    start = loaded("X-CLIP")
    export(start, tmp_path / "out", ExportOptions(format="torch-export"), source="x")
    graphs = {
        name: torch.export.load(tmp_path / "out" / f"{name}.pt2").module()
        for name in ("video_encoder", "text_encoder", "scorer")
    }
    tokens = torch.stack(
        list(start.tokenizer([f"{a}{b}" for a in ("ba", "ki") for b in ("lo", "mu", "ne", "zo")]))
    )
    tokens = torch.nn.functional.pad(tokens, (0, start.model.config.text.context_length - tokens.shape[1]))
    config = start.model.config
    size = config.vision.image_size_px
    pixels = torch.randint(0, 256, (5, config.num_frames, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        (text,) = graphs["text_encoder"](tokens)
        (logits,) = graphs["scorer"](*_ordered(graphs["video_encoder"](pixels), text))
        expected = start.model(start.preprocess.normalise(pixels), tokens)
    assert torch.allclose(logits, expected, atol=1e-4)


def _ordered(features: tuple[torch.Tensor, ...], text: torch.Tensor) -> tuple[torch.Tensor, ...]:
    video, patches = features
    return video, text, patches


def test_the_cpp_program_of_the_docs_reproduces_predict(tmp_path, monkeypatch) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    page = (ROOT / "docs" / "exporting.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```cpp\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (compiler,) = re.findall(r"^g\+\+ .*$", page, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Path("recognise.cpp").write_text(code)
    labels = ["red circle moving left", "green ring rising"]
    assert run(["export", "openxclip-tiny", "--output", "exported", "--labels", ", ".join(labels)]) == 0
    clip = example_clips()[0]
    Path("clip.mp4").write_bytes(clip.encode())
    source = ModelSource(source="openxclip-tiny", device="cpu", dtype="float32")
    recognizer = openxclip.Recognizer.from_pretrained(source, labels)
    Path("frames.bin").write_bytes(read_video(recognizer.engine, "clip.mp4", Views())[0].numpy().tobytes())
    environment = {**os.environ, "OPENVINO": str(Path(openvino.__file__).parent)}
    subprocess.run(["bash", "-c", compiler], env=environment, check=True)
    done = subprocess.run(
        ["./recognise", "exported", "frames.bin", *labels], capture_output=True, text=True, check=True
    )
    found = [float(line.split("%")[0]) / 100 for line in done.stdout.splitlines()]
    expected = dict(recognizer.predict("clip.mp4").scores)
    assert found == pytest.approx([expected[label] for label in labels], abs=6e-4)  # it prints a digit


@pytest.mark.parametrize("format", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_int8_is_written_with_a_report(format, tmp_path) -> None:
    small = export(loaded("X-CLIP"), tmp_path / "int8", ExportOptions(format=format, int8=True), source="x")
    assert 1e-4 < small.noise <= 0.1
    assert len(small.calibration.ranges) == 8
    about = json.loads((tmp_path / "int8" / "metadata.json").read_text())
    assert about["precision"] == "int8"
    assert [layer["path"] for layer in about["int8_layers"]] == list(small.calibration.ranges)
    export(loaded("X-CLIP"), tmp_path / "float", ExportOptions(format=format), source="x")
    sizes = [_weights(tmp_path / name, "video_encoder") for name in ("int8", "float")]
    assert sizes[0] < 0.65 * sizes[1]  # messages and the patch projection stay in float


@pytest.mark.parametrize("format", [pytest.param("onnx", marks=pytest.mark.slow), "openvino", "torch-export"])
def test_half_precision_halves_the_files(format, tmp_path) -> None:
    half = export(
        loaded("X-CLIP"), tmp_path / "half", ExportOptions(format=format, precision="float16"), source="x"
    )
    assert 0 < half.noise < 0.02
    assert half.differences["scorer"] < 1e-4  # stays in float32
    if format == "torch-export":
        return  # its files also hold what is not computed with
    export(loaded("X-CLIP"), tmp_path / "float", ExportOptions(format=format), source="x")
    for graph in ("video_encoder", "text_encoder"):
        assert _weights(tmp_path / "half", graph) < 0.6 * _weights(tmp_path / "float", graph)


def _weights(folder: Path, graph: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{graph}.*") if path.suffix in (".data", ".bin"))


def test_the_facts_are_inside_of_each_graph(tmp_path) -> None:
    for format in ("onnx", "openvino", "torch-export"):
        export(loaded("CLIP"), tmp_path / format, ExportOptions(format=format), source="openxclip-tiny")
        for graph in ("video_encoder", "text_encoder", "scorer"):
            about = json.loads(_inside(tmp_path / format, graph, format))
            assert about["source"] == "openxclip-tiny"
            assert about["licence"] == "MIT"
            assert about["num_frames"] == TOWERS["CLIP"].num_frames
            assert about["graphs"]["scorer"]["outputs"] == ["logits"]


def _inside(folder: Path, graph: str, format: str) -> str:
    if format == "onnx":
        properties = onnx.load(folder / f"{graph}.onnx", load_external_data=False).metadata_props
        return {entry.key: entry.value for entry in properties}["openxclip"]
    if format == "openvino":
        return core().read_model(folder / f"{graph}.xml").get_rt_info(["openxclip"]).value
    files = {"openxclip": ""}
    torch.export.load(folder / f"{graph}.pt2", extra_files=files)
    return files["openxclip"]


def test_opset_is_as_asked_for(tmp_path) -> None:
    for opset, expected in ((None, 18), (20, 20)):
        out = tmp_path / str(opset)
        export(loaded("CLIP"), out, ExportOptions(opset=opset), source="x")
        (found,) = [
            entry.version for entry in onnx.load(out / "scorer.onnx").opset_import if not entry.domain
        ]
        assert found == expected


@pytest.mark.parametrize(
    ("name", "format"), [("CLIP", "onnx"), ("SigLIP", "torch-export"), ("Perception Encoder", "openvino")]
)
def test_image_models_take_any_number_of_frames(name, format, tmp_path) -> None:
    start = loaded(name)
    export(start, tmp_path / "out", ExportOptions(format=format, dynamic_frames=True), source="x")
    size = start.model.config.vision.image_size_px
    for num_frames in (1, 5):
        pixels = torch.randint(0, 256, (2, num_frames, 3, size, size), dtype=torch.uint8)
        with torch.no_grad():
            expected = start.model.encode_video(start.preprocess.normalise(pixels)).video
        found = _video(tmp_path / "out", format, pixels)
        assert torch.allclose(found, expected, rtol=0, atol=1e-4 * (1 + expected.abs().max()))


def _video(folder: Path, format: str, pixels: torch.Tensor) -> torch.Tensor:
    if format == "onnx":
        session = onnxruntime.InferenceSession(folder / "video_encoder.onnx")
        return torch.from_numpy(session.run(["video"], {"pixels": pixels.numpy()})[0])
    if format == "openvino":
        compiled = core().compile_model(
            folder / "video_encoder.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        return torch.from_numpy(compiled({"pixels": pixels.numpy()})["video"])
    with torch.no_grad():
        return torch.export.load(folder / "video_encoder.pt2").module()(pixels)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ExportOptions(format="torch-export", int8=True), "int8 graphs are for onnx and openvino"),
        (ExportOptions(int8=True, precision="float16"), "exclude each other"),
        (ExportOptions(calibration=Path("x")), "--calibration is for int8"),
        (ExportOptions(format="openvino", opset=18), "--opset is for ONNX"),
        (ExportOptions(dynamic_frames=True), "takes no other number"),
        (ExportOptions(merge_tokens=9), "merge_tokens must be 0 to 1"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message, tmp_path) -> None:
    with pytest.raises(InputError, match=message):
        export(loaded("X-CLIP"), tmp_path / "out", options, source="x")
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_layers_and_differences(tmp_path, capsys) -> None:
    arguments = ["export", "openxclip-tiny", "--format", "openvino", "--int8"]
    assert run([*arguments, "--output", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr().out
    assert "visual.blocks.3.mlp.fc2" in printed
    assert "noise of the video features" in printed
    assert run([*arguments, "--output", str(tmp_path / "b"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["int8_layers"]) == 16
    assert facts["noise"] <= 0.1
