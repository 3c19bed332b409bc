"""One of the processes of a run in tests: `torchrun train_worker.py CONFIG.json DATA OUTPUT SHARDING [DIE_AT]`."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from openxclip.configuration import from_dict
from openxclip.processes import current, run_as_one
from openxclip.signals import stopped_by_signals
from openxclip.training import loop
from openxclip.training.config import TrainConfig
from openxclip.training.options import RunOptions
from openxclip.training.train import train


def work(tell: Callable[[str], None]) -> int:
    del tell
    config_file, data, output, sharding, *die_at = sys.argv[1:]
    if die_at:
        _die_at(int(die_at[0]))
    config = from_dict(TrainConfig, json.loads(Path(config_file).read_text()))
    with stopped_by_signals() as stop:
        options = RunOptions(sharding=sharding, stop=stop)  # type: ignore[arg-type]
        train(config, Path(data), Path(output), options=options)
    return 0


def _die_at(step: int) -> None:
    """The last process is killed in the middle of a step, as by the system."""
    whole_step = loop.TrainingLoop.step

    def dying(self, batch, number, backward):
        if number == step and current().rank == current().count - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole_step(self, batch, number, backward)

    loop.TrainingLoop.step = dying


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(run_as_one(work) if "RANK" in os.environ else work(print))
