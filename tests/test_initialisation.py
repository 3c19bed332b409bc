"""Where parameters start from: each matched by exactly one row of the table, none left as it was."""

import itertools
import math
import re

import pytest
import torch

from openxclip.models import XCLIP, XCLIPConfig
from openxclip.models.config import IntegrationConfig, PromptingConfig, TextConfig, VisionConfig
from openxclip.models.initialisation import (
    RELEASED,
    TABLE,
    draw_as_released,
    enlarge_new_parts,
    initialise,
    rules_for,
)
from openxclip.models.parts import is_added

SWITCHES = list(itertools.product((True, False), repeat=3))
FULL = (True, True, True)


def build(message_tokens: bool, integration: bool, prompting: bool) -> XCLIP:
    """A model wide enough to measure standard deviations, with widths and depths that all differ."""
    return XCLIP(
        XCLIPConfig(
            embed_dim=96,
            num_frames=4,
            vision=VisionConfig(
                image_size_px=32,
                patch_size_px=8,
                width=128,
                num_layers=3,
                num_heads=2,
                message_tokens=message_tokens,
            ),
            text=TextConfig(vocab_size=200, context_length=32, width=64, num_layers=2, num_heads=2),
            integration=IntegrationConfig(num_heads=2) if integration else None,
            prompting=PromptingConfig(num_heads=2) if prompting else None,
        )
    )


@pytest.fixture(scope="module")
def fresh() -> XCLIP:
    torch.manual_seed(0)
    return build(*FULL)


def other_towers() -> XCLIP:
    """Everything that a language-image model other than CLIP may have."""
    vision = VisionConfig(
        image_size_px=32,
        patch_size_px=8,
        width=64,
        num_layers=1,
        num_heads=2,
        pooling="attention",
        patch_bias=True,
        projection_bias=True,
    )
    text = TextConfig(vocab_size=200, width=64, num_layers=1, num_heads=1, causal=False, projection_bias=True)
    return XCLIP(XCLIPConfig(embed_dim=96, vision=vision, text=text, logit_bias=True))


@pytest.mark.parametrize("switches", [*SWITCHES, None])
def test_each_parameter_has_exactly_one_row(switches: tuple[bool, bool, bool] | None) -> None:
    with torch.device("meta"):
        model = other_towers() if switches is None else build(*switches)
    counts = {name: len(rules_for(name)) for name, _ in model.named_parameters()}
    assert {name: count for name, count in counts.items() if count != 1} == {}


def test_no_row_is_unused(fresh: XCLIP) -> None:
    names = [name for model in (fresh, other_towers()) for name, _ in model.named_parameters()]
    names += ["text.context.vectors", "discrete.table"]
    assert [row for row, _ in TABLE if not any(re.fullmatch(row, name) for name in names)] == []


def test_a_parameter_that_no_row_knows_stops_the_initialisation() -> None:
    with torch.device("meta"):
        model = build(*FULL)
    model.visual.blocks[0].gate = torch.nn.Parameter(torch.empty(3, device="meta"))
    with pytest.raises(ValueError, match="not enough values"):
        initialise(model)


def test_there_are_no_buffers_to_forget(fresh: XCLIP) -> None:
    assert list(fresh.buffers()) == []


@pytest.mark.parametrize("switches", SWITCHES)
def test_nothing_is_left_as_it_was(switches: tuple[bool, bool, bool]) -> None:
    model = build(*switches)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    initialise(model)
    assert [name for name, p in model.named_parameters() if not p.isfinite().all()] == []


def test_a_new_model_is_initialised(fresh: XCLIP) -> None:
    torch.manual_seed(0)
    again = build(*FULL)
    assert all(p.isfinite().all() for p in again.parameters())
    assert all(map(torch.equal, fresh.parameters(), again.parameters())), "same seed, other weights"
    other = build(*FULL)
    random = [name for name, p in fresh.named_parameters() if p.min() < p.max()]
    same = [name for name in random if torch.equal(fresh.get_parameter(name), other.get_parameter(name))]
    assert same == [], "other seed, same weights"


