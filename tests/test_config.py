"""The configuration: JSON and back, refusals, and the paper's seven models."""

import dataclasses
import itertools
import json
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from openxclip.errors import ConfigError, OpenXCLIPError
from openxclip.models import PRESETS, XCLIP, XCLIPConfig, preset
from openxclip.models.config import IntegrationConfig, PromptingConfig, TextConfig, VisionConfig

TABLE_1 = {  # patch, width, layers, E, text width, frames, input, and G multiply-adds of one view
    "B/32-8": (32, 768, 12, 512, 512, 8, 224, 39),
    "B/32-16": (32, 768, 12, 512, 512, 16, 224, 75),
    "B/16-8": (16, 768, 12, 512, 512, 8, 224, 145),
    "B/16-16": (16, 768, 12, 512, 512, 16, 224, 287),
    "B/16-32": (16, 768, 12, 512, 512, 32, 224, 571),
    "L/14-8": (14, 1024, 24, 768, 768, 8, 224, 658),
    "L/14@336-16": (14, 1024, 24, 768, 768, 16, 336, 3086),
}

VARIANTS = [
    XCLIPConfig(
        embed_dim=24,
        num_frames=5,
        vision=VisionConfig(image_size_px=8, patch_size_px=4, message_tokens=messages, drop_path=0.25),
        text=TextConfig(vocab_size=50, context_length=9, width=8, num_layers=3, num_heads=2),
        integration=IntegrationConfig(num_layers=2, num_heads=3) if integration else None,
        prompting=PromptingConfig(num_layers=1, num_heads=4) if prompting else None,
    )
    for messages, integration, prompting in itertools.product((True, False), repeat=3)
]
VARIANTS += [
    dataclasses.replace(VARIANTS[-1], num_discrete_labels=3),
    dataclasses.replace(VARIANTS[0], text=dataclasses.replace(VARIANTS[0].text, num_context_vectors=2)),
]


@pytest.mark.parametrize("config", [*PRESETS.values(), *VARIANTS])
def test_json_and_back_is_the_identity(config: XCLIPConfig) -> None:
    assert XCLIPConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_to_dict_writes_every_field() -> None:
    values = XCLIPConfig().to_dict()
    assert set(values) == {field.name for field in dataclasses.fields(XCLIPConfig)}
    for name in ("vision", "text", "integration", "prompting"):
        assert set(values[name]) == {field.name for field in dataclasses.fields(getattr(XCLIPConfig(), name))}


def test_what_is_left_out_takes_its_default() -> None:
    assert XCLIPConfig.from_dict({}) == XCLIPConfig()
    config = XCLIPConfig.from_dict({"num_frames": 16, "vision": {"patch_size_px": 16}})
    assert config == preset("B/16-16")


def test_from_dict_leaves_its_argument_alone() -> None:
    values = XCLIPConfig().to_dict()
    before = json.dumps(values)
    XCLIPConfig.from_dict(values)
    assert json.dumps(values) == before


@pytest.mark.parametrize("section", [None, "vision", "text", "integration", "prompting"])
def test_an_unknown_key_is_named_with_the_known_ones(section: str | None) -> None:
    values = XCLIPConfig().to_dict()
    target = values if section is None else values[section]
    target["colour"] = 1
    path = "colour" if section is None else rf"{section}\.colour"
    known = "num_frames" if section is None else "num_heads"
    with pytest.raises(ConfigError, match=rf"{path}; known are .*{known}"):
        XCLIPConfig.from_dict(values)


@pytest.mark.parametrize(
    "values",
    [
        {"num_frames": 0},
        {"num_frames": -1},
        {"embed_dim": 200},
        {"embed_dim": 0},
        {"vision": {"num_heads": 7}},
        {"vision": {"num_heads": 0}},
        {"vision": {"width": 0}},
        {"vision": {"num_layers": -1}},
        {"vision": {"patch_size_px": 225}},
        {"vision": {"patch_size_px": 0}},
        {"vision": {"image_size_px": 0}},
        {"vision": {"drop_path": 1.0}},
        {"vision": {"drop_path": -0.1}},
        {"vision": {"activation": "relu"}},
        {"vision": {"norm_eps": 0.0}},
        {"vision": {"class_token": False}},
        {"vision": {"pooling": "attention", "pooling_heads": 7}},
        {"vision": {"rotary": True, "num_heads": 384}},
        {"vision": {"projection": False}},
        {"text": {"mlp_width": 0}},
        {"text": {"causal": False, "num_context_vectors": 4}},
        {"text": {"width": 100}},
        {"text": {"vocab_size": 0}},
        {"text": {"context_length": 0}},
        {"text": {"num_layers": -1}},
        {"integration": {"num_heads": 5}},
        {"integration": {"num_layers": -1}},
        {"prompting": {"num_heads": 0}},
        {"prompting": {"num_layers": -1}},
        {"vision": {"num_layers": 1001}},
        {"text": {"vocab_size": 2**20 + 1}},
        {"num_frames": 10**30},
    ],
    ids=str,
)
def test_a_bad_value_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        XCLIPConfig.from_dict(values)


