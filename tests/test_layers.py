"""Each layer against a version written as loops, straight from the paper's formulas.

Shapes: B videos, T frames, N patches, L tokens, D width, E joint embedding, K texts, C tokens of a text.
"""

import itertools
import math
from collections.abc import Iterator
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from openxclip.models import XCLIP, VideoFeatures, XCLIPConfig
from openxclip.models.config import Activation, IntegrationConfig, PromptingConfig, TextConfig, VisionConfig
from openxclip.models.integration import MultiFrameIntegration, interpolate_positions
from openxclip.models.layers import (
    ACTIVATIONS,
    MLP,
    Attention,
    DropPath,
    TransformerBlock,
    attend,
    quick_gelu,
)
from openxclip.models.prompting import CrossAttention, VideoSpecificPrompting
from openxclip.models.text import TextTransformer, trim
from openxclip.models.vision import FrameBlock, VisionTransformer

Module = TypeVar("Module", bound=nn.Module)

VISION = VisionConfig(image_size_px=12, patch_size_px=4, width=16, num_layers=2, num_heads=4)
TEXT = TextConfig(vocab_size=50, context_length=9, width=8, num_layers=2, num_heads=2)
EMBED = 12  # E, unlike both widths, so that a mix-up cannot hide


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """Loops and tensor operations then agree to about 1e-13, which leaves no room for a small mistake."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def randomised(module: Module) -> Module:
    """Large weights everywhere, biases and norms too: fresh ones hide mistakes behind zeros and ones."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module.eval()


# --- the loops ---------------------------------------------------------------------------------------------


def loop_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """LayerNorm of one vector (D)."""
    centred = x - x.sum() / len(x)
    return centred / torch.sqrt((centred**2).sum() / len(x) + 1e-5) * norm.weight + norm.bias


def loop_attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int, causal: bool = False) -> Tensor:
    """Attention of (Lq, D) to (Lk, D): one head and one query at a time, the softmax written out."""
    out = torch.zeros_like(query)
    size = query.shape[1] // num_heads
    for head, i in itertools.product(range(num_heads), range(len(query))):
        columns = slice(head * size, (head + 1) * size)
        seen = slice(0, i + 1) if causal else slice(None)
        scores = key[seen, columns] @ query[i, columns] / math.sqrt(size)
        weights = scores.exp() / scores.exp().sum()
        out[i, columns] = weights @ value[seen, columns]
    return out


def loop_attention(x: Tensor, attention: Attention, causal: bool = False) -> Tensor:
    """Self-attention of x (L, D) with its three projections kept apart."""
    weights, biases = attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3)
    q, k, v = (x @ weight.T + bias for weight, bias in zip(weights, biases, strict=True))
    out = loop_attend(q, k, v, attention.num_heads, causal)
    return out @ attention.proj.weight.T + attention.proj.bias


def loop_mlp(x: Tensor, mlp: MLP) -> Tensor:
    """The MLP of x (L, D)."""
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    hidden = hidden / (1 + torch.exp(-1.702 * hidden))
    return hidden @ mlp.fc2.weight.T + mlp.fc2.bias


