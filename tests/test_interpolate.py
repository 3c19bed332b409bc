"""Weights between an image model and the one fine-tuned from it."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny import TINY, tiny_model, tiny_tokenizer
from videos import write_video

from openxclip.checkpoints.load import load, read_model
from openxclip.checkpoints.names import OPENAI_CLIP
from openxclip.checkpoints.save import save_as
from openxclip.checkpoints.source import ModelSource
from openxclip.checkpoints.tables import to_theirs
from openxclip.cli.main import run as command
from openxclip.errors import CheckpointError, InputError
from openxclip.inference.recognizer import Recognizer
from openxclip.models import XCLIP
from openxclip.models.expand import clip_only
from openxclip.models.interpolate import interpolate_weights
from openxclip.models.parts import group_of
from openxclip.video.transforms import Preprocessor

IMAGE = dataclasses.replace(clip_only(TINY), num_frames=1)


def save(folder: Path, model: XCLIP) -> str:
    save_as(folder, model, tiny_tokenizer(), Preprocessor.official(32))
    return str(folder)


@pytest.fixture
def image(tmp_path: Path) -> str:
    return save(tmp_path / "image", tiny_model(IMAGE, seed=1))


@pytest.fixture
def run(tmp_path: Path, image: str) -> Path:
    """The folder of a run that started from the image model."""
    folder = tmp_path / "run"
    save(folder / "last", tiny_model())
    (folder / "config.json").write_text(json.dumps({"config": {"init": image}}))
    return folder


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_shared_weights_are_between_the_two_and_the_others_kept(run: Path, share: float) -> None:
    model = load(run, device="cpu", dtype="float32", interpolate=share).model
    fine_tuned, start = tiny_model().state_dict(), tiny_model(IMAGE, seed=1).state_dict()
    for name, tensor in model.state_dict().items():
        if group_of(name) == "new":
            assert torch.equal(tensor, fine_tuned[name]), name
        else:
            expected = (1 - share) * start[name] + share * fine_tuned[name]
            torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-7, msg=name)


def test_the_ends_are_exactly_the_two_models(run: Path) -> None:
    for share, end in ((0.0, tiny_model(IMAGE, seed=1)), (1.0, tiny_model())):
        state = load(run, device="cpu", dtype="float32", interpolate=share).model.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in end.state_dict().items())


def test_the_report_says_what_was_done(run: Path, image: str) -> None:
    _, report = read_model(ModelSource(source=str(run), interpolate=0.3))
    num_shared = sum(p.numel() for p in tiny_model(IMAGE).parameters())
    num_kept = sum(p.numel() for p in tiny_model().parameters()) - num_shared
    assert report.notes == (
        f"{num_shared:,} parameters are 0.3 times these and 0.7 times those of {image}; "
        f"{num_kept:,}, which only these weights have, are kept",
    )
    assert read_model(ModelSource(source=str(run)))[1].notes == ()


def test_the_image_model_may_be_given(run: Path, image: str) -> None:
    given = load(run / "last", interpolate=0.5, image_model=image, dtype="float32").model.state_dict()
    recorded = load(run, interpolate=0.5, dtype="float32").model.state_dict()
    assert all(torch.equal(given[name], recorded[name]) for name in recorded)


def test_a_start_is_found_where_the_run_was_made(run: Path, image: str, tmp_path: Path) -> None:
    """`init` is recorded as it was given: relative to the folder that the training was started in."""
    given = load(run, interpolate=0.5, image_model=image, dtype="float32").model.state_dict()
    for init in ("image", "./image"):
        (run / "config.json").write_text(json.dumps({"config": {"init": init}}))
        recorded = load(run, interpolate=0.5, dtype="float32").model.state_dict()
        assert all(torch.equal(given[name], recorded[name]) for name in given)
    (run / "config.json").write_text(json.dumps({"config": {"init": "./nowhere"}}))
    with pytest.raises(CheckpointError, match=r"\./nowhere does not exist"):
        load(run, interpolate=0.5)


def test_parts_that_the_reader_adds_to_clip_are_not_mixed_in(run: Path, tmp_path: Path) -> None:
    """OpenAI's file has no integration; what stands in for it at the start of a training is random."""
    clip = tmp_path / "clip.pt"
    torch.save(to_theirs(tiny_model(IMAGE, seed=1).state_dict(), OPENAI_CLIP), clip)
    from_clip = load(run, interpolate=0.5, image_model=clip, dtype="float32").model.state_dict()
    native = load(run, interpolate=0.5, dtype="float32").model.state_dict()
    assert all(torch.equal(native[name], from_clip[name]) for name in native)


