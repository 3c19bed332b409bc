"""Shows the progress of a fine-tuning: a bar, trackers, and the first clips of each epoch as fed to the model."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from openxclip.data.dataset import Batch
from openxclip.files import atomic_write
from openxclip.progress import progress_bar
from openxclip.reports.table import Table
from openxclip.training.ceiling import product_flops
from openxclip.training.config import TrainConfig
from openxclip.training.loop import StepDone
from openxclip.training.options import RunOptions
from openxclip.training.run_folder import RunFolder
from openxclip.training.tracking import Tracker, sheet, trackers
from openxclip.video.jpeg import jpeg

FED_FILE = "fed.jpg"


class Shown:
    """Shows steps; only in the first process of a run."""

    def __init__(
        self,
        run: RunFolder,
        config: TrainConfig,
        options: RunOptions,
        *,
        first_step: int,
        num_steps: int,
        num_clips: int,
        flops_per_clip: int,
        device: torch.device,
    ) -> None:
        """
        Args:
            run: its folder.
            config: of the run.
            options: which trackers.
            first_step: steps done before this start.
            num_steps: of the whole run.
            num_clips: of a step.
            flops_per_clip: of a clip's forward and backward pass.
            device: device of the training.
        """
        self._run, self._config, self._device = run, config, device
        self._num_clips, self._flops_per_clip = num_clips, flops_per_clip
        self._first_step, self._num_steps = first_step, num_steps
        self._names = options.trackers if run.processes.is_first else ()
        self._trackers: list[Tracker] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._bar = self._open.enter_context(progress_bar())
        self._task = self._bar.add_task(
            "training", total=self._num_steps, completed=self._first_step, note=""
        )
        self._trackers = trackers(self._names, self._run.path, asdict(self._config), self._first_step)
        for tracker in self._trackers:
            self._open.callback(tracker.close)
        self._ceiling = product_flops(self._device, self._config.precision) if self._trackers else 0.0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def note(self, text: str) -> None:
        """Show a message."""
        self._bar.update(self._task, note=text)

    def table(self, table: Table) -> None:
        """Print a table above the bar."""
        self._bar.console.print(table.text())

    def step(self, done: StepDone[Batch], epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Report a finished step."""
        rate = self._num_clips / done.seconds
        note = f"epoch {epoch}/{self._config.optim.epochs} loss {done.loss:.3f} {rate:.3g} videos/s"
        self._bar.update(self._task, advance=1, note=note)
        if self._trackers:
            values = {
                "loss": done.loss,
                "grad_norm": done.grad_norm,
                "epoch": float(epoch),
                "videos_per_second": rate,
                "share_of_peak": rate * self._flops_per_clip / self._run.processes.count / self._ceiling,
                "memory_gib": _peak_bytes(self._device) / 2**30,
                **dict(_rates(optimizer)),
            }
            for tracker in self._trackers:
                tracker.numbers(done.number, values)

    def clips(self, step: int, fed: Tensor) -> None:
        """Clips (B, T, 3, S, S) as fed to the model, scaled to 0..255, with mixing and augmentation."""
        if not self._run.processes.is_first:
            return
        low, high = fed.amin(), fed.amax()
        pixels = ((fed - low) / (high - low).clamp(min=1e-6) * 255).round().to(torch.uint8).cpu().numpy()
        picture = sheet(pixels)
        with atomic_write(self._run.path / FED_FILE) as temporary:
            temporary.write_bytes(jpeg(picture))
        for tracker in self._trackers:
            tracker.picture(step, "fed", picture)


def _rates(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, float]]:
    """The learning rate of each group of parts, which is the same with and without weight decay."""
    for group in optimizer.param_groups:
        yield f"learning_rate/{group['part']}", group["lr"]


def _peak_bytes(device: torch.device) -> int:
    """Peak memory so far: of the device, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
