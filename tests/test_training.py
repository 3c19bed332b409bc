"""Whole runs on small rendered videos: they learn, repeat, resume, and survive bad input."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny import TINY, tiny_model, tiny_tokenizer
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.api import _wrap_exception
from videos import write_video

import openxclip
from openxclip.checkpoints.names import OPENAI_CLIP
from openxclip.checkpoints.save import save_as
from openxclip.checkpoints.tables import to_theirs
from openxclip.configuration import with_overrides
from openxclip.data.manifest import read_manifest
from openxclip.data.media import FileMedia, Manifest
from openxclip.errors import CheckpointError, ConfigError, InputError, OpenXCLIPError, TrainingError
from openxclip.models.expand import clip_only
from openxclip.processes import Processes
from openxclip.recipes import recipe
from openxclip.training import loop, run_folder
from openxclip.training.config import (
    DataConfig,
    ExpansionConfig,
    LearningRates,
    MixConfig,
    OptimConfig,
    TrainConfig,
)
from openxclip.training.options import RunOptions
from openxclip.training.run_folder import RunFolder
from openxclip.training.train import train, train_on
from openxclip.video.transforms import Preprocessor

pytestmark = pytest.mark.on_cpu

CONFIG = TrainConfig(
    recipe="test",
    model=dataclasses.replace(TINY, vision=dataclasses.replace(TINY.vision, drop_path=0.2)),
    num_frames=TINY.num_frames,
    data=DataConfig(train_list="train.txt", num_workers=0, cached_frames=8),
    optim=OptimConfig(
        epochs=3,
        learning_rate=1e-3,
        batch_size=4,
        warmup_epochs=1,
        factors=LearningRates(new=1, visual=1, text=1, logit_scale=1),
    ),
    precision="float32",
    seed=7,
)


def with_optim(config: TrainConfig, **changes: object) -> TrainConfig:
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, **changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Eight videos: four get brighter, four get darker."""
    return write_brightness(tmp_path_factory.mktemp("data"), num_videos=8, num_val=2)


def write_brightness(folder: Path, num_videos: int, num_val: int) -> Path:
    """Videos that get darker and brighter in turns, lists and labels."""
    lines = []
    for i in range(num_videos):
        levels = np.linspace(20, 230, 10)[:: 1 if i % 2 else -1]
        noise = np.random.default_rng(i).integers(-15, 15, size=(48, 64, 3))
        frames = [(level + noise).clip(0, 255).astype(np.uint8) for level in levels]
        write_video(folder / f"{i}.mp4", frames=frames)
        lines.append(f"{i}.mp4 {i % 2}\n")
    (folder / "labels.csv").write_text("id,name\n0,getting darker\n1,getting brighter\n")
    (folder / "train.txt").write_text("".join(lines))
    (folder / "val.txt").write_text("".join(lines[:num_val]))
    return folder


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run / name / "model.safetensors")


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    output = tmp_path_factory.mktemp("run") / "whole"
    state = train(CONFIG, data, output)
    assert (state.epoch, state.step) == (3, 6)
    return output


