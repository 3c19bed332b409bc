"""Models as graphs: every family, every format, and a program without torch that reproduces the scores."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
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
from openxclip.runtimes import export as module
from openxclip.runtimes.export import export
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
    differences = export(loaded(name), tmp_path / "out", format, source=name)
    assert set(differences) == {"video_encoder", "text_encoder", "scorer"}
    assert max(differences.values()) <= 1e-3
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
    def wrong(graph: module.Graph, path: Path) -> module.Run:
        right = module._write_torch(graph, path)
        return lambda inputs: tuple(tensor + 0.01 for tensor in right(inputs))

    monkeypatch.setitem(module._WRITERS, "torch-export", wrong)
    with pytest.raises(InputError, match=r"video_encoder as torch-export differs from torch by 0\.01"):
        export(loaded("CLIP"), tmp_path / "out", "torch-export", source="x")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_one_line(tmp_path, capsys) -> None:
    (tmp_path / "there").mkdir()
    assert run(["export", "openxclip-tiny", "--output", str(tmp_path / "there")]) == 2
    assert "exists; choose another folder" in capsys.readouterr().err
    model = loaded("X-CLIP")
    model.model.text = None
    with pytest.raises(InputError, match="no text tower"):
        export(model, tmp_path / "out", "onnx", source="x")


def test_graphs_take_other_numbers_of_videos_and_labels(tmp_path) -> None:
    start = loaded("X-CLIP")
    export(start, tmp_path / "out", "torch-export", source="x")
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
