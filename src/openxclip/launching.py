"""Starts several processes on this machine with torch's launcher. Imports nothing heavy."""

import os
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHUTDOWN_SECONDS = "120"
"""Time for processes to save and exit after a signal, before torch's launcher kills them; its default of 30 is short
for large checkpoints. Older versions of torch ignore it."""


@dataclass(frozen=True)
class Launch:
    """Raised by a command that has to run again in several processes."""

    num_processes: int


def num_started() -> int:
    """Number of processes that torchrun started, including this one; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def are_many() -> bool:
    """Whether torchrun started this process as one of several."""
    return num_started() > 1


def launch(num_processes: int, arguments: Sequence[str]) -> int:
    """Run `openxclip` with these arguments in several processes on this machine, by torch's launcher -> exit status."""
    import logging

    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in list(logging.root.manager.loggerDict):  # each of torch's loggers has its own level
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the processes report errors themselves
    cores = os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // num_processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=uuid.uuid4().hex,
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "openxclip", *arguments)
    except ChildFailedError as error:
        return _status(error)
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _status(error: Any) -> int:
    """The exit status of the process that failed first; 128 + signal, as in a shell, if a signal ended it."""
    code = int(error.get_first_failure()[1].exitcode)
    return code if code >= 0 else 128 - code