def test_sizes_beyond_any_model_are_refused_with_what_is_allowed() -> None:
    """Such a file would keep whoever loads it busy for ever."""
    assert PromptingConfig(num_layers=1000).num_layers == 1000
    with pytest.raises(ConfigError, match="prompting: num_layers must be 1 to 1000, got 10000000"):
        PromptingConfig(num_layers=10_000_000)
    assert TextConfig(vocab_size=2**20).vocab_size == 2**20
    with pytest.raises(ConfigError, match="text: context_length must be 1 to 1048576, got 1048577"):
        TextConfig(context_length=2**20 + 1)
    with pytest.raises(ConfigError, match="vision: image_size_px must be 1 to 16384, got 16385"):
        VisionConfig(image_size_px=2**14 + 1)


@pytest.mark.parametrize("patch_size_px", [1, 2**14])
def test_no_size_that_is_allowed_overflows(patch_size_px: int) -> None:
    vision = VisionConfig(
        image_size_px=2**14, patch_size_px=patch_size_px, width=2**20, num_layers=1, num_heads=1
    )
    text = TextConfig(vocab_size=2**20, context_length=2**20, width=2**20, num_layers=1)
    config = XCLIPConfig(embed_dim=2**20, num_frames=2**20, vision=vision, text=text)
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in XCLIP(config).parameters()) > 2**40


@pytest.mark.parametrize("value", [None, "64", 64.0, True, float("nan"), [64], {"a": 1}], ids=str)
@pytest.mark.parametrize("name", ["width", "num_layers", "num_heads"])
def test_a_value_of_another_type_is_refused(name: str, value: Any) -> None:
    """Readers of other formats hand on what a file says."""
    for kind, where in ((VisionConfig, "vision"), (TextConfig, "text")):
        with pytest.raises(ConfigError, match=rf"{where}\.{name} must be int, got"):
            kind(**{name: value})


def test_two_descriptions_of_one_model_are_equal() -> None:
    """Some files say how wide an MLP is, others leave it out."""
    assert TextConfig(mlp_width=2048) == TextConfig()
    assert TextConfig(mlp_width=2047).mlp_width == 2047
    plain = VisionConfig(pooling="attention")
    assert (
        VisionConfig(pooling="attention", mlp_width=3072, pooling_heads=12, pooling_mlp_width=3072) == plain
    )
    narrow = VisionConfig(pooling="attention", mlp_width=100, pooling_mlp_width=100)
    assert (narrow.mlp_width, narrow.pooling_mlp_width) == (100, None)
    assert VisionConfig(pooling="attention", mlp_width=100, pooling_mlp_width=3072).pooling_mlp_width == 3072


@pytest.mark.parametrize(
    "values",
    [{"vision": None}, {"text": None}, {"vision": 5}, {"num_frames": "8"}, {"vision": {"width": 64.5}}],
    ids=str,
)
def test_a_value_of_the_wrong_type_is_refused(values: dict[str, Any]) -> None:
    """Such values come from a config.json that a person has edited."""
    with pytest.raises(ConfigError):
        XCLIPConfig.from_dict(values)


def test_a_config_is_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        XCLIPConfig().num_frames = 4  # type: ignore[misc]
    with pytest.raises(TypeError):
        XCLIPConfig(512)  # type: ignore[misc]


def test_config_error_is_a_value_error_and_ours() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, OpenXCLIPError)


def test_there_are_the_seven_models_of_the_paper() -> None:
    assert sorted(PRESETS) == sorted(TABLE_1)


@pytest.mark.parametrize("name", TABLE_1)
def test_preset_matches_table_1(name: str) -> None:
    patch, width, layers, embed_dim, text_width, frames, size, _ = TABLE_1[name]
    config = preset(name)
    vision, text = config.vision, config.text
    assert (vision.patch_size_px, vision.width, vision.num_layers) == (patch, width, layers)
    assert (config.embed_dim, text.width) == (embed_dim, text_width)
    assert (config.num_frames, vision.image_size_px) == (frames, size)
    assert vision.num_patches == (size // patch) ** 2
    assert vision.message_tokens
    assert (text.vocab_size, text.context_length, text.num_layers) == (49408, 77, 12)
    assert config.integration is not None
    assert config.integration.num_layers == 1
    assert config.prompting is not None
    assert config.prompting.num_layers == 2


@pytest.mark.parametrize("name", TABLE_1)
def test_every_head_is_64_wide(name: str) -> None:
    config = preset(name)
    assert config.vision.num_heads * 64 == config.vision.width
    assert config.text.num_heads * 64 == config.text.width
    assert config.integration is not None
    assert config.prompting is not None
    assert config.integration.num_heads * 64 == config.prompting.num_heads * 64 == config.embed_dim


def test_an_unknown_preset_is_refused_with_the_choice() -> None:
    with pytest.raises(ConfigError, match=r"'B/64-8'.*B/16-8"):
        preset("B/64-8")


@pytest.mark.parametrize("name", TABLE_1)
def test_flops_of_one_view_with_400_texts_are_the_papers(name: str) -> None:
    """The meta device computes shapes only, so that even the largest model is counted in a second."""
    config = preset(name)
    size = config.vision.image_size_px
    with torch.device("meta"):
        model = XCLIP(config)
        pixels = torch.empty(1, config.num_frames, 3, size, size)
        text = torch.empty(400, config.embed_dim)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = model.logits(model.encode_video(pixels), text)
    assert logits.shape == (1, 400)
    giga_multiply_adds = counter.get_total_flops() / 2 / 1e9
    assert giga_multiply_adds == pytest.approx(TABLE_1[name][-1], rel=0.03)
