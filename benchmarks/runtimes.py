"""The image tower in every runtime and precision, against transformers.

Shapes: B videos, T frames, S input side, K labels.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import openvino
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.forward import LABELS, random_clip
from benchmarks.harness import Timing, command, duration, interleave
from benchmarks.options import Options
from benchmarks.report import Section
from benchmarks.transformers_way import load_theirs, their_tokens
from benchmarks.weights import write_model
from openxclip import load
from openxclip.checkpoints.load import Loaded
from openxclip.models import XCLIP, VideoFeatures, XCLIPConfig, preset
from openxclip.reports.table import Table
from openxclip.runtimes.calibration import noise_between
from openxclip.runtimes.choice import fastest_way
from openxclip.runtimes.openvino_runtime import OpenVinoRuntime, core
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.runtime import Runtime, build_runtime
from openxclip.runtimes.ways import Way, ways
from openxclip.text.labels import built_in_labels

SUITE = "runtimes"
MODELS = ("B/32-8", "B/16-8")
BATCH_SIZES = (1, 8)
NUM_ROUNDS = 3
PEERS = {"transformers, float32": torch.float32, "transformers, bfloat16": torch.bfloat16}
REFERENCE = "transformers, float32"
CEILING_SIDE = 2048

Encode = Callable[[Tensor], object]
"""Pixels uint8 (B, T, 3, S, S) -> logits of a few labels, which are encoded in each call."""


def run(options: Options) -> Section:
    """Both models."""
    tables: list[Table] = []
    figures: dict[str, float] = {}
    timings: dict[str, Timing] = {}
    for name in MODELS:
        with TemporaryDirectory() as folder:
            found = measure(write_model(Path(folder) / "model", preset(name)), name, options)
        tables += found.tables
        figures |= found.figures
        timings |= found.timings
    return Section(suite=SUITE, tables=tuple(tables), figures=figures, timings=timings)


def measure(folder: Path, name: str, options: Options) -> Section:
    """All ways of one model."""
    loaded = load(folder, device="cpu")
    preprocess = loaded.preprocess
    runtimes = {
        way.name: build_runtime(way.model(loaded.model), preprocess, way.options(RuntimeOptions()))
        for way in ways(loaded.model)
    }
    agreements = agreement(loaded, runtimes, options.num_inputs)
    timings: dict[str, Timing] = {}
    chosen: dict[int, Way] = {}
    for size in BATCH_SIZES:
        variants = {way: ours(loaded, runtime) for way, runtime in runtimes.items()}
        variants |= {peer: theirs(folder, loaded, dtype) for peer, dtype in PEERS.items()}
        clips = [clips_of(loaded.model.config, seed, size) for seed in range(NUM_ROUNDS)]
        found = interleave(variants, clips, f"{name}, batch {size}").timings
        timings |= {f"{way}, batch {size}": timing for way, timing in found.items()}
        chosen[size] = fastest_way(loaded.model, preprocess, RuntimeOptions(runtime="auto"), size)
    figures: dict[str, float] = {}
    tables = [speed_table(name, timings, agreements, chosen)]
    if name == MODELS[-1]:
        share, products = products_table(loaded)
        tables.append(products)
        figures = _figures(timings, agreements, chosen) | {"int8_products": share}
    return Section(
        suite=SUITE,
        tables=tuple(tables),
        figures=figures,
        timings={f"{name}, {way}": timing for way, timing in timings.items()},
    )


def clips_of(config: XCLIPConfig, seed: int, num_clips: int) -> Tensor:
    """Random scenes as they come from a decoder: uint8 (B, T, 3, S, S)."""
    clips = torch.cat([random_clip(config, num_clips * seed + i) for i in range(num_clips)])
    return (128 + 48 * clips).clamp(0, 255).to(torch.uint8)


def ours(loaded: Loaded, runtime: Runtime) -> Encode:
    """A runtime, and our texts and scores."""
    model, tokens = loaded.model, loaded.tokenizer(LABELS)

    @torch.inference_mode()
    def encode(pixels: Tensor) -> Tensor:
        features = in_type(runtime.encode_video(pixels), model.logit_scale.dtype)
        return model.logits(features, model.encode_text(tokens))

    return encode


def in_type(features: VideoFeatures, dtype: torch.dtype) -> VideoFeatures:
    """Features in the type of the model that scores them."""
    patches = None if features.patches is None else features.patches.to(dtype)
    return VideoFeatures(features.video.to(dtype), patches)


def theirs(folder: Path, loaded: Loaded, dtype: torch.dtype) -> Encode:
    """The model of transformers; the pixels are cast and not normalised, which costs the same and is not counted."""
    model, tokens = load_theirs(folder, dtype), their_tokens(loaded.tokenizer, LABELS)

    @torch.inference_mode()
    def encode(pixels: Tensor) -> Tensor:
        return model(input_ids=tokens, pixel_values=pixels.to(dtype)).logits_per_video

    return encode


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A way against torch in float32."""

    noise: float
    top1: float


