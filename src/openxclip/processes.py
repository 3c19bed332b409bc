"""The processes of one run, as torchrun starts them: who is first, what all of them know, and what ends them.

Without torchrun there is one process, and everything here gives back what it is given. Nothing is kept here: torch
knows the processes of a run.
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
"""What is small and on the CPU, such as a count, never waits for a GPU."""
PATIENCE = timedelta(days=1)
"""One process may have long work that the others wait for; one that dies is noticed at once."""
ERROR_KEY = "error"


@dataclass(frozen=True)
class Processes:
    """The processes of this run, seen from one of them."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and shows."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, the same in each, of numbers that each has."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def gathered(self, value: Value) -> list[Value]:
        """What each process has, by rank, in all of them."""
        if self.count == 1:
            return [value]
        values: list[Value | None] = [None] * self.count
        dist.all_gather_object(values, value)
        return cast(list[Value], values)

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What the first process makes, in all of them; the others wait for it."""
        if self.count == 1:
            return make()
        values = [make() if self.is_first else None]
        dist.broadcast_object_list(values)
        return cast(Value, values[0])

    def share_of(self, num_items: int, num_together: int) -> list[int]:
        """Which items this process takes: groups of so many, as they would come one after the other in one process."""
        groups = [
            range(start, min(start + num_together, num_items)) for start in range(0, num_items, num_together)
        ]
        return [item for group in groups[self.rank :: self.count] for item in group]

    def wait(self) -> None:
        """Until all processes are here."""
        self.sums([0.0])  # of no numbers at all, gloo makes no message


def check_has_gpu() -> None:
    """Refuse more processes on this machine than it has GPUs, each of which is one process's.

    Raises:
        InputError: there is none for this process.
    """
    place, num_gpus = _place(), torch.cuda.device_count()
    if current().count > 1 and place >= num_gpus:
        raise InputError(
            f"process {place + 1} on this machine has no GPU, there are {num_gpus}; start at most as many processes, "
            "or give --device cpu"
        )


def _place() -> int:
    """Of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def current() -> Processes:
    """The processes of this run."""
    if not (dist.is_available() and dist.is_initialized()):
        return Processes()
    return Processes(dist.get_rank(), dist.get_world_size())


class Errors:
    """Sees to it that what ends a run is told once, whichever processes it reaches."""

    def __init__(self, store: dist.Store, rank: int) -> None:
        self._store, self._rank = store, rank
        self._stderr = sys.stderr

    def tell(self, text: str) -> None:
        """Print it, unless another process has told something."""
        own = str(self._rank)
        try:
            if self._store.compare_set(ERROR_KEY, "", own).decode() == own:
                print(text, file=self._stderr, flush=True)
        except RuntimeError:  # the store has ended with the process that kept it, which had an error to tell
            return

    def is_told(self) -> bool:
        """Whether a process has told something."""
        return self._store.check([ERROR_KEY])


def run_as_one(run: Callable[[Callable[[str], None]], int]) -> int:
    """Run something as one of the processes that torchrun started -> exit status.

    The first one shows and tells; whatever ends the run is told once. `run` gets what to tell errors by.
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
            dist.barrier()  # one that left while others still talk to it would end them
    except Exception as error:  # noqa: BLE001 whatever it is, it ends all processes, and one of them tells it
        errors.tell(LOST if _is_of_another(error) else traceback.format_exc())
        status = 1
    sys.stdout.flush()
    if errors.is_told():  # others may be in the middle of something with this one
        os._exit(status or 1)
    dist.destroy_process_group()
    return status


LOST = "openxclip: another process of this run has ended; the same command goes on from the last checkpoint"


def _is_of_another(error: Exception) -> bool:
    """Whether an error only says that another process of the run is gone."""
    signs = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
