"""The benchmarks' harness, and that what they compare does the same work: on tiny models and short clips."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import (
    ceiling,
    end_to_end,
    forward,
    gpu,
    int8,
    loading,
    merging,
    packing,
    parity,
    runtimes,
    serving,
    text,
    training,
)
from benchmarks.breakdown import REST, kind_of, seconds_by_kind
from benchmarks.clips import HEIGHT_PX, KINDS, WIDTH_PX, write_clip
from benchmarks.decoding import Outcome, clip_thumbnails, outcome_of, share_exact
from benchmarks.ffmpeg_libraries import link_libraries
from benchmarks.harness import Timing, duration, interleave, speed_table
from benchmarks.learned import learned_models
from benchmarks.machine import Machine
from benchmarks.options import Options, UnavailableError
from benchmarks.outliers import with_outliers
from benchmarks.readers import OURS, READERS, Job, pyav
from benchmarks.report import Section, write_report
from benchmarks.startup import help_imports_torch
from benchmarks.targets import TARGETS, Target, target_table
from benchmarks.transformers_way import documented_loop, read_video
from benchmarks.weights import SCALE, write_model
from benchmarks.worker import Builder, Step, Worker, WorkerError, peak_bytes, take_turns
from tiny import TINY, tiny_model
from videos import write_video

from openxclip import Recognizer, load
from openxclip.checkpoints.catalogue import known_families
from openxclip.data.manifest import read_manifest
from openxclip.errors import InputError
from openxclip.inference.engine import Engine
from openxclip.models.flops import count_cost
from openxclip.runtimes import choice, measuring
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.runtime import build_runtime
from openxclip.runtimes.ways import Way
from openxclip.video.decode import read_frames
from openxclip.video.sampling import centred

# With room for every class name, which transformers does not cut.
CONFIG = dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, vocab_size=1500, context_length=32))
FEW = Options(num_rounds=2, num_inputs=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that both sides read."""
    return write_model(tmp_path_factory.mktemp("benchmarks") / "model", CONFIG)


# The harness


def test_variants_take_turns_and_the_warm_up_is_not_counted():
    calls = []

    def variant(name):
        return lambda item: calls.append((name, item)) or f"{name}{item}"

    run = interleave({"a": variant("a"), "b": variant("b")}, [1, 2, 3], "test", num_warmups=2)
    assert calls == [(name, item) for item in (1, 1, 1, 2, 3) for name in "ab"]
    assert run.outputs == {"a": ["a1", "a2", "a3"], "b": ["b1", "b2", "b3"]}
    assert {name: len(timing.seconds) for name, timing in run.timings.items()} == {"a": 3, "b": 3}


def test_ratios_are_of_medians_and_of_rounds():
    ours, theirs = Timing(seconds=(1.0, 2.0, 4.0)), Timing(seconds=(3.0, 4.0, 40.0))
    assert ours.median_seconds == 2.0
    assert ours.speed_against(theirs) == 2.0
    assert ours.speed_by_rounds(theirs) == 3.0  # of 3, 2 and 10
    assert theirs.speed_against(ours) == 0.5


@pytest.mark.parametrize("seconds", [(), (1.0, 0.0)])
def test_a_timing_of_nothing_is_refused(seconds: tuple[float, ...]):
    with pytest.raises(InputError, match="above 0 s"):
        Timing(seconds=seconds)


def test_speed_table():
    timings = {"ours": Timing(seconds=(0.001, 0.002, 0.004)), "peer": Timing(seconds=(1.5, 3.0, 3.0))}
    table = speed_table("Title", "text", timings, "peer")
    assert table.columns[-2] == "speed against peer"
    assert table.rows[0] == ("ours", "2 ms", "1 ms", "4 ms", "1500.00x", "1500.00x")
    assert table.rows[1][1:] == ("3 s", "1.5 s", "3 s", "1.00x", "1.00x")
    assert table.command == "python -m benchmarks text"


def test_durations():
    assert [duration(s) for s in (0.0123, 0.9, 12.34)] == ["12.3 ms", "900 ms", "12.3 s"]


# The report