@torch.inference_mode()
def agreement(loaded: Loaded, runtimes: Mapping[str, Runtime], num_inputs: int) -> dict[str, Agreement]:
    """Of all ways, over random scenes and 101 labels."""
    model = XCLIP(loaded.model.config).eval()
    model.load_state_dict({name: tensor.float() for name, tensor in loaded.model.state_dict().items()})
    text = model.encode_text(loaded.tokenizer(built_in_labels("ucf101")))
    videos: dict[str, list[Tensor]] = {name: [] for name in runtimes}
    best: dict[str, list[int]] = {name: [] for name in runtimes}
    for seed in range(num_inputs):
        pixels = clips_of(model.config, seed, 1)
        for name, runtime in runtimes.items():
            features = in_type(runtime.encode_video(pixels), torch.float32)
            videos[name].append(F.normalize(features.video, dim=-1).clone())
            best[name].append(int(model.logits(features, text).argmax()))
    reference = next(iter(runtimes))  # torch in float32
    expected = torch.cat(videos[reference])
    return {
        name: Agreement(
            noise=noise_between(torch.cat(videos[name]), expected),
            top1=statistics.mean(a == b for a, b in zip(best[name], best[reference], strict=True)),
        )
        for name in runtimes
    }


def speed_table(
    name: str, timings: Mapping[str, Timing], agreements: Mapping[str, Agreement], chosen: Mapping[int, Way]
) -> Table:
    """A row for each way, a pair of columns for each batch size."""
    rows = []
    for way in (*agreements, *PEERS):
        cells: list[str] = [way]
        for size in BATCH_SIZES:
            timing, reference = timings[f"{way}, batch {size}"], timings[f"{REFERENCE}, batch {size}"]
            cells += [duration(timing.median_seconds), f"{timing.speed_against(reference):.2f}x"]
        own = agreements.get(way)
        cells += ["", ""] if own is None else [f"{own.noise:.4f}", f"{own.top1:.1%}"]
        rows.append(tuple(cells))
    heads = (head for size in BATCH_SIZES for head in (f"batch {size}", "speed"))
    notes = (
        f"Pixels to logits of {len(LABELS)} labels; random weights. Speed against {REFERENCE}. Noise and same best "
        "label (of 101) against torch in float32.",
        *(f"--runtime auto takes, for batches of {size}: {way.name}." for size, way in chosen.items()),
    )
    return Table(
        title=f"Runtimes, {name} ({NUM_ROUNDS} rounds)",
        command=command(SUITE),
        columns=("way", *heads, "noise", "same best"),
        rows=tuple(rows),
        notes=notes,
    )


def _figures(
    timings: Mapping[str, Timing], agreements: Mapping[str, Agreement], chosen: Mapping[int, Way]
) -> dict[str, float]:
    against_others = []
    for size, way in chosen.items():
        own = timings[f"{way.name}, batch {size}"]
        others = [timings[f"{name}, batch {size}"] for name, one in agreements.items() if one.noise <= 0.05]
        against_others.append(min(other.median_seconds for other in others) / own.median_seconds)
    one = timings[f"{chosen[1].name}, batch 1"]
    return {
        "auto_speed": one.speed_against(timings[f"{REFERENCE}, batch 1"]),
        "auto_top1": agreements[chosen[1].name].top1,
        "auto_fastest": min(against_others),
    }


def products_table(loaded: Loaded) -> tuple[float, Table]:
    """The rate of the int8 products of a forward pass in OpenVINO, as a share of a plain product's."""
    model = loaded.model.float() if loaded.model.logit_scale.dtype != torch.float32 else loaded.model
    runtime = OpenVinoRuntime(model, loaded.preprocess, RuntimeOptions(runtime="openvino", int8=True))
    path = runtime._kept.folder / "video_encoder.xml"
    compiled = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True})
    request = compiled.create_infer_request()
    pixels = clips_of(model.config, 0, 1).numpy()
    seconds = []
    for _ in range(5):
        request.infer([pixels])
        products = [node for node in request.get_profiling_info() if _is_int8_product(node)]
        seconds.append(sum(node.real_time.total_seconds() for node in products))
    vision = model.config.vision
    tokens = model.config.num_frames * (vision.num_patches + 1)
    with_messages = tokens + model.config.num_frames * int(vision.message_tokens)
    flops = 2 * vision.num_layers * vision.width**2 * (4 * with_messages + 8 * tokens)
    rate, ceiling = flops / statistics.median(seconds), int8_ceiling()
    table = Table(
        title=f"Products of the image tower in 8-bit integers, {MODELS[-1]}, one video",
        command=command(SUITE),
        columns=("what", "time", "TOP/s", "of the ceiling"),
        rows=(
            (
                "products, OpenVINO",
                duration(statistics.median(seconds)),
                f"{rate / 1e12:.3f}",
                f"{rate / ceiling:.0%}",
            ),
            (f"torch._int_mm, {CEILING_SIDE} cubed", "", f"{ceiling / 1e12:.3f}", "100%"),
        ),
        notes=("Time of the products with what is fused into them: biases, activations, rounding.",),
    )
    return rate / ceiling, table


def _is_int8_product(node: openvino.ProfilingInfo) -> bool:
    return node.node_type.startswith("FullyConnected") and node.exec_type.lower().endswith("_i8")


def int8_ceiling() -> float:
    """Operations a second of a plain product of integers."""
    x = torch.randint(-127, 127, (CEILING_SIDE, CEILING_SIDE), dtype=torch.int8)
    timing = interleave({"product": lambda _: torch._int_mm(x, x)}, range(9), "int8 ceiling").timings[
        "product"
    ]
    return 2 * CEILING_SIDE**3 / timing.median_seconds
