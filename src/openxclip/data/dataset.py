"""Training clips: every random draw depends only on the seed and its position in the run.

So a run sees the same clips with any number of worker processes, and after an interruption.

Shapes: T frames, H x W video, S input side.
"""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from openxclip.data.media import Item, Manifest, TarMember
from openxclip.errors import InputError, VideoError
from openxclip.video.convert import FrameSize
from openxclip.video.sampling import centred, dense, sparse_train
from openxclip.video.source import VideoLimits
from openxclip.video.transforms import Augmentation, TrainTransform


class Draw(IntEnum):
    """Purposes of random generators: those of one training run never share numbers.

    Language-image pretraining, a separate run, also draws the stills and captions of a step as CLIP, with key
    (step,). numpy reads missing numbers of a key as 0, so it gets the numbers of a training's clip (step, 0).
    """

    ORDER = 1
    """The order of an epoch: key (epoch,)."""
    CLIP = 2
    """Frames and augmentation of a clip: key (epoch, position)."""
    STEP = 3
    """Mixing and drop path of an optimizer step: key (step,)."""


def generator(purpose: Draw, seed: int, *key: int) -> np.random.Generator:
    """The random generator of one purpose and key."""
    return np.random.default_rng([purpose, seed, *key])


class SampleKey(NamedTuple):
    """A clip and the random version of it."""

    epoch: int
    position: int
    """Position in the epoch."""
    item: int
    """Position in the manifest."""


class Sample(NamedTuple):
    """One training clip, or the error if it could not be read."""

    pixels: Tensor | None
    """uint8 (T, 3, S, S)."""
    label: int
    error: str | None
    """Set if the video could not be read; then `pixels` is None."""
    name: str
    """Name of the video in the list."""
    augmentation: Augmentation | None = None
    """The remaining augmentation of `pixels`, which are then cropped frames uint8 (T, 3, H, W)."""


class Batch(NamedTuple):
    """Clips of a batch; a clip that could not be read keeps its position."""

    pixels: Tensor
    """uint8 (B, T, 3, S, S), black where a clip could not be read; empty if augmentation is still to be done."""
    labels: Tensor
    """int64 (B,)."""
    is_read: Tensor
    """bool (B,)."""
    errors: list[str]
    """Errors of the clips that could not be read."""
    names: list[str]
    """Names of all clips."""
    frames: tuple[Tensor, ...] = ()
    """If augmentation is still to be done: the cropped clips that were read, uint8 (T, 3, H, W), each with its own
    size."""
    augmentations: tuple[Augmentation, ...] = ()
    """What `augmented` does to each of them."""


class FrameSource(Protocol):
    """A dataset's source of frames: `choose` maps a video's length to the wanted indices."""

    def __call__(self, item: Item, choose: Callable[[int], np.ndarray]) -> np.ndarray:
        """Frames uint8 (T, 3, H, W)."""


class DecodedFrames:
    """Decodes, or renders, on every call."""

    def __init__(self, short_side_px: int, limits: VideoLimits | None = None) -> None:
        self.size = FrameSize(short_side_px=short_side_px)
        self.limits = limits

    def __call__(self, item: Item, choose: Callable[[int], np.ndarray]) -> np.ndarray:
        """Frames uint8 (T, 3, H, W)."""
        return item.media.read(choose, self.size, limits=self.limits)


class CachedFrames:
    """Decodes each video once and keeps up to `max_frames` evenly spaced frames of it in memory."""

    def __init__(self, short_side_px: int, max_frames: int, limits: VideoLimits | None = None) -> None:
        self.decode = DecodedFrames(short_side_px, limits)
        self.max_frames = max_frames
        self._kept: dict[Item, np.ndarray] = {}

    def __call__(self, item: Item, choose: Callable[[int], np.ndarray]) -> np.ndarray:
        """Frames uint8 (T, 3, H, W), chosen from those in memory."""
        if item not in self._kept:
            self._kept[item] = self.decode(item, lambda n: centred(n, min(n, self.max_frames)))
        frames = self._kept[item]
        return frames[choose(len(frames))]


