"""On a GPU: videos per second, share of its arithmetic that the model uses, and peak memory.

Shapes: B videos, T frames, S input side, K labels.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.harness import Timing, command, interleave
from benchmarks.options import Options, UnavailableError
from benchmarks.report import Section
from benchmarks.training import gpu_builders as training_variants
from benchmarks.transformers_way import load_theirs, their_tokens
from benchmarks.weights import write_model
from benchmarks.worker import Builder, Step, Turns, take_turns
from openxclip import Engine, InferenceOptions, LabelTexts, load
from openxclip.models import XCLIPConfig, preset
from openxclip.models.flops import count_cost
from openxclip.reports.table import Table
from openxclip.runtimes.options import RuntimeOptions
from openxclip.text.labels import built_in_labels

SUITE = "gpu"
INFERENCE = (("B/16-8", 1), ("B/16-8", 32))
"""Models and videos of a batch; one at a time shows what batches across videos are worth."""
TRAINING = (("B/16-8", 16), ("B/16-8", 64), ("L/14-8", 16))
"""The same of a training step."""
NUM_WARMUPS = 3  # CUDA graphs are recorded in the second call
SIZE = 8192
LABELS = "kinetics400"
COLUMNS = ("model", "variant", "batch", "videos/s", "TFLOP/s", "of the ceiling", "peak memory")

Logits = Callable[[Tensor], Tensor]
"""Pixels (B, T, 3, S, S) of uint8 in pinned memory -> logits (B, K) on the device."""


def run(options: Options) -> Section:
    """Inference and training of one model, at two batch sizes each."""
    if not torch.cuda.is_available():
        raise UnavailableError("there is no CUDA device")
    ceiling = matmul_rate(SIZE, options.num_rounds)
    rows: list[tuple[str, ...]] = []
    timings: dict[str, Timing] = {}
    for training, models in ((False, INFERENCE), (True, TRAINING)):
        for name, batch_size in models:
            with TemporaryDirectory() as temporary:
                folder = write_model(Path(temporary) / "model", preset(name))
                turns = measure(folder, name, batch_size, training, options.num_rounds)
            title = f"{name}, training" if training else name
            flops = model_flops(preset(name), training)
            rows += [row(title, variant, turns, batch_size, flops, ceiling) for variant in turns.timings]
            place = f"{title}, batch {batch_size}"
            timings |= {f"{place}: {variant}": timing for variant, timing in turns.timings.items()}
    return Section(suite=SUITE, tables=(_table(rows, ceiling, options.num_rounds),), timings=timings)


def measure(folder: Path, name: str, batch_size: int, training: bool, num_rounds: int) -> Turns:
    """All variants of one model in turns, on the GPU."""
    if training:
        variants = training_variants(folder, "cuda", batch_size)
    else:
        variants = inference_builders(folder, "cuda", batch_size)
    return take_turns(variants, num_rounds, name, NUM_WARMUPS)


def inference_builders(folder: Path, device: str, batch_size: int) -> dict[str, Builder]:
    """What is compared, by name."""
    shared = {"folder": folder, "device": device, "batch_size": batch_size}

    def ours(**settings: bool) -> Builder:
        return Builder(build=our_inference, arguments=shared | settings)

    def theirs(dtype: torch.dtype, compiled: bool) -> Builder:
        return Builder(build=their_inference, arguments={**shared, "dtype": dtype, "compiled": compiled})

    own = {"ours, auto": ours(compiled=False), "ours, auto, compiled": ours(compiled=True)}
    if batch_size == 1:  # shows only what batches are worth to us
        return own
    return own | {
        "transformers, float32": theirs(torch.float32, compiled=False),
        "transformers, bfloat16": theirs(torch.bfloat16, compiled=False),
        "transformers, bfloat16, compiled": theirs(torch.bfloat16, compiled=True),
    }


def our_inference(folder: Path, device: str, batch_size: int, compiled: bool) -> Step:
    """The engine that every prediction goes through: pixels cross over as uint8."""
    options = InferenceOptions(runtime=RuntimeOptions(compile=compiled))
    engine = Engine(load(folder, device=device, dtype="auto"), options)
    labels = engine.label_set(LabelTexts(labels=built_in_labels(LABELS)))
    return inference_step(lambda pixels: engine.logits(pixels, labels), engine.model.config, batch_size)


def their_inference(folder: Path, device: str, batch_size: int, dtype: torch.dtype, compiled: bool) -> Step:
    """Theirs: its processor gives float32 pixels, which are made ready beforehand and not counted."""
    own, tokenizer, preprocess = load(folder, device="cpu", dtype="float32")
    model = load_theirs(folder, dtype).to(device)
    model = torch.compile(model) if compiled else model
    tokens = their_tokens(tokenizer, built_in_labels(LABELS)).to(device)
    ready = _pinned(preprocess.normalise(random_pixels(own.config, batch_size)).to(dtype))

    def logits(_: Tensor) -> Tensor:
        return model(input_ids=tokens, pixel_values=ready.to(device, non_blocking=True)).logits_per_video

    return inference_step(logits, own.config, batch_size)


def inference_step(logits: Logits, config: XCLIPConfig, batch_size: int) -> Step:
    """A step that waits for the device; it gives the sum of the first video's probabilities, which is 1."""
    pixels = _pinned(random_pixels(config, batch_size))

    @torch.inference_mode()
    def step() -> float:
        return logits(pixels)[0].float().softmax(dim=0).sum().item()  # reading a value waits

    return step


