"""Parameter groups and the schedule."""

import dataclasses
import math
from itertools import pairwise

import pytest
from tiny import TINY, tiny_model

from openxclip.errors import ConfigError
from openxclip.models import XCLIP
from openxclip.models.parts import group_of
from openxclip.training.config import LearningRates, OptimConfig
from openxclip.training.optim import build_optimizer, decays, freeze, learning_rate

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
    assert parts["text.token_embedding.weight"] == "token_embedding"
    assert parts["text.proj.weight"] == "text"
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
    for name, parameter in model.named_parameters():
        decay = 0.3 if decays(name, parameter) else 0.0
        assert rate[id(parameter)] == (pytest.approx(0.1 * ALL.of(group_of(name))), decay), name


def test_a_factor_of_zero_freezes():
    model = tiny_model()
    freeze(model, LearningRates())
    frozen = {group_of(name) for name, p in model.named_parameters() if not p.requires_grad}
    trained = {group_of(name) for name, p in model.named_parameters() if p.requires_grad}
    assert (frozen, trained) == ({"text", "token_embedding", "logit_scale"}, {"new", "visual"})
    freeze(model, LearningRates(text=1.0, token_embedding=0.0))
    trained = {group_of(name) for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"new", "visual", "text"}
    nothing = LearningRates(new=0, visual=0)
    freeze(model, nothing)
    with pytest.raises(ConfigError, match="every part is frozen"):
        build_optimizer(model, OptimConfig(epochs=5, learning_rate=0.1, factors=nothing))


def rates(config: OptimConfig, num_steps: int, num_warmup_steps: int, peak: float = 1.0) -> list[float]:
    """The rate of every step of a run, and the one after it."""
    return [learning_rate(config, peak, step, num_steps, num_warmup_steps) for step in range(num_steps + 1)]


def test_schedule_warms_up_and_follows_the_cosine():
    values = rates(OptimConfig(epochs=5, learning_rate=1.0), 100, 20)
    assert values[0] == 0.01
    assert values[20] == pytest.approx(1.0)
    assert values[10] == pytest.approx((0.01 + 1) / 2)
    assert values[60] == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert values[100] == pytest.approx(0.01)
    assert all(a < b for a, b in pairwise(values[:21]))
    assert all(a > b for a, b in pairwise(values[20:]))


def test_schedule_without_warm_up_starts_at_the_peak():
    config = OptimConfig(epochs=5, learning_rate=1.0, warmup_epochs=0.0, final_factor=0.0)
    assert learning_rate(config, 1.0, 0, 10, 0) == 1.0
    assert learning_rate(dataclasses.replace(config, schedule="as_released"), 1.0, 0, 10, 0) == 1.0


def test_every_schedule_is_a_share_of_the_peak():
    config = OptimConfig(epochs=5, learning_rate=1.0)
    assert rates(config, 50, 10, peak=10.0) == pytest.approx([10 * rate for rate in rates(config, 50, 10)])


AS_RELEASED = OptimConfig(epochs=10, learning_rate=1.0, schedule="as_released")


def test_the_released_schedule_drops_where_warm_up_ends():
    """Figures of the released code, 10 epochs of which 5 warm up: 0.505, 0.352, 0.105; then what ours was there."""
    values = rates(AS_RELEASED, 10_000, 5_000)
    assert values[:2] == [0.0, 0.0], "the first two updates change nothing"
    assert values[5000] == pytest.approx(1.0, abs=1e-3)
    shares = [values[1 + done] for done in (5000, 6000, 8000)]
    assert shares == pytest.approx([0.505, 0.352, 0.105], abs=6e-4)
    usual = rates(dataclasses.replace(AS_RELEASED, schedule="after_warmup"), 10_000, 5_000)
    assert [usual[done] for done in (5000, 6000, 8000)] == pytest.approx([1.0, 0.906, 0.352], abs=6e-4)


@pytest.mark.parametrize(
    ("epochs", "largest_gap", "ratio_of_sums"), [(10, None, 0.68), (30, 0.163, 0.84), (50, None, 0.90)]
)
def test_the_released_schedule_against_the_usual_one(
    epochs: int, largest_gap: float | None, ratio_of_sums: float
):
    """Of a run of 10, 30 or 50 epochs with 5 of warm-up: how far they are apart, and how much is learned in all."""
    steps = 200
    config = dataclasses.replace(AS_RELEASED, epochs=epochs)
    released = rates(config, epochs * steps, 5 * steps)
    usual = rates(dataclasses.replace(config, schedule="after_warmup"), epochs * steps, 5 * steps)
    assert sum(released) / sum(usual) == pytest.approx(ratio_of_sums, abs=6e-3)
    if largest_gap is not None:
        assert max(b - a for a, b in zip(released, usual, strict=True)) == pytest.approx(
            largest_gap, abs=6e-3
        )


def test_the_released_floor_is_the_same_rate_for_all_parts():
    """New parts, with a factor of 10, end at 0.1 % of their peak."""
    assert rates(AS_RELEASED, 1000, 100, peak=10.0)[-1] == pytest.approx(0.01, rel=0.01)
    assert rates(AS_RELEASED, 1000, 100, peak=1.0)[-1] == pytest.approx(0.01, rel=0.01)


def test_everything_can_be_decayed():
    model = tiny_model()
    optimizer = build_optimizer(
        model, OptimConfig(epochs=5, learning_rate=0.1, factors=ALL, weight_decay=0.3, decay_everything=True)
    )
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3}