def test_initialisation_does_not_ask_for_gradients(fresh: XCLIP) -> None:
    assert all(p.requires_grad and p.is_leaf and p.grad is None for p in fresh.parameters())


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("visual.patch_embedding.weight", (3 * 8 * 8) ** -0.5),
        ("visual.position_embedding", 128**-0.5),
        ("visual.blocks.2.intra_attn.qkv.weight", 128**-0.5),
        ("visual.blocks.2.intra_attn.proj.weight", 128**-0.5 / math.sqrt(2 * 3)),
        ("visual.blocks.0.mlp.fc1.weight", (2 * 128) ** -0.5),
        ("visual.blocks.0.mlp.fc2.weight", 128**-0.5 / math.sqrt(2 * 3)),
        ("visual.proj.weight", 128**-0.5),
        ("text.token_embedding.weight", 0.02),
        ("text.position_embedding", 0.01),
        ("text.blocks.1.attn.qkv.weight", 64**-0.5),
        ("text.blocks.1.attn.proj.weight", 64**-0.5 / math.sqrt(2 * 2)),
        ("text.blocks.1.mlp.fc1.weight", (2 * 64) ** -0.5),
        ("text.blocks.1.mlp.fc2.weight", 64**-0.5 / math.sqrt(2 * 2)),
        ("text.proj.weight", 64**-0.5),
        ("visual.blocks.1.message_proj.weight", 0.02),
        ("visual.blocks.1.cross_attn.qkv.weight", 0.02),
        ("visual.blocks.1.cross_attn.proj.weight", 0.02),
        ("integration.position_embedding", 0.02),
        ("integration.blocks.0.attn.qkv.weight", 0.02),
        ("integration.blocks.0.mlp.fc2.weight", 0.02),
        ("prompting.patch_proj.weight", 0.02),
        ("prompting.layers.1.cross_attn.key.weight", 0.02),
        ("prompting.layers.1.mlp.fc1.weight", 0.02),
    ],
)
def test_standard_deviation(fresh: XCLIP, name: str, std: float) -> None:
    """The measured deviation of n normal numbers is off by 1 / sqrt(2n); four of those are allowed."""
    parameter = fresh.get_parameter(name).detach()
    tolerance = 4 / math.sqrt(2 * parameter.numel())
    assert float(parameter.std()) == pytest.approx(std, rel=tolerance)
    assert abs(float(parameter.mean())) < 4 * std / math.sqrt(parameter.numel())


def test_constants(fresh: XCLIP) -> None:
    assert fresh.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    assert fresh.prompting is not None
    assert torch.equal(fresh.prompting.alpha, torch.full((96,), 0.1))
    for name, parameter in fresh.named_parameters():
        if name.endswith(".bias"):
            assert torch.equal(parameter, torch.zeros_like(parameter)), name
        elif name.endswith("norm.weight"):
            assert torch.equal(parameter, torch.ones_like(parameter)), name


@pytest.fixture(scope="module")
def enlarged() -> XCLIP:
    torch.manual_seed(0)
    model = build(*FULL)
    enlarge_new_parts(model, 0.5)
    return model


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("visual.blocks.1.message_proj.weight", 0.5 * 128**-0.5),
        ("visual.blocks.1.cross_attn.qkv.weight", 0.5 * 128**-0.5),
        ("visual.blocks.1.cross_attn.proj.weight", 0.5 * 128**-0.5),
        ("integration.position_embedding", 0.25),
        ("integration.blocks.0.attn.qkv.weight", 0.5 * 96**-0.5),
        ("integration.blocks.0.mlp.fc1.weight", 0.5 * 96**-0.5),
        ("integration.blocks.0.mlp.fc2.weight", 0.5 * (4 * 96) ** -0.5),
        ("prompting.patch_proj.weight", 0.5 * 128**-0.5),
        ("prompting.layers.1.cross_attn.key.weight", 0.5 * 96**-0.5),
        ("prompting.layers.1.mlp.fc2.weight", 0.5 * (4 * 96) ** -0.5),
    ],
)
def test_standard_deviation_of_enlarged_parts(enlarged: XCLIP, name: str, std: float) -> None:
    """As above: by the share of 1 / sqrt(fan-in), here a half."""
    parameter = enlarged.get_parameter(name).detach()
    assert float(parameter.std()) == pytest.approx(std, rel=4 / math.sqrt(2 * parameter.numel()))


