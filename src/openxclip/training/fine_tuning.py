"""Fine-tuning on labelled clips: the objective of X-CLIP and of those that came after it, and its epochs.

Shapes: B clips, T frames, S input side, K classes, E joint embedding.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from openxclip.checkpoints.formats.native import write_folder
from openxclip.checkpoints.load import Loaded
from openxclip.data.dataset import (
    Batch,
    Draw,
    TrainClips,
    augmented,
    clip_loader,
    epoch_batches,
    generator,
    shards_of,
)
from openxclip.errors import TrainingError
from openxclip.models import XCLIP
from openxclip.progress import progress_bar
from openxclip.text.label_texts import LabelTexts
from openxclip.training.averaging import WeightAverage
from openxclip.training.config import TrainConfig
from openxclip.training.distillation import Distillation
from openxclip.training.interpolated import InterpolatedWeights
from openxclip.training.loop import TrainingLoop
from openxclip.training.mixing import mix, smooth_targets, soft_cross_entropy
from openxclip.training.optim import freeze
from openxclip.training.run_folder import RunFolder, TrainingState
from openxclip.training.text_targets import TextTargets

logger = logging.getLogger(__name__)

Validate = Callable[[], float]
"""Measures the validation top-1 of the model as it is."""


class FineTuning:
    """Fine-tunes one model on one list of clips."""

    def __init__(
        self,
        config: TrainConfig,
        start: Loaded,
        clips: TrainClips,
        texts: LabelTexts,
        run: RunFolder,
        validate: Validate | None,
        image_model: XCLIP | None,
    ) -> None:
        """
        Args:
            config: the recipe.
            start: the model to train, with its tokenizer and preprocessing.
            clips: to train on.
            texts: of their classes.
            run: where the run is kept.
            validate: measures what the best checkpoint is chosen by; None keeps only the last.
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
        self.targets = TextTargets(self.model, start.tokenizer, texts, config.template_draw)
        num_samples = config.data.samples_per_epoch
        self.num_samples = len(clips.manifest.items) if num_samples is None else num_samples
        self.steps_per_epoch = max(1, self.num_samples // config.optim.batch_size)
        warmup = int(config.optim.warmup_epochs * self.steps_per_epoch)
        self.loop = TrainingLoop(start, config.optim, config.optim.epochs * self.steps_per_epoch, warmup, run)
        self.average = self._averaging()
        self.interpolated = self._interpolation(image_model)
        self.distillation = self._distillation(image_model, texts)

    def _averaging(self) -> WeightAverage | None:
        if self.config.averaging is None:
            return None
        average = WeightAverage(self.model, self.config.averaging, self.config.optim.epochs)
        self.loop.extras["average"] = average.average
        return average

    def _interpolation(self, image_model: XCLIP | None) -> InterpolatedWeights | None:
        if self.config.interpolated is None:
            return None
        assert image_model is not None, "config.needs_image_model says so"
        return InterpolatedWeights(self.model, image_model, self.config.interpolated)

    def _distillation(self, image_model: XCLIP | None, texts: LabelTexts) -> Distillation | None:
        if self.config.distillation is None:
            return None
        assert image_model is not None, "config.needs_image_model says so"
        of_teacher = None
        if self.targets.frozen is None:
            with torch.no_grad():
                of_teacher = TextTargets(
                    image_model, self.start.tokenizer, texts, self.config.template_draw
                ).frozen
        distillation = Distillation(image_model, of_teacher, self.config.distillation, self.config.seed)
        self.loop.train_beside("distillation", distillation.residuals)
        return distillation

    def fit(self, state: TrainingState) -> TrainingState:
        """Train from `state` to the last epoch, saving after each.

        Raises:
            TrainingError: the loss or its gradient is not a number, or no clip of a batch can be read.
        """
        self.loop.resume(state)
        with progress_bar() as bar:
            task = bar.add_task("training", total=self.loop.num_steps, completed=state.step, note="")
            while state.epoch < self.config.optim.epochs:
                state = self._epoch(state, lambda note: bar.update(task, advance=1, note=note))
        return state

    def _epoch(self, state: TrainingState, advance: Callable[[str], None]) -> TrainingState:
        losses, errors, step = [], [], state.step
        for done in self.loop.steps(self._loader(state.epoch), self.backward, step, state.epoch + 1):
            losses.append(done.loss)
            errors += done.batch.errors
            step = done.number
            advance(f"epoch {state.epoch + 1}/{self.config.optim.epochs} loss {done.loss:.3f}")
        for error in sorted({*errors} - {*state.unreadable}):
            logger.warning("a training clip cannot be read and is left out: %s", error)
        unreadable = tuple(sorted({*state.unreadable, *errors}))
        state = replace(state, epoch=state.epoch + 1, step=step, unreadable=unreadable)
        top1 = None if self.validate is None else self.validate()
        if top1 is not None and (state.best_top1 is None or top1 > state.best_top1):
            state = replace(state, best_top1=top1)
            self._save_model(self.run.best, self.start)
        if self.average is not None and self.average.update(self.model, state.epoch):
            self._save_model(self.run.average, self.start._replace(model=self.average.model))
        mean_loss = sum(losses) / len(losses)
        self.run.log(
            epoch=state.epoch, step=step, mean_loss=mean_loss, val_top1=top1, unreadable=sorted(set(errors))
        )
        self.loop.save(state)  # last: after an interruption, log lines without a checkpoint are dropped
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
            shards=shards_of(self.clips.manifest) if self.config.data.order == "shards" else None,
        )
        return clip_loader(
            self.clips, keys, self.config.data.num_workers, pin_memory=self.device.type == "cuda"
        )

    def backward(self, batch: Batch, number: int) -> float:
        """Add the gradient of step `number` to the weights -> the loss.

        Raises:
            TrainingError: no clip of the batch could be read.
        """
        if len(batch.labels) == 0:
            raise TrainingError(f"no clip of a batch can be read; the first error: {batch.errors[0]}")
        self.model.train()
        rng = generator(Draw.STEP, self.config.seed, number)
        torch.manual_seed(int(rng.integers(2**63)))  # drop path draws from torch's own generator
        inputs, targets = self._inputs(batch, rng)
        drawn = self.targets.draw(rng)
        total = self._accumulate(inputs, targets, drawn)
        if self.interpolated is not None:
            with self.interpolated.weights(rng) as weight:
                total += self._accumulate(inputs, targets, drawn, weight)
        return total

    def _accumulate(self, inputs: Tensor, targets: Tensor, drawn: int, weight: float = 1.0) -> float:
        """Add the gradient of `weight` times the loss of a batch, part by part -> that loss."""
        num_parts = min(self.config.optim.accumulation_steps, len(targets))
        total = 0.0
        for clips, wanted in zip(inputs.chunk(num_parts), targets.chunk(num_parts), strict=True):
            loss = self._loss(clips, wanted, drawn) * len(wanted) / len(targets) * weight
            loss.backward()
            total += loss.item()
        return total

    def _inputs(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Pixels (B, T, 3, S, S) normalised and targets (B, K), mixed over the whole batch."""
        pixels = augmented(batch, self.clips.transform, self.device)
        labels = batch.labels.to(self.device, non_blocking=True)
        targets = smooth_targets(labels, len(self.clips.manifest.labels), self.config.mix.label_smoothing)
        return mix(self.preprocess.normalise(pixels), targets, self.config.mix, rng)

    def _loss(self, inputs: Tensor, targets: Tensor, drawn: int) -> Tensor:
        """Loss of clips (B, T, 3, S, S) with targets (B, K), against the texts that were drawn."""
        enabled = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled):
            text = self.targets.features(drawn)
            video = self.model.encode_video(inputs)
            loss = soft_cross_entropy(self.model.logits(video, text), targets)
            if self.distillation is not None:
                loss = loss + self.distillation.extra_loss(inputs, video.video, text, drawn)
        return loss
