"""The processes of a run started by torchrun: ranks, collective operations, and error reporting.

Without torchrun there is one process, and everything here returns its input. No state is kept here: torch knows the
processes of a run.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import distributed as dist

from openxclip.errors import InputError

Value = TypeVar("Value")

BACKENDS = "cpu:gloo,cuda:nccl"
"""Group for small CPU values such as counts, which never wait for a GPU."""
PATIENCE = timedelta(days=1)
"""Timeout: one process may have long work that the others wait for; a dead process is noticed at once."""
ERROR_KEY = "error"


@dataclass(frozen=True)
class Processes:
    """The processes of this run, seen from one of them."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Sums of each process's numbers over all processes, the same in each."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def gathered(self, value: Value) -> list[Value]:
        """The values of all processes, by rank, in each of them."""
        if self.count == 1:
            return [value]
        values: list[Value | None] = [None] * self.count
        dist.all_gather_object(values, value)
        return cast(list[Value], values)

    def from_first(self, make: Callable[[], Value]) -> Value:
        """The first process's result, in all of them; the others wait for it."""
        if self.count == 1:
            return make()
        values = [make() if self.is_first else None]
        dist.broadcast_object_list(values)
        return cast(Value, values[0])

    def share_of(self, num_items: int, num_together: int) -> list[int]:
        """The items of this process: groups of this size, in the order of a single process."""
        groups = [
            range(start, min(start + num_together, num_items)) for start in range(0, num_items, num_together)
        ]
        return [item for group in groups[self.rank :: self.count] for item in group]

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.sums([0.0])  # gloo sends no message for an empty list


def check_has_gpu() -> None:
    """Refuse more processes on this machine than it has GPUs: each process needs its own.

    Raises:
        InputError: there is no GPU for this process.
    """
    place, num_gpus = _place(), torch.cuda.device_count()
    if current().count > 1 and place >= num_gpus:
        raise InputError(
            f"process {place + 1} on this machine has no GPU, there are {num_gpus}; start at most that many processes, "
            "or give --device cpu"
        )


def _place() -> int:
    """Rank of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def current() -> Processes:
    """The processes of this run."""
    if not (dist.is_available() and dist.is_initialized()):
        return Processes()
    return Processes(dist.get_rank(), dist.get_world_size())


class Errors:
    """Makes sure that the error that ends a run is printed once, no matter how many processes it reaches."""

    def __init__(self, store: dist.Store, rank: int) -> None:
        self._store, self._rank = store, rank
        self._stderr = sys.stderr

    def tell(self, text: str) -> None:
        """Print the error, unless another process has printed one."""
        own = str(self._rank)
        try:
            if self._store.compare_set(ERROR_KEY, "", own).decode() == own:
                print(text, file=self._stderr, flush=True)
        except RuntimeError:  # the store ended with its process, which printed its own error
            return

    def is_told(self) -> bool:
        """Whether a process has printed an error."""
        return self._store.check([ERROR_KEY])


def run_as_one(run: Callable[[Callable[[str], None]], int]) -> int:
    """Run something as one of the processes that torchrun started -> exit status.

    The first process shows output; the error that ends the run is printed once. `run` gets the object to report errors.
    """
    if _place() < torch.cuda.device_count():
        torch.cuda.set_device(_place())
    store, rank, count = next(iter(dist.rendezvous("env://")))
    backend = BACKENDS if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("group", store),
        rank=rank,
        world_size=count,
        timeout=PATIENCE,
    )
    errors = Errors(dist.PrefixStore("errors", store), rank)
    if rank > 0:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 until the process ends
        logging.getLogger().setLevel(logging.CRITICAL)
    try:
        status = run(errors.tell)
        if not errors.is_told():
            dist.barrier()  # a process that exits while others still talk to it would end them
    except Exception as error:  # noqa: BLE001 any error ends all processes, and one of them prints it
        errors.tell(LOST if _is_of_another(error) else traceback.format_exc())
        status = 1
    sys.stdout.flush()
    if errors.is_told():  # others may be in the middle of a collective with this one
        os._exit(status or 1)
    dist.destroy_process_group()
    return status


LOST = "openxclip: another process of this run has ended; run the same command to resume from the last checkpoint"


def _is_of_another(error: Exception) -> bool:
    """Whether an error only says that another process of the run is gone."""
    signs = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
