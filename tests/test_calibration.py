"""Products in 8-bit integers with measured ranges: exact arithmetic, the choice of ranges, outliers, and the bound."""

import copy
import dataclasses
import logging
from pathlib import Path

import pytest
import torch
from benchmarks.outliers import with_outliers
from tiny import TINY, tiny_model
from torch import Tensor, nn

from openxclip.cli.main import run
from openxclip.errors import InputError
from openxclip.models import XCLIP
from openxclip.runtimes import calibration_file, quantisation
from openxclip.runtimes.calibration import Calibration, calibrate, features, noise_between
from openxclip.runtimes.calibration_clips import calibration_clips
from openxclip.runtimes.calibration_file import kept_calibration, load_calibration, save_calibration
from openxclip.runtimes.graphs import MAX_KEPT, kept
from openxclip.runtimes.int8 import quantisable
from openxclip.runtimes.on_cpu import report_floats
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.quantisation import LayerRange, QuantisedLinear, quantise
from openxclip.runtimes.runtime import build_runtime
from openxclip.runtimes.torch_runtime import fold_normalisation
from openxclip.shapes.examples import example_clips
from openxclip.video.transforms import Preprocessor

pytestmark = [pytest.mark.on_cpu, pytest.mark.filterwarnings("ignore")]

PREPROCESS = Preprocessor.official(TINY.vision.image_size_px)


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """Rendered ones, as the default is."""
    return calibration_clips(None, PREPROCESS, TINY.num_frames)


def noise_of(model: XCLIP, ranges: dict[str, LayerRange], clips: Tensor) -> float:
    tower = fold_normalisation(model, PREPROCESS)
    rounded = copy.deepcopy(tower)
    quantise(rounded, ranges)
    with torch.no_grad():
        return noise_between(features(rounded, clips), features(tower, clips))


def plain_ranges(model: XCLIP, clips: Tensor) -> dict[str, LayerRange]:
    """The whole range of each layer's input, without any smoothing: what a first attempt would take."""
    tower = fold_normalisation(model, PREPROCESS)
    ranges = {}
    for path, layer in quantisable(tower).items():
        layer.register_forward_pre_hook(
            lambda _, x, path=path: ranges.update(
                {path: LayerRange(low=min(0.0, x[0].min().item()), high=x[0].max().item())}
            )
        )
    with torch.no_grad():
        tower.encode_video(clips.float())
    return ranges


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("smoothed", [False, True])
def test_a_layer_multiplies_integers(smoothed, marked) -> None:
    """Against the sums of integers, written out."""
    generator = torch.Generator().manual_seed(0)
    linear, x = nn.Linear(16, 8), 3 * torch.randn(5, 16, generator=generator)
    smoothing = torch.rand(16, generator=generator) + 0.5 if smoothed else None
    input_range = LayerRange(low=-4.0, high=6.0, smoothing=smoothing)
    factors = torch.ones(16) if smoothing is None else smoothing
    steps = (x / factors / input_range.scale).round().add(input_range.zero).clamp(0, 255) - input_range.zero
    weight = linear.weight.detach() * factors
    row_scale = weight.abs().amax(dim=1) / 127
    integers = steps.long() @ (weight / row_scale[:, None]).round().long().T
    expected = integers * input_range.scale * row_scale + linear.bias
    found = QuantisedLinear(linear, input_range, marked)(x)
    assert torch.allclose(found, expected, rtol=0, atol=1e-4)
    assert input_range.zero == 102  # 0 is exact: 4 / (10 / 255)


