"""Language-image pretraining (CLIP, Radford et al. 2021) on captioned stills of moving shapes.

The first stage of the paper's story in miniature: images and captions meet in one embedding before any video is
seen. Beside the images, the two captions of an image attract each other, too. No still shows a motion, so that images
alone teach the text tower to overlook words of motion: class names that differ in nothing else then get the same
feature. Real images show enough of most actions to tell their names apart.

Every step is a function of the weights and (seed, step), so an interrupted run ends in the same weights.

Shapes: B images, S input side, C tokens of a caption, E joint embedding.
"""

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from openxclip.checkpoints.formats.native import write_folder
from openxclip.checkpoints.load import Loaded, load, resolve_device
from openxclip.configuration import require
from openxclip.data.dataset import Draw, generator
from openxclip.errors import TrainingError
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.progress import progress_bar
from openxclip.shapes.captions import all_words, captioned_image
from openxclip.shapes.splits import WORLDS
from openxclip.text.tokenizer import Tokenizer, train_small_tokenizer
from openxclip.training.config import MAX_SEED
from openxclip.training.optim import decays, schedule, set_learning_rate
from openxclip.training.run_folder import RunFolder, TrainingState
from openxclip.video.transforms import Preprocessor

MAX_LOGIT_SCALE = math.log(100.0)  # as CLIP: a larger one makes training unstable

SCALE_FACTOR = 10.0  # the temperature has a long way to go in a training as short as ours


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A whole pretraining run."""

    recipe: str
    """Name of the recipe it comes from."""
    model: XCLIPConfig
    """The image model: one frame, nothing of what X-CLIP adds."""
    world: Literal["full", "small"] = "full"
    """Which of moving shapes' words the captions know."""
    num_steps: int
    """Optimizer steps."""
    batch_size: int
    """Image-caption pairs of a step; each caption is told apart from all others."""
    learning_rate: float
    """Peak learning rate."""
    warmup_steps: int
    """Steps of linear warm-up."""
    text_weight: float = 0.5
    """Weight of the loss between the two captions of an image, beside that between image and caption."""
    weight_decay: float = 0.01
    """Decoupled decay of everything but biases, norms, 1-d parameters and position embeddings."""
    clip_grad_norm: float = 1.0
    """Largest norm of the whole gradient."""
    save_every: int = 500
    """Steps between checkpoints."""
    num_workers: int = 0
    """Processes that render; 0 renders in the training process."""
    seed: int = 1024
    """Of weights and images."""

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


def pretrain(config: PretrainConfig, output: Path, device: str = "auto") -> TrainingState:
    """Train an image model; the same call on an unfinished run goes on with it.

    Raises:
        InputError: `output` holds another run.
        TrainingError: the loss is not a number.
    """
    run = RunFolder(output)
    with run.locked():
        state = run.begin(config)
        start = _start(config, device) if state.step == 0 else load(run.last, device=device, dtype="float32")
        return _fit(config, start, run, state)


def _start(config: PretrainConfig, device: str) -> Loaded:
    """A fresh model whose tokenizer has learned the world's words."""
    tokenizer = train_small_tokenizer(
        all_words(), config.model.text.vocab_size, config.model.text.context_length
    )
    text = dataclasses.replace(config.model.text, vocab_size=tokenizer.vocab_size)
    torch.manual_seed(config.seed)
    model = XCLIP(dataclasses.replace(config.model, text=text)).to(resolve_device(device))
    return Loaded(model, tokenizer, Preprocessor.hugging_face(config.model.vision.image_size_px))


def _optimizer(model: nn.Module, config: PretrainConfig) -> torch.optim.AdamW:
    """AdamW; each group keeps its peak rate as `peak_lr`."""
    groups: dict[str, list[nn.Parameter]] = {"decayed": [], "not decayed": [], "logit_scale": []}
    for name, parameter in model.named_parameters():
        key = name if name in groups else "decayed" if decays(name, parameter) else "not decayed"
        groups[key].append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if key == "decayed" else 0.0,
                "peak_lr": config.learning_rate * (SCALE_FACTOR if key == "logit_scale" else 1.0),
            }
            for key, parameters in groups.items()
        ],
        betas=(0.9, 0.98),
    )


def _fit(config: PretrainConfig, start: Loaded, run: RunFolder, state: TrainingState) -> TrainingState:
    model, tokenizer, preprocess = start
    assert isinstance(tokenizer, Tokenizer)  # a run folder always holds one
    optimizer = _optimizer(model, config)
    if state.step > 0:
        run.load_optimizer(model, optimizer)
    batches = DataLoader(
        CaptionBatches(config, tokenizer),
        batch_size=None,
        sampler=range(state.step, config.num_steps),
        num_workers=config.num_workers,
    )
    model.train()
    with progress_bar() as bar:
        task = bar.add_task("pretraining", total=config.num_steps, completed=state.step, note="")
        for batch in batches:
            started = time.perf_counter()
            factor = schedule(state.step, config.num_steps, config.warmup_steps, final_factor=0.01)
            set_learning_rate(optimizer, factor)
            loss = _step(model, optimizer, batch, preprocess, config)
            state = TrainingState(step=state.step + 1)
            run.log(
                step=state.step,
                loss=loss,
                learning_rate=config.learning_rate * factor,
                seconds=round(time.perf_counter() - started, 4),
            )
            bar.update(task, advance=1, note=f"loss {loss:.3f}")
            if state.step % config.save_every == 0 or state.step == config.num_steps:
                run.save_last(lambda folder: write_folder(folder, *start), model, optimizer, state)
    return state


def _step(
    model: XCLIP,
    optimizer: torch.optim.Optimizer,
    batch: CaptionBatch,
    preprocess: Preprocessor,
    config: PretrainConfig,
) -> float:
    """One optimizer step -> loss."""
    device = model.logit_scale.device
    pixels = preprocess.normalise(batch.pixels.to(device))[:, None]  # (B, T=1, 3, S, S)
    images = model.encode_video(pixels).video
    first, second = model.encode_text(batch.tokens.flatten(0, 1).to(device)).chunk(2)
    loss = contrastive_loss(images, first, model.logit_scale)
    loss = loss + config.text_weight * contrastive_loss(first, second, model.logit_scale)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad_norm)
    if not math.isfinite(loss.item()):
        raise TrainingError(f"the loss is {loss.item()}; the last checkpoint is kept. Lower learning_rate")
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
    return loss.item()
