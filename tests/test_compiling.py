"""The image tower compiled for training: whole, and the same losses as it is written."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import CONFIG, data, rows, with_optim
from tiny import TINY, tiny_model

from openxclip.training.compiling import compile_tower, without_compiling
from openxclip.training.config import LearningRates, TrainConfig
from openxclip.training.objective import draw_kept
from openxclip.training.optim import freeze
from openxclip.training.train import train

__all__ = ["data"]  # the fixture

pytestmark = pytest.mark.on_cpu

DROPPING = dataclasses.replace(TINY, vision=dataclasses.replace(TINY.vision, drop_path=0.2))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_nothing_breaks_the_graph(precision: str, checkpointing: bool) -> None:
    """Counted by torch itself, in training mode with stochastic depth, autocast and frozen parts."""
    model = tiny_model(DROPPING).train()
    model.visual.gradient_checkpointing = checkpointing
    freeze(model, LearningRates())
    pixels = torch.randn(2, TINY.num_frames, 3, TINY.vision.image_size_px, TINY.vision.image_size_px)
    kept = draw_kept(model, 2, np.random.default_rng(0))
    torch._dynamo.reset()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        explanation = torch._dynamo.explain(model.visual)(pixels, kept)
    assert explanation.graph_break_count == 0
    assert explanation.graph_count == 1


def losses(config: TrainConfig, data: Path, output: Path) -> np.ndarray:
    train(config, data, output)
    return np.array([row["loss"] for row in rows(output) if "loss" in row])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-5), ("bfloat16", 1e-3)])
def test_twenty_compiled_steps_have_the_losses_of_eager_ones(precision, within, data, tmp_path) -> None:
    """With stochastic depth, accumulation, checkpointing, a frozen text tower and validation between epochs.

    At the published learning rate: at larger ones the weights drift apart as well, and with them what is compared.
    """
    config = dataclasses.replace(
        with_optim(CONFIG, epochs=10, learning_rate=8e-6, accumulation_steps=2, factors=LearningRates()),
        precision=precision,
        gradient_checkpointing=True,
        data=dataclasses.replace(CONFIG.data, val_list="val.txt"),
    )
    eager = losses(dataclasses.replace(config, compile="off"), data, tmp_path / "eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = losses(dataclasses.replace(config, compile="on"), data, tmp_path / "compiled")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, "it really was compiled, and once"
    assert len(eager) == 20
    assert np.abs(eager - compiled).max() <= within


def test_it_is_on_where_it_pays() -> None:
    towers = [copy.deepcopy(tiny_model(TINY).visual) for _ in range(3)]
    assert not compile_tower(towers[0], "auto", "none")
    assert not compile_tower(towers[1], "off", "none")
    assert compile_tower(towers[2], "on", "none")
    pixels = torch.randn(1, TINY.num_frames, 3, TINY.vision.image_size_px, TINY.vision.image_size_px)
    torch._dynamo.utils.counters.clear()
    with without_compiling():
        towers[2](pixels)
    assert not torch._dynamo.utils.counters["stats"], "validation runs it as it is written"
