"""What the whole model promises: who sees whom, purity, exactness, gradients, refusals.

Shapes: B videos, T frames, N patches, E joint embedding, K texts, C tokens of a text.
"""

import copy
import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from openxclip.errors import ConfigError, FrameCountError, InputError
from openxclip.models import XCLIP, VideoFeatures, XCLIPConfig
from openxclip.models.config import IntegrationConfig, PromptingConfig, TextConfig, VisionConfig
from openxclip.models.integration import interpolate_positions

CONFIG = XCLIPConfig(
    embed_dim=12,
    num_frames=4,
    vision=VisionConfig(image_size_px=8, patch_size_px=4, width=16, num_layers=2, num_heads=4),
    text=TextConfig(vocab_size=50, context_length=9, width=8, num_layers=2, num_heads=2),
    integration=IntegrationConfig(num_heads=3),
    prompting=PromptingConfig(num_heads=3),
)
SWITCHES = list(itertools.product((True, False), repeat=3))
EXACT = {"rtol": 0.0, "atol": 1e-10}  # the same sums in another order, in float64


def switched(message_tokens: bool, integration: bool, prompting: bool) -> XCLIPConfig:
    """CONFIG with parts turned off."""
    return dataclasses.replace(
        CONFIG,
        vision=dataclasses.replace(CONFIG.vision, message_tokens=message_tokens),
        integration=CONFIG.integration if integration else None,
        prompting=CONFIG.prompting if prompting else None,
    )


def build(config: XCLIPConfig = CONFIG, seed: int = 0) -> XCLIP:
    """A model in float64 and eval mode, with weights large enough that every part matters."""
    torch.manual_seed(seed)
    model = XCLIP(config)
    for name, parameter in model.named_parameters():
        if name != "logit_scale":
            nn.init.normal_(parameter, mean=float(name.endswith("norm.weight")), std=0.3)
    return model.double().eval()


def with_drop_path(rate: float) -> XCLIPConfig:
    """CONFIG with stochastic depth."""
    return dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, drop_path=rate))


def some_pixels(num_videos: int = 2, num_frames: int = 4, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_videos, num_frames, 3, 8, 8, generator=generator, dtype=torch.float64)


