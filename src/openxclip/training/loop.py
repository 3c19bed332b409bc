"""The training loop.

Every step is a function of the weights, the batch and (seed, step), so an interrupted run that goes on ends
in the same weights as one that was never interrupted.

Shapes: B clips, T frames, S input side, K classes, E joint embedding.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from openxclip.checkpoints.formats.native import write_folder
from openxclip.checkpoints.load import Loaded
from openxclip.data.dataset import Batch, Draw, TrainClips, clip_loader, epoch_batches, generator
from openxclip.data.descriptions import parse_descriptions
from openxclip.errors import TrainingError
from openxclip.inference.label_set import label_encoder
from openxclip.models import XCLIP
from openxclip.progress import progress_bar
from openxclip.text.label_texts import LabelTexts
from openxclip.training.averaging import WeightAverage
from openxclip.training.config import TrainConfig
from openxclip.training.distillation import Distillation
from openxclip.training.interpolated import InterpolatedWeights
from openxclip.training.mixing import mix, smooth_targets, soft_cross_entropy
from openxclip.training.optim import build_optimizer, freeze, schedule, set_learning_rate
from openxclip.training.run_folder import RunFolder, TrainingState

logger = logging.getLogger(__name__)

Validate = Callable[[], float]
"""Gives the validation top-1 of the model as it is."""


class Trainer:
    """Fine-tunes one model on one list of clips."""

    def __init__(
        self,
        config: TrainConfig,
        start: Loaded,
        clips: TrainClips,
        run: RunFolder,
        validate: Validate | None,
        image_model: XCLIP | None,
    ) -> None:
        """
        Args:
            config: the recipe.
            start: the model to train, with its tokenizer and preprocessing.
            clips: to train on.
            run: where the run is kept.
            validate: gives what the best checkpoint is chosen by; None keeps only the last.
            image_model: what the training started from, where the config needs it.
        """
        self.config = config
        self.start = start
        self.model, _, self.preprocess = start
        self.clips = clips
        self.run = run
        self.validate = validate
        self.device = self.model.logit_scale.device
        self.model.visual.gradient_checkpointing = config.gradient_checkpointing
        freeze(self.model, config.optim.factors)
        self.num_classes = len(clips.manifest.labels)
        self.encode_labels = self._label_encoder(self.model)
        text = self.encode_labels()  # (K, E)
        self.frozen_text = None if text.requires_grad else text
        self.optimizer = build_optimizer(self.model, config.optim)
        self.extras = nn.ModuleDict()
        """What this training has beside the model, and keeps to go on."""
        self.average = self._averaging()
        self.interpolated = self._interpolation(image_model)
        self.distillation = self._distillation(image_model)
        num_samples = config.data.samples_per_epoch
        self.num_samples = len(clips.manifest.items) if num_samples is None else num_samples
        self.steps_per_epoch = max(1, self.num_samples // config.optim.batch_size)

    def _label_encoder(self, model: XCLIP) -> Callable[[], Tensor]:
        texts = LabelTexts(
            labels=self.clips.manifest.labels,
            templates=self.config.templates,
            descriptions=parse_descriptions(self.config.descriptions),
        )
        return label_encoder(model, self.start.tokenizer, texts)

    def _averaging(self) -> WeightAverage | None:
        if self.config.averaging is None:
            return None
        average = WeightAverage(self.model, self.config.averaging, self.config.optim.epochs)
        self.extras["average"] = average.average
        return average

    def _interpolation(self, image_model: XCLIP | None) -> InterpolatedWeights | None:
        if self.config.interpolated is None:
            return None
        assert image_model is not None, "config.needs_image_model says so"
        return InterpolatedWeights(self.model, image_model, self.config.interpolated)

    def _distillation(self, image_model: XCLIP | None) -> Distillation | None:
        if self.config.distillation is None:
            return None
        assert image_model is not None, "config.needs_image_model says so"
        text = None
        if self.frozen_text is None:
            with torch.no_grad():
                text = self._label_encoder(image_model)()  # (K, E)
        distillation = Distillation(image_model, text, self.config.distillation, self.config.seed)
        self.extras["distillation"] = distillation.residuals
        optim = self.config.optim
        self.optimizer.add_param_group(
            {
                "params": list(distillation.residuals.parameters()),
                "weight_decay": optim.weight_decay,
                "peak_lr": optim.learning_rate,
            }
        )
        return distillation

    def fit(self, state: TrainingState) -> TrainingState:
        """Train from `state` to the last epoch, saving after each.

        Raises:
            TrainingError: the loss or its gradient is not a number, or no clip of a batch can be read.
        """
        if state.step > 0:
            self.run.load_optimizer(self.model, self.optimizer, self.extras)
        total = self.config.optim.epochs * self.steps_per_epoch
        with progress_bar() as bar:
            task = bar.add_task("training", total=total, completed=state.step, note="")
            while state.epoch < self.config.optim.epochs:
                state = self._epoch(state, lambda note: bar.update(task, advance=1, note=note))
        return state

    def _epoch(self, state: TrainingState, advance: Callable[[str], None]) -> TrainingState:
        losses, errors = [], []
        step = state.step
        for batch, waited_seconds in _timed(self._loader(state.epoch)):
            losses.append(self._logged_step(batch, step, state.epoch, waited_seconds))
            errors += batch.errors
            step += 1
            advance(f"epoch {state.epoch + 1}/{self.config.optim.epochs} loss {losses[-1]:.3f}")
        unreadable = tuple(sorted({*state.unreadable, *errors}))
        for error in sorted({*errors} - {*state.unreadable}):
            logger.warning("a training clip cannot be read and is left out: %s", error)
        top1 = None if self.validate is None else self.validate()
        is_best = top1 is not None and (state.best_top1 is None or top1 > state.best_top1)
        state = TrainingState(
            epoch=state.epoch + 1,
            step=step,
            best_top1=top1 if is_best else state.best_top1,
            unreadable=unreadable,
        )
        if is_best:
            self._save_model(self.run.best, self.start)
        if self.average is not None and self.average.update(self.model, state.epoch):
            self._save_model(self.run.average, self.start._replace(model=self.average.model))
        mean_loss = sum(losses) / len(losses)
        self.run.log(
            epoch=state.epoch, step=step, mean_loss=mean_loss, val_top1=top1, unreadable=sorted(set(errors))
        )
        # Last: what was logged without it is forgotten and done again after an interruption.
        self.run.save_last(
            lambda folder: write_folder(folder, *self.start), self.model, self.optimizer, state, self.extras
        )
        return state

    def _save_model(self, path: Path, loaded: Loaded) -> None:
        self.run.save_model(path, lambda folder: write_folder(folder, *loaded))

    def _loader(self, epoch: int) -> DataLoader[Batch]:
        keys = epoch_batches(
            len(self.clips.manifest.items),
            self.num_samples,
            self.config.optim.batch_size,
            seed=self.config.seed,
            epoch=epoch,
        )
        return clip_loader(
            self.clips, keys, self.config.data.num_workers, pin_memory=self.device.type == "cuda"
        )

    def _logged_step(self, batch: Batch, step: int, epoch: int, waited_seconds: float) -> float:
        if len(batch.labels) == 0:
            raise TrainingError(f"no clip of a batch can be read; the first error: {batch.errors[0]}")
        started = time.perf_counter()
        warmup = int(self.config.optim.warmup_epochs * self.steps_per_epoch)
        total = self.config.optim.epochs * self.steps_per_epoch
        factor = schedule(step, total, warmup, self.config.optim.final_factor)
        set_learning_rate(self.optimizer, factor)
        loss, grad_norm = self.step(batch, step)
        self.run.log(
            epoch=epoch + 1,
            step=step + 1,
            loss=loss,
            learning_rate=self.config.optim.learning_rate * factor,
            grad_norm=grad_norm,
            seconds=round(time.perf_counter() - started, 4),
            waited_seconds=round(waited_seconds, 4),
        )
        return loss

    def step(self, batch: Batch, step: int) -> tuple[float, float]:
        """One optimizer step on a batch -> (loss, norm of the gradient).

        Raises:
            TrainingError: the loss or its gradient is not a number.
        """
        self.model.train()
        rng = generator(Draw.STEP, self.config.seed, step)
        torch.manual_seed(int(rng.integers(2**63)))  # drop path draws from torch's own generator
        inputs, targets = self._inputs(batch, rng)
        total = self._backward(inputs, targets)
        if self.interpolated is not None:
            with self.interpolated.weights(rng) as weight:
                total += self._backward(inputs, targets, weight)
        limit = self.config.optim.clip_grad_norm or math.inf
        trained = chain(self.model.parameters(), self.extras.parameters())
        norm = torch.nn.utils.clip_grad_norm_(trained, limit).item()
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise TrainingError(
                f"the loss is {total} and its gradient {norm} at step {step}; the last checkpoint is kept. Lower "
                "optim.learning_rate, set optim.clip_grad_norm=1, or set precision=float32"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total, norm

    def _backward(self, inputs: Tensor, targets: Tensor, weight: float = 1.0) -> float:
        """Add the gradient of `weight` times the loss of a batch to the weights -> that loss."""
        num_parts = min(self.config.optim.accumulation_steps, len(targets))
        total = 0.0
        for part, wanted in zip(inputs.chunk(num_parts), targets.chunk(num_parts), strict=True):
            loss = self._loss(part, wanted) * len(wanted) / len(targets) * weight
            loss.backward()
            total += loss.item()
        return total

    def _inputs(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Pixels (B, T, 3, S, S) normalised and targets (B, K), mixed over the whole batch."""
        pixels, labels = (x.to(self.device, non_blocking=True) for x in (batch.pixels, batch.labels))
        targets = smooth_targets(labels, self.num_classes, self.config.mix.label_smoothing)
        return mix(self.preprocess.normalise(pixels), targets, self.config.mix, rng)

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of clips (B, T, 3, S, S) with targets (B, K)."""
        enabled = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled):
            text = self.encode_labels() if self.frozen_text is None else self.frozen_text
            video = self.model.encode_video(inputs)
            loss = soft_cross_entropy(self.model.logits(video, text), targets)
            if self.distillation is not None:
                loss = loss + self.distillation.extra_loss(inputs, video.video, text)
        return loss


def _timed(batches: Iterable[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds it was waited for: where they come near a step's own, loading holds up training."""
    started = time.perf_counter()
    for batch in batches:
        yield batch, time.perf_counter() - started
        started = time.perf_counter()
