"""Training clips: what is drawn, and that it depends on (seed, epoch, position) alone."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from videos import write_video

from openxclip.data.dataset import (
    CachedFrames,
    DecodedFrames,
    SampleKey,
    TrainClips,
    augmented,
    clip_loader,
    collate,
    epoch_batches,
    shards_of,
)
from openxclip.data.manifest import read_manifest
from openxclip.data.media import FileMedia, Item, Manifest
from openxclip.data.moving_shapes import shapes_manifest
from openxclip.errors import InputError
from openxclip.video.convert import FrameSize
from openxclip.video.decode import read_frames
from openxclip.video.sampling import centred
from openxclip.video.transforms import TrainTransform

TRANSFORM = TrainTransform(input_size_px=32)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    """Three videos of two classes, and one that is no video."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(3):
        write_video(folder / f"{i}.mp4", num_frames=12 + i)
    (folder / "broken.mp4").write_bytes(b"no video at all")
    (folder / "labels.csv").write_text("id,name\n0,waves\n1,blocks\n")
    (folder / "train.txt").write_text("0.mp4 0\n1.mp4 1\n2.mp4 0\nbroken.mp4 1\n")
    return read_manifest(folder, list_name="train.txt")


def clips(manifest: Manifest, seed: int = 0) -> TrainClips:
    return TrainClips(manifest, DecodedFrames(36), TRANSFORM, num_frames=4, seed=seed)


def test_a_clip_is_uint8_at_the_input_size(manifest):
    pixels, label, error, name, to_do = clips(manifest)[SampleKey(0, 0, 1)]
    assert name == "1.mp4"
    assert pixels.shape == (4, 3, 32, 32)
    assert (pixels.dtype, label, error, to_do) == (torch.uint8, 1, None, None)


def test_a_clip_depends_on_seed_epoch_and_position_alone(manifest):
    first = clips(manifest)[SampleKey(1, 2, 0)].pixels
    assert torch.equal(first, clips(manifest)[SampleKey(1, 2, 0)].pixels)
    for other in (SampleKey(2, 2, 0), SampleKey(1, 3, 0)):
        assert not torch.equal(first, clips(manifest)[other].pixels)
    assert not torch.equal(first, clips(manifest, seed=1)[SampleKey(1, 2, 0)].pixels)


class Watched:
    """A frame source that keeps the indices asked for."""

    def __init__(self) -> None:
        self.frames = DecodedFrames(36)
        self.indices: list[list[int]] = []

    def __call__(self, item: Item, choose: Callable[[int], np.ndarray]) -> np.ndarray:
        def watched(length: int) -> np.ndarray:
            self.indices.append(choose(length).tolist())
            return np.array(self.indices[-1])

        return self.frames(item, watched)