def norm_each(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """LayerNorm of each row of x (L, D)."""
    return torch.stack([loop_norm(row, norm) for row in x])


def loop_block(x: Tensor, block: TransformerBlock, causal: bool = False) -> Tensor:
    """A pre-norm transformer block of x (L, D)."""
    x = x + loop_attention(norm_each(x, block.attn_norm), block.attn, causal)
    return x + loop_mlp(norm_each(x, block.mlp_norm), block.mlp)


def loop_frame_block(
    clip: Tensor, block: FrameBlock, cross: float = 1.0, intra: float = 1.0, mlp: float = 1.0
) -> Tensor:
    """The four steps of a block on one clip (T, L, D); the factors scale the three residual branches."""
    frames = list(clip)
    if block.message_tokens:
        projection = block.message_proj
        messages = torch.stack([projection.weight @ frame[0] + projection.bias for frame in frames])
        normed = norm_each(messages, block.cross_norm)
        messages = messages + cross * loop_attention(normed, block.cross_attn)
        frames = [torch.cat([frame, m[None]]) for frame, m in zip(frames, messages, strict=True)]
    out = []
    for y in frames:
        y = y + intra * loop_attention(norm_each(y, block.intra_norm), block.intra_attn)
        x = y[: clip.shape[1]]
        out.append(x + mlp * loop_mlp(norm_each(x, block.mlp_norm), block.mlp))
    return torch.stack(out)


def loop_tokens(frame: Tensor, tower: VisionTransformer) -> Tensor:
    """One frame (3, H, W) -> its tokens (L, D): class first, then the patches row by row."""
    size = tower.config.patch_size_px
    tokens = [tower.class_embedding]
    for top, left in itertools.product(range(0, frame.shape[1], size), range(0, frame.shape[2], size)):
        patch = frame[:, top : top + size, left : left + size]
        tokens.append((tower.patch_embedding.weight * patch).sum(dim=(1, 2, 3)))
    return torch.stack(tokens) + tower.position_embedding


def loop_tower(clip: Tensor, tower: VisionTransformer) -> tuple[Tensor, Tensor]:
    """One clip (T, 3, H, W) -> frame features (T, E) and patch tokens (T, N, D)."""
    x = torch.stack([norm_each(loop_tokens(frame, tower), tower.pre_norm) for frame in clip])
    for block in tower.blocks:
        x = loop_frame_block(x, block)
    frames = [tower.proj.weight @ loop_norm(tokens[0], tower.post_norm) for tokens in x]
    return torch.stack(frames), x[:, 1:]


def loop_context(patches: Tensor, prompting: VideoSpecificPrompting) -> Tensor:
    """Patch tokens of one clip (T, N, D) -> its visual context (N, E)."""
    projected = [norm_each(frame, prompting.patch_norm) @ prompting.patch_proj.weight.T for frame in patches]
    return sum(projected) / len(projected)


def loop_prompting(text: Tensor, context: Tensor, prompting: VideoSpecificPrompting) -> Tensor:
    """Texts (K, E) as the video with this context (N, E) sees them."""
    visual = norm_each(context, prompting.context_norm)
    c = text
    for layer in prompting.layers:
        attention = layer.cross_attn
        query = norm_each(c, layer.query_norm) @ attention.query.weight.T
        key, value = visual @ attention.key.weight.T, visual @ attention.value.weight.T
        read = loop_attend(query, key, value, attention.num_heads)
        c = c + read @ attention.proj.weight.T + attention.proj.bias
        c = c + loop_mlp(norm_each(c, layer.mlp_norm), layer.mlp)
    return text + prompting.alpha * c


def loop_text(tokens: Tensor, tower: TextTransformer) -> Tensor:
    """One text (C) -> its feature (E), all C positions computed."""
    x = torch.stack([tower.token_embedding.weight[token] for token in tokens])
    x = x + tower.position_embedding[: len(tokens)]
    for block in tower.blocks:
        x = loop_block(x, block, causal=True)
    end = tokens.tolist().index(int(tokens.max()))
    return tower.proj.weight @ loop_norm(x[end], tower.final_norm)


def some_tokens(lengths: tuple[int, ...]) -> Tensor:
    """Texts of these lengths, start and end included, padded with zeros (the end has the highest id)."""
    tokens = torch.zeros(len(lengths), TEXT.context_length, dtype=torch.long)
    for row, length in zip(tokens, lengths, strict=True):
        row[: length - 1] = torch.randint(1, TEXT.vocab_size - 1, (length - 1,))
        row[length - 1] = TEXT.vocab_size - 1
    return tokens


# --- attention, MLP, blocks --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    num_heads=st.integers(1, 4),
    head_size=st.integers(1, 4),
    num_queries=st.integers(1, 5),
    num_keys=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_attend(num_heads: int, head_size: int, num_queries: int, num_keys: int, seed: int) -> None:
    torch.manual_seed(seed)
    width = num_heads * head_size
    query, key, value = torch.randn(3, num_queries, width), *torch.randn(2, 3, num_keys, width)
    expected = torch.stack([loop_attend(query[i], key[i], value[i], num_heads) for i in range(3)])
    assert_close(attend(query, key, value, num_heads), expected, rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(
    num_heads=st.integers(1, 4),
    leading=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    length=st.integers(1, 5),
    causal=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_attention(num_heads: int, leading: list[int], length: int, causal: bool, seed: int) -> None:
    """Any number of leading dimensions, each sequence by itself."""
    torch.manual_seed(seed)
    attention = randomised(Attention(num_heads * 4, num_heads))
    norm = randomised(nn.LayerNorm(num_heads * 4))
    x = torch.randn(*leading, length, num_heads * 4)
    expected = [loop_attention(one, attention, causal) for one in norm(x).flatten(0, -3)]
    assert_close(attention(norm(x), causal), torch.stack(expected).view_as(x), rtol=1e-10, atol=1e-12)


def test_causal_attention_ignores_what_follows() -> None:
    attention, norm = randomised(Attention(8, 2)), nn.LayerNorm(8)
    x = torch.randn(2, 5, 8)
    changed = torch.cat([x[:, :3], torch.randn(2, 2, 8)], dim=1)
    before, after = (attention(norm(tokens), causal=True)[:, :3] for tokens in (x, changed))
    assert_close(before, after, rtol=0, atol=1e-14)
    assert not torch.allclose(attention(norm(x))[:, :3], attention(norm(changed))[:, :3])


@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_bfloat16_is_that_of_float64(causal: bool) -> None:
    """On a CPU it goes another way: the values and their gradient agree within what the type can hold."""
    inputs = [torch.randn(2, 7, 12) for _ in range(3)]
    results = []
    for dtype in (torch.float64, torch.bfloat16):
        query, key, value = (x.to(dtype, copy=True).requires_grad_() for x in inputs)
        out = attend(query, key, value, num_heads=3, causal=causal)
        assert out.dtype == dtype
        (out * out).sum().backward()
        results.append([out, query.grad, key.grad, value.grad])
    for exact, rounded in zip(*results, strict=True):
        assert_close(rounded.double(), exact, rtol=0, atol=0.02 * exact.abs().max().item())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_mlp_has_the_derivatives_that_differences_show(activation: Activation) -> None:
    mlp = randomised(MLP(4, activation=activation))
    inputs = (torch.randn(2, 3, 4).requires_grad_(), *mlp.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: mlp(x), inputs)


def test_under_autocast_products_are_in_bfloat16_and_gradients_in_float32() -> None:
    mlp, norm = randomised(MLP(64)).float(), randomised(nn.LayerNorm(64)).float()
    x = torch.randn(3, 5, 64, dtype=torch.float32, requires_grad=True)
    tensors = (x, *mlp.parameters(), *norm.parameters())
    exact = torch.autograd.grad(mlp(norm(x)).square().sum(), tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = mlp(norm(x))
    assert out.dtype == torch.bfloat16
    for rounded, expected in zip(
        torch.autograd.grad(out.float().square().sum(), tensors), exact, strict=True
    ):
        assert rounded.dtype == torch.float32
        assert_close(rounded, expected, rtol=0, atol=0.03 * expected.abs().max().item())


def test_quick_gelu() -> None:
    values = torch.linspace(-6, 6, 25)
    expected = [a * (1 / (1 + math.exp(-1.702 * a))) for a in values.tolist()]
    assert_close(quick_gelu(values), torch.tensor(expected), rtol=1e-13, atol=1e-15)


def test_mlp() -> None:
    mlp = randomised(MLP(8))
    assert [tuple(p.shape) for p in mlp.parameters()] == [(32, 8), (32,), (8, 32), (8,)]
    norm = randomised(nn.LayerNorm(8))
    x = torch.randn(3, 5, 8)
    expected = torch.stack([loop_mlp(one, mlp) for one in norm(x)])
    assert_close(mlp(norm(x)), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("causal", [False, True])
def test_transformer_block(causal: bool) -> None:
    block = randomised(TransformerBlock(8, 2))
    x = torch.randn(3, 5, 8)
    expected = torch.stack([loop_block(one, block, causal) for one in x])
    assert_close(block(x, causal), expected, rtol=1e-11, atol=1e-12)


def frame_config(width: int, num_heads: int, message_tokens: bool = True) -> VisionConfig:
    return VisionConfig(width=width, num_heads=num_heads, message_tokens=message_tokens)


@pytest.mark.parametrize("message_tokens", [True, False])
@pytest.mark.parametrize("num_frames", [1, 4])
def test_frame_block(message_tokens: bool, num_frames: int) -> None:
    block = randomised(FrameBlock(frame_config(16, 4, message_tokens), drop_path=0.0))
    x = torch.randn(2, num_frames, 5, 16)
    expected = torch.stack([loop_frame_block(clip, block) for clip in x])
    assert_close(block(x), expected, rtol=1e-11, atol=1e-12)


def test_a_block_without_messages_has_no_parameters_for_them() -> None:
    names = dict(FrameBlock(frame_config(16, 4, message_tokens=False), drop_path=0.0).named_parameters())
    assert not [name for name in names if name.startswith(("message_", "cross_"))]


# --- drop path ---------------------------------------------------------------------------------------------


def test_drop_path_is_the_identity_in_eval_mode_and_at_rate_zero() -> None:
    branch = torch.randn(4, 3, 2)
    assert DropPath(0.5).eval()(branch) is branch
    assert DropPath(0.0).train()(branch) is branch


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_drop_path_drops_whole_clips_and_keeps_the_expectation(rate: float) -> None:
    num_clips = 20_000
    out = DropPath(rate).train()(torch.ones(num_clips, 2, 3))
    first = out[:, :1, :1]
    assert torch.equal(out, first.expand_as(out)), "a clip is dropped in part"
    assert_close(first.unique(), torch.tensor([0.0, 1 / (1 - rate)]))
    five_sigma = 5 * math.sqrt(rate * (1 - rate) / num_clips)
    assert abs(float((first == 0).double().mean()) - rate) < five_sigma
    assert abs(float(out.mean()) - 1) < five_sigma / (1 - rate)


def test_drop_path_rates_grow_linearly_from_zero() -> None:
    config = VisionConfig(image_size_px=4, patch_size_px=4, width=8, num_layers=4, num_heads=2, drop_path=0.3)
    rates = [block.drop_path.rate for block in VisionTransformer(config, embed_dim=8).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-7)


def test_a_block_drops_each_of_its_three_branches_by_clip() -> None:
    block = randomised(FrameBlock(frame_config(8, 2), drop_path=0.5))
    clip = torch.randn(2, 3, 8)
    kept = (0.0, 2.0)  # what is kept is scaled by 1 / (1 - 0.5)
    choices = [(0.0, 0.0, mlp) for mlp in kept]  # without IFA nobody reads the messages of CFA
    choices += [(cross, 2.0, mlp) for cross, mlp in itertools.product(kept, kept)]
    expected = torch.stack([loop_frame_block(clip, block, *choice) for choice in choices])
    batch = block.train()(clip.expand(200, -1, -1, -1))
    distance = (batch[:, None] - expected).abs().amax(dim=(2, 3, 4))  # (200, 6)
    assert distance.amin(dim=1).max() < 1e-11, "a clip is none of the six combinations"
    assert set(distance.argmin(dim=1).tolist()) == set(range(6)), "the branches are not dropped independently"


# --- the parts of the model --------------------------------------------------------------------------------


@pytest.mark.parametrize("message_tokens", [True, False])
def test_vision_tower(message_tokens: bool) -> None:
    config = VisionConfig(**{**vars(VISION), "message_tokens": message_tokens})
    tower = randomised(VisionTransformer(config, EMBED))
    pixels = torch.randn(2, 3, 3, 12, 12)
    frames, patches = tower(pixels)
    expected = [loop_tower(clip, tower) for clip in pixels]
    assert (frames.shape, patches.shape) == ((2, 3, EMBED), (2, 3, 9, 16))
    assert_close(frames, torch.stack([one for one, _ in expected]), rtol=1e-10, atol=1e-11)
    assert_close(patches, torch.stack([one for _, one in expected]), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_integration(num_layers: int) -> None:
    config = IntegrationConfig(num_layers=num_layers, num_heads=3)
    integration = randomised(MultiFrameIntegration(config, num_frames=4, embed_dim=EMBED))
    frames = torch.randn(2, 4, EMBED)
    expected = []
    for z in frames:
        h = torch.stack([z[t] + integration.position_embedding[t] for t in range(4)])
        for block in integration.blocks:
            h = loop_block(h, block)
        expected.append(sum(h[t] + z[t] for t in range(4)) / 4)
    assert_close(integration(frames), torch.stack(expected), rtol=1e-11, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(num_before=st.integers(1, 12), num_after=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_interpolate_positions(num_before: int, num_after: int, seed: int) -> None:
    """Frame i of the new clip sits at the same share of its time as in the old one."""
    torch.manual_seed(seed)
    positions = torch.randn(num_before, 3, dtype=torch.float32)
    expected = []
    for i in range(num_after):
        place = min(max((i + 0.5) * num_before / num_after - 0.5, 0), num_before - 1)
        low, share = math.floor(place), place - math.floor(place)
        high = min(low + 1, num_before - 1)
        expected.append((1 - share) * positions[low] + share * positions[high])
    assert_close(interpolate_positions(positions, num_after), torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_interpolate_positions_keeps_precision_and_the_same_count() -> None:
    positions = torch.randn(5, 3, dtype=torch.bfloat16)
    assert torch.equal(interpolate_positions(positions, 5), positions)
    assert interpolate_positions(positions, 7).dtype == torch.bfloat16


def test_cross_attention_has_a_bias_on_the_output_only() -> None:
    names = [name for name, _ in CrossAttention(8, 2).named_parameters()]
    assert sorted(names) == ["key.weight", "proj.bias", "proj.weight", "query.weight", "value.weight"]


@pytest.mark.parametrize("num_layers", [1, 2])
def test_prompting(num_layers: int) -> None:
    config = PromptingConfig(num_layers=num_layers, num_heads=3)
    prompting = randomised(VideoSpecificPrompting(config, vision_width=16, embed_dim=EMBED))
    patches, text = torch.randn(2, 3, 9, 16), torch.randn(5, EMBED)
    contexts = [loop_context(clip, prompting) for clip in patches]
    context = prompting.project(patches)
    assert_close(context, torch.stack(contexts), rtol=1e-11, atol=1e-12)
    expected = [loop_prompting(text, one, prompting) for one in contexts]
    assert_close(prompting(text, context), torch.stack(expected), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("lengths", [(2,), (3, 6, 4), (9, 2, 5)])
def test_text_tower(lengths: tuple[int, ...]) -> None:
    tower = randomised(TextTransformer(TEXT, EMBED))
    tokens = some_tokens(lengths)
    expected = torch.stack([loop_text(text, tower) for text in tokens])
    assert_close(tower(tokens), expected, rtol=1e-10, atol=1e-12)


def test_text_tower_reads_the_first_end_of_text() -> None:
    """OpenAI's tokenizer pads with zeros, Hugging Face's repeats the end token; both give the same feature."""
    tower = randomised(TextTransformer(TEXT, EMBED))
    zeros = some_tokens((3, 6))
    ends = zeros.masked_fill(zeros == 0, TEXT.vocab_size - 1)
    assert_close(tower(ends), tower(zeros), rtol=0, atol=1e-14)


def test_trim_cuts_behind_the_longest_text() -> None:
    tokens = some_tokens((3, 6, 2))
    assert torch.equal(trim(tokens), tokens[:, :6])
    full = some_tokens((9, 2))
    assert torch.equal(trim(full), full)


@pytest.mark.parametrize("with_prompting", [True, False])
def test_logits(with_prompting: bool) -> None:
    prompting = PromptingConfig(num_heads=3) if with_prompting else None
    integration = IntegrationConfig(num_heads=3)
    config = XCLIPConfig(
        embed_dim=EMBED, vision=VISION, text=TEXT, integration=integration, prompting=prompting
    )
    model = randomised(XCLIP(config))
    video, text, context = torch.randn(2, EMBED), torch.randn(5, EMBED), torch.randn(2, 9, EMBED)
    features = VideoFeatures(video, context if with_prompting else None)
    expected = torch.empty(2, 5)
    for b, k in itertools.product(range(2), range(5)):
        c = loop_prompting(text, context[b], model.prompting)[k] if with_prompting else text[k]
        cosine = video[b] @ c / (video[b].norm() * c.norm())
        expected[b, k] = math.exp(model.logit_scale.item()) * cosine
    assert_close(model.logits(features, text), expected, rtol=1e-11, atol=1e-12)
