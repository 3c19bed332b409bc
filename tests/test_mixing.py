"""Label smoothing, mixup, cutmix."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openxclip.errors import InputError
from openxclip.training.config import MixConfig
from openxclip.training.mixing import draw_mixing, smooth_targets, soft_cross_entropy
from openxclip.training.mixing import mix as mix_as_drawn
from openxclip.training.shares import shares

LABELS = torch.tensor([0, 2, 1, 2])


def mix(
    pixels: torch.Tensor, targets: torch.Tensor, config: MixConfig, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A whole batch in one process."""
    mixings = draw_mixing(len(pixels), pixels.shape[-1], config, rng)
    return mix_as_drawn(pixels, targets, mixings, {i: i for i in range(len(pixels))})


def clips() -> torch.Tensor:
    """(4, 2, 3, 8, 8): clip i is filled with the value i."""
    return torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 2, 3, 8, 8).clone()


def test_smoothing_spreads_over_all_classes():
    targets = smooth_targets(LABELS, 4, 0.2)
    assert torch.allclose(targets[1], torch.tensor([0.05, 0.05, 0.85, 0.05]))
    assert torch.allclose(targets.sum(dim=1), torch.ones(4))


def test_nothing_on_changes_nothing():
    targets = smooth_targets(LABELS, 3, 0.1)
    pixels, mixed = mix(clips(), targets, MixConfig(mixup_alpha=0, cutmix_alpha=0), np.random.default_rng(0))
    assert torch.equal(pixels, clips())
    assert torch.equal(mixed, targets)


def test_mixup_shares_pixels_and_targets_alike():
    targets = smooth_targets(LABELS, 3, 0.0)
    pixels, mixed = mix(clips(), targets, MixConfig(cutmix_alpha=0), np.random.default_rng(0))
    share = np.random.default_rng(0).beta(0.8, 0.8)
    for i in range(4):
        assert torch.allclose(pixels[i], torch.tensor(share * i + (1 - share) * (3 - i)).float())
        assert torch.allclose(mixed[i], (share * targets[i] + (1 - share) * targets[3 - i]).float())


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_cutmix_targets_follow_the_area_that_was_pasted(seed):
    original, targets = clips(), smooth_targets(LABELS, 3, 0.0)
    pixels, mixed = mix(original, targets, MixConfig(mixup_alpha=0), np.random.default_rng(seed))
    assert torch.equal(original, clips())
    assert torch.equal(pixels, pixels[:, :1, :1].expand_as(pixels))  # the same box in each frame and channel
    for i in range(4):
        kept = (pixels[i] == i).double().mean().item()
        assert ((pixels[i] == i) | (pixels[i] == 3 - i)).all()
        assert torch.allclose(
            mixed[i].double(), kept * targets[i].double() + (1 - kept) * targets[3 - i].double()
        )


