"""Estimates the memory of a training."""

from dataclasses import dataclass

import torch
from torch import Tensor

from openxclip.models import XCLIP
from openxclip.models.config import XCLIPConfig
from openxclip.training.config import LearningRates, TrainConfig
from openxclip.training.optim import freeze

BYTES = 4  # per weight, gradient, and each of AdamW's two moments
NUM_LABELS = 400  # the memory of logits hardly counts
BFLOAT16_SHARE = 0.47
"""Share of float32's activations: B/16-8 takes 10.4 and 35.8 GiB for 16 and 64 clips on an H200 (`python -m benchmarks
gpu`). CPUs keep as much as in float32, since they also keep the converted tensors."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on the device of one process."""

    weights: int
    gradients: int
    """Gradients of the trained parameters."""
    optimizer: int
    activations: int
    """Tensors that the forward pass keeps for the backward pass, for the clips of one pass."""

    @property
    def total(self) -> int:
        """The sum, without the overhead of libraries and the allocator."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(
    config: TrainConfig, model: XCLIPConfig, num_clips: int, device_type: str, num_shards: int = 1
) -> Memory:
    """Estimate the memory of a training, without running it.

    Args:
        config: the recipe.
        model: of the model that is trained.
        num_clips: clips per forward pass in one process.
        device_type: of the device, "cuda" or "cpu".
        num_shards: number of processes that shard the weights.
    """
    with torch.device("meta"):
        empty = XCLIP(model)
    num_weights, num_trained = _counts(empty, config.optim.factors)
    return Memory(
        weights=BYTES * num_weights // num_shards,
        gradients=BYTES * num_trained // num_shards,
        optimizer=2 * BYTES * num_trained // num_shards,
        activations=_activations(empty, config, device_type) * num_clips,
    )


def _counts(model: XCLIP, factors: LearningRates) -> tuple[int, int]:
    freeze(model, factors)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained)


def _activations(model: XCLIP, config: TrainConfig, device_type: str) -> int:
    """Bytes kept for one clip."""
    vision = model.config.vision
    pixels = torch.empty(
        1, model.config.num_frames, 3, vision.image_size_px, vision.image_size_px, device="meta"
    )
    text = torch.empty(NUM_LABELS, model.config.embed_dim, device="meta")
    model.train()
    whole = _kept(model, pixels, text)
    inputs = 0
    if config.gradient_checkpointing:
        blocks = _kept_by_blocks(model, pixels)
        inputs = BYTES * model.config.num_frames * vision.width * (vision.num_patches + 1) * len(blocks)
        whole += max(blocks) - sum(blocks)
    is_half = config.precision == "bfloat16" and device_type != "cpu"
    return inputs + round(whole * (BFLOAT16_SHARE if is_half else 1.0))


def _kept(model: XCLIP, pixels: Tensor, text: Tensor) -> int:
    counter = _Counter(model)
    with counter:
        model.logits(model.encode_video(pixels), text)
    return counter.num_bytes


def _kept_by_blocks(model: XCLIP, pixels: Tensor) -> list[int]:
    x = model.visual.pre_norm(model.visual.embed(pixels))
    found = []
    for block in model.visual.blocks:
        counter = _Counter(model)
        with counter:
            block(x)
        found.append(counter.num_bytes)
    return found


class _Counter(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes of the tensors that autograd keeps, each once, and no weights."""

    def __init__(self, model: XCLIP) -> None:
        self.num_bytes = 0
        self._weights = {id(parameter) for parameter in model.parameters()}
        self._seen: set[int] = set()
        self._alive: list[Tensor] = []  # an id is unique while its tensor lives
        super().__init__(self._count, lambda tensor: tensor)

    def _count(self, tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in self._weights | self._seen:
            self._seen.add(id(base))
            self._alive.append(base)
            self.num_bytes += base.numel() * base.element_size()
        return tensor
