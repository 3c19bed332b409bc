"""A training step of B/32-8 under bfloat16 autocast: ours and transformers' model in the same loop.

Shapes: B videos, T frames, S input side, K labels.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import command, speed_table
from benchmarks.options import Options
from benchmarks.report import Section
from benchmarks.weights import write_model
from benchmarks.worker import Builder, Step, take_turns
from openxclip import load
from openxclip.models import layers, preset
from openxclip.reports.table import Table
from openxclip.text.labels import built_in_labels
from openxclip.training.compiling import compile_tower
from openxclip.training.config import LearningRates
from openxclip.training.optim import freeze

SUITE = "training"
MODEL = "B/32-8"
BATCH_SIZE = 8
NUM_ROUNDS = 5  # a step takes seconds
OURS, OURS_TEXTS, OURS_COMPILED = "ours", "ours, texts in each step", "ours, compiled"
OURS_SAVING = "ours, compiled, checkpointing"
OURS_KERNEL = "ours, torch's attention kernel"
PEER, PEER_COMPILED = "transformers", "transformers, compiled"


def run(options: Options) -> Section:
    """Without and with gradient checkpointing: so many processes as fit into memory at once."""
    with TemporaryDirectory() as folder:
        return measure(write_model(Path(folder) / "model", preset(MODEL)), options, BATCH_SIZE)


def measure(folder: Path, options: Options, batch_size: int) -> Section:
    """The suite on any model."""
    num_rounds = min(options.num_rounds, NUM_ROUNDS)
    plain, saving = (
        take_turns(builders(folder, "cpu", batch_size, checkpointing), num_rounds, "training")
        for checkpointing in (False, True)
    )
    notes = (
        f"{batch_size} clips, {len(_labels())} labels, text tower frozen, AdamW (fused): the same loop for all. "
        "Ours encodes frozen texts once, as its training does; transformers' model encodes them in every step.",
        f"Loss of the first step: {', '.join(f'{name} {loss:.4f}' for name, loss in plain.firsts.items())}.",
    )
    return Section(
        suite=SUITE,
        tables=(
            speed_table(f"Training step, {MODEL}, bfloat16 autocast", SUITE, plain.timings, PEER, notes),
            speed_table("The same with gradient checkpointing", SUITE, saving.timings, PEER),
            memory_table(plain.peaks_bytes, saving.peaks_bytes),
        ),
        figures={
            "training_speed": plain.timings[OURS].speed_against(plain.timings[PEER]),
            "training_memory": plain.peaks_bytes[OURS] / plain.peaks_bytes[PEER],
        },
        timings=plain.timings | {f"{name}, checkpointing": own for name, own in saving.timings.items()},
    )


def builders(folder: Path, device: str, batch_size: int, checkpointing: bool) -> dict[str, Builder]:
    """The variants on a CPU by name: as training runs there, compiled, and what its shortcuts save."""
    shared = {"folder": folder, "device": device, "batch_size": batch_size, "checkpointing": checkpointing}
    ours = {**shared, "frozen_texts": True}
    return {
        OURS: Builder(build=our_step, arguments=ours),
        OURS_COMPILED: Builder(build=our_step, arguments={**ours, "compiled": True}),
        OURS_TEXTS: Builder(build=our_step, arguments={**shared, "frozen_texts": False}),
        OURS_KERNEL: Builder(build=kernel_step, arguments=shared),
        PEER: Builder(build=their_step, arguments=shared),
    }


def gpu_builders(folder: Path, device: str, batch_size: int) -> dict[str, Builder]:
    """The variants on a GPU by name: both models as they are written and compiled, ours saving memory as well."""
    shared = {"folder": folder, "device": device, "batch_size": batch_size}

    def ours(checkpointing: bool, compiled: bool) -> Builder:
        settings = {"checkpointing": checkpointing, "frozen_texts": True, "compiled": compiled}
        return Builder(build=our_step, arguments={**shared, **settings})

    def theirs(compiled: bool) -> Builder:
        return Builder(build=their_step, arguments={**shared, "checkpointing": False, "compiled": compiled})

    return {
        OURS: ours(checkpointing=False, compiled=False),
        OURS_COMPILED: ours(checkpointing=False, compiled=True),
        OURS_SAVING: ours(checkpointing=True, compiled=True),
        PEER: theirs(compiled=False),
        PEER_COMPILED: theirs(compiled=True),
    }


def our_step(
    folder: Path,
    device: str,
    batch_size: int,
    checkpointing: bool,
    frozen_texts: bool,
    compiled: bool = False,
) -> Step:
    """A step of our model."""
    model, tokenizer, _ = load(folder, device=device, dtype="float32")
    model.train()
    model.visual.gradient_checkpointing = checkpointing
    freeze(model, LearningRates())
    tokens = tokenizer(_labels()).to(device)
    with torch.no_grad():
        once = model.encode_text(tokens)

    def logits(pixels: Tensor) -> Tensor:
        text = once if frozen_texts else model.encode_text(tokens)
        return model.logits(model.encode_video(pixels), text)

    compile_tower(model.visual, "on" if compiled else "off", "none")
    size = model.config.vision.image_size_px
    return training_step(model, logits, (batch_size, model.config.num_frames, 3, size, size), device)


def kernel_step(folder: Path, device: str, batch_size: int, checkpointing: bool) -> Step:
    """Ours without the two plain products that bfloat16 training on CPUs takes for attention."""
    step = our_step(folder, device, batch_size, checkpointing, frozen_texts=True)

    def kernel(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    def with_kernel() -> float:
        with mock.patch.object(layers, "_two_products", kernel):
            return step()

    return with_kernel


def their_step(
    folder: Path, device: str, batch_size: int, checkpointing: bool, compiled: bool = False
) -> Step:
    """A step of transformers' model."""
    # Imported here: our step's process, whose memory is counted, does without.
    from benchmarks.transformers_way import load_theirs, their_tokens

    model = load_theirs(folder).to(device).train()
    if checkpointing:
        model.activation_checkpointing_enable()
    for part in (model.text_model, model.text_projection):
        part.requires_grad_(False)
    model.logit_scale.requires_grad_(False)
    tokens = their_tokens(load(folder, device="cpu").tokenizer, _labels()).to(device)

    run = torch.compile(model) if compiled else model

    def logits(pixels: Tensor) -> Tensor:
        return run(input_ids=tokens, pixel_values=pixels).logits_per_video

    vision = model.config.vision_config
    shape = (batch_size, vision.num_frames, 3, vision.image_size, vision.image_size)
    return training_step(model, logits, shape, device)


def training_step(
    model: nn.Module, logits: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: str
) -> Step:
    """The loop's body: pixels (B, T, 3, S, S) -> logits (B, K), cross entropy, AdamW; the step gives its loss."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(shape, generator=generator).to(device)
    labels = torch.randint(len(_labels()), shape[:1], generator=generator).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=8e-6, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)

    def step() -> float:
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = F.cross_entropy(logits(pixels).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def memory_table(plain: Mapping[str, int], saving: Mapping[str, int]) -> Table:
    """Peaks of each process."""
    rows = [
        (
            name,
            f"{peak / 2**30:.2f} GiB",
            f"{peak / plain[PEER]:.2f}x",
            f"{saving[name] / 2**30:.2f} GiB",
            f"{saving[name] / saving[PEER]:.2f}x",
        )
        for name, peak in plain.items()
    ]
    return Table(
        title="Peak memory of the process",
        command=command(SUITE),
        columns=("variant", "peak", f"against {PEER}", "with checkpointing", f"against {PEER}"),
        rows=tuple(rows),
        notes=("All of it: Python, libraries, weights, optimizer state, activations.",),
    )


def _labels() -> tuple[str, ...]:
    return tuple(built_in_labels("kinetics400"))