def test_a_run_leaves_a_model_a_log_and_its_config(finished):
    config = json.loads((finished / "config.json").read_text())["config"]
    assert config["optim"]["epochs"] == 3
    steps = [row for row in rows(finished) if "loss" in row]
    epochs = [row for row in rows(finished) if "mean_loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert all(row["unreadable"] == [] for row in epochs)
    assert all(row["seconds"] > 0 and row["waited_seconds"] > 0 for row in steps)
    assert not (finished / "best").exists()
    model, tokenizer, preprocess = openxclip.load(finished)
    assert model.config.num_frames == 4
    assert preprocess.input_size_px == 32
    assert tokenizer(["getting darker"]).shape == (1, 16)


def test_the_same_seed_gives_the_same_weights_and_losses(finished, data, tmp_path):
    train(CONFIG, data, tmp_path / "again")
    assert same(weights(finished), weights(tmp_path / "again"))
    losses = [[row.get("loss") for row in rows(run)] for run in (finished, tmp_path / "again")]
    assert losses[0] == losses[1]


def test_another_seed_gives_other_weights(finished, data, tmp_path):
    train(dataclasses.replace(CONFIG, seed=8), data, tmp_path / "other")
    assert not same(weights(finished), weights(tmp_path / "other"))


@pytest.mark.parametrize("interrupted_at", [1, 3, 4])
def test_an_interrupted_run_ends_in_the_same_weights(finished, data, tmp_path, monkeypatch, interrupted_at):
    whole_step = loop.TrainingLoop.step

    def step(self, batch, number, backward):
        if number == interrupted_at:
            raise KeyboardInterrupt
        return whole_step(self, batch, number, backward)

    monkeypatch.setattr(loop.TrainingLoop, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, data, tmp_path / "run")
    monkeypatch.undo()
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "lo')  # cut off in the middle of a line
    train(CONFIG, data, tmp_path / "run")
    assert same(weights(finished), weights(tmp_path / "run"))
    assert same(
        load_file(finished / "last" / "optimizer.safetensors"),
        load_file(tmp_path / "run" / "last" / "optimizer.safetensors"),
    )
    assert [row["step"] for row in rows(tmp_path / "run")] == [row["step"] for row in rows(finished)]


def test_a_finished_run_stays_as_it_is(finished, data):
    before = weights(finished)
    assert train(CONFIG, data, finished).step == 6
    assert same(before, weights(finished))


def test_other_settings_do_not_go_on_with_a_run(finished, data):
    with pytest.raises(InputError, match=r"config\.optim\.epochs: was 3, now 4"):
        train(with_optim(CONFIG, epochs=4), data, finished)


def test_a_run_that_never_saved_may_start_anew_with_other_settings(data, tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pt"):
        train(dataclasses.replace(CONFIG, model=None, init="./nowhere.pt"), data, tmp_path / "run")
    assert train(with_optim(CONFIG, epochs=1), data, tmp_path / "run").epoch == 1


def test_a_new_start_leaves_no_best_of_the_old_one(data, tmp_path, monkeypatch):
    """Such as of a version that did not save before it validated."""

    def die(self, write_model, model, optimizer, state, extras):
        if state.epoch > 0:
            raise KeyboardInterrupt

    with_val = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, val_list="val.txt"))
    monkeypatch.setattr(RunFolder, "save_last", die)
    with pytest.raises(KeyboardInterrupt):
        train(with_val, data, tmp_path / "run")
    assert (tmp_path / "run" / "best").exists()
    monkeypatch.undo()
    train(with_optim(CONFIG, epochs=1), data, tmp_path / "run")
    assert not (tmp_path / "run" / "best").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(data, tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(InputError, match="not empty"):
        train(CONFIG, data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_accumulation_equals_one_big_batch(data, tmp_path):
    config = dataclasses.replace(CONFIG, model=TINY)  # no drop path: it draws for each part of a batch
    train(config, data, tmp_path / "one")
    train(with_optim(config, accumulation_steps=2), data, tmp_path / "two")
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [r["loss"] for r in one if "loss" in r] == pytest.approx(
        [r["loss"] for r in two if "loss" in r], abs=1e-4
    )
    assert [r["grad_norm"] for r in one if "loss" in r] == pytest.approx(
        [r["grad_norm"] for r in two if "loss" in r], rel=1e-3
    )


def test_gradient_checkpointing_changes_nothing(finished, data, tmp_path):
    train(dataclasses.replace(CONFIG, gradient_checkpointing=True), data, tmp_path / "run")
    for name, tensor in weights(finished).items():
        assert torch.allclose(tensor, weights(tmp_path / "run")[name], atol=1e-5), name


def test_frozen_text_stays_and_its_features_are_computed_once(data, tmp_path, monkeypatch):
    calls = []
    encode = openxclip.models.XCLIP.encode_text
    monkeypatch.setattr(
        openxclip.models.XCLIP, "encode_text", lambda self, tokens: calls.append(1) or encode(self, tokens)
    )
    frozen = with_optim(CONFIG, factors=LearningRates(new=1, visual=1), epochs=1)
    train(frozen, data, tmp_path / "one")
    assert len(calls) == 1
    train(with_optim(frozen, epochs=2), data, tmp_path / "two")
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    changed = {name.partition(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"visual", "integration", "prompting"}


def test_clipping_limits_the_gradient(data, tmp_path):
    config = dataclasses.replace(with_optim(CONFIG, epochs=1, clip_grad_norm=1e-9), model=TINY)
    train(config, data, tmp_path / "clipped")
    free = dataclasses.replace(with_optim(CONFIG, epochs=1), model=TINY)
    train(free, data, tmp_path / "free")
    norms = [
        [row["grad_norm"] for row in rows(tmp_path / run) if "loss" in row] for run in ("clipped", "free")
    ]
    assert norms[0][0] == pytest.approx(norms[1][0])  # what is logged is the norm before clipping
    assert not same(weights(tmp_path / "clipped"), weights(tmp_path / "free"))


def test_validation_keeps_the_best(data, tmp_path):
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, val_list="val.txt"))
    state = train(config, data, tmp_path / "run")
    scores = [row["val_top1"] for row in rows(tmp_path / "run") if "val_top1" in row]
    assert len(scores) == 3
    assert state.best_top1 == max(scores)
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()


def test_bfloat16_autocast_trains_float32_weights(data, tmp_path):
    train(dataclasses.replace(with_optim(CONFIG, epochs=1), precision="bfloat16"), data, tmp_path / "run")
    assert {tensor.dtype for tensor in weights(tmp_path / "run").values()} == {torch.float32}


def test_fine_tuning_starts_from_given_weights(finished, data, tmp_path):
    config = dataclasses.replace(
        with_optim(CONFIG, epochs=1, learning_rate=0.0), model=None, init=str(finished / "last")
    )
    train(config, data, tmp_path / "run")
    assert same(weights(finished), weights(tmp_path / "run"))


def test_missing_videos_stop_before_anything_is_written(data, tmp_path):
    (tmp_path / "labels.csv").write_text("id,name\n0,a\n1,b\n")
    (tmp_path / "train.txt").write_text("nowhere.mp4 0\n")
    with pytest.raises(InputError, match=r"1 of 1 videos .* nowhere\.mp4"):
        train(CONFIG, tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_videos_can_be_left_out(finished, data, tmp_path, caplog):
    """The run is that of the list without them, and its log names them."""
    lines = (data / "train.txt").read_text().splitlines(keepends=True)
    (tmp_path / "cut").mkdir()
    shutil.copy(data / "labels.csv", tmp_path / "cut")
    (tmp_path / "cut" / "train.txt").write_text("".join(["gone.mp4 0\n", *lines, "lost.mp4 1\n"]))
    with pytest.raises(InputError, match=r"2 of 10 videos .* gone\.mp4; .*--set data\.skip_missing=true"):
        train(CONFIG, tmp_path / "cut", tmp_path / "run", media_root=data)
    config = with_overrides(CONFIG, ["data.skip_missing=true"])
    state = train(config, tmp_path / "cut", tmp_path / "run", media_root=data)
    assert (state.step, state.unreadable) == (6, ())
    (warning,) = caplog.messages
    assert warning.startswith(
        "cut/train.txt: 2 of 10 videos are missing, the first is gone.mp4; they are left out"
    )
    first, *others = rows(tmp_path / "run")
    assert first == {"step": 0, "missing": ["gone.mp4", "lost.mp4"]}
    assert not any("missing" in row for row in others)
    assert same(weights(finished), weights(tmp_path / "run"))


def test_processes_that_find_other_clips_are_refused(data, tmp_path, monkeypatch):
    """Two machines, on one of which videos are missing: both would train, on other clips than they think."""
    monkeypatch.setattr(Processes, "gathered", lambda self, value: [value, (7, "of another list")])
    with pytest.raises(InputError, match=r"find different clips in .*\(7, 8\)"):
        train(CONFIG, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_run_without_any_video(data, tmp_path):
    (tmp_path / "labels.csv").write_text("id,name\n0,a\n1,b\n")
    (tmp_path / "train.txt").write_text("nowhere.mp4 0\n")
    config = with_overrides(CONFIG, ["data.skip_missing=true"])
    with pytest.raises(InputError, match=r"1 of 1 videos .* or correct the list"):
        train(config, tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unreadable_video_is_named(data, tmp_path, caplog):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    (tmp_path / "labels.csv").write_text("id,name\n0,a\n1,b\n")
    (tmp_path / "train.txt").write_text(f"{data / '0.mp4'} 0\n{data / '1.mp4'} 1\n{broken} 1\n")
    state = train(with_optim(CONFIG, epochs=2, batch_size=3), tmp_path, tmp_path / "run")
    assert rows(tmp_path / "run")[-1]["unreadable"] == list(state.unreadable)
    (unreadable,) = state.unreadable
    assert str(broken) in unreadable
    assert caplog.messages == [f"a training clip cannot be read and is left out: {unreadable}"]  # once


def test_videos_over_the_limits_are_left_out_of_a_training(data, tmp_path):
    (tmp_path / "labels.csv").write_text("id,name\n0,a\n1,b\n")
    (tmp_path / "train.txt").write_text(f"{data / '0.mp4'} 0\n{data / '1.mp4'} 1\n")
    config = with_overrides(with_optim(CONFIG, epochs=2, batch_size=2), ["data.max_seconds=0.01"])
    with pytest.raises(TrainingError, match=r"over the limit max_seconds=0\.01.*--set data\.max_seconds"):
        train(config, tmp_path, tmp_path / "run")


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "labels.csv").write_text("id,name\n0,a\n1,b\n")
    (tmp_path / "train.txt").write_text("broken.mp4 0\nmissing.mp4 1\n")
    (tmp_path / "missing.mp4").write_bytes(b"no video either")
    with pytest.raises(TrainingError, match=r"no clip of a batch can be read.*(broken|missing)\.mp4"):
        train(CONFIG, tmp_path, tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(data, tmp_path):
    config = with_optim(CONFIG, learning_rate=1e30, warmup_epochs=0.0)
    with pytest.raises(TrainingError, match="Lower the learning rate"):
        train(config, data, tmp_path / "run")


@pytest.mark.slow
def test_it_learns_what_only_the_order_of_frames_tells(data, tmp_path):
    """Brighter and darker videos hold the same frames: a model that ignores their order cannot do it."""
    config = dataclasses.replace(
        with_optim(
            CONFIG, epochs=60, batch_size=8, learning_rate=1e-4, factors=LearningRates(new=10, visual=1)
        ),
        model=TINY,
        mix=MixConfig(label_smoothing=0.0, mixup_alpha=0, cutmix_alpha=0),
        data=dataclasses.replace(
            CONFIG.data, val_list="train.txt", jitter_probability=0.0, samples_per_epoch=16
        ),
    )
    assert train(config, data, tmp_path / "run").best_top1 == 1.0


def tiny_clip(path: Path) -> Path:
    """OpenAI CLIP's format with our tiny towers: a plain state dict."""
    torch.save(to_theirs(tiny_model(clip_only(TINY)).state_dict(), OPENAI_CLIP), path)
    return path


@pytest.mark.parametrize("name", ["supervised", "few_shot", "zero_shot"])
def test_the_published_recipes_start_from_clip(name, data, tmp_path):
    tiny_tokenizer().save(tmp_path / "words.json")
    config = with_overrides(
        recipe(name),
        [
            f"init={tiny_clip(tmp_path / 'clip.pt')}",
            f"tokenizer={tmp_path / 'words.json'}",
            "num_frames=4",
            "optim.epochs=1",
            "optim.warmup_epochs=0",
            "optim.batch_size=4",
            "data.train_list=train.txt",
            "data.num_workers=0",
        ],
    )
    assert train(config, data, tmp_path / "run").step == 2
    model, tokenizer, _ = openxclip.load(tmp_path / "run")
    assert model.config == TINY
    assert tokenizer.vocab_size == TINY.text.vocab_size


def test_the_short_side_is_that_of_the_augmentation_whatever_the_checkpoint_evaluates_at(
    data, tmp_path, monkeypatch
):
    """Training crops come from 256 / 224 of the input size, also where evaluation resizes to the input size."""
    model = tiny_model()
    save_as(tmp_path / "model", model, tiny_tokenizer(), Preprocessor.hugging_face(32))
    sides, read_media = [], FileMedia.read
    monkeypatch.setattr(
        FileMedia,
        "read",
        lambda media, choose, size, limits: (
            sides.append(size.short_side_px) or read_media(media, choose, size, limits=limits)
        ),
    )
    train(
        dataclasses.replace(with_optim(CONFIG, epochs=1), model=None, init=str(tmp_path / "model")),
        data,
        tmp_path / "run",
    )
    assert set(sides) == {37}


def test_other_labels_or_clips_do_not_go_on_with_a_run(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    train(with_optim(CONFIG, epochs=1), copy, tmp_path / "run")
    (copy / "labels.csv").write_text("id,name\n1,getting darker\n0,getting brighter\n")
    with pytest.raises(InputError, match="clips: was"):
        train(with_optim(CONFIG, epochs=1), copy, tmp_path / "run")


def change_config(run: Path, change: Callable[[dict], object]) -> None:
    """What a run has saved of its settings, as another version would have."""
    values = json.loads((run / "config.json").read_text())
    change(values)
    (run / "config.json").write_text(json.dumps(values))


def test_a_run_of_an_earlier_version_goes_on(finished, data, tmp_path):
    """A setting that it did not have counts as its default, and a fact that it did not keep as the same."""
    first = with_optim(CONFIG, epochs=3)
    shutil.copytree(finished, tmp_path / "run")

    def older(values: dict) -> None:
        del values["config"]["averaging"]
        del values["config"]["preprocessing"]
        del values["config"]["gradient_checkpointing"]
        del values["config"]["model"]["vision"]["rotary"]
        del values["config"]["optim"]["factors"]["logit_scale"]  # here not the default
        del values["descriptions"]

    change_config(tmp_path / "run", older)
    with pytest.raises(InputError, match=r"settings \(config.optim.factors.logit_scale: was 0.0, now 1\);"):
        train(first, data, tmp_path / "run")
    change_config(tmp_path / "run", lambda values: values["config"]["optim"]["factors"].update(logit_scale=1))
    assert train(first, data, tmp_path / "run").step == 6
    assert (tmp_path / "run" / "config.json").read_text() == (finished / "config.json").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["config"].update(gone=3), r"config\.gone: was 3, now None"),
        (lambda values: values["config"].pop("optim"), r"config\.optim\.epochs: was None, now 3"),
        (lambda values: values["config"].update(seed="7"), r"config\.seed: was '7', now 7"),
        (lambda values: values.pop("config"), r"config\.recipe: was None, now 'test'"),
        (lambda values: values.update(config=None), r"config\.recipe: was None, now 'test'"),
        (lambda values: values.update(clips="0"), "clips: was '0'"),
    ],
)
def test_what_is_no_earlier_version_of_a_run_is_another_run(finished, data, tmp_path, change, message):
    shutil.copytree(finished, tmp_path / "run")
    change_config(tmp_path / "run", change)
    with pytest.raises(InputError, match=message):
        train(CONFIG, data, tmp_path / "run")


def test_labels_may_be_given_beside_the_list(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    (copy / "labels.csv").unlink()
    assert train(with_optim(CONFIG, epochs=1), copy, tmp_path / "run", labels="darker, brighter").step == 2


def test_two_processes_do_not_train_in_one_folder(data, tmp_path):
    with RunFolder(tmp_path / "run").locked(), pytest.raises(InputError, match="another process is training"):
        train(CONFIG, data, tmp_path / "run")
    assert train(with_optim(CONFIG, epochs=1), data, tmp_path / "run").step == 2


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", "[]"),
        ("config.json", "{"),
        ("last/training_state.json", "{"),
        ("last/training_state.json", '{"a": 1}'),
    ],
)
def test_a_damaged_run_folder_is_named(data, tmp_path, file, text):
    train(with_optim(CONFIG, epochs=1), data, tmp_path / "run")
    (tmp_path / "run" / file).write_text(text)
    with pytest.raises(OpenXCLIPError):
        train(with_optim(CONFIG, epochs=1), data, tmp_path / "run")


# --- what a run may start from, and which targets it has


@pytest.fixture(scope="module")
def image_model(tmp_path_factory) -> str:
    """An image model in the native format."""
    folder = tmp_path_factory.mktemp("image") / "model"
    config = dataclasses.replace(clip_only(TINY), num_frames=1)
    save_as(folder, tiny_model(config), tiny_tokenizer(), Preprocessor.official(32))
    return str(folder)


def from_image(image_model: str, expansion: ExpansionConfig, **optim: object) -> TrainConfig:
    """One epoch from the image model; the towers stay frozen unless `optim` says otherwise."""
    config = with_optim(CONFIG, **{"epochs": 1, "factors": LearningRates(visual=0)} | optim)
    return dataclasses.replace(config, model=None, init=image_model, expansion=expansion)


PARTS = ExpansionConfig(integration=TINY.integration, prompting=TINY.prompting, drop_path=0.1)
BARE = ExpansionConfig(message_tokens=False, integration=None, prompting=None)


def test_an_image_model_is_expanded_and_the_run_goes_on(image_model, data, tmp_path):
    config = from_image(image_model, PARTS, epochs=2)
    train(config, data, tmp_path / "whole")
    model, _, _ = openxclip.load(tmp_path / "whole")
    assert model.config == dataclasses.replace(TINY, vision=dataclasses.replace(TINY.vision, drop_path=0.1))
    start = load_file(Path(image_model) / "model.safetensors")
    trained = weights(tmp_path / "whole")
    assert all(torch.equal(trained[name], start[name]) for name in start)  # frozen here
    assert (
        json.loads((tmp_path / "whole" / "config.json").read_text())["config"]["expansion"]["drop_path"]
        == 0.1
    )
    (tmp_path / "whole" / "last" / "training_state.json").write_text('{"epoch": 1, "step": 2}')
    assert train(config, data, tmp_path / "whole").step == 4


@pytest.mark.parametrize("kind", ["image model", "CLIP's file"])
def test_new_parts_come_from_the_seed_of_the_run(kind, image_model, data, tmp_path):
    """Of CLIP's own file, too, around which the reader puts parts of its own."""
    tiny_tokenizer().save(tmp_path / "words.json")
    config = from_image(image_model, PARTS, learning_rate=0.0)
    if kind == "CLIP's file":
        clip = str(tiny_clip(tmp_path / "clip.pt"))
        config = dataclasses.replace(config, init=clip, tokenizer=str(tmp_path / "words.json"))
    for seed in (1, 2):
        train(dataclasses.replace(config, seed=seed), data, tmp_path / str(seed))
    first, second = weights(tmp_path / "1"), weights(tmp_path / "2")
    differ = {name.partition(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert differ == {"visual", "integration", "prompting"}
    assert torch.equal(first["visual.proj.weight"], second["visual.proj.weight"])


def test_discrete_labels_train_resume_and_validate(image_model, data, tmp_path):
    expansion = dataclasses.replace(BARE, discrete_labels=True)
    config = from_image(image_model, expansion, epochs=2, factors=LearningRates(new=10, visual=1, text=1))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, val_list="val.txt"))
    state = train(config, data, tmp_path / "run")
    assert state.best_top1 is not None
    model, _, _ = openxclip.load(tmp_path / "run" / "last")
    assert model.config.num_discrete_labels == 2
    first = weights(tmp_path / "run")
    assert not any(name.startswith("text.") for name in first)
    (tmp_path / "run" / "last" / "training_state.json").write_text('{"epoch": 1, "step": 2}')
    assert train(config, data, tmp_path / "run").step == 4
    assert not torch.equal(weights(tmp_path / "run")["discrete.table"], first["discrete.table"])


def test_learnable_context_learns_before_a_frozen_text_tower(image_model, data, tmp_path):
    expansion = dataclasses.replace(BARE, num_context_vectors=4)
    train(from_image(image_model, expansion), data, tmp_path / "run")
    train(from_image(image_model, expansion, learning_rate=0.0), data, tmp_path / "start")
    trained, start = weights(tmp_path / "run"), weights(tmp_path / "start")
    assert [name for name in start if not torch.equal(trained[name], start[name])] == ["text.context.vectors"]


def test_templates_are_the_targets(image_model, data, tmp_path):
    """Two templates are CLIP's ensemble, with a frozen text tower and with one that learns."""
    losses = {}
    for name, templates in {"name": ("{}",), "two": ("{}", "a video of {}")}.items():
        for text in (0.0, 1.0):
            factors = LearningRates(new=1, visual=1, text=text)
            config = from_image(image_model, PARTS, factors=factors)
            config = dataclasses.replace(config, templates=templates)
            train(config, data, tmp_path / f"{name}{text}")
            losses[name, text] = rows(tmp_path / f"{name}{text}")[0]["loss"]
    assert losses["name", 0.0] == pytest.approx(losses["name", 1.0], abs=1e-6)
    assert losses["two", 0.0] == pytest.approx(losses["two", 1.0], abs=1e-6)
    assert losses["two", 0.0] != pytest.approx(losses["name", 0.0], abs=1e-4)


def test_clips_at_hand_train_as_a_list_does(finished, data, tmp_path):
    clips = read_manifest(data, list_name="train.txt")
    assert train_on(CONFIG, clips, None, tmp_path / "run", descriptions=None, data="eight videos").step == 6
    assert same(weights(finished), weights(tmp_path / "run"))
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert settings["data"] == "eight videos"
    assert settings["labels"] == ["getting darker", "getting brighter"]
    assert json.loads((finished / "config.json").read_text())["data"] == str(data.resolve())


def test_clips_at_hand_are_checked(data, tmp_path):
    clips = read_manifest(data, list_name="train.txt")
    other = Manifest(name="other", labels=("a", "b"), items=clips.items)
    with pytest.raises(InputError, match="different labels"):
        train_on(CONFIG, clips, other, tmp_path / "run", descriptions=None, data="x")
    gone = dataclasses.replace(clips.items[0], media=FileMedia(tmp_path / "gone.mp4"))
    with pytest.raises(InputError, match="1 of 1 videos"):
        train_on(
            CONFIG,
            dataclasses.replace(clips, items=(gone,)),
            None,
            tmp_path / "run",
            descriptions=None,
            data="x",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expansion": BARE}, "expansion is for an init"),
        ({"seed": -1}, "seed must be 0 to 9223372036854775807, got -1"),
        ({"seed": 2**63}, "seed must be 0 to 9223372036854775807, got 9223372036854775808"),
        ({"templates": ()}, "templates must be at least one"),
        ({"templates": ("a video",)}, "templates must be at least one"),
        ({"templates": ("{} {}",)}, "templates must be at least one"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_an_expansion_can_be_set_on_the_command_line():
    config = dataclasses.replace(CONFIG, model=None, init="somewhere")
    settings = [
        "expansion.discrete_labels=true",
        "expansion.prompting=null",
        'templates=["a {}.", "the {}."]',
    ]
    config = with_overrides(config, settings)
    assert config.expansion == ExpansionConfig(discrete_labels=True, prompting=None)
    assert config.templates == ("a {}.", "the {}.")
    with pytest.raises(ConfigError, match="leaves no texts to prompt"):
        with_overrides(config, ["expansion.num_context_vectors=4"])


@pytest.mark.parametrize("stopped_at", [1, 3])
def test_a_run_that_is_stopped_saves_its_step_and_ends_in_the_same_weights(
    finished, data, tmp_path, monkeypatch, stopped_at
):
    """In the middle of an epoch: the next call takes up the batches that are left of it."""
    options = RunOptions()
    whole_step = loop.TrainingLoop.step

    def step(self, batch, number, backward):
        if number == stopped_at - 1:
            options.stop.set()
        return whole_step(self, batch, number, backward)

    monkeypatch.setattr(loop.TrainingLoop, "step", step)
    assert train(CONFIG, data, tmp_path / "run", options=options).step == stopped_at
    monkeypatch.undo()
    assert train(CONFIG, data, tmp_path / "run").epoch == CONFIG.optim.epochs
    assert same(weights(finished), weights(tmp_path / "run"))
    means = [[row.get("mean_loss") for row in rows(path)] for path in (finished, tmp_path / "run")]
    assert means[0] == means[1]


def test_a_checkpoint_between_epochs_is_due_by_the_clock(data, tmp_path, monkeypatch):
    saved: list[int] = []
    save = loop.TrainingLoop.save

    def noted(self, state, model=None):
        saved.append(state.step)
        return save(self, state, model)

    monkeypatch.setattr(loop.TrainingLoop, "save", noted)
    train(CONFIG, data, tmp_path / "run", options=RunOptions(save_minutes=0.0))
    assert saved == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_run_that_ends_during_validation_repeats_only_that(data, tmp_path, monkeypatch, num_workers):
    """Also where it had been logged: each epoch has one line."""
    workers = {"num_workers": num_workers, "cached_frames": None}
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, val_list="val.txt", **workers))
    train(config, data, tmp_path / "whole")
    save = loop.TrainingLoop.save

    def die(self, state, model=None):
        if state.epoch == 2:
            raise KeyboardInterrupt
        save(self, state, model)

    monkeypatch.setattr(loop.TrainingLoop, "save", die)
    with pytest.raises(KeyboardInterrupt):
        train(config, data, tmp_path / "run")
    monkeypatch.undo()
    state = RunFolder(tmp_path / "run").state()
    assert (state.epoch, state.step) == (1, 4), "no step is done again"
    train(config, data, tmp_path / "run")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "run"))
    logs = [
        [(row["step"], row.get("val_top1"), row.get("mean_loss")) for row in rows(tmp_path / run)]
        for run in ("whole", "run")
    ]
    assert logs[0] == logs[1]


