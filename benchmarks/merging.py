"""Token merging: what it saves and what it costs.

Shapes: B videos, T frames, S input side.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from benchmarks.harness import command, duration, interleave
from benchmarks.learned import Learned, learned_models
from benchmarks.options import Options
from benchmarks.report import Section
from benchmarks.runtimes import clips_of
from benchmarks.shortcuts import same_best
from benchmarks.weights import write_model
from openxclip import Recognizer, load
from openxclip.checkpoints.load import Loaded
from openxclip.evaluation.metrics import top_k_accuracy
from openxclip.inference.engine import Engine
from openxclip.inference.options import InferenceOptions
from openxclip.models import preset
from openxclip.models.merging import largest_merging
from openxclip.reports.table import Table
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.runtime import build_runtime

SUITE = "merging"
MODEL = "B/16-8"
STEPS = (0, 8)
BATCH_SIZE = 16  # of small models
WAYS = {
    "torch": RuntimeOptions(),
    "OpenVINO": RuntimeOptions(runtime="openvino"),
    "OpenVINO, int8": RuntimeOptions(runtime="openvino", int8=True),
}


def run(options: Options) -> Section:
    """Learned models with accuracy, then a base-size one with its times."""
    tables = [learned_table(learned, options.num_rounds) for learned in learned_models(options)]
    with TemporaryDirectory() as folder:
        loaded = load(write_model(Path(folder) / "model", preset(MODEL)), device="cpu")
    tables.append(
        speed_table(f"Token merging, {MODEL}, one video", loaded, STEPS, 1, min(5, options.num_rounds))
    )
    return Section(suite=SUITE, tables=tuple(tables))


def learned_table(learned: Learned, num_rounds: int) -> Table:
    """Accuracy, agreement and speed by the number of tokens that a block merges."""
    config = learned.loaded.model.config
    steps = tuple(range(largest_merging(config.vision) + 1))
    found = [_probabilities(learned, step) for step in steps]
    speeds = speed_table("", learned.loaded, steps, BATCH_SIZE, num_rounds)
    rows = [
        (
            *row[:1],
            f"{top_k_accuracy(one, learned.truth, 1):.1%}",
            f"{same_best(one, found[0]):.1%}",
            *row[1:],
        )
        for row, one in zip(speeds.rows, found, strict=True)
    ]
    return Table(
        title=f"Token merging, {learned.name} ({config.vision.num_patches} patches a frame), batches of {BATCH_SIZE}",
        command=command(SUITE),
        columns=("merged by a block", "top-1", "same best label", *speeds.columns[1:]),
        rows=tuple(rows),
        notes=(f"{len(learned.truth)} clips, {len(learned.labels)} labels. Accuracy in float32.",),
    )


def _probabilities(learned: Learned, merge_tokens: int) -> Tensor:
    options = InferenceOptions(runtime=RuntimeOptions(merge_tokens=merge_tokens))
    return Recognizer(Engine(learned.loaded, options), learned.labels).probabilities_of(learned.pixels)


def speed_table(
    title: str, loaded: Loaded, steps: tuple[int, ...], batch_size: int, num_rounds: int
) -> Table:
    """Times of the image tower, in turns, by each way."""
    model, preprocess = loaded.model, loaded.preprocess
    clips = [clips_of(model.config, seed, batch_size) for seed in range(num_rounds)]
    rows = {step: [str(step)] for step in steps}
    for name, options in WAYS.items():
        runtimes = {
            step: build_runtime(model, preprocess, replace(options, merge_tokens=step)) for step in steps
        }
        variants = {str(step): runtime.encode_video for step, runtime in runtimes.items()}
        timings = interleave(variants, clips, name, num_warmups=2).timings
        for step in steps:
            own, none = timings[str(step)], timings[str(steps[0])]
            rows[step] += [duration(own.median_seconds), f"{own.speed_against(none):.2f}x"]
    return Table(
        title=title,
        command=command(SUITE),
        columns=("merged by a block", *(head for name in WAYS for head in (name, "speed"))),
        rows=tuple(tuple(row) for row in rows.values()),
        notes=(f"{str(model.logit_scale.dtype).removeprefix('torch.')}, {num_rounds} rounds in turns.",),
    )
