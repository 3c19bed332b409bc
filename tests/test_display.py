"""What a training shows: trackers, phases, the clips as they are fed, and what it would do."""

import dataclasses
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import CONFIG, data, rows, with_optim
from tiny import TINY, tiny_model

from openxclip.cli.main import run
from openxclip.cli.train import RunOptions as TrainOptions
from openxclip.cli.train import train as train_command
from openxclip.errors import InputError, TrainingError
from openxclip.training.config import AveragingConfig, LearningRates, MixConfig
from openxclip.training.dry_run import dry_run
from openxclip.training.estimate import _Counter, estimate_memory
from openxclip.training.optim import freeze
from openxclip.training.options import RunOptions
from openxclip.training.phases import MEASURED_STEPS, PHASES, WARMUP_STEPS
from openxclip.training.tracking import sheet, trackers
from openxclip.training.train import train

__all__ = ["data"]  # the fixture

pytestmark = pytest.mark.on_cpu


def test_tensorboard_has_every_step_once_also_after_an_interruption(data, tmp_path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = RunOptions(trackers=("tensorboard",))
    options.stop.set()  # after the first step
    state = train(CONFIG, data, tmp_path / "run", options=options)
    assert state.step == 1
    train(CONFIG, data, tmp_path / "run", options=RunOptions(trackers=("tensorboard",)))
    found = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    losses = [row["loss"] for row in rows(tmp_path / "run") if "loss" in row]
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in found.Scalars("loss")] == pytest.approx(losses, rel=1e-6)
    names = set(found.Tags()["scalars"])
    assert {"grad_norm", "videos_per_second", "share_of_peak", "memory_gib", "learning_rate/new"} <= names
    new, visual = (found.Scalars(f"learning_rate/{part}")[2].value for part in ("new", "visual"))
    assert new == visual > 0, "the factors of this recipe are all 1"
    assert 0 < found.Scalars("share_of_peak")[-1].value < 1
    assert len(found.Images("fed")) == 3, "of each epoch"


def test_weights_and_biases_offline(data, tmp_path, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = with_optim(CONFIG, epochs=1, warmup_epochs=0)
    train(config, data, tmp_path / "run", options=RunOptions(trackers=("wandb",)))
    assert list((tmp_path / "run" / "wandb").rglob("*.wandb"))


def test_a_run_that_goes_on_is_the_same_run_of_weights_and_biases(tmp_path, monkeypatch) -> None:
    asked: list[dict] = []
    fake = types.SimpleNamespace(init=lambda **settings: asked.append(settings))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for folder in ("one", "one", "other"):
        trackers(["wandb"], tmp_path / folder, {}, 0)
    first, again, other = (settings["id"] for settings in asked)
    assert first == again != other
    assert {settings["resume"] for settings in asked} == {"allow"}


def test_an_unknown_tracker_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="choose tensorboard or wandb"):
        trackers(["excel"], tmp_path, {}, 0)  # type: ignore[list-item]


def test_clips_are_kept_as_they_are_fed(data, tmp_path) -> None:
    train(with_optim(CONFIG, epochs=1, warmup_epochs=0), data, tmp_path / "run")
    side = TINY.vision.image_size_px
    with Image.open(tmp_path / "run" / "fed.jpg") as picture:
        assert picture.size == (TINY.num_frames * side, 4 * side)
        assert np.ptp(np.asarray(picture)) > 100


def test_a_sheet_has_a_row_for_each_clip() -> None:
    clips = np.arange(2 * 3).reshape(2, 3, 1, 1, 1).astype(np.uint8) * np.ones((1, 1, 3, 4, 4), np.uint8)
    picture = sheet(clips)
    assert picture.shape == (8, 12, 3)
    assert picture[::4, ::4, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_profile_tells_where_time_goes(data, tmp_path, capsys) -> None:
    config = with_optim(CONFIG, epochs=9)  # 18 steps
    train(config, data, tmp_path / "run", options=RunOptions(profile=True))
    found = json.loads((tmp_path / "run" / "profile" / "phases.json").read_text())
    assert set(found["seconds"]) == set(PHASES)
    assert 0 < found["seconds"]["backward"] < found["whole"]
    assert sum(found["seconds"].values()) <= found["whole"]
    told = capsys.readouterr().err
    assert all(phase in told for phase in PHASES.values())
    events = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text())["traceEvents"]
    steps = sum(event.get("name") == "optimizer" and event.get("ph") == "X" for event in events)
    assert steps == MEASURED_STEPS
    assert WARMUP_STEPS + MEASURED_STEPS < 18, "and it trained on"


