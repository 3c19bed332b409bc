"""The CUDA path gives what the CPU path gives; skipped where there is no CUDA device."""

import dataclasses
import json

import pytest
import torch
from test_training import CONFIG, data, rows, same, weights, with_optim
from tiny import TINY, runtime_options, tiny_model, tiny_pixels, tiny_tokens

from openxclip.checkpoints.device import resolve_dtype
from openxclip.checkpoints.load import Loaded, load
from openxclip.checkpoints.save import save_as
from openxclip.checkpoints.source import ModelSource
from openxclip.cli.main import run
from openxclip.inference.engine import Engine
from openxclip.inference.options import InferenceOptions
from openxclip.inference.recognizer import Recognizer
from openxclip.text.label_texts import LabelTexts
from openxclip.text.tokenizer import train_small_tokenizer
from openxclip.training.options import RunOptions
from openxclip.training.train import train
from openxclip.video.transforms import Preprocessor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


__all__ = ["data"]  # the fixture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with a tokenizer of its own."""
    path = tmp_path_factory.mktemp("gpu") / "model"
    tokenizer = train_small_tokenizer(["waves", "blocks"], context_length=TINY.text.context_length)
    text = dataclasses.replace(TINY.text, vocab_size=tokenizer.vocab_size)
    model = tiny_model(dataclasses.replace(TINY, text=text))
    save_as(path, model, tokenizer, Preprocessor.official(TINY.vision.image_size_px))
    return path


def test_logits_are_those_of_the_cpu():
    model, pixels, tokens = tiny_model(), tiny_pixels(), tiny_tokens()
    with torch.no_grad():
        expected = model(pixels, tokens)
        found = model.cuda()(pixels.cuda(), tokens.cuda()).cpu()
    assert (found - expected).abs().max().item() <= 1e-3


def test_auto_picks_the_gpu_and_its_precision(folder, monkeypatch):
    monkeypatch.delenv("OPENXCLIP_DEVICE")
    model, _, _ = load(folder)
    assert model.logit_scale.device.type == "cuda"
    assert model.logit_scale.dtype == resolve_dtype("auto", torch.device("cuda"))


def test_probabilities_are_close_to_those_of_the_cpu(folder):
    pixels = torch.randint(
        0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    loaded: dict[str, Loaded] = {device: load(folder, device=device) for device in ("cpu", "cuda")}
    here, there = (
        Recognizer(Engine(model), ["waves", "blocks"]).probabilities(pixels) for model in loaded.values()
    )
    assert there.device.type == "cpu"
    assert (here - there).abs().max().item() <= 0.02


@pytest.mark.parametrize("frozen_text", [False, True])
def test_a_training_step_under_autocast_has_the_gradients_of_float32(frozen_text):
    gradients = []
    for enabled in (False, True):
        model, pixels, tokens = tiny_model().cuda(), tiny_pixels().cuda(), tiny_tokens().cuda()
        model.text.requires_grad_(not frozen_text)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=enabled):
            loss = torch.nn.functional.cross_entropy(model(pixels, tokens), torch.tensor([0, 1]).cuda())
        loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    exact, rounded = gradients
    assert exact.keys() == rounded.keys()
    for name, expected in exact.items():
        assert rounded[name].dtype == torch.float32
        largest = expected.abs().max().item()
        assert (rounded[name] - expected).abs().max().item() <= 0.1 * largest + 1e-5, name


@pytest.mark.slow
def test_cuda_graphs_give_the_same_for_every_shape(folder):
    loaded = load(folder)
    plain, compiled = (
        Recognizer(Engine(loaded, runtime_options(compile=compile)), ["waves", "blocks"])
        for compile in (False, True)
    )
    generator = torch.Generator().manual_seed(0)
    for num_views in (1, 3, 1, 3, 1, 3):  # graphs are recorded in the second call of a shape
        pixels = torch.randint(256, (num_views, 4, 3, 32, 32), dtype=torch.uint8, generator=generator)
        difference = compiled.probabilities(pixels) - plain.probabilities(pixels)
        assert difference.abs().max().item() <= 0.02


