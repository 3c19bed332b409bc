"""One variant of a model becomes another: what is kept, what is new, what is dropped, what is refused."""

import dataclasses
import itertools
from functools import partial

import pytest
import torch
from tiny import TINY, tiny_model, tiny_pixels, tiny_tokens

from openxclip.errors import CheckpointError
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.models.config import IntegrationConfig, PromptingConfig
from openxclip.models.expand import clip_only, expand, shared_parts_differ
from openxclip.models.initialisation import enlarge_new_parts
from openxclip.models.integration import interpolate_positions
from openxclip.models.parts import group_of

IMAGE = dataclasses.replace(clip_only(TINY), num_frames=1)
CONTEXT = dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, num_context_vectors=3))
DISCRETE = dataclasses.replace(TINY, prompting=None, num_discrete_labels=5)


def switched(messages: bool, integration: bool, prompting: bool) -> XCLIPConfig:
    return dataclasses.replace(
        TINY,
        vision=dataclasses.replace(TINY.vision, message_tokens=messages),
        integration=TINY.integration if integration else None,
        prompting=TINY.prompting if prompting else None,
    )


VARIANTS = [
    *(switched(*switches) for switches in itertools.product((True, False), repeat=3)),
    CONTEXT,
    DISCRETE,
]


def num_new(parts: tuple[str, ...]) -> int:
    return sum(int(part.rpartition("(")[2].partition(" ")[0].replace(",", "")) for part in parts)


@pytest.mark.parametrize("config", VARIANTS)
def test_an_image_model_becomes_any_variant(config: XCLIPConfig) -> None:
    image = tiny_model(IMAGE)
    before, state = image.state_dict(), torch.random.get_rng_state()
    model, new_parts = expand(image, config, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.config == config
    assert not model.training
    after = model.state_dict()
    assert {name for name in after if name in before} == {n for n in after if group_of(n) != "new"}
    assert all(torch.equal(after[name], before[name]) for name in after if name in before)
    assert num_new(new_parts) == sum(after[name].numel() for name in after if name not in before)
    video = model.encode_video(tiny_pixels(config))
    text = model.encode_text(tiny_tokens()) if model.discrete is None else model.discrete.table
    assert model.logits(video, text).shape == (2, 5)


def test_new_parts_come_from_the_seed_alone() -> None:
    image = tiny_model(IMAGE)
    first, again, other = (expand(image, TINY, seed)[0].state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    differ = {group_of(name) for name in first if not torch.equal(first[name], other[name])}
    assert differ == {"new"}
    torch.manual_seed(3)
    fresh = XCLIP(TINY).state_dict()
    assert all(torch.equal(first[name], fresh[name]) for name in first if group_of(name) == "new")


@pytest.mark.parametrize("config", [TINY, DISCRETE, CONTEXT])
def test_a_gain_enlarges_what_is_new_and_nothing_else(config: XCLIPConfig) -> None:
    image = tiny_model(IMAGE)
    published = expand(image, config, 3)[0].state_dict()
    gained, twice = (
        expand(image, config, 3, partial(enlarge_new_parts, gain=gain))[0].state_dict() for gain in (1.0, 2.0)
    )
    kept = image.state_dict()
    for name, tensor in gained.items():
        if name in kept:
            assert torch.equal(tensor, kept[name])
        elif tensor.ndim > 1 and name != "text.context.vectors":
            torch.testing.assert_close(2 * tensor, twice[name])
            assert tensor.std() > 2 * published[name].std(), name
        else:
            assert torch.equal(tensor, published[name])


def test_parts_that_are_there_already_keep_their_size() -> None:
    whole = tiny_model()
    state = whole.state_dict()
    model, _ = expand(whole, TINY, seed=0, redraw=partial(enlarge_new_parts, gain=1.0))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_frame_mean_of_equal_images_is_the_image() -> None:
    image = tiny_model(IMAGE)
    model, new_parts = expand(image, dataclasses.replace(IMAGE, num_frames=4), seed=0)
    pixels, tokens = tiny_pixels(IMAGE), tiny_tokens()
    assert new_parts == ()
    torch.testing.assert_close(model(pixels.expand(-1, 4, -1, -1, -1), tokens), image(pixels, tokens))


def test_switched_off_parts_are_dropped() -> None:
    whole = tiny_model()
    model, new_parts = expand(whole, switched(True, False, False), seed=0)
    state = whole.state_dict()
    assert new_parts == ()
    assert not any(name.startswith(("integration", "prompting")) for name in model.state_dict())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_time_positions_are_interpolated() -> None:
    whole = tiny_model()
    model, new_parts = expand(whole, dataclasses.replace(TINY, num_frames=6), seed=0)
    assert new_parts == ()
    assert model.integration is not None
    assert whole.integration is not None
    expected = interpolate_positions(whole.integration.position_embedding, 6)
    assert torch.equal(model.integration.position_embedding, expected)
    assert whole.config.num_frames == 4


def test_a_table_of_other_classes_starts_anew() -> None:
    discrete = tiny_model(DISCRETE)
    model, new_parts = expand(discrete, dataclasses.replace(DISCRETE, num_discrete_labels=7), seed=0)
    assert new_parts == ("discrete labels (896 parameters)",)
    assert model.discrete is not None
    assert model.discrete.table.shape == (7, 128)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dataclasses.replace(TINY, embed_dim=64), "embed_dim is 128, not 64"),
        (
            dataclasses.replace(TINY, vision=dataclasses.replace(TINY.vision, num_heads=2)),
            "vision.num_heads is 3, not 2",
        ),
        (
            dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, vocab_size=601)),
            "text.vocab_size is 600, not 601",
        ),
        (
            dataclasses.replace(TINY, integration=IntegrationConfig(num_heads=4)),
            "integration has 2 heads, not 4",
        ),
        (dataclasses.replace(TINY, prompting=PromptingConfig(num_heads=4)), "prompting has 2 heads, not 4"),
    ],
)
def test_other_towers_are_refused(config: XCLIPConfig, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        expand(tiny_model(), config, seed=0)


def test_a_model_without_texts_gets_none_back() -> None:
    with pytest.raises(CheckpointError, match="no text tower"):
        expand(tiny_model(DISCRETE), TINY, seed=0)


def test_the_added_parts_do_not_make_towers_differ() -> None:
    for config in VARIANTS:
        assert shared_parts_differ(IMAGE, config) == ""
