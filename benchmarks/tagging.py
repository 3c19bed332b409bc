"""Throughput of `openxclip tag` on real clips against a plain loop over files; its decoders alone; Ray; its memory."""

import os
import resource
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.options import Options, UnavailableError
from benchmarks.report import Section
from benchmarks.transformers_way import documented_loop
from benchmarks.weights import write_model
from openxclip import Engine, InferenceOptions, LabelTexts, ModelSource
from openxclip.data.manifest import read_manifest
from openxclip.data.media import FileMedia
from openxclip.inference.views import Views
from openxclip.models import preset
from openxclip.progress import progress_bar
from openxclip.reports.table import Table
from openxclip.runtimes.options import RuntimeOptions
from openxclip.tagging.decoding import Piece, Plan
from openxclip.tagging.options import RunOptions
from openxclip.tagging.sources import Source
from openxclip.tagging.tag import Job
from openxclip.tagging.workers import Decoders
from openxclip.text.labels import built_in_labels
from openxclip.video.sampling import centred
from openxclip.video.source import VideoLimits

SUITE = "tagging"
MODEL = "B/32-8"
LIST = Path("ucf8") / "test.txt"
PEER_CLIPS = 16  # a turn of the plain loop: it takes most of a second a clip
NUM_TURNS = 3
NUM_INPUTS = 10_000
RAY_REPEATS = 4  # of the clips: a cluster takes its time to start
LOCAL, RAY_COLD, RAY_WARM = "local", "ray, the cluster starts in the time", "ray, on a cluster that runs"
OURS, INT8, PEER = "ours, auto", "ours, --int8 --compile", "plain loop, transformers"


def run(options: Options) -> Section:
    """Throughput of the whole, then of decoding alone, of Ray where it is installed, then memory."""
    path = options.data / LIST
    if not path.exists():
        raise UnavailableError(f"it needs {path}; give the folder of the clips with --data")
    paths = [str(item.media.path) for item in read_manifest(path).items if isinstance(item.media, FileMedia)]
    with TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model", preset(MODEL))
        tables = [throughput(model, paths, Path(folder)), decoding(paths)]
        if find_spec("ray") is not None:
            tables.append(on_ray(model, paths * RAY_REPEATS, Path(folder)))
        tables.append(memory(paths, Path(folder)))
    return Section(suite=SUITE, tables=tuple(tables))


def throughput(model: Path, paths: Sequence[str], folder: Path, num_turns: int = NUM_TURNS) -> Table:
    """Turns of our job over all clips and of the plain loop over some."""
    labels = built_in_labels("ucf101")
    source = ModelSource(source=str(model), device="cpu")
    engines = {
        OURS: Engine.load(source),
        INT8: Engine.load(source, InferenceOptions(runtime=RuntimeOptions(int8=True, compile=True))),
    }
    num_frames = engines[OURS].model.config.num_frames
    recognise, processor = documented_loop(model, labels, lambda length: centred(length, num_frames), 5)
    seconds: dict[str, list[float]] = {OURS: [], INT8: [], PEER: []}
    recognise(Path(paths[0]))
    for what, engine in engines.items():
        _tag(engine, what, labels, paths[:8], folder / f"warm {what}")
    with progress_bar() as bar:
        task = bar.add_task("tagging", total=3 * num_turns, note="")
        for turn in range(num_turns):
            for what, engine in engines.items():
                seconds[what].append(
                    _tag(engine, what, labels, paths, folder / f"{turn} {what}") / len(paths)
                )
                bar.advance(task)
            started = time.perf_counter()
            for path in paths[turn * PEER_CLIPS : (turn + 1) * PEER_CLIPS]:
                recognise(Path(path))
            seconds[PEER].append((time.perf_counter() - started) / PEER_CLIPS)
            bar.advance(task)
    medians = {what: float(np.median(times)) for what, times in seconds.items()}
    return Table(
        title=f"{len(paths)} real clips x {len(labels)} labels, {MODEL}, files to rows",
        command=f"python -m benchmarks {SUITE}",
        columns=("what", "videos a second", "against the plain loop"),
        rows=tuple((what, f"{1 / m:.2f}", f"{medians[PEER] / m:.2f}") for what, m in medians.items()),
        notes=(
            f"Medians of {num_turns} turns, one after the other. Ours starts its decoders and writes its parts in the "
            "time; loading and compiling are not counted. The plain loop: float32, all labels in each call, "
            f"{processor}.",
        ),
    )