def test_a_training_an_evaluation_and_predictions_run_on_it(tmp_path, capsys):
    run_folder, clips = tmp_path / "run", tmp_path / "clips"
    short = [
        "--set",
        "optim.epochs=1",
        "--set",
        "optim.warmup_epochs=0.0",
        "--set",
        "data.samples_per_epoch=32",
    ]
    train = ["train", "--recipe", "shapes", "--data", "moving-shapes", "--set", "init=openxclip-tiny", *short]
    assert run([*train, "--output", str(run_folder), "--device", "cuda"]) == 0
    model = ["--model", str(run_folder), "--device", "cuda"]
    assert (
        run(["evaluate", "supervised", "--data", "moving-shapes", "--list", "few-test", *model, "--json"])
        == 0
    )
    (model_figures,) = json.loads(capsys.readouterr().out)["models"]
    assert model_figures["figures"]["top-1"] > 0.5
    assert run(["render", "--list", "few-val", "--output", str(clips)]) == 0
    labels = "white bar rising, white bar falling, cyan ring growing"
    assert (
        run(["predict", str(clips / "videos" / "white_bar_rising"), "--labels", labels, *model, "--json"])
        == 0
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 8
    assert all(row["error"] is None for row in rows)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batches_across_videos_give_what_each_video_gets_alone(folder, batch_size):
    source = ModelSource(source=str(folder), device="cuda", dtype="float32")
    engine = Engine.load(source, InferenceOptions(batch_size=batch_size))
    labels = engine.label_set(LabelTexts(labels=["waves", "blocks"]))
    videos = torch.randint(
        256, (7, 2, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    scored = list(engine.score(range(7), videos.__getitem__, labels))
    assert [outcome.item for outcome in scored] == list(range(7))
    for outcome, pixels in zip(scored, videos, strict=True):
        assert (outcome.scores - engine.probabilities(pixels, labels)).abs().max().item() <= 1e-4


@pytest.mark.parametrize("compile", ["off", "on"])
def test_a_deterministic_training_repeats_bit_by_bit_and_goes_on_so(compile, data, tmp_path):
    """The same weights again, and after an interruption in the middle of an epoch."""
    config = dataclasses.replace(CONFIG, deterministic=True, precision="bfloat16", compile=compile)
    for name in ("one", "other"):
        train(config, data, tmp_path / name, device="cuda")
    stopped = RunOptions()
    stopped.stop.set()
    assert train(config, data, tmp_path / "again", device="cuda", options=stopped).step == 1
    train(config, data, tmp_path / "again", device="cuda")
    one, other, again = (weights(tmp_path / name) for name in ("one", "other", "again"))
    assert same(one, other)
    assert same(one, again)


def test_a_training_on_the_gpu_follows_that_on_the_cpu(data, tmp_path):
    config = dataclasses.replace(CONFIG, compile="off")
    for device in ("cpu", "cuda"):
        train(config, data, tmp_path / device, device=device)
    here, there = (
        [row["loss"] for row in rows(tmp_path / device) if "loss" in row] for device in ("cpu", "cuda")
    )
    assert here == pytest.approx(there, abs=1e-3)


def test_losses_of_compiled_steps_on_the_gpu_are_those_of_eager_ones(data, tmp_path):
    config = with_optim(dataclasses.replace(CONFIG, precision="bfloat16"), epochs=10, learning_rate=8e-6)
    found = []
    for compile in ("off", "on"):
        train(dataclasses.replace(config, compile=compile), data, tmp_path / compile, device="cuda")
        found.append([row["loss"] for row in rows(tmp_path / compile) if "loss" in row])
    assert found[0] == pytest.approx(found[1], abs=1e-3)
