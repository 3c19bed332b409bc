"""The model that comes with the package: found by its name, whole, and small."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer, tiny_tokens

import openxclip
from openxclip.checkpoints import shipped
from openxclip.checkpoints.runs import run_of
from openxclip.checkpoints.save import save_as
from openxclip.cli.evaluate import training_labels
from openxclip.cli.main import run
from openxclip.data.moving_shapes import shapes_manifest
from openxclip.errors import CheckpointError
from openxclip.evaluation.evaluate import evaluate
from openxclip.inference.engine import Engine
from openxclip.inference.views import Views
from openxclip.shapes.clip import ShapesClip
from openxclip.shapes.splits import LISTS, WORLDS, ShapesList
from openxclip.shapes.words import OPPOSITES
from openxclip.video.transforms import Preprocessor

NAME = "openxclip-tiny"
SHIPPED = shipped.ROOT / NAME
PACKAGE = Path(__file__).parents[1] / "scripts" / "package_tiny.py"
MAX_BYTES = 12_000_000


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """Small weights in the place of the shipped ones, seen from a folder that has no model."""
    save_as(tmp_path / "pretrained" / NAME, tiny_model(), tiny_tokenizer(), Preprocessor.official(32))
    (tmp_path / "pretrained" / NAME / "training_labels.txt").write_text(
        "red star rising\nblue ring falling\n"
    )
    monkeypatch.setattr(shipped, "ROOT", tmp_path / "pretrained")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "pretrained" / NAME


@pytest.mark.on_cpu
def test_its_name_is_a_source(installed):
    tokens = tiny_tokens()
    assert torch.equal(
        openxclip.load(NAME, dtype="float32").model.encode_text(tokens), tiny_model().encode_text(tokens)
    )


@pytest.mark.on_cpu
def test_a_local_folder_of_that_name_goes_first(installed):
    tokens = tiny_tokens()
    save_as(Path(NAME), tiny_model(seed=1), tiny_tokenizer(), Preprocessor.official(32))
    assert torch.equal(
        openxclip.load(NAME, dtype="float32").model.encode_text(tokens),
        tiny_model(seed=1).encode_text(tokens),
    )


def test_info_says_where_it_is(installed, capsys):
    assert run(["info", NAME]) == 0
    assert re.search(rf"source\s+{NAME}\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "file",
    ["config.json", "model.safetensors", "tokenizer.json", "preprocessor.json", "training_labels.txt"],
)
def test_a_missing_file_is_named(installed, file):
    (installed / file).unlink()
    with pytest.raises(CheckpointError, match=rf"{NAME} should come with .* has no {file}; reinstall"):
        openxclip.load(NAME)


def test_an_installation_without_it_says_so(installed):
    shutil.rmtree(installed)
    with pytest.raises(
        CheckpointError, match=r"has no config\.json, preprocessor\.json, model\.safetensors, .* or train"
    ):
        openxclip.load(NAME)


def test_the_command_says_so_in_one_line(installed, capsys):
    shutil.rmtree(installed)
    assert run(["info", NAME]) == 1
    assert re.fullmatch(rf"openxclip: {NAME} should come with the package.*\n", capsys.readouterr().err)


# What it was trained on


def test_its_training_classes_are_known(installed, capsys):
    assert training_labels([NAME], None) == ("red star rising", "blue ring falling")
    assert training_labels([str(installed)], None) == ("red star rising", "blue ring falling")
    assert training_labels([NAME], "green bar rising") == ("green bar rising",)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LISTS, "val", partial(two_clips, LISTS["val"]()))
        arguments = ["label-union", "--model", NAME, "--data", "moving-shapes", "--list", "val"]
        assert run(["evaluate", *arguments]) == 0
    assert "among 68 labels" in capsys.readouterr().out


def two_clips(clips: ShapesList) -> ShapesList:
    """Two clips of a list, with all its classes."""
    return clips._replace(rows=clips.rows[:2])


def test_trained_classes_are_refused_as_zero_shot(installed, capsys):
    (installed / "training_labels.txt").write_text("cyan circle rising\n")
    arguments = ["zero-shot", "--model", NAME, "--data", "moving-shapes", "--lists", "val"]
    assert run(["evaluate", *arguments]) == 2
    assert "1 of 66 classes" in capsys.readouterr().err


def test_a_local_folder_of_that_name_says_for_itself(installed):
    save_as(Path(NAME), tiny_model(), tiny_tokenizer(), Preprocessor.official(32))
    assert training_labels([NAME], None) is None


@pytest.fixture
def trained(tmp_path) -> Path:
    """A run with all its checkpoints, trained on two classes."""
    folder = tmp_path / "run"
    for name in ("average", "best", "last"):
        save_as(folder / name, tiny_model(), tiny_tokenizer(), Preprocessor.official(32))
    labels = ["cyan circle rising", "red star rising"]
    (folder / "config.json").write_text(json.dumps({"config": {"init": None}, "labels": labels}))
    return folder


@pytest.mark.parametrize("checkpoint", [".", "average", "best", "last"])
def test_the_training_classes_of_every_checkpoint_of_a_run_are_known(trained, checkpoint, monkeypatch):
    expected = ("cyan circle rising", "red star rising")
    assert training_labels([str(trained / checkpoint)], None) == expected
    monkeypatch.chdir(trained / checkpoint)
    assert training_labels(["."], None) == expected
    assert run_of(Path()) == trained


def test_other_folders_belong_to_no_run(trained, tmp_path):
    (trained / "notes").mkdir()
    save_as(tmp_path / "model" / "best", tiny_model(), tiny_tokenizer(), Preprocessor.official(32))
    shutil.copy(tmp_path / "model" / "best" / "config.json", tmp_path / "model")
    for folder in (trained / "notes", tmp_path / "model" / "best", tmp_path / "model", tmp_path / "missing"):
        assert run_of(folder) is None
        assert training_labels([str(folder)], None) is None


@pytest.mark.parametrize("checkpoint", [".", "average", "best", "last"])
def test_trained_classes_of_a_run_are_refused_as_zero_shot(trained, checkpoint, capsys):
    arguments = ["--model", str(trained / checkpoint), "--data", "moving-shapes", "--lists", "val"]
    assert run(["evaluate", "zero-shot", *arguments]) == 2
    assert "1 of 66 classes" in capsys.readouterr().err


@pytest.mark.on_cpu
def test_a_run_is_packaged_with_its_training_classes(tmp_path):
    training, output = tmp_path / "run", tmp_path / "shipped"
    save_as(training / "last", tiny_model(), tiny_tokenizer(), Preprocessor.official(32))
    (training / "config.json").write_text(json.dumps({"labels": ["été", "red star rising"]}))
    command = [sys.executable, str(PACKAGE), str(training), str(output)]
    subprocess.run(command, check=True)
    assert {path.name for path in output.iterdir()} == set(shipped.FILES)
    assert training_labels([str(output)], None) == ("été", "red star rising")
    tokens = tiny_tokens()
    assert torch.equal(
        openxclip.load(output, dtype="float32").model.encode_text(tokens), tiny_model().encode_text(tokens)
    )

    (output / "README.md").write_text("# The model card")
    save_as(training / "last", tiny_model(seed=1), tiny_tokenizer(), Preprocessor.official(32))
    subprocess.run(command, check=True)
    assert (output / "README.md").read_text() == "# The model card"
    again = openxclip.load(output, dtype="float32").model.encode_text(tokens)
    assert torch.equal(again, tiny_model(seed=1).encode_text(tokens))


def test_the_shipped_model_is_small_and_has_a_model_card():
    sizes = {path.name: path.stat().st_size for path in SHIPPED.iterdir()}
    assert set(sizes) == {*shipped.FILES, "README.md"}
    assert sum(sizes.values()) <= MAX_BYTES
    assert training_labels([NAME], None) == tuple(kind.name for kind in WORLDS["full"].base)


@pytest.mark.on_cpu
@pytest.mark.parametrize("network", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:1"}])
def test_without_a_network_the_default_model_points_to_it(tmp_path, network):
    environment = os.environ | {"HF_HOME": str(tmp_path)} | network
    command = [sys.executable, "-m", "openxclip", "predict", "clip.mp4", "--labels", "surfing, cooking"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert "microsoft/xclip-base-patch32" in done.stderr
    assert done.stderr.endswith(
        f"; {NAME}, which comes with the package, needs no network (it knows moving shapes only)\n"
    )


def test_the_shipped_model_tells_novel_motions_apart(tmp_path, monkeypatch):
    """Clips of classes that it never saw, from files, each against the opposite motion of the same thing."""
    monkeypatch.chdir(tmp_path)
    loaded = openxclip.load(NAME)
    kinds = [kind for kind in WORLDS["full"].novel if kind.motion in OPPOSITES]
    num_right = 0
    for kind in kinds:
        names = [f"{kind.colour} {kind.shape} {motion}" for motion in (kind.motion, OPPOSITES[kind.motion])]
        path = tmp_path / "clip.mp4"
        path.write_bytes(ShapesClip(kind=kind, key="shipped").encode())
        num_right += openxclip.Recognizer(Engine(loaded), names).predict(path).scores[0][0] == kind.name
    assert num_right >= 0.8 * len(kinds) > 19


@pytest.mark.slow
def test_the_shipped_model_recognises_compositions_that_it_never_saw(tmp_path, monkeypatch):
    """The headline: every clip of `test-novel`, as the bytes of a video file, among all 66 novel names."""
    monkeypatch.chdir(tmp_path)
    clips = shapes_manifest("test-novel")
    trained = {tuple(label.split(" ", 2)[:2]) for label in training_labels([NAME], None)}
    assert trained.isdisjoint(tuple(label.split(" ", 2)[:2]) for label in clips.labels)
    assert len(clips.labels) == 66
    found = evaluate(openxclip.Recognizer(Engine(openxclip.load(NAME)), clips.labels), clips, Views())
    assert (found.num_videos, found.num_unreadable) == (528, 0)
    assert found.top1 >= 0.8