def _tag(engine: Engine, name: str, labels: Sequence[str], paths: Sequence[str], output: Path) -> float:
    started = time.perf_counter()
    job = Job(engine, ModelSource(source=name), LabelTexts(labels=labels), str(output))
    for _ in job.run([Source(path) for path in paths]):
        pass
    return time.perf_counter() - started


def decoding(paths: Sequence[str], num_turns: int = NUM_TURNS) -> Table:
    """Decoders alone: one process and two, without a model."""
    from concurrent.futures import ThreadPoolExecutor

    from openxclip.video.transforms import Preprocessor

    plan = Plan(
        preprocess=Preprocessor.hugging_face(224), num_frames=8, views=Views(), window_seconds=None,
        stride_seconds=None, content_hash=False, limits=VideoLimits(),
    )  # fmt: skip
    per_second: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(num_turns):
        for num_decoders, found in per_second.items():
            with Decoders(plan, num_decoders, 60.0) as decoders, ThreadPoolExecutor(num_decoders) as threads:
                pieces = [Piece(number=i, source=Source(path)) for i, path in enumerate(paths)]
                list(threads.map(decoders.read, pieces[: 2 * num_decoders]))  # processes have started
                started = time.perf_counter()
                list(threads.map(decoders.read, pieces))
                found.append(len(paths) / (time.perf_counter() - started))
    one, two = (float(np.median(per_second[n])) for n in (1, 2))
    return Table(
        title="Decoding stage alone",
        command=f"python -m benchmarks {SUITE}",
        columns=("decoders", "videos a second", "efficiency"),
        rows=(("1", f"{one:.1f}", "1"), ("2", f"{two:.1f}", f"{two / (2 * one):.2f}")),
        notes=(
            "Eight frames of 224 px of each of the real clips; pixels come back to the one process that asks.",
        ),
    )


def on_ray(model: Path, paths: Sequence[str], folder: Path, num_turns: int = NUM_TURNS) -> Table:
    """The same job on this machine's cores: without Ray, with a cluster that it starts, and on one that runs."""
    import ray

    source = ModelSource(source=str(model), device="cpu")
    engine, texts = Engine.load(source), LabelTexts(labels=built_in_labels("ucf101"))
    local = RunOptions(part_size=64)
    clustered = RunOptions(part_size=64, engine="ray", model_threads=os.cpu_count())
    seconds: dict[str, list[float]] = {LOCAL: [], RAY_COLD: [], RAY_WARM: []}
    for turn in range(num_turns):
        # The second job on Ray finds the cluster of the first one.
        for what, options in ((LOCAL, local), (RAY_COLD, clustered), (RAY_WARM, clustered)):
            started = time.perf_counter()
            job = Job(engine, source, texts, str(folder / f"{turn} {what}"), run=options)
            for _ in job.run([Source(path) for path in paths]):
                pass
            seconds[what].append(time.perf_counter() - started)
        ray.shutdown()
    medians = {what: float(np.median(times)) for what, times in seconds.items()}
    return Table(
        title=f"{len(paths)} inputs, {MODEL}: Ray against local",
        command=f"python -m benchmarks {SUITE}",
        columns=("engine", "videos a second", "of local"),
        rows=tuple(
            (what, f"{len(paths) / m:.2f}", f"{100 * medians[LOCAL] / m:.0f} %")
            for what, m in medians.items()
        ),
        notes=(
            f"Medians of {num_turns} turns, one after the other. Processes of decoders and of Ray's stages start in "
            "the time of each, and the model is loaded in that of Ray.",
        ),
    )


def memory(paths: Sequence[str], folder: Path, num_inputs: int = NUM_INPUTS) -> Table:
    """Resident memory of a job over repeated files, with the shipped model."""
    source, texts = ModelSource(source="openxclip-tiny"), LabelTexts(labels=["a", "b"])
    job = Job(Engine.load(source), source, texts, str(folder / "memory"), run=RunOptions(part_size=256))
    sources = [Source(paths[i % len(paths)]) for i in range(num_inputs)]
    marks = {1000: 0.0, num_inputs: 0.0}
    started = time.perf_counter()
    for state in job.run(sources):
        if state.num_done in marks:
            marks[state.num_done] = _resident_mib()
    first, last = marks.values()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Table(
        title=f"Memory over {num_inputs:,} inputs, openxclip-tiny",
        command=f"python -m benchmarks {SUITE}",
        columns=("after", "resident MiB"),
        rows=tuple((f"{number:,}", f"{mib:.0f}") for number, mib in marks.items()),
        notes=(
            f"{100 * (last / first - 1):+.1f} %; {num_inputs / (time.perf_counter() - started):.1f} videos a "
            f"second. Peak {peak:.0f} MiB, of what ran before as well.",
        ),
    )


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
