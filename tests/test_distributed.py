"""Several processes on this machine, by torch's launcher: the same run as one process, whatever ends it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_training import CONFIG, with_optim, write_brightness

from openxclip import processes
from openxclip.errors import InputError
from openxclip.training.config import MixConfig, TrainConfig

pytestmark = pytest.mark.on_cpu

WORKER = Path(__file__).with_name("train_worker.py")
NUM_STEPS = 30
# The biases of keys have no gradient but rounding, which Adam would magnify to whole steps without this epsilon.
STEADY = with_optim(CONFIG, epochs=10, learning_rate=3e-4, epsilon=1e-6, clip_grad_norm=1.0, batch_size=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos that get brighter or darker, seven of them to validate with."""
    return write_brightness(tmp_path_factory.mktemp("data"), num_videos=12, num_val=7)


def torchrun(count: int, *command: object) -> list[str]:
    options = ["--nproc-per-node", str(count), "--monitor-interval", "0.1"]
    return [sys.executable, "-m", "torch.distributed.run", *options, *map(str, command)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(
    count: int, config: TrainConfig, data: Path, output: Path, *more: object, sharding: str = "none"
) -> "subprocess.CompletedProcess[str]":
    """A training in so many processes; whether it ended well is for the caller."""
    output.parent.mkdir(parents=True, exist_ok=True)
    file = output.with_suffix(".json")
    file.write_text(json.dumps(dataclasses.asdict(config)))
    arguments = (WORKER, file, data, output, sharding, *more)
    command = [sys.executable, *map(str, arguments)] if count == 1 else torchrun(count, *arguments)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment()
    )