def some_tokens(*lengths: int, seed: int = 2) -> Tensor:
    """Texts of these lengths, start and end included, padded with zeros."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(len(lengths), CONFIG.text.context_length, dtype=torch.long)
    for row, length in zip(tokens, lengths, strict=True):
        row[: length - 1] = torch.randint(1, CONFIG.text.vocab_size - 1, (length - 1,), generator=generator)
        row[length - 1] = CONFIG.text.vocab_size - 1
    return tokens


def gradients(model: XCLIP, pixels: Tensor, tokens: Tensor) -> dict[str, Tensor | None]:
    """Gradient of each parameter from one classification loss."""
    model.zero_grad(set_to_none=True)
    logits = model(pixels, tokens)
    F.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1]).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


# --- shapes and purity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("switches", SWITCHES)
def test_the_three_calls_and_forward(switches: tuple[bool, bool, bool]) -> None:
    model = build(switched(*switches))
    video = model.encode_video(some_pixels())
    text = model.encode_text(some_tokens(3, 5, 9))
    assert video.video.shape == (2, 12)
    assert (None if video.patches is None else video.patches.shape) == ((2, 4, 12) if switches[2] else None)
    assert text.shape == (3, 12)
    logits = model.logits(video, text)
    assert logits.shape == (2, 3)
    assert logits.std() > 0.1, "weights too small for the other tests to mean anything"
    assert torch.equal(model(some_pixels(), some_tokens(3, 5, 9)), logits)


def test_features_are_not_normalised() -> None:
    model = build()
    video, text = model.encode_video(some_pixels()), model.encode_text(some_tokens(3, 5))
    for features in (video.video, text):
        assert (features.norm(dim=-1) - 1).abs().min() > 0.01


def test_logits_are_scaled_cosines() -> None:
    model = build()
    video, text = model.encode_video(some_pixels()), model.encode_text(some_tokens(3, 5))
    logits = model.logits(video, text)
    assert logits.abs().max() <= model.logit_scale.exp()
    louder = VideoFeatures(7 * video.video, video.patches)
    assert_close(model.logits(louder, text), logits, **EXACT)


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("training", [True, False])
def test_forward_changes_neither_mode_nor_state(switches: tuple[bool, bool, bool], training: bool) -> None:
    model = build(switched(*switches)).train(training)
    model.text.train(not training)  # a frozen tower in eval mode must stay there
    modes = {name: module.training for name, module in model.named_modules()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    pixels, tokens = some_pixels(), some_tokens(3, 5)
    model(pixels, tokens)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(pixels, some_pixels()), "the input was changed in place"
    assert torch.equal(tokens, some_tokens(3, 5)), "the input was changed in place"


def test_two_label_sets_in_a_row_do_not_leak() -> None:
    model, pixels = build(), some_pixels()
    first, second = some_tokens(3, 5, 9), some_tokens(4, 2, 7, seed=3)
    model(pixels, first)
    assert torch.equal(model(pixels, second), build()(pixels, second))
    assert torch.equal(model(pixels, first), build()(pixels, first))


def test_the_same_features_serve_every_order_of_calls() -> None:
    model = build()
    video = model.encode_video(some_pixels())
    sets = [model.encode_text(some_tokens(3, 5, seed=seed)) for seed in (2, 3)]
    expected = [model.logits(video, text) for text in sets]
    assert torch.equal(model.logits(video, sets[0]), expected[0])
    assert not torch.allclose(expected[0], expected[1])


@pytest.mark.parametrize("switches", SWITCHES)
def test_a_batch_equals_its_members_one_by_one(switches: tuple[bool, bool, bool]) -> None:
    model = build(switched(*switches))
    pixels, tokens = some_pixels(3), some_tokens(3, 9, 5)
    rows = [torch.cat([model(p[None], t[None]) for t in tokens], dim=1) for p in pixels]
    assert_close(model(pixels, tokens), torch.cat(rows), **EXACT)


# --- who sees whom -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(4)))
def test_frame_features_follow_the_order_of_the_frames(order: list[int]) -> None:
    """CCT knows no time: its output for permuted frames is its output, permuted."""
    visual, pixels = build().visual, some_pixels()
    frames, patches = visual(pixels)
    permuted = visual(pixels[:, order])
    assert_close(permuted.frames, frames[:, order], **EXACT)
    assert_close(permuted.patches, patches[:, order], **EXACT)


def test_integration_knows_the_order_of_the_frames() -> None:
    model, pixels = build(), some_pixels()
    assert model.integration is not None
    frames = model.visual(pixels).frames
    assert (model.integration(frames.flip(1)) - model.integration(frames)).abs().max() > 0.01
    backwards, forwards = model.encode_video(pixels.flip(1)), model.encode_video(pixels)
    assert (backwards.video - forwards.video).abs().max() > 0.01
    assert_close(backwards.patches, forwards.patches, **EXACT)


def test_without_integration_the_order_of_the_frames_is_lost() -> None:
    model, pixels = build(switched(True, False, True)), some_pixels()
    assert_close(model.encode_video(pixels.flip(1)).video, model.encode_video(pixels).video, **EXACT)


@pytest.mark.parametrize("message_tokens", [True, False])
def test_frames_see_each_other_through_message_tokens_only(message_tokens: bool) -> None:
    visual = build(switched(message_tokens, True, True)).visual
    pixels = some_pixels()
    changed = pixels.clone()
    changed[:, 2] += 1
    others = [0, 1, 3]
    before, after = visual(pixels), visual(changed)
    for was, now in ((before.frames, after.frames), (before.patches, after.patches)):
        difference = (now - was).flatten(2).abs().amax(dim=2)  # (B, T)
        assert (difference[:, 2] > 0.01).all()
        if message_tokens:
            assert (difference[:, others] > 1e-4).all()
        else:
            assert difference[:, others].max() < EXACT["atol"]


def test_videos_of_a_batch_do_not_see_each_other() -> None:
    model, pixels, tokens = build(), some_pixels(), some_tokens(3, 5)
    changed = torch.cat([pixels[:1], torch.randn_like(pixels[1:])])
    assert_close(model(changed, tokens)[0], model(pixels, tokens)[0], **EXACT)


def test_everything_off_is_the_frame_averaged_image_tower() -> None:
    model = build(switched(False, False, False))
    pixels, tokens = some_pixels(), some_tokens(3, 5)
    images = pixels.flatten(0, 1).unsqueeze(1)  # (BT, 1, 3, S, S): each frame a video of its own
    video = model.visual(images).frames.view(2, 4, 12).mean(dim=1)
    text = model.encode_text(tokens)
    expected = model.logit_scale.exp() * F.cosine_similarity(video[:, None], text[None], dim=-1)
    assert_close(model(pixels, tokens), expected, **EXACT)


def test_alpha_zero_makes_prompting_a_no_op() -> None:
    model, plain = build(), build(switched(True, True, False))
    shared = {k: v for k, v in model.state_dict().items() if not k.startswith("prompting.")}
    plain.load_state_dict(shared)
    pixels, tokens = some_pixels(), some_tokens(3, 5)
    expected = plain(pixels, tokens)
    assert (model(pixels, tokens) - expected).abs().max() > 0.1
    assert model.prompting is not None
    nn.init.zeros_(model.prompting.alpha)
    assert_close(model(pixels, tokens), expected, **EXACT)


def test_prompted_texts_depend_on_the_video() -> None:
    model = build()
    assert model.prompting is not None
    video, text = model.encode_video(some_pixels()), model.encode_text(some_tokens(3, 5))
    prompted = model.prompting(text, video.patches)
    assert prompted.shape == (2, 2, 12)
    assert (prompted[0] - prompted[1]).abs().max() > 0.01


# --- text --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(2, 9), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_cutting_the_padding_of_texts_is_exact(lengths: list[int], seed: int) -> None:
    model, tokens = build(), some_tokens(*lengths, seed=seed)
    tower = model.text
    x = tower.token_embedding(tokens) + tower.position_embedding  # all C positions
    for block in tower.blocks:
        x = block(x, causal=True)
    end = x[range(len(tokens)), [length - 1 for length in lengths]]
    expected = tower.proj(tower.final_norm(end))
    assert_close(model.encode_text(tokens), expected, **EXACT)


def test_texts_may_come_without_padding() -> None:
    model, tokens = build(), some_tokens(3, 5)
    assert torch.equal(model.encode_text(tokens[:, :5]), model.encode_text(tokens))


# --- gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("switches", SWITCHES)
def test_every_parameter_gets_a_finite_gradient(switches: tuple[bool, bool, bool]) -> None:
    """From the start values, as training does: no part may be cut off or start at a standstill."""
    torch.manual_seed(0)
    model = XCLIP(switched(*switches)).double().train()
    grads = gradients(model, some_pixels(3), some_tokens(3, 5, 7))
    assert [name for name, grad in grads.items() if grad is None] == []
    assert [name for name, grad in grads.items() if not grad.isfinite().all()] == []
    assert [name for name, grad in grads.items() if not grad.any()] == []


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_gradient_checkpointing_changes_no_number(drop_path: float) -> None:
    model = build(with_drop_path(drop_path)).train()
    pixels, tokens = some_pixels(4), some_tokens(3, 5)
    results = []
    for checkpointing in (False, True):
        model.visual.gradient_checkpointing = checkpointing
        torch.manual_seed(5)
        logits = model(pixels, tokens)
        torch.manual_seed(5)
        results.append((logits, gradients(model, pixels, tokens)))
    (logits, grads), (logits_again, grads_again) = results
    assert_close(logits_again, logits, **EXACT)
    assert_close(grads_again, grads, **EXACT)


def test_gradient_checkpointing_runs_blocks_twice_only_when_training() -> None:
    model = build()
    model.visual.gradient_checkpointing = True
    calls: list[int] = []
    model.visual.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    gradients(model, some_pixels(), some_tokens(3, 5))
    assert len(calls) == 2
    with torch.no_grad():
        model.encode_video(some_pixels())
    assert len(calls) == 3


def test_drop_path_acts_in_training_only() -> None:
    model, plain = build(with_drop_path(0.5)), build()
    pixels = some_pixels(8)
    assert torch.equal(model.encode_video(pixels).video, plain.encode_video(pixels).video)
    model.train()
    first, second = model.encode_video(pixels).video, model.encode_video(pixels).video
    assert not torch.allclose(first, second)


# --- other frame counts ------------------------------------------------------------------------------------


def test_the_same_frame_count_changes_nothing() -> None:
    model, pixels, tokens = build().float(), some_pixels().float(), some_tokens(3, 5)
    assert torch.equal(model.with_num_frames(4)(pixels, tokens), model(pixels, tokens))


@pytest.mark.parametrize("num_frames", [1, 3, 8])
@pytest.mark.parametrize("integration", [True, False])
def test_another_frame_count(num_frames: int, integration: bool) -> None:
    model = build(switched(True, integration, True))
    before = copy.deepcopy(model.state_dict())
    other = model.with_num_frames(num_frames)
    assert other(some_pixels(num_frames=num_frames), some_tokens(3, 5)).isfinite().all()
    assert other.config == dataclasses.replace(model.config, num_frames=num_frames)
    assert model.config.num_frames == 4
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    key = "integration.position_embedding"
    expected = dict(before)
    if integration:
        expected[key] = interpolate_positions(before[key], num_frames)
        assert expected[key].shape == (num_frames, 12)
    assert_close(other.state_dict(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("num_frames", [4, 8])
def test_training_the_copy_leaves_the_original_alone(num_frames: int) -> None:
    model = build()
    before = copy.deepcopy(model.state_dict())
    other = model.with_num_frames(num_frames)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == []


def test_the_copy_keeps_mode_and_precision() -> None:
    model = build().to(torch.bfloat16)
    assert {p.dtype for p in model.with_num_frames(8).parameters()} == {torch.bfloat16}
    assert not model.eval().with_num_frames(8).training
    assert model.train().with_num_frames(8).training


def test_the_copy_keeps_what_is_frozen() -> None:
    model = build()
    model.text.requires_grad_(False)
    frozen = {name for name, p in model.with_num_frames(8).named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("text.")}


def test_the_copy_keeps_gradient_checkpointing() -> None:
    model = build()
    model.visual.gradient_checkpointing = True
    assert model.with_num_frames(8).visual.gradient_checkpointing


def test_a_copy_for_no_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match="0"):
        build().with_num_frames(0)


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("num_frames", [1, 3, 8])
def test_the_wrong_frame_count_names_both(switches: tuple[bool, bool, bool], num_frames: int) -> None:
    """Only time positions have a trained count; a model without them is the mean of any number of frames."""
    model = build(switched(*switches))
    if model.integration is None:
        pixels = some_pixels(num_frames=num_frames)
        assert model.encode_video(pixels).video.isfinite().all()
        return
    with pytest.raises(FrameCountError, match=rf"\b{num_frames} frames.*\b4\b"):
        model.encode_video(some_pixels(num_frames=num_frames))


@pytest.mark.parametrize("num_frames", [1, 2, 100])
def test_an_image_model_takes_any_number_of_frames(num_frames: int) -> None:
    model = build(switched(False, False, False)).eval()
    pixels = some_pixels(num_frames=num_frames)
    alone = torch.stack([model.encode_video(pixels[:, t : t + 1]).video for t in range(num_frames)])
    torch.testing.assert_close(model.encode_video(pixels).video, alone.mean(dim=0))


@pytest.mark.parametrize(
    "shape",
    [(4, 3, 8, 8), (1, 1, 4, 3, 8, 8), (1, 4, 1, 8, 8), (1, 3, 4, 8, 8), (1, 4, 3, 12, 12), (1, 4, 3, 8, 12)],
    ids=str,
)
def test_pixels_of_the_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=rf"\(B, T, 3, 8, 8\).*{', '.join(map(str, shape))}"):
        build().encode_video(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(9,), (1, 2, 9), (2, 10), (0, 9), (2, 0)], ids=str)
def test_tokens_of_the_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=rf"\(K, C\).*{', '.join(map(str, shape))}"):
        build().encode_text(torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("token", [-1, 50, 49407])
def test_token_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    tokens = some_tokens(3, 5)
    tokens[1, 1] = token
    with pytest.raises(InputError, match=rf"0\.\.49.*{token}.*tokenizer"):
        build().encode_text(tokens)


def test_a_prompting_model_refuses_features_without_patches() -> None:
    """They come from another model; comparing with the bare texts would be a silent change of the answer."""
    model = build()
    video, text = model.encode_video(some_pixels()), model.encode_text(some_tokens(3, 5))
    with pytest.raises(InputError, match="patches"):
        model.logits(VideoFeatures(video.video, None), text)


# --- precision ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("switches", SWITCHES)
def test_bfloat16_is_close_to_float32(switches: tuple[bool, bool, bool]) -> None:
    """Start weights, as they are smaller than this file's; bfloat16 keeps 8 bits, one part in 256."""
    torch.manual_seed(0)
    model = XCLIP(switched(*switches)).eval()
    pixels, tokens = some_pixels().float(), some_tokens(3, 5)
    exact = model(pixels, tokens)
    rough = copy.deepcopy(model).to(torch.bfloat16)(pixels.bfloat16(), tokens)
    assert rough.dtype == torch.float32
    assert_close(rough.float() / model.logit_scale.exp(), exact / model.logit_scale.exp(), rtol=0, atol=0.02)


@pytest.mark.parametrize("autocast", [False, True])
def test_close_classes_do_not_tie_in_bfloat16(autocast: bool) -> None:
    """Logits near 100 are 0.5 apart in bfloat16: of 400 of them many would be equal."""
    model = build().float()
    with torch.no_grad():
        model.logit_scale.fill_(math.log(100))
        video, text = torch.randn(1, 12).float() + 3, torch.randn(400, 12).float() + 3
        patches = torch.randn(1, 4, 12).float()
        if not autocast:
            model, video, text, patches = (x.to(torch.bfloat16) for x in (model, video, text, patches))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            logits = model.logits(VideoFeatures(video, patches), text)
    assert logits.dtype == torch.float32
    assert logits.unique().numel() > 390