def test_dense_clips_are_windows_from_anywhere_and_sparse_ones_spread(manifest):
    dense, sparse = Watched(), Watched()
    windows = TrainClips(manifest, dense, TRANSFORM, num_frames=4, seed=0, dense_stride=2)
    spread = TrainClips(manifest, sparse, TRANSFORM, num_frames=4, seed=0)
    for epoch in range(40):
        assert windows[SampleKey(epoch, 0, 0)].pixels.shape == (4, 3, 32, 32)
        spread[SampleKey(epoch, 0, 0)]
    assert all(np.diff(row).tolist() == [2, 2, 2] for row in dense.indices)
    assert {row[0] for row in dense.indices} == {0, 1, 2, 3, 4, 5}  # of 12 frames, 7 are in the window
    assert all([i // 3 for i in row] == [0, 1, 2, 3] for row in sparse.indices)


def test_rendered_clips_are_not_encoded_on_the_way():
    item = shapes_manifest("train").items[0]
    choose = partial(centred, num_samples=4)
    assert np.array_equal(
        DecodedFrames(36)(item, choose), item.media.frames(choose, 36).transpose(0, 3, 1, 2)
    )
    kept = CachedFrames(36, max_frames=8)(item, np.arange)
    assert np.array_equal(kept, item.media.frames(partial(centred, num_samples=8), 36).transpose(0, 3, 1, 2))


stacked = partial(collate, clip_shape=(4, 3, 32, 32))


@pytest.mark.parametrize("start", ["fork", "spawn"])  # Linux's and macOS's ways to start a process
def test_worker_processes_change_nothing(manifest, start):
    batches = epoch_batches(4, 4, 2, seed=0, epoch=0)
    alone = DataLoader(clips(manifest), batch_sampler=batches, collate_fn=stacked)
    workers = DataLoader(
        clips(manifest),
        batch_sampler=batches,
        collate_fn=stacked,
        num_workers=2,
        multiprocessing_context=start,
    )
    for here, there in zip(alone, workers, strict=True):
        assert torch.equal(here.pixels, there.pixels)
        assert torch.equal(here.labels, there.labels)
        assert here.errors == there.errors


@pytest.mark.on_cpu
@pytest.mark.parametrize("num_workers", [0, 2])
def test_augmentation_on_the_device_gives_the_pixels_of_the_workers(manifest, num_workers):
    batches = epoch_batches(4, 8, 4, seed=0, epoch=0)
    later = TrainClips(manifest, DecodedFrames(36), TRANSFORM, num_frames=4, seed=0, augment="device")
    pairs = zip(
        clip_loader(clips(manifest), batches, 0), clip_loader(later, batches, num_workers), strict=True
    )
    for finished, raw in pairs:
        assert [frames.shape[:2] for frames in raw.frames] == [(4, 3)] * int(raw.is_read.sum())
        assert raw.pixels.numel() == 0
        assert torch.equal(augmented(raw, TRANSFORM, torch.device("cpu")), finished.pixels)
        assert torch.equal(augmented(finished, TRANSFORM, torch.device("cpu")), finished.pixels)
        assert torch.equal(raw.labels, finished.labels)
        assert raw.errors == finished.errors


def test_an_unreadable_video_is_reported_and_keeps_its_place(manifest):
    dataset = clips(manifest)
    batch = stacked([dataset[SampleKey(0, i, i)] for i in (0, 3, 1)])
    assert batch.is_read.tolist() == [True, False, True]
    assert torch.equal(batch.pixels[2], dataset[SampleKey(0, 1, 1)].pixels)
    assert batch.pixels[1].max() == 0
    assert batch.names == [manifest.items[i].path for i in (0, 3, 1)]
    assert batch.labels.tolist() == [manifest.items[i].label for i in (0, 3, 1)]
    assert len(batch.errors) == 1
    assert "broken.mp4" in batch.errors[0]


def test_a_batch_of_unreadable_videos_is_black(manifest):
    batch = stacked([clips(manifest)[SampleKey(0, 0, 3)]])
    assert batch.pixels.shape == (1, 4, 3, 32, 32)
    assert not batch.is_read.any()
    assert len(batch.errors) == 1


def test_the_cache_gives_the_frames_that_decoding_gives_and_decodes_once(manifest, tmp_path):
    item = manifest.items[1]
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(item.media.path.read_bytes())
    cached = CachedFrames(36, max_frames=6)
    movable = type(item)(path="copy.mp4", label=0, media=FileMedia(copy))
    seen = cached(movable, lambda length: np.arange(length))
    expected = read_frames(copy, lambda length: centred(length, 6), FrameSize(short_side_px=36)).data
    assert np.array_equal(seen, expected)
    copy.unlink()
    assert np.array_equal(cached(movable, lambda length: np.array([5, 0])), expected[[5, 0]])


def test_the_cache_keeps_every_frame_of_a_short_video(manifest):
    frames = CachedFrames(36, max_frames=100)(manifest.items[0], lambda length: np.arange(length))
    assert len(frames) == 12


def test_an_epoch_sees_each_video_once():
    batches = epoch_batches(10, 10, 5, seed=3, epoch=0)
    keys = [key for batch in batches for key in batch]
    assert sorted(key.item for key in keys) == list(range(10))
    assert [key.position for key in keys] == list(range(10))
    assert [len(batch) for batch in batches] == [5, 5]


def test_epochs_are_shuffled_differently_and_repeatably():
    assert epoch_batches(50, 50, 50, seed=3, epoch=0) == epoch_batches(50, 50, 50, seed=3, epoch=0)
    orders = [
        tuple(k.item for k in epoch_batches(50, 50, 50, seed=s, epoch=e)[0]) for s in (3, 4) for e in (0, 1)
    ]
    assert len(set(orders)) == 4


def test_more_samples_than_videos_go_round():
    (keys,) = epoch_batches(3, 8, 8, seed=0, epoch=0)
    counts = np.bincount([key.item for key in keys])
    assert counts.sum() == 8
    assert counts.min() >= 2


def test_the_last_incomplete_batch_is_left_out_but_a_short_epoch_is_one_batch():
    assert [len(batch) for batch in epoch_batches(10, 10, 4, seed=0, epoch=0)] == [4, 4]
    assert [len(batch) for batch in epoch_batches(3, 3, 4, seed=0, epoch=0)] == [3]


def test_the_order_by_shards_shuffles_shards_and_the_clips_of_a_few():
    shards = [i % 12 for i in range(120)]
    orders = [
        [key.item for batch in epoch_batches(120, 240, 10, seed=3, epoch=e, shards=shards) for key in batch]
        for e in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    for start in (0, 120):  # two rounds
        once = orders[0][start : start + 120]
        assert sorted(once) == list(range(120))
        windows = [{shards[item] for item in once[w : w + 40]} for w in (0, 40, 80)]
        assert [len(window) for window in windows] == [4, 4, 4]
        assert once[:40] != sorted(once[:40], key=lambda item: shards[item]), "shuffled across the four"


def test_only_shards_have_an_order_by_shards(manifest):
    with pytest.raises(InputError, match="openxclip pack"):
        shards_of(manifest)