def test_switch_probability_chooses():
    config = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
    always, never = MixConfig(**config, switch_probability=1.0), MixConfig(**config, switch_probability=0.0)
    targets = smooth_targets(LABELS, 3, 0.1)
    for seed in range(5):
        boxes, _ = mix(clips(), targets, always, np.random.default_rng(seed))
        blends, _ = mix(clips(), targets, never, np.random.default_rng(seed))
        assert set(boxes.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
        assert blends[0].unique().numel() == 1


def test_soft_cross_entropy_equals_the_hard_one_on_hard_targets():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    hard = torch.nn.functional.cross_entropy(logits, LABELS)
    soft = soft_cross_entropy(logits, smooth_targets(LABELS, 3, 0.0))
    assert soft.shape == (4,)
    assert soft.mean().item() == pytest.approx(hard.item(), rel=1e-6)


def own_shares(config: MixConfig, num_steps: int) -> np.ndarray:
    """(steps, 256): how much of its own label each clip of a batch of 256 keeps."""
    pixels, targets = torch.zeros(256, 1, 1, 32, 32), torch.eye(256)
    mixed = (mix(pixels, targets, config, np.random.default_rng(step))[1] for step in range(num_steps))
    return np.stack([targets.diagonal().numpy() for targets in mixed])


@pytest.mark.parametrize(
    ("micro_batch", "unmixed", "mean"), [(8, 0.126, 0.656), (4, 0.250, 0.699), (1, 1.0, 1.0)]
)
def test_mixing_as_released(micro_batch: int, unmixed: float, mean: float):
    """Figures of the released code, with as many clips on a GPU: those that meet themselves, and the own label left."""
    shares = own_shares(MixConfig(partners="random", micro_batch=micro_batch), 200)
    assert (shares > 1 - 1e-6).mean() == pytest.approx(unmixed, abs=0.01)
    assert shares.mean() == pytest.approx(mean, abs=0.02)
    if micro_batch == 8:
        assert shares.mean(axis=1).std() == pytest.approx(0.041, abs=0.006), "over steps of 32 draws"


def test_one_draw_for_the_whole_batch():
    """What a batch of 256 mixed by one draw gives, for comparison: hardly a clip unmixed, and steps far apart."""
    shares = own_shares(MixConfig(), 400)
    assert (shares > 1 - 1e-6).mean() < 0.01
    assert shares.mean() == pytest.approx(0.58, abs=0.03)
    assert shares.mean(axis=1).std() > 0.2


def test_clips_mix_only_within_their_micro_batch():
    """Six clips in parts of 4 and 2: no target of one part reaches into the other, and pixels agree with targets."""
    pixels = torch.arange(6.0).view(6, 1, 1, 1, 1).expand(6, 2, 3, 8, 8).clone()
    config = MixConfig(cutmix_alpha=0, partners="random", micro_batch=4)
    mixed, targets = mix(pixels, torch.eye(6), config, np.random.default_rng(3))
    assert targets[:4, 4:].abs().sum() == targets[4:, :4].abs().sum() == 0
    assert torch.allclose(mixed[:, 0, 0, 0, 0], targets @ torch.arange(6.0))
    assert not torch.equal(targets, torch.eye(6))


@pytest.mark.parametrize("partners", ["mirror", "random"])
@pytest.mark.parametrize("num_processes", [2, 3, 4])
def test_processes_mix_what_one_process_mixes(num_processes: int, partners: str):
    """Each has the partners of its clips, and nothing else is needed."""
    config = MixConfig(partners=partners, micro_batch=None if partners == "mirror" else 3)
    pixels = torch.rand(24, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for seed in range(8):
        whole, targets = mix(pixels, torch.eye(24), config, np.random.default_rng(seed))
        seen = []
        for places in shares(24, num_processes, config):
            mixings = draw_mixing(24, 8, config, np.random.default_rng(seed))
            row_of = {place: row for row, place in enumerate(places)}
            own, own_targets = mix_as_drawn(pixels[places], torch.eye(24)[places], mixings, row_of)
            assert torch.equal(own, whole[places])
            assert torch.equal(own_targets, targets[places])
            seen += places
        assert sorted(seen) == list(range(24))


def test_a_clip_without_its_partner_stays_as_it_is():
    mixings = draw_mixing(4, 8, MixConfig(), np.random.default_rng(0))
    pixels, targets = mix_as_drawn(clips(), torch.eye(4), mixings, {0: 0, 1: 1, 2: 2})
    assert torch.equal(pixels[[0, 3]], clips()[[0, 3]])
    assert torch.equal(targets[[0, 3]], torch.eye(4)[[0, 3]])
    assert not torch.equal(targets[1], torch.eye(4)[1])


@pytest.mark.parametrize(
    ("num_clips", "num_processes", "config", "message"),
    [
        (2, 2, MixConfig(), "2 clips mixed in pairs are too few for 2 processes"),
        (8, 2, MixConfig(partners="random"), "mix.micro_batch"),
        (1, 2, MixConfig(mixup_alpha=0, cutmix_alpha=0), "too few"),
    ],
)
def test_batches_that_cannot_be_shared(num_clips: int, num_processes: int, config: MixConfig, message: str):
    with pytest.raises(InputError, match=message):
        shares(num_clips, num_processes, config)
