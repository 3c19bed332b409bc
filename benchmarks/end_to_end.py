"""Real clips, from files to ranked classes: our Recognizer against the loop of transformers' X-CLIP page."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.harness import Timing, duration, interleave, speed_table
from benchmarks.options import Options, UnavailableError
from benchmarks.report import Section
from benchmarks.transformers_way import documented_loop
from benchmarks.weights import write_model
from openxclip import Recognizer, load
from openxclip.checkpoints.load import Loaded
from openxclip.data.manifest import read_manifest
from openxclip.data.media import FileMedia
from openxclip.inference.engine import Engine
from openxclip.inference.options import InferenceOptions
from openxclip.models import preset
from openxclip.runtimes.options import RuntimeOptions
from openxclip.text.labels import built_in_labels
from openxclip.video.sampling import centred

SUITE = "end_to_end"
MODEL = "B/32-8"  # that of the page
LIST = Path("ucf8") / "test.txt"
CLIPS_A_ROUND = 8  # ours decodes ahead: turns of single clips would let it work in the peer's time
PEER_SECONDS = 180.0  # about how long the peer may take in all; beyond, it gets only some clips of each round
TOP_K = 5
OURS, COMPILED, INT8 = "ours, auto", "ours, auto, compiled", "ours, int8, compiled"
OPENVINO, OPENVINO_INT8 = "ours, OpenVINO", "ours, OpenVINO, int8"
PEER = "transformers, documented loop"
OTHERS = {
    COMPILED: RuntimeOptions(compile=True),
    INT8: RuntimeOptions(compile=True, int8=True),
    OPENVINO: RuntimeOptions(runtime="openvino"),
    OPENVINO_INT8: RuntimeOptions(runtime="openvino", int8=True),
}

Paths = Sequence[Path]


def run(options: Options) -> Section:
    """The clips of the list, in turns of eight."""
    path = options.data / LIST
    if not path.exists():
        raise UnavailableError(f"it needs {path}; give the folder of the clips with --data")
    paths = [item.media.path for item in read_manifest(path).items if isinstance(item.media, FileMedia)]
    with TemporaryDirectory() as folder:
        return measure(write_model(Path(folder) / "model", preset(MODEL)), paths)


def measure(folder: Path, paths: Paths) -> Section:
    """The suite on any model and clips."""
    labels = built_in_labels("ucf101")
    loaded = load(folder, device="cpu")
    num_frames = loaded.model.config.num_frames
    recognizer, label_seconds = _recognizer(loaded, labels)
    others = {
        name: Recognizer(Engine(loaded, InferenceOptions(runtime=runtime)), labels)
        for name, runtime in OTHERS.items()
    }
    recognise, processor = documented_loop(
        folder, labels, lambda length: centred(length, num_frames), min(TOP_K, len(labels))
    )
    rounds = [paths[i : i + CLIPS_A_ROUND] for i in range(0, len(paths), CLIPS_A_ROUND)]
    num_peer = _num_peer_clips(recognise, paths[0], len(rounds))
    variants: dict[str, Callable[[Paths], list[list[str]]]] = {
        OURS: lambda clips: _predict(recognizer, clips),
        **{name: partial(_predict, other) for name, other in others.items()},
        PEER: lambda clips: [recognise(path) for path in clips[:num_peer]],
    }
    result = interleave(variants, rounds, "end to end")
    timings = _per_clip(result.timings, rounds, num_peer, label_seconds)
    notes = (
        f"Seconds a clip; {len(paths)} clips, of which the peer got the first {num_peer} of each {CLIPS_A_ROUND}; "
        f"{len(labels)} labels, {MODEL}. Ours encodes them once, in {duration(label_seconds)}, which is counted; "
        "compiling is not.",
        f"The peer as documented: float32, PyAV from the start of the file, all labels in each call, {processor}.",
        f"The best label is the same for {_same_best(result.outputs):.1%} of clips (random weights; ours resizes "
        "while it converts, the peer after).",
    )
    table = speed_table("Files to ranked classes, a clip", SUITE, timings, PEER, notes)
    figures = {
        "end_to_end": timings[OURS].speed_against(timings[PEER]),
        "end_to_end_int8": timings[OPENVINO_INT8].speed_against(timings[PEER]),
    }
    return Section(suite=SUITE, tables=(table,), figures=figures, timings=timings)


def _recognizer(loaded: Loaded, labels: Sequence[str]) -> tuple[Recognizer, float]:
    """Ours, and how long its labels took."""
    started = time.perf_counter()
    recognizer = Recognizer(Engine(loaded), labels)
    return recognizer, time.perf_counter() - started


def _num_peer_clips(recognise: Callable[[Path], object], path: Path, num_rounds: int) -> int:
    """So many of each round that the peer keeps to its time."""
    recognise(path)  # the first call is slower than the others
    started = time.perf_counter()
    recognise(path)
    affordable = PEER_SECONDS / (time.perf_counter() - started) / num_rounds
    return min(CLIPS_A_ROUND, max(1, math.floor(affordable)))


def _predict(recognizer: Recognizer, clips: Paths) -> list[list[str]]:
    return [
        [label for label, _ in prediction.scores]
        for prediction in recognizer.predict_each(clips, top_k=TOP_K)
    ]


def _per_clip(
    timings: Mapping[str, Timing], rounds: Sequence[Paths], num_peer: int, label_seconds: float
) -> dict[str, Timing]:
    """Seconds a clip; ours with its share of encoding the labels."""
    sizes = np.array([len(clips) for clips in rounds])

    def per_clip(name: str) -> Timing:
        seconds = np.array(timings[name].seconds)
        if name == PEER:
            seconds /= np.minimum(sizes, num_peer)
        else:
            seconds = (seconds + label_seconds / len(rounds)) / sizes
        return Timing(seconds=tuple(seconds.tolist()))

    return {name: per_clip(name) for name in timings}


def _same_best(outputs: Mapping[str, list[list[list[str]]]]) -> float:
    pairs = [
        ours[0] == theirs[0]
        for own, peer in zip(outputs[OURS], outputs[PEER], strict=True)
        for ours, theirs in zip(own, peer, strict=False)  # the peer may have got fewer clips
    ]
    return sum(pairs) / len(pairs)