def test_a_run_too_short_to_profile_says_so(data, tmp_path, caplog) -> None:
    train(CONFIG, data, tmp_path / "run", options=RunOptions(profile=True))  # 6 steps: it is measuring
    assert caplog.messages == ["no profile: profiling takes 15 steps, and the run ended after 6"]
    assert not (tmp_path / "run" / "profile").exists()


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(data, tmp_path, capsys) -> None:
    arguments = ["train", "--recipe", "ucf8_fewshot", "--data", str(data), "--output", str(tmp_path / "run")]
    settings = ["data.train_list=train.txt", "data.val_list=null", "optim.batch_size=4", "optim.epochs=5"]
    settings += ["optim.warmup_epochs=1"]
    changes = [word for setting in settings for word in ("--set", setting)]
    assert run([*arguments, *changes, "--dry-run", "--processes", "2"]) == 0
    out, told = capsys.readouterr()
    found = json.loads(out)
    assert (found["num_clips"], found["num_labels"], found["num_missing"]) == (8, 2, 0)
    assert found["config"]["optim"]["batch_size"] == 4
    assert found["num_steps"] == 5 * found["steps_per_epoch"]
    assert found["clips_of_a_pass"] == 2
    assert [sample["error"] for sample in found["samples"]] == [None] * 4
    assert "memory of each process" in told
    assert not (tmp_path / "run").exists()


def test_a_dry_run_names_what_cannot_be_read(data, tmp_path) -> None:
    for file in data.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "0.mp4").write_bytes(b"no video")
    found = dry_run(CONFIG, tmp_path)
    assert [sample.error is None for sample in found.samples] == [False, True, True, True]
    assert "cannot read" in found.text()
    assert "0.mp4" in found.text()


def test_a_dry_run_refuses_what_a_run_would(data) -> None:
    averaged = dataclasses.replace(CONFIG, averaging=AveragingConfig())
    with pytest.raises(InputError, match="whole weights in each process"):
        dry_run(averaged, data, num_processes=2, sharding="blocks")
    with pytest.raises(InputError, match="more than one process"):
        dry_run(CONFIG, data, sharding="blocks")


def test_a_dry_run_splits_a_share_as_a_run_does(data) -> None:
    """Three processes have 1, 2 and 1 clips: they cannot be split, so two go together."""
    config = dataclasses.replace(
        with_optim(CONFIG, accumulation_steps=2), mix=MixConfig(mixup_alpha=0, cutmix_alpha=0)
    )
    assert dry_run(config, data, num_processes=3).clips_of_a_pass == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "0"], "--processes must be at least 1, got 0"),
        (["--save-minutes", "-1"], "--save-minutes must be 0 or more, got -1.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message, data, tmp_path, capsys) -> None:
    arguments = ["train", "--recipe", "ucf8_fewshot", "--data", str(data), "--output", str(tmp_path / "run")]
    assert run([*arguments, *options]) == 2
    assert capsys.readouterr().err == f"openxclip: {message}\n"


def test_processes_that_torchrun_did_not_start_are_refused(monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="torchrun started 2 processes, so --processes 4 starts none"):
        train_command("few_shot", Path("data"), Path("run"), run=TrainOptions(processes=4))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_is_estimated_near_what_a_pass_keeps(checkpointing: bool) -> None:
    """Against the tensors that autograd really keeps on the CPU, in float32."""
    config = dataclasses.replace(
        with_optim(CONFIG, factors=LearningRates()), gradient_checkpointing=checkpointing
    )
    model = tiny_model(TINY).train()
    freeze(model, config.optim.factors)
    model.visual.gradient_checkpointing = checkpointing
    side = TINY.vision.image_size_px
    kept = _Counter(model)
    with kept:
        model.logits(
            model.encode_video(torch.randn(1, TINY.num_frames, 3, side, side)),
            torch.randn(400, TINY.embed_dim),
        )
    memory = estimate_memory(config, TINY, 3, "cpu")
    assert memory.activations / 3 == pytest.approx(kept.num_bytes, rel=0.35)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert (memory.gradients, memory.optimizer) == (4 * trained, 8 * trained)
    halves = estimate_memory(config, TINY, 3, "cpu", num_shards=2)
    assert halves.optimizer == memory.optimizer // 2


def test_a_loss_that_is_no_number_names_its_clips(data, tmp_path) -> None:
    with pytest.raises(TrainingError, match=r"at step [1-9] on .*\.mp4.*optim.clip_grad_norm=1") as error:
        train(with_optim(CONFIG, learning_rate=1e30), data, tmp_path / "run")
    last = rows(tmp_path / "run")[-1]
    assert f"at step {last['step']} on " in str(error.value), "counted as in the log"
    assert len(last["not_a_number"]) == 4
    assert all(name in str(error.value) for name in last["not_a_number"])
