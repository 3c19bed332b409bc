"""One video through B/16-8: time, and agreement with transformers in float32.

Shapes: T frames, S input side, K labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.harness import Timing, command, interleave, speed_table
from benchmarks.options import Options
from benchmarks.report import Section
from benchmarks.transformers_way import COMPILE_NOTE, load_theirs, their_tokens
from benchmarks.weights import write_model
from openxclip import load
from openxclip.models import XCLIPConfig, preset
from openxclip.reports.table import Table
from openxclip.runtimes.int8 import use_int8

SUITE = "forward"
MODEL = "B/16-8"
LABELS = ("surfing water", "playing piano", "archery", "juggling balls", "making tea")

AUTO, COMPILED, INT8 = "ours, auto", "ours, auto, compiled", "ours, int8, compiled"
REFERENCE, PEER_BFLOAT16 = "transformers, float32", "transformers, bfloat16"

Forward = Callable[[Tensor], Tensor]
"""Pixels (1, T, 3, S, S), normalised, float32 -> logits (1, K), float32. Both sides also encode the labels."""


def run(options: Options) -> Section:
    """Time all variants in turns, then count agreement over more inputs."""
    with TemporaryDirectory() as folder:
        return measure(write_model(Path(folder) / "model", preset(MODEL)), preset(MODEL), options)


def measure(folder: Path, config: XCLIPConfig, options: Options) -> Section:
    """The suite on any model."""
    forwards = variants(folder)
    inputs = [random_clip(config, seed) for seed in range(max(options.num_inputs, options.num_rounds))]
    timings = interleave(forwards, inputs[: options.num_rounds], "forward").timings
    compared = {name: forwards[name] for name in (REFERENCE, AUTO, COMPILED, INT8, PEER_BFLOAT16)}
    outputs = interleave(compared, inputs[: options.num_inputs], "agreement").outputs
    logits = {name: torch.cat(of_inputs) for name, of_inputs in outputs.items()}
    agreements = {name: Agreement.of(own, logits[REFERENCE]) for name, own in logits.items()}
    notes = (
        f"{len(LABELS)} labels, whose few texts every variant encodes in each call; random weights, the same for all.",
        f"transformers with scaled_dot_product_attention, its default; {COMPILE_NOTE}.",
    )
    table = speed_table(f"Forward, one video, {MODEL}", SUITE, timings, REFERENCE, notes)
    return Section(
        suite=SUITE,
        tables=(table, agreement_table(agreements, options.num_inputs)),
        figures=_figures(timings, agreements),
        timings=timings,
    )


def variants(folder: Path) -> dict[str, Forward]:
    """What is compared, by name."""
    return {
        "ours, float32": ours(folder, "float32"),
        AUTO: ours(folder, "auto"),
        COMPILED: ours(folder, "auto", compiled=True),
        INT8: ours(folder, "auto", compiled=True, int8=True),
        REFERENCE: theirs(folder, torch.float32),
        PEER_BFLOAT16: theirs(folder, torch.bfloat16),
        "transformers, bfloat16, compiled": theirs(folder, torch.bfloat16, compiled=True),
    }


def ours(folder: Path, dtype: str, compiled: bool = False, int8: bool = False) -> Forward:
    """Our model, as `openxclip.load` gives it."""
    model, tokenizer, _ = load(folder, device="cpu", dtype=dtype)
    if int8:
        use_int8(model)
    tokens = tokenizer(LABELS)
    encode_video = torch.compile(model.encode_video) if compiled else model.encode_video

    @torch.inference_mode()
    def forward(pixels: Tensor) -> Tensor:
        video = encode_video(pixels.to(model.logit_scale.dtype))
        return model.logits(video, model.encode_text(tokens))

    return forward


def theirs(folder: Path, dtype: torch.dtype, compiled: bool = False) -> Forward:
    """Their model on the same weights."""
    model = load_theirs(folder, dtype)
    tokens = their_tokens(load(folder, device="cpu").tokenizer, LABELS)
    model = torch.compile(model) if compiled else model

    @torch.inference_mode()
    def forward(pixels: Tensor) -> Tensor:
        return model(input_ids=tokens, pixel_values=pixels.to(dtype)).logits_per_video.float()

    return forward


def random_clip(config: XCLIPConfig, seed: int) -> Tensor:
    """Pixels (1, T, 3, S, S): one random scene of a few blobs and, on each frame, noise.

    Of noise alone, a model with random weights makes the same features whatever the seed.
    """
    size = config.vision.image_size_px
    generator = torch.Generator().manual_seed(seed)
    blobs = 1.5 * torch.randn(1, 3, 3, 3, generator=generator)
    scene = torch.nn.functional.interpolate(blobs, size=size, mode="bilinear")
    return (scene + 0.2 * torch.randn(config.num_frames, 3, size, size, generator=generator))[None]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near one set of logits comes to another, over all inputs."""

    top1: float
    """Share of inputs with the same best label."""
    largest_difference: float
    """Of any probability."""
    largest_lead_lost: float
    """By how much probability the reference preferred a best label that changed; near 0, it was a tie."""

    @classmethod
    def of(cls, logits: Tensor, reference: Tensor) -> "Agreement":
        """Logits (N, K) against those of the reference."""
        expected, found = reference.softmax(dim=1), logits.softmax(dim=1)
        best, second = expected.topk(2, dim=1).values.unbind(dim=1)
        same = expected.argmax(dim=1) == found.argmax(dim=1)
        return cls(
            top1=same.float().mean().item(),
            largest_difference=(expected - found).abs().max().item(),
            largest_lead_lost=(best - second).masked_fill(same, 0.0).max().item(),
        )


def agreement_table(agreements: Mapping[str, Agreement], num_inputs: int) -> Table:
    """Each variant against the reference."""
    rows = [
        (
            name,
            f"{own.top1:.1%}",
            f"{own.largest_difference:.4f}",
            f"{own.largest_lead_lost:.4f}",
        )
        for name, own in agreements.items()
        if name != REFERENCE
    ]
    return Table(
        title=f"Agreement with {REFERENCE}, {num_inputs} random inputs",
        command=command(SUITE),
        columns=("variant", "same best label", "largest difference of probabilities", "largest lead lost"),
        rows=tuple(rows),
        notes=(
            "A random model knows no labels, so its best two may all but tie: the last column says by how much "
            "probability the reference led where the best label changed.",
        ),
    )


def _figures(timings: Mapping[str, Timing], agreements: Mapping[str, Agreement]) -> dict[str, float]:
    both: Sequence[Agreement] = (agreements[AUTO], agreements[COMPILED])
    return {
        "forward_eager": timings[AUTO].speed_against(timings[REFERENCE]),
        "forward_compiled": timings[COMPILED].speed_against(timings[REFERENCE]),
        "forward_against_bfloat16": timings[COMPILED].speed_against(timings[PEER_BFLOAT16]),
        "forward_top1": min(agreement.top1 for agreement in both),
        "forward_difference": max(agreement.largest_difference for agreement in both),
    }
