"""How near a forward pass comes to what the processor can do at all: the rate of a plain matrix product.

Shapes: M rows, that is all tokens of a clip; D width.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.breakdown import breakdown_table
from benchmarks.forward import LABELS, random_clip
from benchmarks.harness import Timing, command, duration, interleave
from benchmarks.options import Options
from benchmarks.report import Section
from benchmarks.weights import write_model
from openxclip import load
from openxclip.models import XCLIPConfig, preset
from openxclip.models.flops import count_cost
from openxclip.reports.table import Table

SUITE = "ceiling"
MODEL = "B/16-8"
SIZE = 2048
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class Product:
    """A matrix product (rows, inner) x (inner, columns)."""

    what: str
    """Which layer's."""
    rows: int
    """M."""
    inner: int
    """Width that is summed over."""
    columns: int
    """Width that comes out."""

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.inner * self.columns

    def task(self, dtype: torch.dtype) -> Callable[[object], Tensor]:
        """What computes it, as a linear layer does."""
        x = torch.randn(self.rows, self.inner, dtype=dtype)
        weight = torch.randn(self.columns, self.inner, dtype=dtype)
        return lambda _: F.linear(x, weight)


def run(options: Options) -> Section:
    """The model and plain products in turns."""
    with TemporaryDirectory() as folder:
        return measure(write_model(Path(folder) / "model", preset(MODEL)), preset(MODEL), SIZE, options)


def measure(folder: Path, config: XCLIPConfig, size: int, options: Options) -> Section:
    """The suite on any model; `size` is the side of the square product."""
    shapes = products(config, size)
    forward = bfloat16_forward(folder, config)
    tasks: dict[str, Callable[[object], object]] = {f"{MODEL}, bfloat16": forward}
    for name, dtype in DTYPES.items():
        tasks |= {
            f"{product.what}, {name}": torch.inference_mode()(product.task(dtype)) for product in shapes
        }
    timings = interleave(tasks, range(options.num_rounds), "ceiling").timings
    flops = 2 * count_cost(config, len(LABELS)).macs
    rate = flops / timings[f"{MODEL}, bfloat16"].median_seconds
    ceiling = shapes[0].flops / timings[f"{shapes[0].what}, bfloat16"].median_seconds
    return Section(
        suite=SUITE,
        tables=(
            rate_table(flops, shapes, timings, ceiling),
            breakdown_table(lambda: forward(None), SUITE, "Where the time of a forward pass goes"),
        ),
        figures={"ceiling": rate / ceiling},
        timings=timings,
    )


def products(config: XCLIPConfig, size: int) -> tuple[Product, ...]:
    """The square product, and those of the image tower's layers: all frames of a clip, message tokens included."""
    width, mlp_width = config.vision.width, config.vision.mlp_width or 4 * config.vision.width
    tokens = config.num_frames * (config.vision.num_patches + 1)
    with_messages = tokens + config.num_frames
    return (
        Product(what=f"{size}x{size}x{size}", rows=size, inner=size, columns=size),
        Product(what="query, key, value", rows=with_messages, inner=width, columns=3 * width),
        Product(what="attention output", rows=with_messages, inner=width, columns=width),
        Product(what="MLP up", rows=tokens, inner=width, columns=mlp_width),
        Product(what="MLP down", rows=tokens, inner=mlp_width, columns=width),
    )


def bfloat16_forward(folder: Path, config: XCLIPConfig) -> Callable[[object], Tensor]:
    """One clip to logits; the labels are encoded already."""
    model, tokenizer, _ = load(folder, device="cpu", dtype="bfloat16")
    pixels = random_clip(config, seed=0).bfloat16()
    with torch.inference_mode():
        text = model.encode_text(tokenizer(LABELS))

    @torch.inference_mode()
    def forward(_: object) -> Tensor:
        return model.logits(model.encode_video(pixels), text)

    return forward


def rate_table(flops: int, shapes: Iterable[Product], timings: Mapping[str, Timing], ceiling: float) -> Table:
    """FLOP/s of the model and of the products, and their share of the ceiling."""
    work = {f"{product.what}, {name}": product.flops for name in DTYPES for product in shapes}
    work = {f"{MODEL}, bfloat16": flops} | work
    rows = []
    for name, timing in timings.items():
        rate = work[name] / timing.median_seconds
        rows.append((name, duration(timing.median_seconds), f"{rate / 1e12:.3f}", f"{rate / ceiling:.0%}"))
    return Table(
        title="Share of the machine's ceiling, that is its first product in bfloat16",
        command=command(SUITE),
        columns=("what", "median", "TFLOP/s", "of the ceiling"),
        rows=tuple(rows),
        notes=(
            "The other products are the model's own: what its layers could reach if nothing else was done.",
        ),
    )
