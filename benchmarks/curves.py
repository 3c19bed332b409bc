"""What recognition costs against the number of labels, frames, views and pixels: measured curves and their laws.

Shapes: V views, T frames, S input side, K labels, E joint embedding.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.clips import KINDS, NUM_FRAMES, write_clip
from benchmarks.curve import Curve, Task, each_round, measure_series
from benchmarks.forward import random_clip
from benchmarks.harness import Timing, command, duration, interleave
from benchmarks.laws import fit_line, fit_power
from benchmarks.options import Options
from benchmarks.report import Section
from benchmarks.shortcuts import shortcut_table
from benchmarks.weights import write_model
from openxclip import load
from openxclip.checkpoints.device import resolve_dtype
from openxclip.checkpoints.load import Loaded
from openxclip.inference.label_set import MIN_CACHED_SENTENCES, label_features
from openxclip.inference.scoring import shortlist_logits
from openxclip.inference.text_cache import cached, text_key
from openxclip.inference.views import Views, read_views
from openxclip.models import XCLIP, XCLIPConfig, preset
from openxclip.models.config import TextConfig
from openxclip.reports.table import Table
from openxclip.text.labels import built_in_labels
from openxclip.text.templates import BUILT_IN_TEMPLATES, fill
from openxclip.video.transforms import Preprocessor

SUITE = "curves"
MODEL, LARGER = "B/32-8", "B/16-8"
PICTURES = Path("docs") / "results"
NUM_ROUNDS = 7  # the suite has fifty points, of which some take seconds
NUM_TEXT_ROUNDS = 3  # ten thousand texts take half a minute

NUM_LABELS = (10, 100, 1_000, 10_000)
NUM_FRAMES_OF_CLIP = (4, 8, 16, 32)
NUM_VIEWS = (1, 3, 4, 12)
SIDES_PX = (160, 224, 288, 336)
USUAL_NUM_LABELS = 400  # where x is something else
SHORTLIST = 100

VIDEO, LOGITS = "video side", f"logits of {USUAL_NUM_LABELS} labels"

Cases = Mapping[int, tuple[XCLIP, Tensor]]
"""x -> a model and what it looks at, pixels (V, T, 3, S, S)."""


def run(options: Options) -> Section:
    """All curves, drawn into docs/results."""
    num_rounds = min(options.num_rounds, NUM_ROUNDS)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        loaded = load(write_model(folder / "model", preset(MODEL)), device="cpu")
        clip = folder / "clip.mp4"
        for _ in write_clip(clip, KINDS[0], NUM_FRAMES):
            pass
        stages, timings = stage_table({name: preset(name) for name in (MODEL, LARGER)}, clip, num_rounds)
        curves = measure(loaded, preset(LARGER), num_rounds)
    for curve in curves:
        curve.draw(PICTURES / f"performance-{curve.key}.png")
        timings |= curve.timings()
    tables = [stages, *(curve.table(SUITE) for curve in curves), shortcut_table(SUITE)]
    return Section(suite=SUITE, tables=tuple(tables), timings=timings)


def measure(loaded: Loaded, larger: XCLIPConfig, num_rounds: int) -> tuple[Curve, ...]:
    """Every curve of a model, and that of a larger one against the side of its input."""
    config = loaded.model.config
    return (
        labels_curve(loaded.model, NUM_LABELS, num_rounds),
        texts_curve(loaded, NUM_LABELS, min(num_rounds, NUM_TEXT_ROUNDS)),
        frames_curve(config, NUM_FRAMES_OF_CLIP, num_rounds),
        views_curve(config, NUM_VIEWS, num_rounds),
        resolution_curve(larger, SIDES_PX, num_rounds),
    )


@torch.inference_mode()
def labels_curve(model: XCLIP, counts: Iterable[int], num_rounds: int) -> Curve:
    """`logits` of one video: prompts for all labels, for a shortlist, for none."""
    dtype = model.logit_scale.dtype
    bare = model_of(replace(model.config, prompting=None))
    video = model.encode_video(random_clip(model.config, seed=0).to(dtype))
    prompted, shortlisted, plain = "prompts for all", f"shortlist of {SHORTLIST}", "no prompts"
    tasks: dict[str, dict[int, Task]] = {prompted: {}, shortlisted: {}, plain: {}}
    for count in counts:
        text = random_texts(model, count)
        tasks[prompted][count] = each_round(model.logits, video, text)
        tasks[shortlisted][count] = each_round(shortlist_logits, model, video, text, SHORTLIST)
        tasks[plain][count] = each_round(bare.logits, video, text)
    return Curve(
        key="labels",
        title=f"Logits of one video, {MODEL}",
        symbol="K",
        x_name="labels K",
        series=measure_series(tasks, num_rounds, "labels"),
        fits={prompted: fit_line, plain: fit_line},
        is_logarithmic=True,
    )


def _label_features(
    loaded: Loaded, labels: Sequence[str], templates: Sequence[str], cache: Path | None
) -> Tensor:
    """Text features (K, E); labels may repeat, which a label set refuses."""
    sentences = [fill(template, label) for label in labels for template in templates]
    tokens, counts = loaded.tokenizer(sentences), (len(templates),) * len(labels)
    if cache is None or len(tokens) < MIN_CACHED_SENTENCES:
        return label_features(loaded.model, tokens, counts)
    key = text_key(loaded.model, tokens, counts)
    return cached(cache, key, partial(label_features, loaded.model, tokens, counts))


def texts_curve(loaded: Loaded, counts: Iterable[int], num_rounds: int) -> Curve:
    """Encoding class names, which is done once for a label set, and reading them from where they are kept."""
    names, templates = built_in_labels("kinetics400"), BUILT_IN_TEMPLATES["name"]
    encoded, kept = "encoded", "kept from an earlier run"
    tasks: dict[str, dict[int, Task]] = {encoded: {}, kept: {}}
    with TemporaryDirectory() as folder:
        for count in counts:
            labels = [
                names[i % len(names)] for i in range(count)
            ]  # a repeated name takes as long as a new one
            for name, cache in ((encoded, None), (kept, Path(folder))):
                tasks[name][count] = each_round(_label_features, loaded, labels, templates, cache)
        series = measure_series(tasks, num_rounds, "texts")
    return Curve(
        key="texts",
        title=f"Features of class names, {MODEL}",
        symbol="K",
        x_name="labels K",
        series=series,
        fits={encoded: fit_line},
        is_logarithmic=True,
        notes=(
            "Names of Kinetics-400, over and over; tokenizing is counted. "
            f"Below {MIN_CACHED_SENTENCES} texts are not kept: encoding them takes no longer than looking them up.",
        ),
    )


def frames_curve(config: XCLIPConfig, counts: Iterable[int], num_rounds: int) -> Curve:
    """One view of more and more frames."""
    cases = {count: case_of(replace(config, num_frames=count)) for count in counts}
    return Curve(
        key="frames",
        title=f"One video, {MODEL} on other numbers of frames",
        symbol="T",
        x_name="frames T",
        series=measure_sides(cases, num_rounds, "frames"),
        fits={VIDEO: fit_line},
        notes=("Logits read the mean over frames of the patches, so T does not matter to them.",),
    )


def views_curve(config: XCLIPConfig, counts: Iterable[int], num_rounds: int) -> Curve:
    """More and more views of one video, in one batch."""
    model, pixels = case_of(config)
    cases = {count: (model, pixels.expand(count, -1, -1, -1, -1).contiguous()) for count in counts}
    return Curve(
        key="views",
        title=f"Views of one video, {MODEL}",
        symbol="V",
        x_name="views V",
        series=measure_sides(cases, num_rounds, "views"),
        fits={VIDEO: fit_line, LOGITS: fit_line},
    )


def resolution_curve(config: XCLIPConfig, sides_px: Iterable[int], num_rounds: int) -> Curve:
    """One view of larger and larger frames."""
    cases = {
        side: case_of(replace(config, vision=replace(config.vision, image_size_px=side))) for side in sides_px
    }
    return Curve(
        key="resolution",
        title=f"One video, {LARGER} on other input sizes",
        symbol="S",
        x_name="side S (px)",
        series=measure_sides(cases, num_rounds, "resolution"),
        fits={VIDEO: fit_power},
        notes=(f"{LARGER}, as its patches divide all four sides.",),
    )


@torch.inference_mode()
def measure_sides(cases: Cases, num_rounds: int, title: str) -> dict[str, dict[int, Timing]]:
    """The video side and the logits, apart from each other, of every case in turns."""
    tasks: dict[str, dict[int, Task]] = {VIDEO: {}, LOGITS: {}}
    for x, (model, pixels) in cases.items():
        tasks[VIDEO][x], tasks[LOGITS][x] = _sides(model, pixels)
    return measure_series(tasks, num_rounds, title)


def _sides(model: XCLIP, pixels: Tensor) -> tuple[Task, Task]:
    """What encodes the views, and what compares them with labels."""
    text = random_texts(model, USUAL_NUM_LABELS)
    video = model.encode_video(pixels)
    return each_round(model.encode_video, pixels), each_round(model.logits, video, text)


@torch.inference_mode()
def stage_table(
    configs: Mapping[str, XCLIPConfig], clip: Path, num_rounds: int
) -> tuple[Table, dict[str, Timing]]:
    """From a file to labels, stage by stage."""
    decoding = "decoding"
    tasks: dict[str, Task] = {}
    for name, config in configs.items():
        preprocess = Preprocessor.hugging_face(config.vision.image_size_px)
        tasks[f"{name}: {VIDEO}"], tasks[f"{name}: {LOGITS}"] = _sides(*case_of(config))
        tasks[f"{name}: {decoding}"] = each_round(read_views, clip, preprocess, config.num_frames, Views())
    timings = interleave(tasks, range(num_rounds), "stages").timings
    rows = []
    for name in configs:
        seconds = [timings[f"{name}: {stage}"].median_seconds for stage in (decoding, VIDEO, LOGITS)]
        rows.append((name, *map(duration, seconds), f"{seconds[0] / sum(seconds):.0%}"))
    table = Table(
        title=f"From a file to labels: medians of {num_rounds} rounds",
        command=command(SUITE),
        columns=("model", "decoding, automatic threads", VIDEO, LOGITS, "share of decoding"),
        rows=tuple(rows),
        notes=("A clip of 10 s, 640x360, H.264. With many videos, decoding and model overlap.",),
    )
    return table, timings


def case_of(config: XCLIPConfig) -> tuple[XCLIP, Tensor]:
    """A model and a clip for it, pixels (1, T, 3, S, S)."""
    model = model_of(config)
    return model, random_clip(config, seed=0).to(model.logit_scale.dtype)


def model_of(config: XCLIPConfig) -> XCLIP:
    """Random weights in what dtype="auto" means here. Of the text tower, which is not run, next to nothing."""
    text = TextConfig(vocab_size=2, width=64, num_layers=1, num_heads=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = XCLIP(replace(config, text=text))
    return model.to(resolve_dtype("auto", torch.device("cpu"))).eval()


def random_texts(model: XCLIP, count: int) -> Tensor:
    """Features (K, E): time does not ask what they say."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, model.config.embed_dim, generator=generator)
    return features.to(model.logit_scale.dtype)
