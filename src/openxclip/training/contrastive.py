"""Language-image pretraining (CLIP, Radford et al. 2021) on captioned stills of moving shapes.

The first stage of the paper in miniature: images and captions share one embedding before any video training. The
two captions of an image also attract each other. A still shows no motion, so images alone would teach the
text tower to ignore words of motion, and class names that differ only in motion would get the same feature. Real
images show enough of most actions to tell their names apart.

Every step is a function of the weights and (seed, step), so an interrupted run ends in the same weights.

Shapes: B images, S input side, C tokens of a caption, E joint embedding.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from openxclip.checkpoints.device import resolve_device
from openxclip.checkpoints.load import Loaded, load
from openxclip.configuration import require
from openxclip.data.dataset import Draw, generator
from openxclip.models import XCLIPConfig
from openxclip.processes import Processes
from openxclip.progress import progress_bar
from openxclip.shapes.captions import all_words, captioned_image
from openxclip.shapes.splits import WORLDS
from openxclip.text.tokenizer import Tokenizer
from openxclip.training.config import MAX_SEED, LearningRates, OptimConfig
from openxclip.training.loop import TrainingLoop
from openxclip.training.options import RunOptions
from openxclip.training.run_folder import RunFolder, TrainingState
from openxclip.training.start import fresh
from openxclip.video.transforms import Preprocessor

MAX_LOGIT_SCALE = math.log(100.0)  # as in CLIP: larger values make training unstable

SCALE_FACTOR = 10.0  # the temperature has to change a lot in a training as short as ours


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """The configuration of a pretraining run."""

    recipe: str
    """Name of the recipe it comes from."""
    model: XCLIPConfig
    """The image model: one frame, without the parts that X-CLIP adds."""
    world: Literal["full", "small"] = "full"
    """Which words of moving shapes the captions use."""
    num_steps: int
    """Optimizer steps."""
    batch_size: int
    """Image-caption pairs per step; each caption is contrasted with all others."""
    learning_rate: float
    """Peak learning rate."""
    warmup_steps: int
    """Steps of linear warm-up."""
    text_weight: float = 0.5
    """Weight of the loss between the two captions of an image, relative to that between image and caption."""
    weight_decay: float = 0.01
    """Decoupled decay of everything but biases, norms, 1-d parameters and position embeddings."""
    clip_grad_norm: float = 1.0
    """Maximum norm of the whole gradient."""
    save_every: int = 500
    """Steps between checkpoints."""
    num_workers: int = 0
    """Number of rendering processes; 0 uses the training process."""
    seed: int = 1024
    """Seed of weights and images."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "save_every"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(
            0 <= self.warmup_steps <= self.num_steps,
            f"warmup_steps must be in 0..{self.num_steps} (num_steps), got {self.warmup_steps}",
        )
        require(self.text_weight >= 0, f"text_weight must be 0 or more, got {self.text_weight}")
        require(0 <= self.seed <= MAX_SEED, f"seed must be 0 to {MAX_SEED}, got {self.seed}")
        added = {
            "vision.message_tokens": self.model.vision.message_tokens,
            "integration": self.model.integration,
            "prompting": self.model.prompting,
            "num_discrete_labels": self.model.num_discrete_labels,
            "text.num_context_vectors": self.model.text.num_context_vectors,
        }
        found = [name for name, value in added.items() if value]
        require(
            not found and self.model.num_frames == 1,
            f"model must be an image model, with num_frames 1 and none of {', '.join(added)}, got num_frames "
            f"{self.model.num_frames} and {', '.join(found) or 'none of them'}",
        )

    @property
    def optim(self) -> OptimConfig:
        """The optimizer, as the training loop takes it."""
        return OptimConfig(
            epochs=1,
            warmup_epochs=0.0,
            learning_rate=self.learning_rate,
            factors=LearningRates(new=1.0, visual=1.0, text=1.0, logit_scale=SCALE_FACTOR),
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            clip_grad_norm=self.clip_grad_norm,
        )


