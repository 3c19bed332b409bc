"""The training loop of both stages: learning rate, gradient, log and checkpoints.

Every step is a function of the weights, the batch and its number, so an interrupted and resumed run ends in the same
weights as an uninterrupted one. Each process of a run has its own loop, all at the same step.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

import torch
from torch import nn

from openxclip.checkpoints.formats.native import write_folder
from openxclip.checkpoints.load import Loaded
from openxclip.errors import TrainingError
from openxclip.models import XCLIP
from openxclip.training.config import OptimConfig
from openxclip.training.optim import build_optimizer, learning_rate
from openxclip.training.options import RunOptions
from openxclip.training.phases import Phases
from openxclip.training.run_folder import RunFolder, TrainingState
from openxclip.wording import shortened

Batch = TypeVar("Batch")

Backward = Callable[[Batch, int], float]
"""A batch and the number of its step (from 0): adds the gradient of the loss to the weights -> the loss, or this
process's share of it."""

Clip = Callable[[Iterable[nn.Parameter], float], float]
"""Scales the gradient of parameters down to a norm -> the norm it had."""


def clip_gradient(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """`Clip` for one process."""
    return torch.nn.utils.clip_grad_norm_(parameters, limit).item()


@dataclass(frozen=True)
class StepDone(Generic[Batch]):
    """One optimizer step."""

    number: int
    """Steps done so far, this one included."""
    batch: Batch
    loss: float
    grad_norm: float
    seconds: float
    """Duration, including the wait for its batch."""
    is_last: bool
    """Whether a process was asked to stop; then all of them save and exit."""
    is_due: bool
    """Whether it is time to save."""


class TrainingLoop:
    """Optimizer steps on one model, kept in one run folder."""

    def __init__(
        self,
        start: Loaded,
        optim: OptimConfig,
        num_steps: int,
        num_warmup_steps: int,
        run: RunFolder,
        options: RunOptions | None = None,
        clip: Clip = clip_gradient,
        phases: Phases | None = None,
    ) -> None:
        """
        Args:
            start: the model to train, with frozen parts already set, tokenizer and preprocessing.
            optim: the optimizer and its learning rate.
            num_steps: of the whole run, from its first start.
            num_warmup_steps: the steps among them with a growing learning rate.
            run: the run folder.
            options: when to save, and the stop event.
            clip: gradient clipping of the engine.
            phases: names the phases of a step, and measures them.
        """
        self.phases = phases or Phases(start.model.logit_scale.device)
        self.options = options or RunOptions()
        self.clip = clip
        self._saved_at = time.monotonic()
        self.start = start
        self.model = start.model
        self.optim = optim
        self.num_steps = num_steps
        self.num_warmup_steps = num_warmup_steps
        self.run = run
        self.optimizer = build_optimizer(self.model, optim)
        self.extras = nn.ModuleDict()
        """Modules of the training besides the model, saved for resuming."""

    def train_beside(self, name: str, module: nn.Module) -> None:
        """Train a module in addition to the model, at the peak rate without a factor."""
        self.extras[name] = module
        self.optimizer.add_param_group(
            {
                "params": list(module.parameters()),
                "weight_decay": self.optim.weight_decay,
                "peak_lr": self.optim.learning_rate,
                "part": name,
            }
        )

    def resume(self, state: TrainingState) -> None:
        """Restore the optimizer of a resumed run."""
        if state.step > 0:
            self.run.load_optimizer(self.model, self.optimizer, self.extras)

    def steps(
        self, batches: Iterable[Batch], backward: Backward[Batch], first: int, epoch: int | None = None
    ) -> Iterator[StepDone[Batch]]:
        """One optimizer step on each batch, logged.

        Args:
            batches: in the order of the steps.
            backward: computes the gradient.
            first: number of the first step (from 0).
            epoch: for the log, if the training has epochs.

        Raises:
            TrainingError: the loss or its gradient is not finite.
        """
        place = {} if epoch is None else {"epoch": epoch}
        for number, (batch, waited_seconds) in enumerate(_timed(batches), start=first):
            started = time.perf_counter()
            self.phases.waited(waited_seconds)
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate(group["peak_lr"], number)
            loss, grad_norm, is_last, is_due = self.step(batch, number, backward)
            seconds = time.perf_counter() - started
            self.run.log(
                **place,
                step=number + 1,
                loss=loss,
                learning_rate=self._rate(self.optim.learning_rate, number),
                grad_norm=grad_norm,
                seconds=round(seconds, 4),
                waited_seconds=round(waited_seconds, 4),
            )
            yield StepDone(number + 1, batch, loss, grad_norm, seconds + waited_seconds, is_last, is_due)
            if is_last:
                return

    def _rate(self, peak: float, number: int) -> float:
        return learning_rate(self.optim, peak, number, self.num_steps, self.num_warmup_steps)

    def step(self, batch: Batch, number: int, backward: Backward[Batch]) -> tuple[float, float, bool, bool]:
        """One optimizer step -> (loss, norm of the gradient, whether it is the last one, whether to save).

        Raises:
            TrainingError: loss or norm is not finite.
        """
        part = backward(batch, number)
        is_due = (
            self.run.processes.is_first and time.monotonic() - self._saved_at > 60 * self.options.save_minutes
        )
        loss, stopping, saving = self.run.processes.sums([part, self.options.stop.is_set(), is_due])
        trained = chain(self.model.parameters(), self.extras.parameters())
        with self.phases.phase("clip"):
            norm = self.clip(trained, self.optim.clip_grad_norm or math.inf)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            names = list(chain(*self.run.processes.gathered(getattr(batch, "names", []))))
            self.run.log(step=number + 1, not_a_number=names)
            raise TrainingError(_not_a_number(loss, norm, number + 1, names))
        with self.phases.phase("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return loss, norm, stopping > 0, saving > 0

    def save(self, state: TrainingState, model: XCLIP | None = None) -> None:
        """Replace the last checkpoint atomically; every process calls this.

        Args:
            state: how far the run has come.
            model: with all its weights, if the trained one is sharded.
        """
        start = self.start if model is None else self.start._replace(model=model)
        self.run.save_last(
            lambda folder: write_folder(folder, *start), self.model, self.optimizer, state, self.extras
        )
        self._saved_at = time.monotonic()


def _not_a_number(loss: float, norm: float, number: int, names: Sequence[str]) -> str:
    clips = f" on {shortened(names, 8)} (log.jsonl lists all)" if names else ""
    return (
        f"the loss is {loss} and its gradient {norm} at step {number}{clips}; the last checkpoint is kept. Lower the "
        "learning rate, clip the gradient (optim.clip_grad_norm=1), or train with precision=float32; "
        "see docs/training.md"
    )


def _timed(batches: Iterable[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds spent waiting for it: if close to a step's time, loading is the bottleneck."""
    started = time.perf_counter()
    for batch in batches:
        yield batch, time.perf_counter() - started
        started = time.perf_counter()
