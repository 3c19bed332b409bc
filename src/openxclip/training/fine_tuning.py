"""Fine-tuning on labelled clips: epochs, batches and checkpoints.

With several processes, each takes its share of every batch. A clip's augmentation, mixing and stochastic depth are
functions of the seed and its position in the run: the same batch size gives the same run for any number of processes,
apart from rounding.

Shapes: B clips of this process, T frames, S input side, K classes, E joint embedding.
"""

import logging
from collections.abc import Callable, Sequence
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
from openxclip.models.flops import count_cost
from openxclip.processes import current
from openxclip.text.label_texts import LabelTexts
from openxclip.training.averaging import WeightAverage
from openxclip.training.compiling import compile_tower, without_compiling
from openxclip.training.config import TrainConfig
from openxclip.training.display import Shown
from openxclip.training.distillation import Distillation
from openxclip.training.distributed import check_sharding, distribute
from openxclip.training.interpolated import InterpolatedWeights
from openxclip.training.loop import TrainingLoop
from openxclip.training.mixing import draw_mixing, mix, smooth_targets
from openxclip.training.objective import Objective, draw_kept
from openxclip.training.optim import freeze
from openxclip.training.options import RunOptions
from openxclip.training.phases import Phases
from openxclip.training.run_folder import RunFolder, TrainingState
from openxclip.training.shares import num_parts, shares
from openxclip.training.text_targets import TextTargets

logger = logging.getLogger(__name__)

NUM_SHOWN = 4  # clips to show as fed to the model

