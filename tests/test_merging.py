"""Token merging: the paper's matching as plain loops, all kinds of towers, all runtimes, and what stays exact."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from test_runtimes import TOWERS
from tiny import TINY, tiny_model, tiny_pixels
from torch import Tensor

from openxclip.cli.main import run
from openxclip.errors import InputError
from openxclip.models.merging import (
    Merged,
    attend_by_size,
    check_merging,
    every_patch,
    largest_merging,
    merge,
    unmerged,
)
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.runtime import build_runtime
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.video.transforms import Preprocessor

pytestmark = [pytest.mark.on_cpu, pytest.mark.filterwarnings("ignore")]


def larger(config=TINY):
    """A tower with 16 patches, so that there is something to merge."""
    return dataclasses.replace(config, vision=dataclasses.replace(config.vision, patch_size_px=8))


def merged_by_loops(groups: list[list[int]], alike: Tensor, num_merged: int) -> list[list[int]]:
    """The paper's steps for one frame: groups of patches in order of tokens -> the groups after."""
    unit = alike / alike.norm(dim=-1, keepdim=True)
    first, second = list(range(0, len(groups), 2)), list(range(1, len(groups), 2))
    ties = []
    for a in first:
        similar = [(unit[a] @ unit[b]).item() for b in second]
        best = max(range(len(second)), key=similar.__getitem__)
        ties.append((similar[best], a, second[best]))
    ties.sort(reverse=True)
    after = {b: list(groups[b]) for b in second}
    for _, a, b in ties[:num_merged]:
        after[b] += groups[a]
    return [*(groups[a] for _, a, _ in ties[num_merged:]), *after.values()]