def rows(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def losses(output: Path) -> list[float]:
    return [row["loss"] for row in rows(output) if "loss" in row]


def largest_difference(one: Path, other: Path) -> float:
    first, second = (load_file(path / "last" / "model.safetensors") for path in (one, other))
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


def same_curve(one: Path, other: Path, within: float) -> None:
    assert len(losses(one)) == NUM_STEPS
    assert [row.get("step") for row in rows(one)] == [row.get("step") for row in rows(other)]
    assert np.abs(np.subtract(losses(one), losses(other))).max() < within
    assert largest_difference(one, other) < within


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty steps of one process."""
    output = tmp_path_factory.mktemp("alone") / "run"
    done = run(1, STEADY, data, output)
    assert done.returncode == 0, done.stderr
    return output


@pytest.mark.parametrize(("sharding", "within"), [("none", 1e-5), ("blocks", 1e-4)])
def test_two_processes_do_what_one_does(sharding, within, alone, data, tmp_path) -> None:
    done = run(2, STEADY, data, tmp_path / "run", sharding=sharding)
    assert done.returncode == 0, done.stderr
    same_curve(alone, tmp_path / "run", within)
    whole = tmp_path / "run" / "last" / "model.safetensors"
    assert whole.is_file(), "a model folder like any other"
    assert (tmp_path / "run" / "last" / "optimizer").is_dir() == (sharding == "blocks")


def test_parts_in_bfloat16_are_near_one_process(data, tmp_path) -> None:
    """At the published learning rate: at larger ones rounding drives the weights apart."""
    slow = with_optim(STEADY, epochs=2, learning_rate=8e-6)
    config = dataclasses.replace(slow, precision="bfloat16")
    for count, sharding in ((1, "none"), (2, "blocks")):
        done = run(count, config, data, tmp_path / f"run{count}", sharding=sharding)
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run1") == pytest.approx(losses(tmp_path / "run2"), abs=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "blocks"])
def test_compiled_processes_do_what_one_process_does(sharding, data, tmp_path) -> None:
    """The tower whole, or block by block where its weights lie in parts."""
    config = dataclasses.replace(with_optim(STEADY, epochs=2), gradient_checkpointing=True)
    for count, compile, kind in ((1, "off", "none"), (2, "on", sharding)):
        done = run(
            count, dataclasses.replace(config, compile=compile), data, tmp_path / f"{count}", sharding=kind
        )
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "1") == pytest.approx(losses(tmp_path / "2"), abs=1e-5)


def test_parts_of_a_batch_and_micro_batches(data, tmp_path) -> None:
    """Accumulation, released mixing, stochastic depth and unreadable clips, in three processes."""
    (tmp_path / "data").mkdir()
    for file in data.iterdir():
        (tmp_path / "data" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "data" / "5.mp4").write_bytes(b"no video")
    config = dataclasses.replace(
        with_optim(STEADY, epochs=3, batch_size=12, accumulation_steps=2),
        mix=MixConfig(partners="random", micro_batch=2),
    )
    for count in (1, 3):
        done = run(count, config, tmp_path / "data", tmp_path / f"run{count}")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("5.mp4") == 1, "told once"
        unreadable = [row["unreadable"] for row in rows(tmp_path / f"run{count}") if "unreadable" in row]
        assert all("5.mp4" in error for (error,) in unreadable), "whichever process read it"
    assert np.abs(np.subtract(losses(tmp_path / "run1"), losses(tmp_path / "run3"))).max() < 1e-5
    assert largest_difference(tmp_path / "run1", tmp_path / "run3") < 1e-5


@pytest.mark.parametrize(
    ("first", "second", "die_at"), [((2, "none"), (1, "none"), 17), ((1, "none"), (2, "blocks"), 11)]
)
def test_a_killed_run_goes_on_with_another_number_of_processes(
    first, second, die_at, alone, data, tmp_path
) -> None:
    (count, sharding), output = first, tmp_path / "run"
    done = run(count, STEADY, data, output, die_at, sharding=sharding)
    assert done.returncode != 0
    assert die_at - 3 <= len(losses(output)) < NUM_STEPS
    (count, sharding) = second
    done = run(count, STEADY, data, output, sharding=sharding)
    assert done.returncode == 0, done.stderr
    same_curve(alone, output, 1e-4 if sharding == "blocks" else 1e-5)


def test_parts_go_on_as_a_whole(alone, data, tmp_path) -> None:
    output = tmp_path / "run"
    assert run(2, STEADY, data, output, 20, sharding="blocks").returncode != 0
    assert (output / "last" / "optimizer").is_dir()
    done = run(1, STEADY, data, output)
    assert done.returncode == 0, done.stderr
    same_curve(alone, output, 1e-4)
    assert not (output / "last" / "optimizer").exists()


def test_all_clips_of_a_step_without_a_number_are_named_once(data, tmp_path) -> None:
    done = run(2, with_optim(STEADY, learning_rate=1e30, clip_grad_norm=None), data, tmp_path / "run")
    assert done.returncode != 0
    named = rows(tmp_path / "run")[-1]["not_a_number"]
    assert len(named) == 4, "of both processes"
    assert done.stderr.count("the last checkpoint is kept") == 1


LATE = """
import sys, time
from openxclip.processes import current, run_as_one

def work(tell):
    if current().is_first:
        time.sleep(1)
    before = time.monotonic()
    current().wait()
    waited = current().gathered(time.monotonic() - before)
    if current().is_first:
        print(*waited)
    return 0

sys.exit(run_as_one(work))
"""


def test_processes_wait_for_the_last_one(tmp_path) -> None:
    (tmp_path / "late.py").write_text(LATE)
    command = torchrun(2, tmp_path / "late.py")
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    first, second = map(float, done.stdout.split())
    assert first < 0.5 < second


def test_more_processes_than_gpus_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(processes, "current", lambda: processes.Processes(1, 2))
    monkeypatch.setenv("LOCAL_RANK", "0")
    processes.check_has_gpu()
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="process 2 on this machine has no GPU, there are 1"):
        processes.check_has_gpu()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_signal_saves_in_the_middle_of_an_epoch(data, tmp_path) -> None:
    """SIGTERM, as a cluster sends it before it takes a machine away: to torch's launcher, which passes it on."""
    longer = dataclasses.replace(CONFIG.data, samples_per_epoch=24)  # 6 steps an epoch
    config = dataclasses.replace(with_optim(STEADY, epochs=20), data=longer)
    whole, output = tmp_path / "whole", tmp_path / "run"
    assert run(1, config, data, whole).returncode == 0
    file = whole.with_suffix(".json")
    with subprocess.Popen(
        torchrun(2, WORKER, file, data, output, "none"), stderr=subprocess.DEVNULL, env=environment()
    ) as process:
        wait_for(lambda: (output / "log.jsonl").exists() and len(losses(output)) >= 9)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    state = json.loads((output / "last" / "training_state.json").read_text())
    assert state["step"] == len(losses(output)), "the step that was under way is finished, and kept"
    done = run(1, config, data, output)
    assert done.returncode == 0, done.stderr
    assert losses(output) == pytest.approx(losses(whole), abs=1e-5)
    means = [[row["mean_loss"] for row in rows(path) if "mean_loss" in row] for path in (whole, output)]
    assert means[0] == pytest.approx(means[1], abs=1e-5)


@pytest.mark.parametrize("count", [2, 3])
def test_validation_and_evaluation_are_shared(count, data, alone, tmp_path) -> None:
    """Seven videos, one of which cannot be read: the very same file, whatever the number of processes."""
    lines = [*(data / "val.txt").read_text().splitlines(), "labels.csv 1"]
    files = []
    for number in (1, count):
        (data / "odd.txt").write_text("\n".join(lines) + "\n")
        arguments = ["evaluate", "supervised", "--model", alone, "--data", data, "--list", "odd.txt"]
        arguments += ["--output", tmp_path / str(number), "--batch-size", "2"]
        command = [sys.executable] if number == 1 else torchrun(number)
        done = subprocess.run(
            [*command, "-m", "openxclip", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )
        assert done.returncode == 1, done.stderr  # one of them is no video
        assert done.stderr.count("labels.csv") == 1
        assert done.stdout.count("top-1") == 1
        files.append((next((tmp_path / str(number)).glob("evaluation-*")) / "evaluation.json").read_bytes())
    assert files[0] == files[1]
    assert json.loads(files[0])["num_videos"] == 8


def command_line(data: Path, output: Path, *more: str) -> list[str]:
    """`openxclip train` in two processes."""
    arguments = ["train", "--recipe", "ucf8_fewshot", "--data", str(data), "--output", str(output)]
    settings = ["data.train_list=train.txt", "data.val_list=null", "optim.batch_size=4", *more]
    changes = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "openxclip", *arguments, *changes, "--processes", "2"]


def test_the_command_starts_processes_and_an_error_is_one_line(data, tmp_path) -> None:
    missing = subprocess.run(
        command_line(tmp_path / "none", tmp_path / "run"), capture_output=True, text=True, check=False
    )
    assert missing.returncode == 2
    (line,) = missing.stderr.splitlines()
    assert line.startswith(f"openxclip: There is no {tmp_path / 'none'}")
    short = ("optim.epochs=1", "optim.warmup_epochs=0", "data.samples_per_epoch=8")
    done = subprocess.run(
        command_line(data, tmp_path / "run", *short), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("trained 1 epochs, 2 steps") == 1
    assert len(losses(tmp_path / "run")) == 2
    too_many = subprocess.run(
        command_line(data, tmp_path / "other", *short, "optim.batch_size=1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert too_many.returncode == 2
    assert "too few for 2 processes" in too_many.stderr


def test_control_c_before_the_first_step_is_one_line(data, tmp_path) -> None:
    """While its processes import torch."""
    with subprocess.Popen(
        command_line(data, tmp_path / "run"), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(lambda: bool(children.read_text()))
        time.sleep(1.5)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr is not None
        told = process.stderr.read().splitlines()
        assert process.wait(60) == 130
    assert [line for line in told if "training" not in line] in (
        ["openxclip: interrupted"],
        ["openxclip: stopped after step 1; run the same command to resume"],  # on a fast machine
    )


def test_control_c_reaches_all_processes_and_keeps_what_is_done(data, tmp_path) -> None:
    output = tmp_path / "run"
    with subprocess.Popen(
        command_line(data, output), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_for(lambda: (output / "log.jsonl").exists() and len(losses(output)) >= 3)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(60) == 130
    lines = [line for line in told.splitlines() if line and not line.startswith("training")]
    (line,) = lines
    assert line.endswith("run the same command to resume")
    state = json.loads((output / "last" / "training_state.json").read_text())
    assert state["step"] == len(losses(output)) >= 3
