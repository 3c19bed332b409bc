"""Training clips a second from a folder of real videos: where the time of one goes, and what several processes give.

A step of training that takes longer than the loader needs for its batch never waits: compare with `training`.
"""

import time
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from benchmarks.harness import Timing, command, duration, interleave
from benchmarks.options import Options, UnavailableError
from benchmarks.report import Section
from openxclip.data.dataset import DecodedFrames, TrainClips, clip_loader, epoch_batches
from openxclip.data.manifest import read_manifest
from openxclip.data.media import Item, Manifest
from openxclip.reports.table import Table
from openxclip.video.sampling import sparse_train
from openxclip.video.transforms import TrainTransform

SUITE = "loading"
FOLDER, LIST = "ucf8", "train_16shot.txt"
NUM_FRAMES, INPUT_PX = 8, 224  # B/32-8
BATCH_SIZE = 8
NUM_WORKERS = (0, 1, 2)
NUM_CLIPS = 64  # of the list; that many are decoded and augmented one by one, and by each number of workers
SEED = 0

STAGES = DECODING, AUGMENTATION = "decoding and scaling", "crop, flip, colour jitter"


def run(options: Options) -> Section:
    """Real clips, as `openxclip train` reads them."""
    folder = options.data / FOLDER
    if not (folder / LIST).exists():
        raise UnavailableError(f"it needs {folder / LIST}; give the folder of the clips with --data")
    return measure(read_manifest(folder, list_name=LIST), NUM_CLIPS)


def measure(manifest: Manifest, num_clips: int) -> Section:
    """The suite on any clips."""
    transform = TrainTransform(input_size_px=INPUT_PX)
    clips = TrainClips(manifest, DecodedFrames(transform.short_side_px), transform, NUM_FRAMES, SEED)
    stages = stage_timings(manifest.items[:num_clips], transform)
    loaders = {count: clips_per_second(clips, count, num_clips) for count in NUM_WORKERS}
    return Section(
        suite=SUITE, tables=(_stage_table(stages), _loader_table(loaders, num_clips)), timings=stages
    )


def stage_timings(items: Sequence[Item], transform: TrainTransform) -> dict[str, Timing]:
    """Seconds of each stage, a clip a round, in one thread."""
    decode = DecodedFrames(transform.short_side_px)
    rng = np.random.default_rng(SEED)
    frames: dict[Item, np.ndarray] = {}

    def read(item: Item) -> None:
        frames[item] = decode(item, lambda length: sparse_train(length, NUM_FRAMES, rng))

    def augment(item: Item) -> None:
        transform(frames.pop(item), rng)

    stages: dict[str, Callable[[Item], None]] = dict(zip(STAGES, (read, augment), strict=True))
    return interleave(stages, items, "stages").timings


def clips_per_second(clips: TrainClips, num_workers: int, num_clips: int) -> float:
    """The rate of a loader once each of its processes has given its first batch: they start at leisure."""
    num_first = max(1, num_workers)
    num_samples = num_clips + num_first * BATCH_SIZE
    batches = epoch_batches(len(clips.manifest.items), num_samples, BATCH_SIZE, seed=SEED, epoch=0)
    loader = iter(clip_loader(clips, batches, num_workers))
    for _ in islice(loader, num_first):
        pass
    started = time.perf_counter()
    counts = [len(batch.labels) for batch in loader]
    return sum(counts) / (time.perf_counter() - started)


def _stage_table(timings: dict[str, Timing]) -> Table:
    medians = {name: timing.median_seconds for name, timing in timings.items()}
    total = sum(medians.values())
    return Table(
        title=f"A training clip, {NUM_FRAMES} frames of {INPUT_PX} px: medians of "
        f"{len(timings[DECODING].seconds)} clips",
        command=command(SUITE),
        columns=("stage", "one thread", "share"),
        rows=tuple((name, duration(seconds), f"{seconds / total:.0%}") for name, seconds in medians.items()),
    )


def _loader_table(rates: dict[int, float], num_clips: int) -> Table:
    return Table(
        title=f"The loader alone, batches of {BATCH_SIZE}",
        command=command(SUITE),
        columns=("worker processes", "clips a second"),
        rows=tuple((count, f"{rate:.1f}") for count, rate in rates.items()),
        notes=(f"{num_clips} clips of {LIST} after the first batches; 0 is the training process itself.",),
    )
