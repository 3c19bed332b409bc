"""The image tower in OpenVINO and ONNX Runtime: the same features as in torch, for every kind of tower."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import TINY, tiny_model

import openxclip
from openxclip import InferenceOptions
from openxclip.checkpoints.source import ModelSource
from openxclip.cli.main import run
from openxclip.errors import InputError, MissingExtraError
from openxclip.models import XCLIPConfig
from openxclip.models.expand import clip_only
from openxclip.runtimes.choice import chosen_runtime
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.runtime import build_runtime
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.video.transforms import Preprocessor

pytestmark = [
    pytest.mark.on_cpu,
    pytest.mark.filterwarnings("ignore"),  # of what torch's exporter itself still uses
]

OTHERS = ("openvino", "onnx")


def tower(**vision: object) -> XCLIPConfig:
    """An image model with another kind of tower."""
    config = clip_only(TINY)
    return dataclasses.replace(config, vision=dataclasses.replace(config.vision, **vision))


TOWERS = {
    "X-CLIP": TINY,
    "CLIP": clip_only(TINY),
    "SigLIP": tower(
        pooling="attention", class_token=False, pre_norm=False, projection=False, width=128, num_heads=2
    ),
    "Perception Encoder": tower(pooling="attention", rotary=True),
}


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("runtime", OTHERS)
def test_features_are_those_of_torch_for_any_number_of_videos(runtime, name) -> None:
    config = TOWERS[name]
    model = tiny_model(config)
    preprocess = Preprocessor.official(config.vision.image_size_px)
    other = build_runtime(model, preprocess, RuntimeOptions(runtime=runtime))
    ours = build_runtime(model, preprocess, RuntimeOptions())
    size = config.vision.image_size_px
    for num_videos in (1, 3):
        generator = torch.Generator().manual_seed(num_videos)
        shape = (num_videos, config.num_frames, 3, size, size)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        found, expected = other.encode_video(pixels), ours.encode_video(pixels)
        assert (found.patches is None) == (expected.patches is None) == (config.prompting is None)
        for one, two in zip(found, expected, strict=True):
            if one is not None:
                assert torch.allclose(one, two, rtol=0, atol=1e-4 * (1 + two.abs().max()))


@pytest.mark.parametrize("runtime", OTHERS)
def test_predictions_are_those_of_torch(runtime, tmp_path) -> None:
    """Of the shipped model, from files to probabilities: at most 1e-4 apart in float32."""
    source = ModelSource(source="openxclip-tiny", device="cpu", dtype="float32")
    clips = [tmp_path / f"{number}.mp4" for number in range(3)]
    for path, clip in zip(clips, example_clips(), strict=False):
        path.write_bytes(clip.encode())
    found = []
    for name in ("torch", runtime):
        options = InferenceOptions(runtime=RuntimeOptions(runtime=name))
        recognizer = openxclip.Recognizer.from_pretrained(source, list(EXAMPLE_LABELS), options=options)
        found.append([dict(recognizer.predict(clip, top_k=len(EXAMPLE_LABELS)).scores) for clip in clips])
    for ours, theirs in zip(*found, strict=True):
        assert max(abs(ours[label] - theirs[label]) for label in EXAMPLE_LABELS) <= 1e-4


def test_the_model_is_not_changed() -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    build_runtime(model, Preprocessor.official(32), RuntimeOptions(runtime="openvino"))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("runtime", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_a_missing_package_is_named(runtime, package, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"openxclip\[{runtime}\]"):
        build_runtime(tiny_model(), Preprocessor.official(32), RuntimeOptions(runtime=runtime))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "onnx", "compile": True}, "--compile is for torch"),
        ({"runtime": "auto", "int8": True}, "auto chooses the precision itself"),
        ({"int8": True, "calibration": Path("list.txt")}, "torch's int8 needs none"),
        ({"runtime": "openvino", "calibration": Path("list.txt")}, "--calibration is for"),
        ({"num_threads": 0}, "--num-threads must be at least 1"),
        ({"merge_tokens": 2}, "merge_tokens must be 0 to 1 for this model"),
        ({"runtime": "openvino", "merge_tokens": -1}, "merge_tokens must be 0 to 1"),
    ],
)
def test_options_that_would_change_nothing_are_refused(options, message) -> None:
    with pytest.raises(InputError, match=message):
        chosen_runtime(tiny_model(), Preprocessor.official(32), RuntimeOptions(**options), 1)


def test_the_command_takes_a_runtime(tmp_path, capsys) -> None:
    clip = example_clips()[0]
    (tmp_path / "clip.mp4").write_bytes(clip.encode())
    arguments = ["predict", str(tmp_path / "clip.mp4"), "--labels", ", ".join(EXAMPLE_LABELS)]
    assert run([*arguments, "--model", "openxclip-tiny", "--runtime", "openvino"]) == 0
    assert clip.kind.name in capsys.readouterr().out.splitlines()[1]


@pytest.mark.skipif(sys.platform != "linux", reason="its stack for signals is Linux's")
def test_a_runtime_dropped_by_another_thread_leaves_signals_working() -> None:
    """In a process of its own, which a stack that is no longer there would end by SIGSEGV."""
    program = """
import signal, sys, threading
sys.path.insert(0, "tests")
from tiny import tiny_model
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.runtime import build_runtime
from openxclip.video.transforms import Preprocessor

runtimes = [build_runtime(tiny_model(), Preprocessor.official(32), RuntimeOptions(runtime="openvino"))]
thread = threading.Thread(target=runtimes.clear)
thread.start()
thread.join()
caught = []
signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
signal.raise_signal(signal.SIGUSR1)
assert caught
"""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
