"""What rounding to 8-bit integers changes: learned models, and base-size ones with outliers.

Shapes: B clips, K labels.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import command
from benchmarks.learned import learned_models
from benchmarks.options import Options
from benchmarks.outliers import with_outliers
from benchmarks.report import Section
from benchmarks.runtimes import clips_of
from benchmarks.shortcuts import same_best
from openxclip import Recognizer
from openxclip.checkpoints.load import Loaded
from openxclip.evaluation.metrics import top_k_accuracy
from openxclip.inference.engine import Engine
from openxclip.inference.options import InferenceOptions
from openxclip.models import XCLIP, preset
from openxclip.progress import progress_bar
from openxclip.reports.table import Table
from openxclip.runtimes.calibration import Calibration, calibrate, features, noise_between
from openxclip.runtimes.calibration_clips import calibration_clips
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.quantisation import quantise
from openxclip.runtimes.runtime import build_runtime
from openxclip.runtimes.torch_runtime import fold_normalisation
from openxclip.video.transforms import Preprocessor

SUITE = "int8"
MODEL = "B/32-8"
NUM_LABELS = 101
NO_BOUND = 1e9
WAYS = {
    "torch (a scale for each token)": RuntimeOptions(int8=True),
    "OpenVINO": RuntimeOptions(runtime="openvino", int8=True),
    "ONNX Runtime": RuntimeOptions(runtime="onnx", int8=True),
}


def run(options: Options) -> Section:
    """Both tables."""
    return Section(suite=SUITE, tables=(learned_table(options), outlier_table(options.num_inputs)))


def learned_table(options: Options) -> Table:
    """Agreement and accuracy of learned models."""
    rows = []
    for learned in learned_models(options):
        exact = _probabilities(learned.loaded, learned.labels, learned.pixels, RuntimeOptions())
        rows.append((learned.name, "float32", "100.0%", f"{top_k_accuracy(exact, learned.truth, 1):.1%}"))
        for name, runtime in WAYS.items():
            found = _probabilities(learned.loaded, learned.labels, learned.pixels, runtime)
            top1 = top_k_accuracy(found, learned.truth, 1)
            rows.append((learned.name, name, f"{same_best(found, exact):.1%}", f"{top1:.1%}"))
    return Table(
        title="8-bit integers on learned models",
        command=command(SUITE),
        columns=("model", "int8 by", "same best label", "top-1"),
        rows=tuple(rows),
        notes=("Ranges of OpenVINO and ONNX Runtime from 32 rendered clips, the default.",),
    )


def _probabilities(loaded: Loaded, labels: Sequence[str], pixels: Tensor, runtime: RuntimeOptions) -> Tensor:
    return Recognizer(Engine(loaded, InferenceOptions(runtime=runtime)), labels).probabilities_of(pixels)


def outlier_table(num_inputs: int) -> Table:
    """A base-size model with random weights, as it is and with outliers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        usual = XCLIP(preset(MODEL)).eval()
    rows = []
    for name, model in (
        (f"{MODEL}, random weights", usual),
        (f"{MODEL}, with outliers", with_outliers(usual)),
    ):
        rows += [(name, *row) for row in outlier_rows(model, num_inputs)]
    return Table(
        title="8-bit integers with and without outliers",
        command=command(SUITE),
        columns=("model", "ranges", "noise", "same best label", "layers in float"),
        rows=tuple(rows),
        notes=(
            f"{num_inputs} random scenes, {NUM_LABELS} random texts. Outliers: six channels of each layer norm 10 to "
            "100 times as large, the weights that read them smaller by as much; four units of each MLP with a bias of "
            "30.",
        ),
    )


@torch.no_grad()
def outlier_rows(model: XCLIP, num_inputs: int) -> Iterator[tuple[str, ...]]:
    """By ever more care."""
    preprocess = Preprocessor.official(model.config.vision.image_size_px)
    tower = fold_normalisation(model, preprocess)
    text = torch.randn(NUM_LABELS, model.config.embed_dim, generator=torch.Generator().manual_seed(0))
    clips = torch.cat([clips_of(model.config, seed, 1) for seed in range(num_inputs)])
    exact = features(tower, _counted(clips))
    best = (exact @ F.normalize(text, dim=-1).T).argmax(dim=1)
    measured = calibration_clips(None, preprocess, model.config.num_frames)

    def row(name: str, found: Tensor, in_float: int) -> tuple[str, ...]:
        same = ((found @ F.normalize(text, dim=-1).T).argmax(dim=1) == best).float().mean().item()
        return name, f"{noise_between(found, exact):.4f}", f"{same:.1%}", str(in_float)

    dynamic = build_runtime(model, preprocess, RuntimeOptions(int8=True))
    found = torch.cat([F.normalize(dynamic.encode_video(clip[None]).video, dim=-1) for clip in clips])
    yield row("torch, a scale for each token", found, 0)
    for name, calibrated in (
        ("whole ranges", _plain(model, preprocess, measured)),
        ("smoothing and ranges chosen", calibrate(model, preprocess, measured, NO_BOUND)),
        ("the same within the bound of 0.05", calibrate(model, preprocess, measured)),
        ("the same within 0.02", calibrate(model, preprocess, measured, 0.02)),
    ):
        rounded = fold_normalisation(model, preprocess)
        quantise(rounded, calibrated.ranges)
        yield row(
            name, features(rounded, _counted(clips)), sum(layer.in_float for layer in calibrated.layers)
        )


def _plain(model: XCLIP, preprocess: Preprocessor, clips: Tensor) -> Calibration:
    return calibrate(model, preprocess, clips, NO_BOUND, smoothing=(0.0,), shares=(1.0,))


def _counted(clips: Tensor) -> Iterator[Tensor]:
    with progress_bar() as bar:
        task = bar.add_task("scenes", total=len(clips), note="")
        for clip in clips:
            yield clip
            bar.advance(task)
