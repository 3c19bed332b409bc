"""The training loop of both stages: learning rate, gradient, log and checkpoint of every step.

Every step is a function of the weights, the batch and its number, so an interrupted run that goes on ends in the same
weights as one that was never interrupted.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

import torch
from torch import nn

from openxclip.checkpoints.formats.native import write_folder
from openxclip.checkpoints.load import Loaded
from openxclip.errors import TrainingError
from openxclip.training.config import OptimConfig
from openxclip.training.optim import build_optimizer, learning_rate
from openxclip.training.run_folder import RunFolder, TrainingState

Batch = TypeVar("Batch")

Backward = Callable[[Batch, int], float]
"""A batch and the number of its step (from 0): adds the gradient of the loss to the weights -> the loss."""


@dataclass(frozen=True)
class StepDone(Generic[Batch]):
    """One optimizer step."""

    number: int
    """Steps done so far, this one included."""
    batch: Batch
    loss: float


class TrainingLoop:
    """Optimizer steps on one model, kept in one run folder."""

    def __init__(
        self, start: Loaded, optim: OptimConfig, num_steps: int, num_warmup_steps: int, run: RunFolder
    ) -> None:
        """
        Args:
            start: the model to train, its gradients switched on and off already, with tokenizer and preprocessing.
            optim: the optimizer and its learning rate.
            num_steps: of the whole run, from its first start.
            num_warmup_steps: of them, those with a growing learning rate.
            run: where the run is kept.
        """
        self.start = start
        self.model = start.model
        self.optim = optim
        self.num_steps = num_steps
        self.num_warmup_steps = num_warmup_steps
        self.run = run
        self.optimizer = build_optimizer(self.model, optim)
        self.extras = nn.ModuleDict()
        """Modules that the training has beside the model, and keeps to go on."""

    def train_beside(self, name: str, module: nn.Module) -> None:
        """Train a module beside the model, at the peak rate without a factor."""
        self.extras[name] = module
        self.optimizer.add_param_group(
            {
                "params": list(module.parameters()),
                "weight_decay": self.optim.weight_decay,
                "peak_lr": self.optim.learning_rate,
            }
        )

    def resume(self, state: TrainingState) -> None:
        """Take up the optimizer of a run that has done steps already."""
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
            TrainingError: the loss or its gradient is not a number.
        """
        place = {} if epoch is None else {"epoch": epoch}
        for number, (batch, waited_seconds) in enumerate(_timed(batches), start=first):
            started = time.perf_counter()
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate(group["peak_lr"], number)
            loss, grad_norm = self.step(batch, number, backward)
            self.run.log(
                **place,
                step=number + 1,
                loss=loss,
                learning_rate=self._rate(self.optim.learning_rate, number),
                grad_norm=grad_norm,
                seconds=round(time.perf_counter() - started, 4),
                waited_seconds=round(waited_seconds, 4),
            )
            yield StepDone(number + 1, batch, loss)

    def _rate(self, peak: float, number: int) -> float:
        return learning_rate(self.optim, peak, number, self.num_steps, self.num_warmup_steps)

    def step(self, batch: Batch, number: int, backward: Backward[Batch]) -> tuple[float, float]:
        """One optimizer step -> (loss, norm of the gradient).

        Raises:
            TrainingError: one of them is not a number.
        """
        loss = backward(batch, number)
        trained = chain(self.model.parameters(), self.extras.parameters())
        limit = self.optim.clip_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(trained, limit).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"the loss is {loss} and its gradient {norm} at step {number}; the last checkpoint is kept. Lower the "
                "learning rate, clip the gradient (clip_grad_norm=1), or train with precision=float32"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def save(self, state: TrainingState) -> None:
        """Replace the last checkpoint, at once or not at all."""
        self.run.save_last(
            lambda folder: write_folder(folder, *self.start), self.model, self.optimizer, state, self.extras
        )


def _timed(batches: Iterable[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds spent waiting for it: near a step's own time, loading holds up training."""
    started = time.perf_counter()
    for batch in batches:
        yield batch, time.perf_counter() - started
        started = time.perf_counter()
