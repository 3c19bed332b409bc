"""Profiles the phases of some training steps, as a table and as a trace.

While measuring, it waits for the device at the end of each phase: phase times are exact, but the steps are slower than
without profiling.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from openxclip.files import atomic_write
from openxclip.reports.table import Table

logger = logging.getLogger(__name__)

WARMUP_STEPS, MEASURED_STEPS = 5, 10
WAITING = "loader"
PHASES = {
    WAITING: "waiting for clips",
    "copy": "pixels to the device",
    "augment": "augmentation, normalising, mixing",
    "forward": "forward pass and loss",
    "backward": "backward pass, with gradient summation over processes",
    "clip": "norm of the gradient",
    "optimizer": "optimizer",
}
_COMMUNICATION = ("nccl", "gloo", "c10d", "all_reduce", "all_gather", "reduce_scatter")


class Phases:
    """Names the phases of a step for torch's profiler, and measures them if requested."""

    def __init__(self, device: torch.device, folder: Path | None = None) -> None:
        """
        Args:
            device: device of the training.
            folder: for the table and the trace; None measures nothing.
        """
        self._device, self._folder = device, folder
        self._num_steps = 0
        self._profile: profile | None = None
        self._seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._began = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Context of a phase."""
        with record_function(name):
            if self._profile is None:
                yield
                return
            started = time.perf_counter()
            yield
            self._wait()
            self._seconds[name] += time.perf_counter() - started

    def waited(self, seconds: float) -> None:
        """Record the time spent waiting for clips."""
        if self._profile is not None:
            self._seconds[WAITING] += seconds

    def step(self) -> Table | None:
        """Finish a step -> the table, once there is one; it is also in the folder, next to the trace."""
        self._num_steps += 1
        if self._folder is None:
            return None
        if self._num_steps == WARMUP_STEPS:
            on_gpu = [ProfilerActivity.CUDA] if self._device.type == "cuda" else []
            self._profile = profile(activities=[ProfilerActivity.CPU, *on_gpu])
            self._profile.start()
            self._wait()
            self._began = time.perf_counter()
        elif self._num_steps == WARMUP_STEPS + MEASURED_STEPS and self._profile is not None:
            return self._end(self._profile, self._folder)
        return None

    def close(self) -> None:
        """End of the run; warns if it ended before there was a table."""
        if self._folder is None:
            return
        if self._profile is not None:
            self._profile.stop()
            self._profile = None
        logger.warning(
            "no profile: profiling takes %d steps, and the run ended after %d",
            WARMUP_STEPS + MEASURED_STEPS,
            self._num_steps,
        )

    def _end(self, profiled: profile, folder: Path) -> Table:
        whole = time.perf_counter() - self._began
        profiled.stop()
        self._profile, self._folder = None, None
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "trace.json") as temporary:
            profiled.export_chrome_trace(str(temporary))
        table = self._table(whole, _communication_seconds(profiled))
        with atomic_write(folder / "phases.json") as temporary:
            temporary.write_text(
                json.dumps({"seconds": self._seconds, "whole": whole, "steps": MEASURED_STEPS})
            )
        return table

    def _table(self, whole: float, communication: float) -> Table:
        rest = whole - sum(self._seconds.values())
        parts = {
            **{PHASES[name]: seconds for name, seconds in self._seconds.items()},
            "everything else": rest,
        }
        rows = [_row(name, seconds, whole) for name, seconds in parts.items()]
        if communication:
            rows.append(_row("of these, messages between processes", communication, whole))
        return Table(
            title=f"Where a step's time goes, mean of {MEASURED_STEPS} steps",
            command="openxclip train --profile",
            columns=("phase", "ms", "share"),
            rows=tuple(rows),
            notes=("trace.json opens in chrome://tracing and in Perfetto.",),
        )

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _row(name: str, seconds: float, whole: float) -> tuple[str, str, str]:
    return name, f"{1000 * seconds / MEASURED_STEPS:.1f}", f"{seconds / whole:.1%}"


def _communication_seconds(profiled: profile) -> float:
    events = [event for event in profiled.key_averages() if event.key.startswith(_COMMUNICATION)]
    return sum(max(event.self_cpu_time_total, event.self_device_time_total) for event in events) / 1e6