def test_targets():
    least, most = Target(what="a", bound=3.5), Target(what="b", bound=0.3, unit=" s", at_most=True)
    assert [least.met_by(x) for x in (3.4, 3.5, 4)] == [False, True, True]
    assert [most.met_by(x) for x in (0.2, 0.3, 0.4)] == [True, True, False]
    assert most.row(0.25) == ("b", "at most 0.3 s", "0.25 s", "yes")
    assert least.row(1.25) == ("a", "at least 3.5x", "1.25x", "no")
    assert least.row(None)[2:] == ("not measured", "-")


def test_every_target_is_in_the_overview():
    table = target_table({"help": 0.1}, "command")
    assert len(table.rows) == len(TARGETS)
    assert [row[3] for row in table.rows].count("yes") == 1


def test_a_figure_without_a_target_is_refused():
    with pytest.raises(InputError, match=r"\['speed'\]"):
        Section(suite="text", figures={"speed": 1.0})


def test_the_report_is_complete_and_stands_alone(tmp_path: Path):
    timings = {"ours": Timing(seconds=(0.1, 0.2)), "import torch": Timing(seconds=(1.0, 1.0))}
    table = speed_table("Start", "startup", timings, "import torch")
    machine = Machine(cpu="Some CPU @ 2.0GHz", num_cores=2, gpu=None)
    sections = [
        Section(suite="startup", tables=(table,), figures={"help": 0.2}, timings=timings),
        Section(suite="gpu", left_out="there is no CUDA device"),
    ]
    for _ in range(2):  # the second replaces the first
        path = write_report(tmp_path, machine, sections, "startup gpu")
    assert re.fullmatch(r"some-cpu-2-0ghz-2-cores-\d{4}-\d\d-\d\d-startup-gpu\.md", path.name)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.with_suffix(".json").name, path.name]
    page = path.read_text()
    assert "| openxclip --help | at most 0.3 s | 0.2 s | yes |" in page
    assert "Left out: there is no CUDA device." in page
    assert "- processor: Some CPU @ 2.0GHz, 2 cores" in page
    values = json.loads(path.with_suffix(".json").read_text())
    assert values["targets"]["help"]["measured"] == 0.2
    assert values["targets"]["end_to_end"]["measured"] is None
    assert values["sections"][0]["timings"]["ours"] == {"seconds": [0.1, 0.2]}
    assert values["machine"]["versions"]["torch"] == metadata.version("torch")


def test_options_are_checked():
    with pytest.raises(InputError, match="num_rounds must be at least 1, got 0"):
        Options(num_rounds=0)


# The model: both sides compute the same


def test_the_same_weights_on_both_sides(folder: Path):
    pixels = forward.random_clip(CONFIG, seed=0)
    own, theirs = forward.ours(folder, "float32")(pixels), forward.theirs(folder, torch.float32)(pixels)
    assert own.shape == (1, len(forward.LABELS))
    assert own.std() > 0.1, "labels are told apart"
    torch.testing.assert_close(own, theirs, atol=1e-3 * SCALE / 100, rtol=0)


def test_random_clips_differ_and_are_repeatable():
    first, again, other = (forward.random_clip(CONFIG, seed) for seed in (0, 0, 1))
    assert first.shape == (1, CONFIG.num_frames, 3, 32, 32)
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.3


def test_agreement():
    reference = torch.tensor([[2.0, 0.0], [0.1, 0.0], [0.0, 3.0]])
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.1], [0.0, 3.0]])
    agreement = forward.Agreement.of(logits, reference)
    tie = torch.tensor([0.1, 0.0]).softmax(0)
    assert agreement.top1 == pytest.approx(2 / 3)
    assert agreement.largest_difference == pytest.approx(float(tie[0] - tie[1]))
    assert agreement.largest_lead_lost == pytest.approx(float(tie[0] - tie[1]))
    assert forward.Agreement.of(reference, reference) == forward.Agreement(
        top1=1.0, largest_difference=0.0, largest_lead_lost=0.0
    )


def test_all_ways_to_encode_texts_agree(folder: Path):
    section = text.measure(folder, FEW)
    assert section.figures["text_difference"] <= 1e-5
    assert section.figures["text_speed"] > 0
    ways = {name: way(0) for name, way in text.variants(folder).items()}
    for name, features in ways.items():
        assert features.shape == (400, CONFIG.embed_dim)
        assert text.difference(features, ways[text.FULL]) <= 1e-5, name


