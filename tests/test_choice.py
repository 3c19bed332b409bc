"""`openxclip benchmark` and `--runtime auto`: what is measured, remembered, and taken."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from tiny import TINY, tiny_model

from openxclip.cli import benchmark as command
from openxclip.cli.main import run
from openxclip.errors import InputError
from openxclip.runtimes import choice, measuring
from openxclip.runtimes.calibration_clips import calibration_clips
from openxclip.runtimes.choice import Measurements, choice_key, chosen_runtime, recall, remember
from openxclip.runtimes.measuring import Measured, measure_here, run_way
from openxclip.runtimes.memory import peak_bytes
from openxclip.runtimes.openvino_runtime import OpenVinoRuntime
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.torch_runtime import TorchRuntime
from openxclip.runtimes.ways import Way, ways
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.video.transforms import Preprocessor

pytestmark = [pytest.mark.on_cpu, pytest.mark.filterwarnings("ignore")]

PREPROCESS = Preprocessor.official(TINY.vision.image_size_px)
TORCH = Way(runtime="torch", dtype="float32")
OPENVINO = Way(runtime="openvino", dtype="float32")
INT8 = Way(runtime="openvino", dtype="float32", int8=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OPENXCLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def three_ways(monkeypatch) -> None:
    """Without compilers, which take a minute each."""
    for module in (choice, measuring):
        monkeypatch.setattr(module, "ways", lambda model: (TORCH, OPENVINO, INT8))


def measurements(**noises: float) -> Measurements:
    rows = (
        Measured(way=TORCH, seconds=(0.3, 0.9), noise=0.0),
        Measured(way=OPENVINO, seconds=(0.2, 0.8), noise=0.001),
        Measured(way=INT8, seconds=(0.1, 1.0), noise=noises.get("int8", 0.01)),
        Measured(way=Way(runtime="onnx", dtype="float32"), problem="does not load"),
    )
    return Measurements(batch_sizes=(1, 8), rows=rows)


def test_the_fastest_within_the_bound_is_taken_for_each_batch_size() -> None:
    found = measurements()
    assert [found.fastest(size) for size in (1, 2, 7, 8, 100)] == [INT8, INT8, OPENVINO, OPENVINO, OPENVINO]
    assert measurements(int8=0.06).fastest(1) == OPENVINO
    assert found.fastest(1, bound=0.0001) == TORCH
    with pytest.raises(InputError, match="ONNX Runtime, float32: does not load"):
        Measurements(batch_sizes=(1,), rows=found.rows[-1:]).fastest(1)


def test_what_is_remembered_is_recalled_for_the_same_alone() -> None:
    model, options = tiny_model(), RuntimeOptions(runtime="auto")
    key = choice_key(model, PREPROCESS, options)
    assert recall(key) is None
    remember(key, measurements())
    assert recall(key) == measurements()
    others = (
        choice_key(tiny_model(seed=1), PREPROCESS, options),
        choice_key(model, Preprocessor.hugging_face(32), options),
        choice_key(model, PREPROCESS, RuntimeOptions(merge_tokens=1)),
        choice_key(model, PREPROCESS, RuntimeOptions(num_threads=1)),
        choice_key(tiny_model().bfloat16(), PREPROCESS, options),
    )
    assert key == choice_key(tiny_model(), PREPROCESS, RuntimeOptions())
    assert len({key, *others}) == 6


def test_auto_takes_what_is_remembered() -> None:
    model, options = tiny_model(), RuntimeOptions(runtime="auto")
    remember(choice_key(model, PREPROCESS, options), measurements(int8=0.06))
    chosen = chosen_runtime(model, PREPROCESS, options, 1)
    assert isinstance(chosen.runtime, OpenVinoRuntime)
    assert chosen.options == RuntimeOptions(runtime="openvino")
    slow = Measurements(batch_sizes=(1,), rows=measurements().rows[:1])
    remember(choice_key(model, PREPROCESS, options), slow)
    assert isinstance(chosen_runtime(model, PREPROCESS, options, 1).runtime, TorchRuntime)


def test_auto_measures_where_nothing_is_remembered(three_ways, caplog) -> None:
    model, options = tiny_model(), RuntimeOptions(runtime="auto")
    runtime = chosen_runtime(model, PREPROCESS, options, 1).runtime
    assert "measuring which runtime is fastest" in caplog.text
    found = recall(choice_key(model, PREPROCESS, options))
    assert found is not None
    assert [row.way for row in found.rows] == [TORCH, OPENVINO, INT8]
    assert found.rows[0].noise == 0
    assert 0 < found.rows[1].noise < 1e-3 < found.rows[2].noise < 0.05
    pixels = torch.randint(0, 256, (1, TINY.num_frames, 3, 32, 32), dtype=torch.uint8)
    expected = TorchRuntime(model, PREPROCESS, RuntimeOptions()).encode_video(pixels).video
    found_video = runtime.encode_video(pixels).video
    assert torch.cosine_similarity(found_video, expected).item() > 0.999
    caplog.clear()
    chosen_runtime(model, PREPROCESS, options, 1)
    assert not caplog.text


def test_a_damaged_memory_is_measured_anew(three_ways) -> None:
    model, options = tiny_model(), RuntimeOptions(runtime="auto")
    key = choice_key(model, PREPROCESS, options)
    remember(key, measurements())
    path = choice._path(key)
    path.write_text('{"batch_sizes": 3}')
    assert recall(key) is None
    chosen_runtime(model, PREPROCESS, options, 1)
    assert len(recall(key).rows) == 3


def test_a_way_that_fails_is_told_and_the_others_are_measured(monkeypatch) -> None:
    broken = Way(runtime="torch", dtype="float32", int8=True)
    monkeypatch.setattr(measuring, "ways", lambda model: (TORCH, broken))
    real = measuring.build_runtime

    def build(model, preprocess, options):
        if options.int8:
            raise RuntimeError("this processor\nhas none")
        return real(model, preprocess, options)

    monkeypatch.setattr(measuring, "build_runtime", build)
    clips = calibration_clips(None, PREPROCESS, TINY.num_frames)[:4]
    rows = list(measure_here(tiny_model(), PREPROCESS, RuntimeOptions(), clips, (1,)))
    assert rows[0].problem is None
    assert rows[1].problem == "this processor"


def test_without_the_reference_nothing_is_measured(monkeypatch) -> None:
    def build(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(measuring, "build_runtime", build)
    clips = calibration_clips(None, PREPROCESS, TINY.num_frames)[:4]
    with pytest.raises(InputError, match=r"torch, float32, the reference for the others.* no memory"):
        list(measure_here(tiny_model(), PREPROCESS, RuntimeOptions(), clips, (1,)))


def test_the_ways_are_those_that_are_installed(monkeypatch) -> None:
    names = [way.name for way in ways(tiny_model().bfloat16())]
    assert names[0] == "torch, float32"
    assert len(set(names)) == len(names) == 10
    assert not any("bfloat16" in way.name for way in ways(tiny_model()))
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in ("openvino", "onnxscript") else real(name)
    )
    assert {way.runtime for way in ways(tiny_model())} == {"torch"}


def test_batches_are_as_large_as_asked_for() -> None:
    clips = calibration_clips(None, PREPROCESS, TINY.num_frames)[:3]
    assert measuring._batch(clips, 5).shape[0] == 5
    assert torch.equal(measuring._batch(clips, 5)[3], clips[0])
    found = run_way(TORCH, tiny_model(), PREPROCESS, RuntimeOptions(), clips, (1, 2))
    assert len(found.seconds) == 2
    assert found.features.video.shape == (3, TINY.embed_dim)


def test_memory_is_counted() -> None:
    """By a block that is larger than all that the process has held."""
    before = peak_bytes()
    assert before is not None
    block = np.ones(before + 64 * 2**20, dtype=np.uint8)
    assert peak_bytes() >= block.nbytes > before


def test_the_command_measures_and_auto_follows(three_ways, tmp_path, capsys) -> None:
    """In processes of their own, with the shipped model."""
    arguments = ["benchmark", "openxclip-tiny", "--dtype", "float32", "--batch-sizes", "1", "2"]
    assert run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["rows"]] == ["torch, float32", "OpenVINO, float32", "OpenVINO, int8"]
    assert found["batch_sizes"] == [1, 2]
    for row in found["rows"]:
        assert row["problem"] is None
        assert len(row["seconds"]) == 2
        assert row["noise"] <= 0.05
        assert row["same_best"] > 0.8
        assert row["peak_bytes"] > 100 * 2**20
    assert found["rows"][0]["same_best"] == 1
    assert set(found["auto"]) == {"1", "2"}
    clip = example_clips()[0]
    (tmp_path / "clip.mp4").write_bytes(clip.encode())
    arguments = ["predict", str(tmp_path / "clip.mp4"), "--labels", ", ".join(EXAMPLE_LABELS)]
    assert run([*arguments, "--model", "openxclip-tiny", "--dtype", "float32", "--runtime", "auto"]) == 0
    captured = capsys.readouterr()
    assert clip.kind.name in captured.out.splitlines()[1]
    assert "measuring" not in captured.err


def test_the_table_names_what_failed() -> None:
    options = command.BenchmarkOptions(model="some-model")
    text = command._table(options, measurements()).text()
    assert "some-model on this machine" in text
    assert "--runtime auto, batches of 8: OpenVINO, float32" in text
    assert "ONNX Runtime, float32: does not load" in text


def test_wrong_use_of_the_command_is_one_line(capsys) -> None:
    for arguments, message in (
        (["--batch-sizes", "0"], "--batch-sizes must be"),
        (["--num-threads", "0"], "--num-threads must be at least 1"),
        (["--labels", "none.txt"], "none.txt"),
    ):
        assert run(["benchmark", "openxclip-tiny", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1