@pytest.mark.on_cpu
def test_time_positions_meet_at_the_number_of_frames_asked_for(run: Path, tmp_path: Path) -> None:
    video = save(tmp_path / "video", tiny_model(dataclasses.replace(TINY, num_frames=8), seed=1))
    model = load(run, interpolate=0.5, image_model=video, num_frames=6, dtype="float32").model
    ends = [tiny_model().with_num_frames(6), tiny_model(dataclasses.replace(TINY, num_frames=8), seed=1)]
    first, second = (end.with_num_frames(6).integration.position_embedding for end in ends)
    torch.testing.assert_close(model.integration.position_embedding, (first + second) / 2)


def test_a_table_of_discrete_labels_is_kept(tmp_path: Path) -> None:
    discrete = dataclasses.replace(TINY, prompting=None, num_discrete_labels=5)
    model = tiny_model(discrete)
    interpolate_weights(model, tiny_model(IMAGE, seed=1), 0.0)
    assert torch.equal(model.discrete.table, tiny_model(discrete).discrete.table)
    assert torch.equal(model.visual.proj.weight, tiny_model(IMAGE, seed=1).visual.proj.weight)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_other_shares_are_refused(run: Path, share: float) -> None:
    with pytest.raises(InputError, match=r"interpolate must be 0 .* to 1"):
        load(run, interpolate=share)


def test_without_an_image_model_it_is_refused(run: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(run / "last", tmp_path / "alone")
    with pytest.raises(InputError, match="does not say which image model"):
        load(alone, interpolate=0.5)
    (run / "config.json").write_text(json.dumps({"config": {"init": None, "model": {}}}))
    with pytest.raises(InputError, match="started from scratch"):
        load(run, interpolate=0.5)
    with pytest.raises(InputError, match="also give interpolate"):
        load(run, image_model="somewhere")


def test_another_architecture_is_refused(run: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(IMAGE, vision=dataclasses.replace(IMAGE.vision, num_layers=3))
    with pytest.raises(CheckpointError, match=r"cannot be interpolated: vision\.num_layers is 2, not 3;"):
        load(run, interpolate=0.5, image_model=save(tmp_path / "other", tiny_model(other)))


@pytest.mark.on_cpu
def test_a_recognizer_passes_it_on(run: Path, image: str) -> None:
    model = Recognizer.from_pretrained(
        ModelSource(source=str(run), interpolate=0.0, dtype="float32"), ["ba"]
    ).engine.model
    assert torch.equal(model.visual.proj.weight, tiny_model(IMAGE, seed=1).visual.proj.weight)


def test_predict_interpolates(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = str(write_video(tmp_path / "clip.mp4"))
    shared = ["predict", clip, "--labels", "ba, de", "--json", "--dtype", "float32", "--model"]
    scores = {}
    for name, options in {
        "whole": [str(run)],
        "one": [str(run), "--interpolate", "1"],
        "half": [str(run), "--interpolate", "0.5"],
        "given": [str(run / "last"), "--interpolate", "0.5", "--image-model", str(tmp_path / "image")],
    }.items():
        assert command([*shared, *options]) == 0
        scores[name] = json.loads(capsys.readouterr().out)["scores"]
    assert scores["one"] == scores["whole"]
    assert scores["half"] == scores["given"] != scores["whole"]
