"""A dry run: what a training would do, and whether it can start."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openxclip.checkpoints.device import resolve_device
from openxclip.data.checks import check_training_clips
from openxclip.data.dataset import SampleKey, TrainClips
from openxclip.data.manifest import read_manifest
from openxclip.data.subsets import without_missing
from openxclip.training.config import TrainConfig
from openxclip.training.distributed import check_sharding
from openxclip.training.estimate import Memory, estimate_memory
from openxclip.training.options import Sharding
from openxclip.training.shares import num_parts, shares
from openxclip.training.start import starting_point
from openxclip.training.train import training_clips

NUM_SAMPLES = 4
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class DrySample:
    """A clip that was read."""

    name: str
    seconds: float
    """Time of reading and augmentation."""
    error: str | None


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """Summary of a planned training."""

    config: TrainConfig
    num_clips: int
    num_missing: int
    num_labels: int
    steps_per_epoch: int
    num_steps: int
    clips_of_a_pass: int
    """Clips per forward pass in one process."""
    memory: Memory
    device: str
    samples: tuple[DrySample, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def text(self) -> str:
        """For people."""
        memory = self.memory
        parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in asdict(memory).items())
        batch = (
            f"{self.config.optim.batch_size} clips a step, {self.clips_of_a_pass} at a time in each process"
        )
        lines = [
            f"{self.num_clips} clips of {self.num_labels} classes, {self.num_missing} missing",
            f"{self.config.optim.epochs} epochs of {self.steps_per_epoch} steps: {self.num_steps} steps; {batch}",
            f"memory of each process on {self.device}, about {memory.total / GIB:.1f} GiB: {parts}",
            *(
                f"read {sample.name} in {1000 * sample.seconds:.0f} ms"
                if sample.error is None
                else f"cannot read {sample.error}"
                for sample in self.samples
            ),
        ]
        return "\n".join(lines)


def dry_run(
    config: TrainConfig,
    data: Path,
    *,
    labels: str | None = None,
    media_root: Path | None = None,
    device: str = "auto",
    num_processes: int = 1,
    sharding: Sharding = "none",
) -> DryRun:
    """Read the lists, the start and some clips; nothing is written.

    Args:
        config: the recipe.
        data: a list file or a folder.
        labels: label set, if not next to the list.
        media_root: where the videos are, if not next to the list.
        device: as `openxclip.load` takes it.
        num_processes: processes that share each batch.
        sharding: whether they share the weights as well.

    Raises:
        InputError: a list cannot be used, or the processes cannot share a batch or the weights.
        CheckpointError: the weights that the run starts from cannot be read.
    """
    check_sharding(config, sharding, num_processes)
    listed = read_manifest(data, list_name=config.data.train_list, labels=labels, media_root=media_root)
    found, missing = without_missing(listed, config.data.skip_missing)
    check_training_clips(found)
    start = starting_point(config, found.labels)
    num_samples = config.data.samples_per_epoch or len(found.items)
    of_batch = min(config.optim.batch_size, num_samples)
    all_shares = shares(of_batch, num_processes, config.mix)
    at_once = -(-max(map(len, all_shares)) // num_parts(all_shares, config.optim.accumulation_steps))
    place = resolve_device(device).type
    clips = training_clips(config, found, start)
    steps = max(1, num_samples // config.optim.batch_size)
    num_shards = num_processes if sharding == "blocks" else 1
    return DryRun(
        config=config,
        num_clips=len(found.items),
        num_missing=len(missing),
        num_labels=len(found.labels),
        steps_per_epoch=steps,
        num_steps=steps * config.optim.epochs,
        clips_of_a_pass=at_once,
        memory=estimate_memory(config, start.model.config, at_once, place, num_shards),
        device=place,
        samples=tuple(_read(clips, i) for i in range(min(NUM_SAMPLES, len(found.items)))),
    )


def _read(clips: TrainClips, number: int) -> DrySample:
    """Items spread evenly over the list."""
    item = number * len(clips.manifest.items) // NUM_SAMPLES
    started = time.perf_counter()
    sample = clips[SampleKey(0, number, item)]
    return DrySample(name=sample.name, seconds=time.perf_counter() - started, error=sample.error)