class TrainClips(Dataset[Sample]):
    """Random frames of each video, augmented (section 4): sparse, or every `dense_stride`-th frame of a window."""

    def __init__(
        self,
        manifest: Manifest,
        frames: FrameSource,
        transform: TrainTransform,
        num_frames: int,
        seed: int,
        dense_stride: int | None = None,
        augment: Literal["workers", "device"] = "workers",
    ) -> None:
        """`augment`: whether samples are finished pixels, or frames for `augmented`."""
        self.manifest = manifest
        self.frames = frames
        self.transform = transform
        self.num_frames = num_frames
        self.seed = seed
        self.dense_stride = dense_stride
        self.augment = augment

    def __getitem__(self, key: SampleKey) -> Sample:
        item = self.manifest.items[key.item]
        rng = generator(Draw.CLIP, self.seed, key.epoch, key.position)
        try:
            frames = self.frames(item, lambda length: self._indices(length, rng))
        except VideoError as error:
            return Sample(None, item.label, str(error), item.path)
        if self.augment == "workers":
            return Sample(self.transform(frames, rng), item.label, None, item.path)
        num_frames, _, height, width = frames.shape
        cropped, drawn = cut(frames, self.transform.draw(height, width, num_frames, rng))
        return Sample(torch.from_numpy(cropped), item.label, None, item.path, drawn)

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, 3, S, S)."""
        side = self.transform.input_size_px
        return self.num_frames, 3, side, side

    def _indices(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """(T,) frames of a video of `length` frames."""
        if self.dense_stride is None:
            return sparse_train(length, self.num_frames, rng)
        return dense(length, self.num_frames, self.dense_stride, rng)


def cut(frames: np.ndarray, augmentation: Augmentation) -> tuple[np.ndarray, Augmentation]:
    """The crop of the frames that the augmentation uses, half of them on average, and the remaining augmentation."""
    top, left, height, width = augmentation.crop
    cropped = np.ascontiguousarray(frames[..., top : top + height, left : left + width])
    return cropped, replace(augmentation, crop=(0, 0, height, width))


def collate(samples: Sequence[Sample], clip_shape: tuple[int, int, int, int]) -> Batch:
    """Stack uint8 clips of this shape; those that could not be read keep their positions."""
    read = [(place, sample) for place, sample in enumerate(samples) if sample.pixels is not None]
    augmentations = tuple(sample.augmentation for _, sample in read if sample.augmentation is not None)
    pixels = torch.zeros(0 if augmentations else len(samples), *clip_shape, dtype=torch.uint8)
    frames = []
    for place, sample in read:
        assert sample.pixels is not None
        if augmentations:
            frames.append(sample.pixels)
        else:
            pixels[place] = sample.pixels
    return Batch(
        pixels,
        torch.tensor([sample.label for sample in samples]),
        torch.tensor([sample.pixels is not None for sample in samples]),
        [sample.error for sample in samples if sample.error is not None],
        [sample.name for sample in samples],
        tuple(frames),
        augmentations,
    )


def augmented(batch: Batch, transform: TrainTransform, device: torch.device) -> Tensor:
    """Pixels uint8 (B, T, 3, S, S) of a batch on a device, augmented there if the workers have not done it."""
    if not batch.augmentations:
        return batch.pixels.to(device, non_blocking=True)
    pixels = torch.zeros(len(batch.labels), *batch.pixels.shape[1:], dtype=torch.uint8, device=device)
    places = batch.is_read.nonzero()[:, 0].tolist()
    for place, frames, drawn in zip(places, batch.frames, batch.augmentations, strict=True):
        pixels[place] = transform.apply(frames.to(device, non_blocking=True), drawn)
    return pixels


def clip_loader(
    clips: TrainClips, batches: Sequence[list[SampleKey]], num_workers: int, pin_memory: bool = False
) -> DataLoader[Batch]:
    """The batches in this order, made by at most as many worker processes as cores; 0 uses this process."""
    # More workers than cores only wait for each other, and torch warns about them.
    return DataLoader(
        cast(Dataset[Batch], clips),  # torch's types ignore collate_fn
        batch_sampler=batches,
        num_workers=min(num_workers, os.cpu_count() or 1),
        collate_fn=partial(collate, clip_shape=clips.clip_shape),
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_alone,
    )


def _leave_signals_alone(worker: int) -> None:
    """Ignore signals in workers: one sent to the whole terminal must not end them before the training has saved."""
    del worker
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


SHARDS_AT_ONCE = 4
"""In the order by shards, clips are shuffled among this many shards."""


def epoch_batches(
    num_items: int,
    num_samples: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shards: Sequence[int] | None = None,
) -> list[list[SampleKey]]:
    """The batches of one epoch: shuffled passes over all items until `num_samples` are drawn.

    The last incomplete batch is left out, as published; fewer samples than a batch make one smaller batch.

    Args:
        num_items: of the manifest.
        num_samples: of the epoch.
        batch_size: samples of a batch.
        seed: of the run.
        epoch: which one.
        shards: the shard of each item: each pass then goes through the shards in a random order, a few at once.
            None shuffles all items.
    """
    rng = generator(Draw.ORDER, seed, epoch)
    num_rounds = -(-num_samples // num_items)
    rounds = (
        rng.permutation(num_items) if shards is None else _order_by_shards(np.array(shards), rng)
        for _ in range(num_rounds)
    )
    order = np.concatenate(list(rounds))[:num_samples]
    keys = [SampleKey(epoch, position, int(index)) for position, index in enumerate(order)]
    size = min(batch_size, num_samples)
    return [keys[start : start + size] for start in range(0, num_samples - size + 1, size)]


def _order_by_shards(shards: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Items in a random order that finishes a few shards before it moves on to others."""
    numbers = rng.permutation(np.unique(shards))
    windows = [numbers[start : start + SHARDS_AT_ONCE] for start in range(0, len(numbers), SHARDS_AT_ONCE)]
    return np.concatenate([rng.permutation(np.flatnonzero(np.isin(shards, window))) for window in windows])


def shards_of(manifest: Manifest) -> list[int]:
    """The shard of each item, for `epoch_batches`.

    Raises:
        InputError: the videos are not in tar files.
    """
    numbers: dict[Path, int] = {}
    shards = []
    for item in manifest.items:
        if not isinstance(item.media, TarMember):
            raise InputError(
                f"{manifest.name} is not in shards, so there is no order by shards: pack it with `openxclip pack`, or "
                "leave data.order at all"
            )
        shards.append(numbers.setdefault(item.media.tar, len(numbers)))
    return shards