class CaptionBatch(NamedTuple):
    """Images and the two captions of each, in the same order."""

    pixels: Tensor
    """uint8 (B, 3, S, S)."""
    tokens: Tensor
    """(2, B, C)."""


class CaptionBatches(Dataset[CaptionBatch]):
    """Batch number `step` of the endless stream of captioned stills of the base classes."""

    def __init__(self, config: PretrainConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.kinds = WORLDS[config.world].base

    def __getitem__(self, step: int) -> CaptionBatch:
        rng = generator(Draw.CLIP, self.config.seed, step)
        side = self.config.model.vision.image_size_px
        kinds = rng.integers(len(self.kinds), size=self.config.batch_size)
        pairs = [captioned_image(self.kinds[kind], side, rng) for kind in kinds]
        pixels = torch.from_numpy(np.stack([pair.image for pair in pairs])).permute(0, 3, 1, 2)
        first, second = zip(*(pair.captions for pair in pairs), strict=True)
        return CaptionBatch(pixels, torch.stack([self.tokenizer(first), self.tokenizer(second)]))


def contrastive_loss(images: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE: images (B, E) and texts (B, E), pair i with i, among all of the batch."""
    logits = logit_scale.exp() * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T  # (B, B)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def pretrain(
    config: PretrainConfig, output: Path, device: str = "auto", options: RunOptions | None = None
) -> TrainingState:
    """Train an image model in this process, or until stopped; the same call on an unfinished run resumes it.

    Raises:
        InputError: `output` holds another run.
        TrainingError: the loss is not finite.
    """
    run = RunFolder(output, Processes())
    with run.locked():
        place, state = resolve_device(device), run.begin(config)
        start = begin(config) if state.step == 0 else load(run.last, device="cpu", dtype="float32")
        start.model.to(place)
        return _fit(config, start, run, state, options)


def begin(config: PretrainConfig) -> Loaded:
    """A new model, on the CPU, with a tokenizer trained on the words of moving shapes."""
    preprocess = Preprocessor.hugging_face(config.model.vision.image_size_px)
    return fresh(config.model, all_words(), preprocess, config.seed)


class Contrast:
    """The contrastive objective between captions and images of a batch."""

    def __init__(self, start: Loaded, text_weight: float) -> None:
        self.model, _, self.preprocess = start
        self.text_weight = text_weight

    def backward(self, batch: CaptionBatch, number: int) -> float:
        """Add the gradient of a batch to the weights -> its loss."""
        model, device = self.model, self.model.logit_scale.device
        pixels = self.preprocess.normalise(batch.pixels.to(device))[:, None]  # (B, T=1, 3, S, S)
        images = model.encode_video(pixels).video
        first, second = model.encode_text(batch.tokens.flatten(0, 1).to(device)).chunk(2)
        loss = contrastive_loss(images, first, model.logit_scale)
        loss = loss + self.text_weight * contrastive_loss(first, second, model.logit_scale)
        loss.backward()
        return loss.item()


def _fit(
    config: PretrainConfig, start: Loaded, run: RunFolder, state: TrainingState, options: RunOptions | None
) -> TrainingState:
    assert isinstance(start.tokenizer, Tokenizer)  # a run folder always holds one
    loop = TrainingLoop(start, config.optim, config.num_steps, config.warmup_steps, run, options)
    loop.resume(state)
    batches = DataLoader(
        CaptionBatches(config, start.tokenizer),
        batch_size=None,
        sampler=range(state.step, config.num_steps),
        num_workers=config.num_workers,
    )
    objective = Contrast(start, config.text_weight)
    start.model.train()
    with progress_bar() as bar:
        task = bar.add_task("pretraining", total=config.num_steps, completed=state.step, note="")
        for done in loop.steps(batches, objective.backward, state.step):
            start.model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)
            state = TrainingState(step=done.number)
            bar.update(task, advance=1, note=f"loss {done.loss:.3f}")
            if done.is_last or done.number % config.save_every == 0 or done.number == config.num_steps:
                loop.save(state)
    return state
