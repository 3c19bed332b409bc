"""Distributes the clips of a batch over processes: clips that are mixed with each other stay together.

So only gradients are exchanged between processes, and each clip looks the same as in a run of one process.
"""

from collections.abc import Sequence

from openxclip.errors import InputError
from openxclip.training.config import MixConfig


def shares(num_clips: int, num_processes: int, config: MixConfig) -> list[list[int]]:
    """Positions in a batch for each process, distributed as evenly as possible.

    Raises:
        InputError: there are fewer groups of clips that belong together than processes.
    """
    if num_processes == 1:
        return [list(range(num_clips))]
    groups = _groups(num_clips, config)
    if len(groups) < num_processes:
        how = {1: "", 2: " mixed in pairs"}.get(len(groups[0]), f" mixed among {len(groups[0])}")
        hint = "; set mix.micro_batch to fewer" if config.partners == "random" and _mixes(config) else ""
        raise InputError(
            f"{num_clips} clips{how} are too few for {num_processes} processes; take fewer, or a larger "
            f"optim.batch_size{hint}"
        )
    ends = [round(len(groups) * (rank + 1) / num_processes) for rank in range(num_processes)]
    starts = [0, *ends]
    return [
        [place for group in groups[start:end] for place in group]
        for start, end in zip(starts, ends, strict=False)
    ]


def num_parts(all_shares: Sequence[Sequence[int]], accumulation_steps: int) -> int:
    """Number of passes into which each process splits its share: the same in all, each with at least one clip."""
    return min(accumulation_steps, *map(len, all_shares))


def _groups(num_clips: int, config: MixConfig) -> list[list[int]]:
    """The smallest groups of positions whose clips are mixed among themselves."""
    if not _mixes(config):
        return [[place] for place in range(num_clips)]
    size = config.micro_batch or num_clips
    parts = [range(start, min(start + size, num_clips)) for start in range(0, num_clips, size)]
    if config.partners == "random":
        return [list(part) for part in parts]
    return [sorted({part[i], part[-1 - i]}) for part in parts for i in range((len(part) + 1) // 2)]


def _mixes(config: MixConfig) -> bool:
    return config.mixup_alpha > 0 or config.cutmix_alpha > 0