Validate = Callable[[XCLIP], float]
"""Measures the validation top-1 of a model."""


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
        options: RunOptions | None = None,
    ) -> None:
        """
        Args:
            config: the recipe.
            start: the model to train, with its tokenizer and preprocessing.
            clips: to train on.
            texts: of their classes.
            run: the run folder.
            validate: measures the score that selects the best checkpoint; None keeps only the last.
            image_model: the model that the training started from, if the config needs it.
            options: settings that do not change the result.

        Raises:
            InputError: the processes cannot share a batch, or sharded weights do not work with the recipe.
        """
        self.config, self.start, self.clips, self.run, self.validate = config, start, clips, run, validate
        self.model, _, self.preprocess = start
        self.options = options or RunOptions()
        self.device = self.model.logit_scale.device
        num_samples = config.data.samples_per_epoch
        self.num_samples = len(clips.manifest.items) if num_samples is None else num_samples
        self.num_clips = min(config.optim.batch_size, self.num_samples)
        """Of a batch, over all processes."""
        self.steps_per_epoch = max(1, self.num_samples // config.optim.batch_size)
        all_shares = shares(self.num_clips, current().count, config.mix)
        self.places = all_shares[current().rank]
        """Positions in each batch of the clips of this process."""
        self.num_parts = num_parts(all_shares, config.optim.accumulation_steps)
        self.fed: Tensor
        """Some clips of the last batch, as fed to the model."""
        check_sharding(config, self.options.sharding, current().count)
        self._build(texts, image_model)

    def _build(self, texts: LabelTexts, image_model: XCLIP | None) -> None:
        config = self.config
        self.model.visual.gradient_checkpointing = config.gradient_checkpointing
        freeze(self.model, config.optim.factors)
        self.targets = TextTargets(self.model, self.start.tokenizer, texts, config.template_draw)
        distillation = self._distillation(image_model, texts)
        use_bfloat16 = config.precision == "bfloat16"
        self.objective = Objective(self.model, self.targets, distillation, use_bfloat16=use_bfloat16)
        self.is_compiled = compile_tower(self.model.visual, config.compile, self.options.sharding)
        self.interpolated = self._interpolation(image_model)
        self.engine = distribute(self.objective, self.options.sharding, use_bfloat16=use_bfloat16)
        warmup = int(config.optim.warmup_epochs * self.steps_per_epoch)
        num_steps = config.optim.epochs * self.steps_per_epoch
        is_profiled = self.options.profile and current().is_first
        self.phases = Phases(self.device, self.run.path / "profile" if is_profiled else None)
        self.loop = TrainingLoop(
            self.start, config.optim, num_steps, warmup, self.run, self.options, self.engine.clip, self.phases
        )
        for name, module in self.objective.beside.items():
            self.loop.train_beside(name, module)
        self.average = self._averaging()

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
        return Distillation(image_model, of_teacher, self.config.distillation, self.config.seed)

    # --- epochs ---------------------------------------------------------------------------------------------------

    def fit(self, state: TrainingState) -> TrainingState:
        """Train from `state` to the last epoch, saving after each and periodically; or until stopped.

        Raises:
            TrainingError: the loss or its gradient is not finite, or no clip of a batch can be read.
        """
        self.loop.resume(state)
        with self._shown(state) as shown:
            if self.is_compiled and state.step < self.loop.num_steps:
                shown.note("compiling: the first step takes a minute or more")
            while state.epoch < self.config.optim.epochs:
                before = state.epoch
                state = self._epoch(state, shown)
                if state.epoch == before:  # stopped
                    break
        self.phases.close()
        return state

    def _shown(self, state: TrainingState) -> Shown:
        cost = count_cost(self.model.config, len(self.clips.manifest.labels))
        return Shown(
            self.run,
            self.config,
            self.options,
            first_step=state.step,
            num_steps=self.loop.num_steps,
            num_clips=self.num_clips,
            flops_per_clip=6 * cost.macs,
            device=self.device,
        )

    def _epoch(self, state: TrainingState, shown: Shown) -> TrainingState:
        """Train the rest of the current epoch, or until the run is stopped."""
        errors: list[str] = []
        for done in self.loop.steps(self._loader(state), self.backward, state.step, state.epoch + 1):
            errors += done.batch.errors
            shown.step(done, state.epoch + 1, self.loop.optimizer)
            if done.number == state.epoch * self.steps_per_epoch + 1:
                shown.clips(done.number, self.fed)
            if (table := self.phases.step()) is not None:
                shown.table(table)
            is_whole = done.number == (state.epoch + 1) * self.steps_per_epoch
            is_end = done.is_last and not (is_whole and self.validate is None)  # validations take long
            if is_end or (done.is_due and not is_whole):
                state = _with_errors(state, _of_all(errors))
                self._save(replace(state, step=done.number))
                if is_end:
                    return replace(state, step=done.number)
        found = _of_all(errors)
        state = replace(_with_errors(state, found), step=(state.epoch + 1) * self.steps_per_epoch)
        return self._end_of_epoch(state, found)

    def _end_of_epoch(self, state: TrainingState, errors: set[str]) -> TrainingState:
        """Validate the model after the last step of an epoch, and save it -> the state with the epoch finished."""
        model = self.engine.whole_model()
        whole = self.start._replace(model=model)
        top1 = None
        if self.validate is not None:
            self.loop.save(state, model)  # validation may take longer than the grace period of a stopped run
            with without_compiling():
                top1 = self.validate(model)
        state = replace(state, epoch=state.epoch + 1)
        if top1 is not None and (state.best_top1 is None or top1 > state.best_top1):
            state = replace(state, best_top1=top1)
            self._save_model(self.run.best, whole)
        if self.average is not None and self.average.update(self.model, state.epoch):
            self._save_model(self.run.average, self.start._replace(model=self.average.model))
        if current().is_first:
            losses = self.run.losses(state.epoch)
            self.run.log(
                epoch=state.epoch,
                step=state.step,
                mean_loss=sum(losses) / len(losses),
                val_top1=top1,
                unreadable=sorted(errors),
            )
        self.loop.save(state, model)  # last: after an interruption, lines without a checkpoint are dropped
        return state

    def _save(self, state: TrainingState) -> None:
        self.loop.save(state, self.engine.whole_model())

    def _save_model(self, path: Path, loaded: Loaded) -> None:
        self.run.save_model(path, lambda folder: write_folder(folder, *loaded))

    def _loader(self, state: TrainingState) -> DataLoader[Batch]:
        """This process's share of the remaining batches of the epoch."""
        batches = epoch_batches(
            len(self.clips.manifest.items),
            self.num_samples,
            self.config.optim.batch_size,
            seed=self.config.seed,
            epoch=state.epoch,
            shards=shards_of(self.clips.manifest) if self.config.data.order == "shards" else None,
        )
        left = batches[state.step - state.epoch * self.steps_per_epoch :]
        own = [[batch[place] for place in self.places] for batch in left]
        return clip_loader(
            self.clips, own, self.config.data.num_workers, pin_memory=self.device.type == "cuda"
        )

    # --- steps ----------------------------------------------------------------------------------------------------

    def backward(self, batch: Batch, number: int) -> float:
        """Add the gradient of step `number` to the weights -> this process's part of the loss.

        Raises:
            TrainingError: no clip of the batch could be read.
        """
        num_read = current().sums([int(batch.is_read.sum())])[0]
        if num_read == 0:
            raise TrainingError(f"no clip of a batch can be read; the first error: {batch.errors[0]}")
        self.model.train()
        rng = generator(Draw.STEP, self.config.seed, number)
        inputs, targets = self._inputs(batch, rng)
        self.fed = inputs[:NUM_SHOWN]
        drawn = self.targets.draw(rng)
        kept = draw_kept(self.model, self.num_clips, rng)
        own = None if kept is None else kept[..., self.places].to(self.device)
        # Engines for several processes average over them; in total this gives the mean over clips.
        weights = batch.is_read.to(self.device, torch.float32) * (current().count / num_read)
        clips = (inputs, targets, weights)
        total = self._accumulate(clips, drawn, own, is_last=self.interpolated is None)
        if self.interpolated is not None:
            with self.interpolated.weights(rng) as weight:
                total += weight * self._accumulate(clips, drawn, own, is_last=True, factor=weight)
        return total / current().count

    def _accumulate(
        self,
        clips: tuple[Tensor, Tensor, Tensor],
        drawn: int,
        kept: Tensor | None,
        *,
        is_last: bool,
        factor: float = 1.0,
    ) -> float:
        """Add `factor` times the gradient of clips, targets and weights, part by part -> their loss."""
        parts = zip(*(tensor.tensor_split(self.num_parts) for tensor in clips), strict=True)
        branches = [None] * self.num_parts if kept is None else kept.tensor_split(self.num_parts, dim=2)
        total = torch.zeros((), device=self.device)
        for i, ((inputs, targets, weights), own) in enumerate(zip(parts, branches, strict=True)):
            with self.engine.adding(is_last=is_last and i == self.num_parts - 1):
                with self.phases.phase("forward"):
                    loss = self.engine.loss(inputs, targets, weights, drawn, own)
                with self.phases.phase("backward"):
                    (factor * loss).backward()
            total += loss.detach()
        return total.item()

    def _inputs(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Pixels (B, T, 3, S, S) normalised and targets (B, K), mixed as in the whole batch."""
        with self.phases.phase("copy"):
            labels = batch.labels.to(self.device, non_blocking=True)
            pixels = augmented(batch, self.clips.transform, self.device)
        with self.phases.phase("augment"):
            targets = smooth_targets(labels, len(self.clips.manifest.labels), self.config.mix.label_smoothing)
            mixings = draw_mixing(self.num_clips, pixels.shape[-1], self.config.mix, rng)
            rows = {place: row for row, place in enumerate(self.places) if batch.is_read[row]}
            return mix(self.preprocess.normalise(pixels), targets, mixings, rows)


def _of_all(errors: Sequence[str]) -> set[str]:
    """Errors of unreadable clips in all processes."""
    return {error for own in current().gathered(list(errors)) for error in own}


def _with_errors(state: TrainingState, errors: set[str]) -> TrainingState:
    """The state with these errors; new ones are logged."""
    for error in sorted(errors - {*state.unreadable}):
        logger.warning("a training clip cannot be read and is left out: %s", error)
    return replace(state, unreadable=tuple(sorted({*state.unreadable, *errors})))