def test_a_run_that_is_stopped_at_the_end_of_an_epoch_validates_when_it_goes_on(data, tmp_path):
    lists = dataclasses.replace(CONFIG.data, val_list="val.txt", samples_per_epoch=4)  # one step an epoch
    config = dataclasses.replace(CONFIG, data=lists)
    state = train(config, data, tmp_path / "run", options=stopped())
    assert (state.epoch, state.step, state.best_top1) == (0, 1, None)
    train(config, data, tmp_path / "run")
    train(config, data, tmp_path / "whole")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "run"))
    scores = [[row.get("val_top1") for row in rows(tmp_path / run)] for run in ("whole", "run")]
    assert scores[0] == scores[1]


NO_SPACE = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "error",
    [NO_SPACE, SafetensorError(str(NO_SPACE)), CheckpointException("", {1: _wrap_exception(NO_SPACE)})],
)
def test_a_disk_that_is_full_is_one_error_and_keeps_the_last_checkpoint(data, tmp_path, monkeypatch, error):
    """As safetensors and torch.distributed.checkpoint tell it, the latter by no `Exception`."""

    def full(folder, tensors):
        raise error

    train(CONFIG, data, tmp_path / "run", options=stopped())
    before = weights(tmp_path / "run")
    monkeypatch.setattr(run_folder, "save_optimizer", full)
    with pytest.raises(TrainingError, match=r"last cannot be written .*No space left.*is kept"):
        train(CONFIG, data, tmp_path / "run")
    assert same(before, weights(tmp_path / "run"))


def stopped() -> RunOptions:
    """After the first step."""
    options = RunOptions()
    options.stop.set()
    return options


def test_a_deterministic_run_is_the_same_run_on_a_cpu(finished, data, tmp_path):
    train(dataclasses.replace(CONFIG, deterministic=True), data, tmp_path / "run")
    assert same(weights(finished), weights(tmp_path / "run"))
    assert not torch.are_deterministic_algorithms_enabled(), "it is left as it was"