@pytest.fixture(scope="module")
def released() -> XCLIP:
    """B/32's widths in one block: the figures below are those of the released code's full-size model."""
    torch.manual_seed(0)
    model = XCLIP(
        XCLIPConfig(
            embed_dim=512,
            vision=VisionConfig(width=768, num_layers=1, num_heads=12),
            text=TextConfig(vocab_size=64, context_length=8, width=64, num_layers=1, num_heads=1),
        )
    )
    draw_as_released(model)
    return model


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("prompting.patch_proj.weight", 1.00),
        ("visual.blocks.0.cross_attn.qkv.weight", 0.0255),
        ("visual.blocks.0.cross_attn.proj.weight", 0.0208),
        ("visual.blocks.0.message_proj.weight", 0.0208),
        ("visual.blocks.0.message_proj.bias", 0.021),
        ("integration.blocks.0.attn.qkv.weight", 0.0313),
        ("integration.blocks.0.attn.proj.weight", 0.02),
        ("integration.blocks.0.mlp.fc1.weight", 0.02),
        ("integration.position_embedding", 0.02),
        ("prompting.layers.1.cross_attn.key.weight", 0.02),
        ("prompting.layers.0.mlp.fc2.weight", 0.02),
    ],
)
def test_standard_deviation_as_released(released: XCLIP, name: str, std: float) -> None:
    parameter = released.get_parameter(name).detach()
    assert float(parameter.std()) == pytest.approx(std, rel=0.01 + 4 / math.sqrt(2 * parameter.numel()))


def test_what_the_released_code_leaves_at_zero(released: XCLIP) -> None:
    for name in ("cross_attn.qkv.bias", "cross_attn.proj.bias", "intra_attn.qkv.bias"):
        assert not released.get_parameter(f"visual.blocks.0.{name}").any(), name


def test_every_released_row_is_used(released: XCLIP) -> None:
    names = [name for name, _ in released.named_parameters()]
    assert [row for row, _ in RELEASED if not any(re.fullmatch(row, name) for name in names)] == []


def test_only_matrices_and_positions_of_new_parts_are_enlarged(fresh: XCLIP, enlarged: XCLIP) -> None:
    changed = {
        name for name, p in fresh.named_parameters() if not torch.equal(p, enlarged.get_parameter(name))
    }
    new = {name: p for name, p in fresh.named_parameters() if is_added(name)}
    assert changed == {name for name, p in new.items() if p.ndim > 1}
    assert {name.rpartition(".")[2] for name in new.keys() - changed} == {"weight", "bias", "alpha"}


def test_context_vectors_are_words_and_stay_small() -> None:
    torch.manual_seed(0)
    text = TextConfig(
        vocab_size=200, context_length=32, width=64, num_layers=1, num_heads=1, num_context_vectors=16
    )
    model = XCLIP(
        XCLIPConfig(
            embed_dim=64, vision=VisionConfig(width=64, num_layers=1, num_heads=1), text=text, prompting=None
        )
    )
    assert model.text is not None
    assert model.text.context is not None
    before = model.text.context.vectors.clone()
    enlarge_new_parts(model, 1.0)
    assert torch.equal(model.text.context.vectors, before)