def test_the_77_token_way_cuts_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """What is timed as the long way is the long way: the tower sees every position."""
    lengths = []
    model = load(folder, device="cpu", dtype="float32").model
    encode = type(model.text)._encode
    monkeypatch.setattr(
        type(model.text),
        "_encode",
        lambda self, x, causal: lengths.append(x.shape[1]) or encode(self, x, causal),
    )
    ways = text.variants(folder)
    ways[text.FULL](0)
    ways[text.OURS](0)
    assert lengths[0] == CONFIG.text.context_length
    assert lengths[1] <= lengths[0]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("clips")
    return [
        write_video(root / f"{i}.mp4", num_frames=20 + i, options={"x264-params": f"keyint={5 + i}"})
        for i in range(3)
    ]


def test_the_documented_loop_reads_the_chosen_frames(clips: list[Path]):
    frames = read_video(clips[0], lambda length: centred(length, 4))
    expected = read_frames(clips[0], lambda length: centred(length, 4)).data.transpose(0, 2, 3, 1)
    assert frames.shape == expected.shape
    assert np.abs(frames.astype(int) - expected).mean() < 2  # colour is converted by another path


def test_the_documented_loop_ranks_as_ours_does(folder: Path, clips: list[Path]):
    labels = ["archery", "surfing", "biking"]
    recognise, processor = documented_loop(folder, labels, lambda length: centred(length, 4), top_k=3)
    assert "VideoMAE" in processor
    recognizer = Recognizer(Engine(load(folder, device="cpu", dtype="float32")), labels)
    for clip in clips:
        ranked = [label for label, _ in recognizer.predict(clip).scores]
        assert sorted(recognise(clip)) == sorted(labels)
        assert recognise(clip)[0] == ranked[0]


def test_end_to_end(folder: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch):
    # Compiling takes a minute, and changes no result.
    monkeypatch.setattr(torch, "compile", lambda function, mode: function)
    section = end_to_end.measure(folder, clips * 3)  # two rounds, the second a short one
    assert {len(timing.seconds) for timing in section.timings.values()} == {2}
    assert section.figures["end_to_end"] > 0


def test_seconds_a_clip_count_the_labels_and_the_peers_clips():
    timings = {end_to_end.OURS: Timing(seconds=(8.0, 2.0)), end_to_end.PEER: Timing(seconds=(4.0, 4.0))}
    rounds = [[Path("a")] * 8, [Path("a")] * 2]
    per_clip = end_to_end._per_clip(timings, rounds, num_peer=4, label_seconds=4.0)
    assert per_clip[end_to_end.OURS].seconds == (10 / 8, 4 / 2)
    assert per_clip[end_to_end.PEER].seconds == (1.0, 2.0)


def test_without_the_clips_the_suite_is_left_out(tmp_path: Path):
    with pytest.raises(UnavailableError, match=r"test\.txt"):
        end_to_end.run(Options(data=tmp_path))