@pytest.mark.parametrize("num_patches", [9, 16])
@pytest.mark.parametrize("num_class_tokens", [0, 1])
def test_merging_is_that_of_the_paper(num_class_tokens, num_patches) -> None:
    """Twice in a row: every token is the mean of the patches that the loops put into one group."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, num_class_tokens + num_patches, 8, generator=generator)
    merged = unmerged(x, num_class_tokens, None)
    groups = {(b, t): [[i] for i in range(num_patches)] for b in range(2) for t in range(3)}
    for num_merged in (3, 2):
        alike = torch.randn(*merged.tokens.shape[:3], 5, generator=generator)
        for (b, t), own in groups.items():
            groups[b, t] = merged_by_loops(own, alike[b, t, num_class_tokens:], num_merged)
        merged = merge(merged, alike, num_merged, num_class_tokens)
    assert merged.tokens.shape[2] == num_class_tokens + num_patches - 5
    whole = every_patch(merged, num_class_tokens)
    assert torch.equal(whole[:, :, :num_class_tokens], x[:, :, :num_class_tokens])
    for (b, t), own in groups.items():
        sizes = sorted(int(size) for size in merged.sizes[b, t, num_class_tokens:, 0])
        assert sizes == sorted(map(len, own))
        for group in own:
            mean = torch.stack([x[b, t, num_class_tokens + i] for i in group]).mean(dim=0)
            for i in group:
                assert torch.allclose(whole[b, t, num_class_tokens + i], mean, atol=1e-6)


def test_attention_counts_a_token_as_often_as_its_size() -> None:
    """A token of size 3 is read as three equal ones."""
    attention = tiny_model().visual.blocks[0].intra_attn
    x = torch.randn(1, 4, 192, generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([1.0, 3.0, 1.0, 2.0]).view(1, 4, 1)
    found, alike = attend_by_size(attention, x, sizes, None)
    repeated = x[:, [0, 1, 1, 1, 2, 3, 3]]
    assert torch.allclose(found, attention(repeated)[:, [0, 1, 4, 5]], atol=1e-5)
    keys = attention.qkv(x)[..., 192:384].unflatten(-1, (3, 64)).mean(dim=-2)
    assert torch.allclose(alike, keys, atol=1e-6)


@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_nothing_merged_is_the_tower_as_it_is(name) -> None:
    """The blocks for merging with R = 0: sums in another order, at most 1e-5 apart."""
    config = larger(TOWERS[name])
    visual, pixels = tiny_model(config).visual, tiny_pixels(config)
    x = visual.pre_norm(visual.embed(pixels))
    angles = visual._angles(x.device) if config.vision.rotary else None
    expected = x
    for block in visual.blocks:
        expected = block(expected, angles)
    found = visual._merging(x, angles)
    assert torch.allclose(found, expected, rtol=0, atol=1e-5 * (1 + expected.abs().max()))


@pytest.mark.parametrize("name", [name for name in TOWERS if not TOWERS[name].vision.rotary])
@torch.no_grad()
def test_equal_patches_merge_without_a_trace(name) -> None:
    """In frames of one colour patches differ by their positions alone; without those merging changes nothing."""
    config = larger(TOWERS[name])
    model = tiny_model(config)
    model.visual.position_embedding.zero_()
    size = config.vision.image_size_px
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, config.num_frames, 3, 1, 1, generator=generator).expand(-1, -1, -1, size, size)
    expected = model.encode_video(pixels)
    model.visual.num_merged = largest_merging(config.vision)
    found = model.encode_video(pixels)
    for one, two in zip(found, expected, strict=True):
        if one is not None:
            assert one.shape == two.shape
            assert torch.allclose(one, two, rtol=0, atol=1e-4 * (1 + two.abs().max()))


@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_more_merging_is_further_off(name) -> None:
    config = larger(TOWERS[name])
    model, pixels = tiny_model(config), tiny_pixels(config, num_videos=4)
    expected = model.encode_video(pixels).video
    most = largest_merging(config.vision)
    changes = []
    for num_merged in (1, most):
        model.visual.num_merged = num_merged
        changes.append((model.encode_video(pixels).video - expected).norm().item())
    assert 0 < changes[0] < changes[1]


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
@pytest.mark.parametrize("name", TOWERS)
def test_every_runtime_merges_the_same(name, runtime) -> None:
    config = larger(TOWERS[name])
    model, preprocess = tiny_model(config), Preprocessor.official(config.vision.image_size_px)
    size = config.vision.image_size_px
    pixels = torch.randint(0, 256, (2, config.num_frames, 3, size, size), dtype=torch.uint8)
    found, expected = (
        build_runtime(model, preprocess, RuntimeOptions(runtime=name, merge_tokens=3)).encode_video(pixels)
        for name in (runtime, "torch")
    )
    for one, two in zip(found, expected, strict=True):
        if one is not None:
            assert torch.allclose(one, two, rtol=0, atol=1e-4 * (1 + two.abs().max()))


def test_the_most_that_can_be_merged_leaves_tokens() -> None:
    for num_layers in (1, 2, 4, 12):
        for patch_size_px in (4, 8, 16):
            vision = dataclasses.replace(TINY.vision, patch_size_px=patch_size_px, num_layers=num_layers)
            most = largest_merging(vision)
            left = vision.num_patches
            for _ in range(num_layers):
                assert most <= math.ceil(left / 2)
                left -= most
            check_merging(most, vision)
            with pytest.raises(InputError, match=f"must be 0 to {most}"):
                check_merging(most + 1, vision)


def test_merging_keeps_the_type() -> None:
    model = tiny_model(larger()).bfloat16()
    model.visual.num_merged = 2
    with torch.no_grad():
        video, patches = model.encode_video(tiny_pixels(larger()))
    assert video.dtype == patches.dtype == torch.bfloat16


def test_the_command_merges(tmp_path, capsys) -> None:
    clip = example_clips()[0]
    (tmp_path / "clip.mp4").write_bytes(clip.encode())
    arguments = ["predict", str(tmp_path / "clip.mp4"), "--labels", ", ".join(EXAMPLE_LABELS)]
    assert run([*arguments, "--model", "openxclip-tiny", "--merge-tokens", "2"]) == 0
    assert clip.kind.name in capsys.readouterr().out.splitlines()[1]
    assert run([*arguments, "--model", "openxclip-tiny", "--merge-tokens", "4"]) == 2
    assert "merge_tokens must be 0 to 3" in capsys.readouterr().err


def test_sizes_sum_to_the_patches() -> None:
    merged = unmerged(torch.randn(1, 2, 17, 8), 1, None)
    for _ in range(3):
        merged = merge(merged, torch.randn(1, 2, merged.tokens.shape[2], 4), 4, 1)
        assert isinstance(merged, Merged)
        assert (merged.sizes[:, :, 1:].sum(dim=2) == 16).all()
        assert (merged.sizes[:, :, 0] == 1).all()
        assert int(merged.places.max()) < merged.tokens.shape[2] - 1
        counts = F.one_hot(merged.places, merged.tokens.shape[2] - 1).sum(dim=2)
        assert torch.equal(counts, merged.sizes[:, :, 1:, 0].long())