def random_pixels(config: XCLIPConfig, batch_size: int) -> Tensor:
    """uint8 (B, T, 3, S, S)."""
    size = config.vision.image_size_px
    return torch.randint(256, (batch_size, config.num_frames, 3, size, size), dtype=torch.uint8)


def _pinned(pixels: Tensor) -> Tensor:
    return pixels.pin_memory() if torch.cuda.is_available() else pixels


def model_flops(config: XCLIPConfig, training: bool) -> int:
    """Of one video: the forward pass and, in training, the backward pass, which is twice as much."""
    return 2 * count_cost(config, len(built_in_labels(LABELS))).macs * (3 if training else 1)


def matmul_rate(size: int, num_rounds: int) -> float:
    """FLOP/s of a square product in bfloat16: what the device does at most."""
    x = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)

    def product(_: int) -> None:
        torch.mm(x, x)
        torch.cuda.synchronize()

    timing = interleave({"product": product}, range(num_rounds), "ceiling", NUM_WARMUPS).timings["product"]
    return 2 * size**3 / timing.median_seconds


def row(
    model: str, variant: str, turns: Turns, batch_size: int, flops: int, ceiling: float
) -> tuple[str, ...]:
    """A row under `COLUMNS`; `flops` are those of a video, `ceiling` is in FLOP/s."""
    videos_per_second = batch_size / turns.timings[variant].median_seconds
    rate = videos_per_second * flops
    return (
        model,
        variant,
        str(batch_size),
        f"{videos_per_second:.1f}",
        f"{rate / 1e12:.1f}",
        f"{rate / ceiling:.0%}",
        f"{turns.peaks_bytes[variant] / 2**30:.2f} GiB",
    )


def _table(rows: list[tuple[str, ...]], ceiling: float, num_rounds: int) -> Table:
    return Table(
        title=f"{torch.cuda.get_device_name()}: medians of {num_rounds} rounds",
        command=command(SUITE),
        columns=COLUMNS,
        rows=tuple(rows),
        notes=(
            f"The ceiling is a product of {SIZE}x{SIZE}x{SIZE} in bfloat16 on this device: {ceiling / 1e12:.0f} "
            "TFLOP/s. FLOPs are the model's (for training three times the forward pass), not those of any detour.",
            "Inference begins with pixels in pinned memory and ends with logits for 400 labels. Ours has encoded "
            "those before, as a Recognizer does, and takes uint8; transformers' model encodes the labels in each call.",
        ),
    )