# Decoding


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    path = tmp_path_factory.mktemp("decoding") / "clip.mp4"
    assert sum(1 for _ in write_clip(path, KINDS[0], num_frames=30)) == 30
    return Job(path=path, num_frames=6, width_px=WIDTH_PX // 2, height_px=HEIGHT_PX // 2, num_threads=1)


PACKAGES = {"ours": "openxclip", "PyAV loop": "av", "decord2": "decord", "OpenCV": "cv2"}


@pytest.mark.parametrize("name", PACKAGES)
def test_readers_give_the_frames_asked_for(name: str, job: Job):
    pytest.importorskip(PACKAGES[name])
    frames = READERS[name](job)
    assert frames.shape == (6, HEIGHT_PX // 2, WIDTH_PX // 2, 3)
    assert frames.dtype == np.uint8
    assert share_exact(frames, job, clip_thumbnails(job.path)) == 1


@pytest.mark.skipif(importlib.util.find_spec("torchcodec") is None, reason="needs the extra [bench]")
def test_torchcodec_runs_in_a_process_started_anew(job: Job, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(f"""
from pathlib import PosixPath
from benchmarks.ffmpeg_libraries import restart_with_ffmpeg
restart_with_ffmpeg(PosixPath({str(tmp_path / "links")!r}))
from benchmarks.decoding import clip_thumbnails, share_exact
from benchmarks.readers import READERS, Job
job = {job!r}
reference = clip_thumbnails(job.path)
print([share_exact(READERS[name](job), job, reference) for name in ("torchcodec", "torchcodec approximate")])
""")
    root = Path(forward.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[1.0, 1.0]\n", done.stderr


def test_a_wrong_frame_is_found(job: Job):
    reference = clip_thumbnails(job.path)
    assert len(reference) == 30
    frames = pyav(job)
    wrong = np.concatenate([frames[1:2], frames[1:]])
    assert share_exact(wrong, job, reference) == pytest.approx(5 / 6)


def test_the_best_peer_is_an_exact_one(job: Job):
    seconds = {OURS: 1.0, "fast and wrong": 0.5, "right": 2.0, "slow": 3.0}
    outcome = Outcome(
        kind="H.264",
        job=job,
        timings={name: Timing(seconds=(value,)) for name, value in seconds.items()},
        exact={OURS: 1.0, "fast and wrong": 0.9, "right": 1.0, "slow": 1.0},
    )
    assert outcome.best_peer == "right"
    assert outcome.speed == 2.0
    assert outcome.row() == ("H.264", "1 s", "500 ms * 90%", "2 s", "3 s", "2.00x (right)")


def test_readers_take_turns(job: Job, monkeypatch: pytest.MonkeyPatch):
    for name in [*READERS]:
        if name not in (OURS, "PyAV loop"):
            monkeypatch.delitem(READERS, name)
    outcome = outcome_of("H.264", job, clip_thumbnails(job.path), num_rounds=2)
    assert outcome.exact == {OURS: 1, "PyAV loop": 1}
    assert outcome.best_peer == "PyAV loop"


def test_libraries_get_their_plain_names(tmp_path: Path):
    wheel = tmp_path / "av.libs"
    wheel.mkdir()
    for name in ("libavcodec-5e6b81c2.so.62.28.102", "libx264-aa.so.165"):
        (wheel / name).write_text(name)
    links = tmp_path / "links"
    for _ in range(2):
        link_libraries(sorted(wheel.iterdir()), links)
    assert sorted(p.name for p in links.iterdir()) == [
        "libavcodec-5e6b81c2.so.62.28.102",
        "libavcodec.so.62",
        "libx264-aa.so.165",
        "libx264.so.165",
    ]
    assert (links / "libavcodec.so.62").read_text() == "libavcodec-5e6b81c2.so.62.28.102"


# Processes, training, the ceiling


def test_every_number_of_workers_loads_every_clip(tmp_path: Path):
    for i in range(8):
        folder = tmp_path / "clips" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{i}.mp4", num_frames=9)
    section = loading.measure(read_manifest(tmp_path / "clips"), num_clips=16)
    assert {len(timing.seconds) for timing in section.timings.values()} == {8}
    stages, loaders = section.tables
    assert [row[0] for row in stages.rows] == list(loading.STAGES)
    assert sum(float(row[2].rstrip("%")) for row in stages.rows) == pytest.approx(100, abs=1)
    assert [row[0] for row in loaders.rows] == list(loading.NUM_WORKERS)
    assert all(float(row[1]) > 0 for row in loaders.rows)


def test_without_its_list_loading_is_left_out(tmp_path: Path):
    with pytest.raises(UnavailableError, match=r"train_16shot\.txt"):
        loading.run(Options(data=tmp_path))


def test_packed_clips_are_loaded_like_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing, "NUM_WORKERS", (1,))
    sources = {packing.HD: packing.write_hd(tmp_path / "hd", num_videos=2, num_frames=12)}
    section = packing.measure(sources, tmp_path, {packing.HD: 8}, num_rounds=1)
    rates, sizes = section.tables
    assert [row[1] for row in rates.rows] == ["decode and augment", "decode"]
    assert sizes.rows[0][1] == "2"
    assert section.figures.keys() == {"packing_720p"}


def test_without_its_list_packing_is_left_out(tmp_path: Path):
    with pytest.raises(UnavailableError, match=r"train_16shot\.txt"):
        packing.run(Options(data=tmp_path))


def build_counter(start: int, num_bytes: int) -> Step:
    held = np.ones(num_bytes, np.uint8)
    count = start

    def step() -> float:
        nonlocal count
        count += int(held[0])
        return count

    return step


def build_failure() -> Step:
    raise ValueError("on purpose")


def test_workers_count_for_themselves():
    builders = {
        name: Builder(build=build_counter, arguments={"start": start, "num_bytes": size})
        for name, start, size in (("small", 0, 1), ("large", 100, 300 << 20))
    }
    turns = take_turns(builders, num_rounds=3, title="test")
    assert turns.firsts == {"small": 1, "large": 101}
    assert {len(timing.seconds) for timing in turns.timings.values()} == {3}
    more = turns.peaks_bytes["large"] - turns.peaks_bytes["small"]
    assert (250 << 20) < more < (350 << 20)


def test_a_worker_that_dies_is_an_error(capfd: pytest.CaptureFixture[str]):
    builder = Builder(build=build_failure, arguments={})
    with Worker(builder) as worker, pytest.raises(WorkerError, match="exit code 1"):
        worker.step()
    assert "on purpose" in capfd.readouterr().err


def test_peak_bytes_grow():
    device = "cuda" if torch.cuda.is_initialized() else "cpu"  # which memory is counted
    held = torch.ones(1 << 20, device=device)
    before = peak_bytes()
    more = torch.ones(before, dtype=torch.uint8, device=device)  # beyond any peak of an earlier test
    assert 0 < held.nbytes < before < peak_bytes()
    assert more.nbytes > 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_both_sides_train_alike(folder: Path, checkpointing: bool):
    builders = training.builders(folder, "cpu", 2, checkpointing)
    del builders[training.OURS_COMPILED]  # takes a minute
    steps = {name: builder.build(**builder.arguments) for name, builder in builders.items()}
    losses = {name: [step() for _ in range(3)] for name, step in steps.items()}
    ours = losses.pop(training.OURS)
    assert ours[-1] < ours[0]
    for name, own in losses.items():
        assert own == pytest.approx(ours, abs=0.15), name  # bfloat16 at a logit scale of 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what its compiler still uses
def test_compiled_and_saving_steps_of_the_gpu_suite_train_alike(folder: Path):
    """On the CPU, where they do the same, only slowly."""
    builders = training.gpu_builders(folder, "cpu", 2)
    losses = {}
    for name in (training.OURS, training.OURS_COMPILED, training.OURS_SAVING):
        step = builders[name].build(**builders[name].arguments)
        losses[name] = [step() for _ in range(3)]
    ours = losses.pop(training.OURS)
    for name, own in losses.items():
        assert own == pytest.approx(ours, abs=0.15), name
    assert training.PEER_COMPILED in builders


def test_operators_have_kinds():
    kinds = [
        kind_of(f"aten::{name}") for name in ("addmm", "_scaled_dot_product_flash_attention_for_cpu", "add_")
    ]
    assert kinds == ["matrix products", "attention", "residual sums"]
    assert kind_of("mkldnn::_linear_pointwise") == "matrix products"
    assert kind_of("aten::argmax") == REST


def test_the_breakdown_finds_a_product():
    x, weight = torch.randn(64, 32), torch.randn(16, 32)
    seconds = seconds_by_kind(lambda: torch.nn.functional.layer_norm(x @ weight.T, (16,)))
    assert seconds["matrix products (64, 32) x (32, 16)"] > 0
    assert seconds["layer norms"] > 0


def test_the_products_are_those_of_the_model():
    """Multiply-adds of the layers, times their number, are most of what the model costs, and not more."""
    square, *layers = ceiling.products(TINY, size=8)
    assert square.flops == 2 * 8**3
    of_layers = TINY.vision.num_layers * sum(product.flops for product in layers) / 2
    macs = count_cost(TINY, num_labels=1).macs
    assert 0.5 * macs < of_layers < macs


def test_the_ceiling(folder: Path):
    section = ceiling.measure(folder, CONFIG, 64, FEW)
    assert section.figures["ceiling"] > 0
    rates, breakdown = section.tables
    assert rates.rows[1][3] == "100%"
    assert sum(float(row[2].rstrip("%")) for row in breakdown.rows) == pytest.approx(100, abs=1)


def test_the_steps_of_the_gpu_suite(folder: Path):
    """On the CPU, where they do the same, only slowly."""
    builders = gpu.inference_builders(folder, "cpu", batch_size=2)
    for name in ("ours, auto", "transformers, float32", "transformers, bfloat16"):
        step = builders[name].build(**builders[name].arguments)
        assert step() == pytest.approx(1, abs=1e-3), name


def test_training_costs_three_forward_passes():
    assert gpu.model_flops(TINY, training=True) == 3 * gpu.model_flops(TINY, training=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_suite_is_left_out():
    with pytest.raises(UnavailableError, match="no CUDA device"):
        gpu.run(FEW)


def test_the_help_imports_no_torch():
    assert help_imports_torch() is False


@pytest.mark.slow
@pytest.mark.on_cpu
def test_servers_under_load_lose_nothing_and_answer_alike():
    table = serving.measure("tiny", "openxclip-tiny", "float32", "a, b, c", turn_seconds=0.5, num_turns=1)
    assert len(table.rows) == 5
    for row in table.rows:
        answers, wrong, lost = (int(row[table.columns.index(name)]) for name in ("answers", "wrong", "lost"))
        assert answers > 0
        assert (wrong, lost) == (0, 0)


@pytest.fixture
def without_compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENXCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measuring, "MAX_SECONDS", 0.01)
    quick = (Way(runtime="torch", dtype="float32"), Way(runtime="openvino", dtype="float32", int8=True))
    for module in (runtimes, measuring, choice):
        monkeypatch.setattr(module, "ways", lambda model: quick)


def test_runtimes_are_compared_with_transformers(folder: Path, without_compilers: None):
    """All of the suite on a tiny model: both sides get the same weights, tables are whole."""
    section = runtimes.measure(folder, runtimes.MODELS[-1], Options(num_inputs=8))
    table, products = section.tables
    assert [row[0] for row in table.rows] == ["torch, float32", "OpenVINO, int8", *runtimes.PEERS]
    assert table.rows[0][-1] == "100.0%"
    assert 0 < float(table.rows[1][-2]) < 0.2
    assert set(section.figures) == {"auto_speed", "auto_top1", "auto_fastest", "int8_products"}
    assert section.figures["auto_fastest"] > 0
    assert len(products.rows) == 2


def test_both_sides_of_the_runtimes_suite_compute_the_same(folder: Path):
    loaded = load(folder, device="cpu", dtype="float32")
    pixels = runtimes.clips_of(loaded.model.config, 0, 2)
    assert pixels.dtype == torch.uint8
    # The peer is given raw pixels as they are; so is ours when nothing is folded in.
    plain = dataclasses.replace(loaded.preprocess, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)
    runtime = build_runtime(loaded.model, plain, RuntimeOptions())
    ours = runtimes.ours(loaded, runtime)(pixels)
    theirs = runtimes.theirs(folder, loaded, torch.float32)(pixels)
    assert torch.allclose(ours, theirs, atol=1e-3)


def test_parity_of_exports(without_compilers: None):
    table = parity.parity_table({"tiny": tiny_model()})
    assert all(float(cell) <= 1e-3 for cell in table.rows[0][1:])


def test_outliers_make_rounding_worse_and_calibration_better(without_compilers: None):
    usual = [row[:3] for row in int8.outlier_rows(tiny_model(), 8)]
    hard = {
        name: float(noise)
        for name, noise, _ in (row[:3] for row in int8.outlier_rows(with_outliers(tiny_model()), 8))
    }
    assert len(usual) == 5
    assert hard["whole ranges"] > 3 * hard["smoothing and ranges chosen"]
    assert hard["the same within 0.02"] <= hard["smoothing and ranges chosen"]


@pytest.mark.slow
def test_learned_models_are_rounded_and_merged(without_compilers: None):
    (learned,) = learned_models(Options())
    few = dataclasses.replace(learned, pixels=learned.pixels[::8], truth=learned.truth[::8])
    table = merging.learned_table(few, 2)
    assert [row[0] for row in table.rows] == ["0", "1", "2", "3"]
    assert table.rows[0][2] == "100.0%"
    rounded = int8.learned_table(Options())
    assert all(float(row[2].rstrip("%")) >= 98 for row in rounded.rows)


def test_families_of_the_parity_suite_are_known():
    known = {name for family in known_families() for name in family.models}
    assert set(parity.FAMILIES.values()) <= known