@pytest.mark.parametrize(
    ("machine", "text", "largest"),
    [
        ("x86_64", "flags : avx2 avx512_vnni", 127),
        ("x86_64", "flags : avx2", 63),
        ("x86_64", None, 63),
        ("arm64", None, 127),
    ],
)
def test_weights_fit_what_the_processor_adds_up(machine, text, largest, tmp_path, monkeypatch) -> None:
    """Two products of an input of 8 bits and a weight fit into 16 bits where there is no VNNI."""
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(quantisation, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert quantisation.largest_weight() == largest
    layer = QuantisedLinear(nn.Linear(16, 8), LayerRange(low=-1, high=1))
    assert layer.weight.abs().max() == largest
    assert largest == 127 or 2 * 255 * largest < 2**15


def test_all_products_of_frames_are_among_the_layers() -> None:
    tower = tiny_model()
    assert len(quantisable(tower)) == 4 * TINY.vision.num_layers
    quantise(tower, {path: LayerRange(low=-1, high=1) for path in quantisable(tower)})
    assert not quantisable(tower)
    assert (
        sum(isinstance(module, QuantisedLinear) for module in tower.modules()) == 4 * TINY.vision.num_layers
    )


def test_calibration_holds_on_clips_that_it_has_not_seen(clips) -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = calibrate(model, PREPROCESS, clips)
    assert found.noise <= 0.05
    assert found.noise == pytest.approx(noise_of(model, found.ranges, clips[1::2]), rel=1e-4)
    assert set(found.ranges) == set(quantisable(model)) == {layer.path for layer in found.layers}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_outliers_are_moved_into_the_weights(clips) -> None:
    """Rounding with whole ranges is useless then; with smoothing it is nearly as good as without outliers."""
    usual, hard = tiny_model(), with_outliers(tiny_model())
    tower, other = (fold_normalisation(model, PREPROCESS) for model in (usual, hard))
    with torch.no_grad():
        # The same function but for the few units whose activation is no longer curved.
        assert noise_between(features(other, clips), features(tower, clips)) < 0.5
    plain = noise_of(hard, plain_ranges(hard, clips), clips[1::2])
    found, easy = (calibrate(model, PREPROCESS, clips, bound=10) for model in (hard, usual))
    assert found.noise < plain / 5
    assert found.noise < 2 * easy.noise
    of_norms = [layer for layer in found.layers if layer.path.endswith(("qkv", "fc1"))]
    assert all(layer.smoothing > 0 for layer in of_norms)


def test_layers_stay_in_float_until_the_bound_holds(clips) -> None:
    model = tiny_model()
    free = calibrate(model, PREPROCESS, clips, bound=10)
    assert not any(layer.in_float for layer in free.layers)
    found = calibrate(model, PREPROCESS, clips, bound=0.7 * free.noise)
    assert found.noise <= 0.7 * free.noise
    kept_in_float = {layer.path for layer in found.layers if layer.in_float}
    assert kept_in_float
    assert kept_in_float == set(free.ranges) - set(found.ranges)
    assert found.ranges, "some are left"
    noises = {layer.path: layer.noise for layer in found.layers}
    assert min(noises[path] for path in kept_in_float) >= max(noises[path] for path in found.ranges)
    none = calibrate(model, PREPROCESS, clips, bound=1e-9)
    assert not none.ranges
    assert none.noise <= 1e-9


def test_what_a_layer_does_is_told_to_first_order(clips) -> None:
    """The largest shares, against rounding that layer alone; the two lie within a half of each other."""
    model = tiny_model()
    found = calibrate(model, PREPROCESS, clips, bound=1e-9)
    ranges = calibrate(model, PREPROCESS, clips, bound=10).ranges
    for layer in sorted(found.layers, key=lambda layer: layer.noise, reverse=True)[:3]:
        alone = noise_of(model, {layer.path: ranges[layer.path]}, clips[1::2])
        assert layer.noise == pytest.approx(alone, rel=0.5)


def test_clips_that_cannot_calibrate_are_refused(clips) -> None:
    model = tiny_model()
    with pytest.raises(InputError, match="at least 4 clips"):
        calibrate(model, PREPROCESS, clips[:3])
    with pytest.raises(InputError, match="all look alike"):
        calibrate(model, PREPROCESS, clips[:1].expand(6, -1, -1, -1, -1))
    with pytest.raises(InputError, match="above 0"):
        calibrate(model, PREPROCESS, clips, bound=0)


def test_a_calibration_survives_the_disk(clips, tmp_path) -> None:
    found = calibrate(with_outliers(tiny_model()), PREPROCESS, clips)
    save_calibration(found, tmp_path / "one.safetensors")
    again = load_calibration(tmp_path / "one.safetensors")
    assert again.layers == found.layers
    assert again.noise == found.noise
    for path, one in found.ranges.items():
        two = again.ranges[path]
        assert (one.low, one.high) == (two.low, two.high)
        assert (one.smoothing is None) == (two.smoothing is None)
        if one.smoothing is not None:
            assert torch.equal(one.smoothing, two.smoothing)
    (tmp_path / "two.safetensors").write_bytes(b"something else")
    with pytest.raises(InputError, match="not a readable calibration"):
        load_calibration(tmp_path / "two.safetensors")


def test_ranges_are_measured_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OPENXCLIP_CACHE", str(tmp_path))
    first = kept_calibration(tiny_model(), PREPROCESS, None)
    monkeypatch.setattr(calibration_file, "calibrate", None)  # is not called again
    assert kept_calibration(tiny_model(), PREPROCESS, None).layers == first.layers
    with pytest.raises(TypeError):
        kept_calibration(tiny_model(seed=1), PREPROCESS, None)


def test_without_a_cache_ranges_are_measured_each_time(tmp_path, monkeypatch, caplog) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OPENXCLIP_CACHE", str(tmp_path / "file"))
    assert kept_calibration(tiny_model(), PREPROCESS, None).ranges
    assert "set $OPENXCLIP_CACHE to a folder" in caplog.text


def test_other_videos_under_the_same_names_are_another_calibration(tmp_path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"one")
    before = calibration_file.identity(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"other")
    assert calibration_file.identity(tmp_path) != before


def test_layers_in_float_are_told(clips, caplog) -> None:
    report_floats(calibrate(tiny_model(), PREPROCESS, clips))
    assert not caplog.text
    report_floats(calibrate(tiny_model(), PREPROCESS, clips, bound=1e-9))
    assert "8 of 8 layers are computed in float" in caplog.text


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_runtimes_multiply_the_same_integers(runtime, clips) -> None:
    """Sums of integers are exact; what is left is rounding of scales and of values between two steps."""
    model = with_outliers(tiny_model())
    found = kept_calibration(model, PREPROCESS, None)
    tower = fold_normalisation(model, PREPROCESS)
    quantise(tower, found.ranges)
    other = build_runtime(model, PREPROCESS, RuntimeOptions(runtime=runtime, int8=True))
    with torch.no_grad():
        expected = features(tower, clips)
    theirs = torch.cat([other.encode_video(clip[None]).video for clip in clips])
    theirs = torch.nn.functional.normalize(theirs, dim=-1)
    assert noise_between(theirs, expected) < found.noise
    floats = build_runtime(model, PREPROCESS, RuntimeOptions())
    exact = torch.cat([floats.encode_video(clip[None]).video for clip in clips])
    assert noise_between(theirs, torch.nn.functional.normalize(exact, dim=-1)) < 1.5 * found.noise + 1e-3


def test_clips_come_from_folders_and_lists(tmp_path, caplog) -> None:
    (tmp_path / "some" / "deep").mkdir(parents=True)
    for number, clip in enumerate(example_clips()):
        (tmp_path / "some" / "deep" / f"{number}.mp4").write_bytes(clip.encode())
    (tmp_path / "some" / "broken.mp4").write_bytes(b"no video")
    with caplog.at_level(logging.WARNING):
        of_folder = calibration_clips(tmp_path / "some", PREPROCESS, TINY.num_frames)
    assert of_folder.shape == (6, TINY.num_frames, 3, 32, 32)
    assert "broken.mp4" in caplog.text
    lines = [f"some/deep/{number}.mp4" for number in range(6)]
    lines[1] += " 3"  # as in a list with labels
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n\n")
    assert torch.equal(calibration_clips(tmp_path / "list.txt", PREPROCESS, TINY.num_frames), of_folder)


def test_lists_without_videos_are_one_line(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "clip.mp4").write_bytes(b"no video")
    for source, message in (("none", "there is no"), ("empty", "has no videos"), ("broken", "can be read")):
        with pytest.raises(InputError, match=message):
            calibration_clips(tmp_path / source, PREPROCESS, TINY.num_frames)


def test_many_clips_are_thinned_evenly() -> None:
    assert len(calibration_clips(None, PREPROCESS, 2)) == 32


def test_kept_folders_are_written_once_and_the_oldest_go(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OPENXCLIP_CACHE", str(tmp_path))

    def write(folder: Path) -> None:
        (folder / "file").write_text("x")

    def fail(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise RuntimeError("ended in the middle")

    with pytest.raises(RuntimeError):
        kept("kind", "0", fail)
    assert (kept("kind", "0", write).folder / "file").read_text() == "x"
    kept("kind", "0", fail)  # is there
    for number in range(1, MAX_KEPT + 2):
        kept("kind", str(number), write)
    left = {path.name for path in (tmp_path / "kind").iterdir() if path.is_dir()}
    assert len(left) == MAX_KEPT
    assert "0" not in left
    monkeypatch.setenv("OPENXCLIP_CACHE", str(tmp_path / "kind" / "5" / "file" / "impossible"))
    without = kept("kind", "0", write)
    assert (without.folder / "file").read_text() == "x"
    assert without.owner is not None


def test_the_command_takes_a_list(tmp_path, capsys) -> None:
    for number, clip in enumerate(example_clips()):
        (tmp_path / f"{number}.mp4").write_bytes(clip.encode())
    names = ", ".join(sorted({clip.kind.name for clip in example_clips()}))
    arguments = ["predict", str(tmp_path / "0.mp4"), "--labels", names, "--model", "openxclip-tiny"]
    choice = ["--runtime", "openvino", "--int8", "--calibration", str(tmp_path)]
    assert run([*arguments, *choice]) == 0
    assert example_clips()[0].kind.name in capsys.readouterr().out.splitlines()[1]


def test_reports_are_plain_values(clips) -> None:
    found = calibrate(tiny_model(), PREPROCESS, clips)
    assert isinstance(found, Calibration)
    for layer in found.layers:
        assert {type(value) for value in dataclasses.asdict(layer).values()} <= {str, float, bool, type(None)}
        assert 0 < layer.error < 0.2
