"""Parameter groups and the schedule."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from tiny import TINY, tiny_model

from openxclip.errors import ConfigError
from openxclip.models import XCLIP
from openxclip.models.parts import group_of
from openxclip.training.config import LearningRates, OptimConfig
from openxclip.training.optim import build_optimizer, decays, freeze, schedule, set_learning_rate

ALL = LearningRates(new=10.0, visual=1.0, text=0.5, logit_scale=0.1)


def test_every_parameter_belongs_to_exactly_one_part():
    parts = {name: group_of(name) for name, _ in XCLIP(TINY).named_parameters()}
    assert parts["visual.blocks.1.message_proj.weight"] == "new"
    assert parts["visual.blocks.0.cross_norm.bias"] == "new"
    assert parts["visual.blocks.0.cross_attn.qkv.weight"] == "new"
    assert parts["visual.blocks.0.intra_attn.qkv.weight"] == "visual"
    assert parts["visual.patch_embedding.weight"] == "visual"
    assert parts["integration.position_embedding"] == "new"
    assert parts["prompting.patch_proj.weight"] == "new"
    assert parts["prompting.layers.0.cross_attn.query.weight"] == "new"
    assert parts["text.token_embedding.weight"] == "text"
    assert parts["logit_scale"] == "logit_scale"
    assert group_of("text.context.vectors") == group_of("discrete.table") == "new"


def test_an_unknown_parameter_is_refused():
    with pytest.raises(ConfigError, match="exactly one"):
        group_of("something.else")


def test_decay_spares_biases_norms_vectors_and_positions():
    spared = {name for name, parameter in XCLIP(TINY).named_parameters() if not decays(name, parameter)}
    assert {"visual.class_embedding", "visual.position_embedding", "text.position_embedding"} <= spared
    assert {"integration.position_embedding", "prompting.alpha", "logit_scale"} <= spared
    assert {"visual.pre_norm.weight", "visual.blocks.0.mlp.fc1.bias"} <= spared
    assert not any(name.endswith(("qkv.weight", "fc1.weight", "patch_embedding.weight")) for name in spared)


def test_groups_hold_each_trained_parameter_once_with_its_rate():
    model = tiny_model()
    freeze(model, ALL)
    optimizer = build_optimizer(
        model, OptimConfig(epochs=5, learning_rate=0.1, factors=ALL, weight_decay=0.3)
    )
    rate = {id(p): (g["peak_lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert len(rate) == sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))
    factors = dataclasses.asdict(ALL)
    for name, parameter in model.named_parameters():
        decay = 0.3 if decays(name, parameter) else 0.0
        assert rate[id(parameter)] == (pytest.approx(0.1 * factors[group_of(name)]), decay), name


def test_a_factor_of_zero_freezes():
    model = tiny_model()
    freeze(model, LearningRates())
    frozen = {group_of(name) for name, p in model.named_parameters() if not p.requires_grad}
    trained = {group_of(name) for name, p in model.named_parameters() if p.requires_grad}
    assert (frozen, trained) == ({"text", "logit_scale"}, {"new", "visual"})
    nothing = LearningRates(new=0, visual=0)
    freeze(model, nothing)
    with pytest.raises(ConfigError, match="every part is frozen"):
        build_optimizer(model, OptimConfig(epochs=5, learning_rate=0.1, factors=nothing))


def test_schedule_warms_up_and_follows_the_cosine():
    values = [schedule(step, 100, 20, 0.01) for step in range(101)]
    assert values[0] == 0.01
    assert values[20] == pytest.approx(1.0)
    assert values[10] == pytest.approx((0.01 + 1) / 2)
    assert values[60] == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert values[100] == pytest.approx(0.01)
    assert all(a < b for a, b in pairwise(values[:21]))
    assert all(a > b for a, b in pairwise(values[20:]))


def test_schedule_without_warm_up_starts_at_the_peak():
    assert schedule(0, 10, 0, 0.0) == 1.0


def test_learning_rate_scales_each_groups_peak():
    first, second = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW(
        [{"params": [first], "peak_lr": 1.0}, {"params": [second], "peak_lr": 10.0}]
    )
    set_learning_rate(optimizer, 0.25)
    assert [g["lr"] for g in optimizer.param_groups] == [0.25, 2.5]
