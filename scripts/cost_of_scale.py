"""What tagging many ten-second videos costs: a model from measured times of the stages, and a simulation beside it.

    python scripts/cost_of_scale.py                    the tables of docs/scale.md; a test keeps the page current
    PYTHONPATH=. python scripts/cost_of_scale.py measure
        times of the stages and of small runs on this machine; writes benchmarks/results/cost-of-scale.json
    PYTHONPATH=. python scripts/cost_of_scale.py measure runs
        of the small runs alone; on a machine that does nothing else

A stage takes seconds of a resource for each video: storage, cores or GPUs. Stages on the same resource share it, stages
on different ones overlap; the resource that a video takes longest of sets the pace. Text is encoded once in a job.
"""

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "cost-of-scale.json"

# Measured on an NVIDIA H200 (benchmarks/results/nvidia-h200-2026-11-27-gpu.md): B/16-8 in bfloat16, compiled, batches
# of 32, 400 labels. Other numbers of frames and labels are scaled by multiply-adds.
H200_VIDEOS_PER_SECOND = 1217.0

Clock = Callable[[], float]
"""Processor time for stages, whatever else the machine does; passed time beside runs, which share it alike."""

NUM_LABELS = (10, 400, 10_000)
NUM_FRAMES = (8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one step takes for a video."""

    name: str
    resource: str
    """Which it uses; others that use the same share it."""
    seconds: float
    """Of one unit of the resource, such as a core."""
    num_workers: int = 1
    """Videos at a time."""
    width: float = 1.0
    """Units that one worker can use at once, as threads of a model."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Stages, one behind the other, and what they share."""

    stages: tuple[Stage, ...]
    capacity: Mapping[str, float]
    """Units of each resource."""
    once_seconds: float = 0.0
    """Of a job, whatever the number of videos."""

    def limits(self) -> dict[str, float]:
        """What holds the job up -> seconds a video, if it were all: shared resources, and stages with few workers."""
        used: defaultdict[str, float] = defaultdict(float)
        for stage in self.stages:
            used[stage.resource] += stage.seconds
        limits = {self._main(resource): used[resource] / self.capacity[resource] for resource in used}
        for stage in self.stages:
            own = stage.seconds / (stage.num_workers * min(stage.width, self.capacity[stage.resource]))
            limits[stage.name] = max(own, limits.get(stage.name, 0.0))
        return limits

    def _main(self, resource: str) -> str:
        """The stage that takes the most of a resource."""
        own = [stage for stage in self.stages if stage.resource == resource]
        return max(own, key=lambda stage: stage.seconds).name

    def bottleneck(self) -> tuple[str, float]:
        """The stage that holds the job up, and the seconds a video that it allows."""
        return max(self.limits().items(), key=lambda limit: limit[1])

    def hours(self, num_videos: float) -> float:
        """Machine hours of a job."""
        return (self.once_seconds + num_videos * self.bottleneck()[1]) / 3600


def simulated(pipeline: Pipeline, num_videos: int, room: int = 8) -> float:
    """Seconds until all videos have passed the stages, video by video, with room for so many between two stages.

    Workers of a resource that is asked for more than it has are slowed down alike.
    """
    stages, now = pipeline.stages, 0.0
    waiting = [num_videos] + [0] * len(stages)  # before each stage; behind the last one: done
    working: list[list[float]] = [[] for _ in stages]  # seconds that are left of each video
    while waiting[-1] < num_videos:
        _move(stages, waiting, working, room)
        rates = _rates(pipeline, working)
        lefts_of = zip(working, rates, strict=True)
        step = min((left / rate for lefts, rate in lefts_of for left in lefts if left > 0), default=0.0)
        now += step
        for lefts, rate in zip(working, rates, strict=True):
            lefts[:] = [left - step * rate if left - step * rate > 1e-12 else 0.0 for left in lefts]
        _move(stages, waiting, working, room)
    return pipeline.once_seconds + now


def _rates(pipeline: Pipeline, working: Sequence[Sequence[float]]) -> list[float]:
    """Seconds of its resource that a worker of each stage gets in a second."""
    wanted: defaultdict[str, float] = defaultdict(float)
    for stage, lefts in zip(pipeline.stages, working, strict=True):
        wanted[stage.resource] += stage.width * sum(left > 0 for left in lefts)
    return [
        stage.width * min(1.0, pipeline.capacity[stage.resource] / max(wanted[stage.resource], 1e-12))
        for stage in pipeline.stages
    ]


def _move(stages: Sequence[Stage], waiting: list[int], working: list[list[float]], room: int) -> None:
    """Hand on what is finished where there is room, and begin what waits; from the end, so that room is seen."""
    for number in reversed(range(len(stages))):
        is_last = number + 1 == len(stages)
        while 0.0 in working[number] and (is_last or waiting[number + 1] < room):
            working[number].remove(0.0)
            waiting[number + 1] += 1
            if not is_last:
                _begin(stages, waiting, working, number + 1)
        _begin(stages, waiting, working, number)


def _begin(stages: Sequence[Stage], waiting: list[int], working: list[list[float]], number: int) -> None:
    while waiting[number] and len(working[number]) < stages[number].num_workers:
        waiting[number] -= 1
        working[number].append(stages[number].seconds)


@dataclass(frozen=True)
class Measured:
    """The file of measurements. Seconds are of one core."""

    machine: str
    load: float
    """Processes that wanted to run when measuring began; a run beside others is held up by them."""
    megabytes: float
    """Of a video."""
    decode: dict[int, float]
    """Frames -> seconds a video, its way to the model's process included."""
    encode: dict[int, float]
    """Frames -> seconds a video, B/32."""
    compare: dict[int, float]
    """Labels -> seconds a video: prompts and scores, B/32."""
    text: float
    """Seconds a label, once in a job."""
    write: float
    """Seconds a video: its row and its part of a Parquet file."""
    macs: dict[int, dict[int, int]]
    """Frames -> labels -> multiply-adds of B/16."""
    runs: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def read(path: Path = RESULTS) -> "Measured":
        """From the file."""
        values = json.loads(path.read_text(encoding="utf-8"))
        for name in ("decode", "encode", "compare"):
            values[name] = {int(key): seconds for key, seconds in values[name].items()}
        values["macs"] = {
            int(frames): {int(labels): macs for labels, macs in of_frames.items()}
            for frames, of_frames in values["macs"].items()
        }
        return Measured(**values)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Machines of one kind."""

    name: str
    cores: int
    gpus: int = 0
    """NVIDIA H200; with them the model is B/16, without B/32."""
    megabytes_per_second: float = 1000.0
    """From storage, of each machine."""

    def pipeline(self, measured: Measured, num_frames: int = 8, num_labels: int = 400) -> Pipeline:
        """The stages on one machine that decodes on all its cores."""
        if self.gpus:
            macs = measured.macs[num_frames][num_labels] / measured.macs[8][400]
            model = Stage(
                name="model", resource="gpu", seconds=macs / H200_VIDEOS_PER_SECOND, num_workers=self.gpus
            )
        else:
            seconds = measured.encode[num_frames] + measured.compare[num_labels]
            model = Stage(name="model", resource="cores", seconds=seconds, width=self.cores)
        return Pipeline(
            stages=(
                Stage(
                    name="read", resource="storage", seconds=measured.megabytes / self.megabytes_per_second
                ),
                Stage(
                    name="decode",
                    resource="cores",
                    seconds=measured.decode[num_frames],
                    num_workers=self.cores,
                ),
                model,
                Stage(name="write", resource="cores", seconds=measured.write),
            ),
            capacity={"storage": 1.0, "cores": float(self.cores), "gpu": float(self.gpus)},
            once_seconds=num_labels * measured.text / self.cores,
        )


HARDWARE = (
    Hardware(name="2 cores, B/32", cores=2, megabytes_per_second=500.0),
    Hardware(name="64 cores, B/32", cores=64),
    Hardware(name="H200, 16 cores, B/16", cores=16, gpus=1),
    Hardware(name="H200, 64 cores, B/16", cores=64, gpus=1),
)
STORAGE = (25.0, 100.0, 400.0, 1600.0)
"""MB/s of each machine."""


def hardware_table(measured: Measured) -> str:
    """8 frames and 400 labels on each kind of machine."""
    rows = []
    for hardware in HARDWARE:
        pipeline = hardware.pipeline(measured)
        stage, seconds = pipeline.bottleneck()
        hours = (f"{pipeline.hours(number):,.1f} machine hours" for number in (1e6, 1e9))
        rows.append((hardware.name, f"{1 / seconds:,.1f}", stage, *hours))
    return _markdown(
        ("hardware", "videos a second", "bottleneck", "1 million videos", "1 billion videos"), rows
    )


def stages_table(measured: Measured) -> str:
    """What each stage takes at 8 frames and 400 labels: milliseconds of its resource."""
    pipelines = [hardware.pipeline(measured) for hardware in HARDWARE]
    names = [stage.name for stage in pipelines[0].stages]
    rows = [
        (
            hardware.name,
            *(f"{1e3 * stage.seconds:.2f} {stage.resource}" for stage in pipeline.stages),
            f"{pipeline.once_seconds:.1f} s",
        )
        for hardware, pipeline in zip(HARDWARE, pipelines, strict=True)
    ]
    return _markdown(("ms a video", *names, "text, once"), rows)


def moves_table(measured: Measured) -> str:
    """Where the bottleneck moves with frames and labels: videos a second, and the stage."""
    rows = [
        (str(frames), f"{labels:,}", *(_pace(one.pipeline(measured, frames, labels)) for one in HARDWARE))
        for frames in NUM_FRAMES
        for labels in NUM_LABELS
    ]
    return _markdown(("frames", "labels", *(one.name for one in HARDWARE)), rows)


def storage_table(measured: Measured) -> str:
    """Where it moves with storage."""
    rows = []
    for speed in STORAGE:
        kinds = (
            Hardware(name=one.name, cores=one.cores, gpus=one.gpus, megabytes_per_second=speed)
            for one in HARDWARE
        )
        rows.append((f"{speed:,.0f} MB/s", *(_pace(one.pipeline(measured)) for one in kinds)))
    return _markdown(("storage of each machine", *(one.name for one in HARDWARE)), rows)


def _pace(pipeline: Pipeline) -> str:
    stage, seconds = pipeline.bottleneck()
    return f"{1 / seconds:,.1f} {stage}"


def check_table(measured: Measured) -> str:
    """Small measured runs beside their simulation."""
    rows = []
    for run in measured.runs:
        expected = simulated(pipeline_of(run), run["num_videos"])
        rows.append(
            (
                run["name"],
                str(run["num_videos"]),
                f"{run['seconds']:.1f} s",
                f"{expected:.1f} s",
                f"{100 * deviation(run):+.0f} %",
            )
        )
    return _markdown(("run", "videos", "measured", "simulated", "deviation"), rows)


def pipeline_of(run: Mapping[str, Any]) -> Pipeline:
    """The stages of a measured run: seconds of a core, as measured beside it."""
    cores = float(run["cores"])
    return Pipeline(
        stages=(
            Stage(name="decode", resource="cores", seconds=run["decode"], num_workers=run["decoders"]),
            Stage(name="model", resource="cores", seconds=run["model"], width=cores),
            Stage(name="write", resource="cores", seconds=run["write"]),
        ),
        capacity={"cores": cores},
        once_seconds=run["once"],
    )


def deviation(run: Mapping[str, Any]) -> float:
    """Of the simulation from the measured time, as a share of the latter."""
    return simulated(pipeline_of(run), run["num_videos"]) / run["seconds"] - 1


def example(measured: Measured) -> str:
    """A worked example: 1 million videos, 8 frames, 400 labels, at a price of P an hour."""
    hardware = HARDWARE[2]
    pipeline = hardware.pipeline(measured)
    stage, seconds = pipeline.bottleneck()
    limits = "; ".join(f"{name} {1e3 * value:.2f} ms" for name, value in pipeline.limits().items())
    hours = pipeline.hours(1e6)
    return (
        f'1 million videos, 8 frames, 400 labels, on machines of the kind "{hardware.name}". A video takes: {limits}. '
        f"The slowest is {stage}: 10^6 x {1e3 * seconds:.2f} ms = {hours:.2f} machine hours, one machine or many. At a "
        f"price of P an hour that is {hours:.2f} P; at P = 4 and 1 billion videos, {pipeline.hours(1e9):,.0f} machine "
        f"hours and {4 * pipeline.hours(1e9):,.0f}."
    )


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(line)} |" if line[0] != "---" else f"|{'|'.join(line)}|" for line in lines
    )


def tables(measured: Measured) -> dict[str, str]:
    """Name -> Markdown."""
    return {
        "stages": stages_table(measured),
        "hardware": hardware_table(measured),
        "frames and labels": moves_table(measured),
        "storage": storage_table(measured),
        "check": check_table(measured),
        "example": example(measured),
    }


# --- measuring ----------------------------------------------------------------------------------------------------


def measure(paths: Sequence[str], model: str = "B/32-8") -> dict[str, Any]:
    """Time the stages and the small runs, on this machine."""
    import dataclasses

    from benchmarks.machine import Machine
    from benchmarks.weights import write_model

    from openxclip.models import preset
    from openxclip.models.flops import count_cost

    wide, load = preset("B/16-8"), os.getloadavg()[0]
    with TemporaryDirectory() as folder:
        models = {
            frames: str(
                write_model(Path(folder) / str(frames), dataclasses.replace(preset(model), num_frames=frames))
            )
            for frames in NUM_FRAMES
        }
        rigs = {frames: _Rig(source, paths, Path(folder)) for frames, source in models.items()}
        rig, tiny = rigs[8], _Rig("openxclip-tiny", paths, Path(folder))
        encode = {frames: one.encode_seconds() for frames, one in rigs.items()}
        compare = {labels: rig.compare_seconds(labels) for labels in NUM_LABELS}
        runs = small_runs(rig, tiny)
        return {
            "machine": f"{Machine().slug}, {time.strftime('%Y-%m-%d')}",
            "load": load,
            "megabytes": sum(Path(path).stat().st_size for path in paths) / len(paths) / 1e6,
            "decode": {frames: one.decode_seconds() for frames, one in rigs.items()},
            "encode": encode,
            "compare": compare,
            "text": rig.text_seconds(400) / 400,
            "write": rig.write_seconds(),
            "macs": {
                frames: {
                    labels: count_cost(dataclasses.replace(wide, num_frames=frames), labels).macs
                    for labels in NUM_LABELS
                }
                for frames in NUM_FRAMES
            },
            "runs": runs,
        }


def measure_runs(paths: Sequence[str], model: str = "B/32-8") -> list[dict[str, Any]]:
    """The small runs alone."""
    from benchmarks.weights import write_model

    from openxclip.models import preset

    with TemporaryDirectory() as folder:
        source = str(write_model(Path(folder) / "8", preset(model)))
        return small_runs(_Rig(source, paths, Path(folder)), _Rig("openxclip-tiny", paths, Path(folder)))


def small_runs(rig: "_Rig", tiny: "_Rig") -> list[dict[str, Any]]:
    """Different decoders, labels, windows and models."""
    return [
        rig.run("B/32-8, 2 decoders, 400 labels", 32, decoders=2, num_labels=400),
        rig.run("B/32-8, 1 decoder, 10 labels", 32, decoders=1, num_labels=10),
        rig.run("B/32-8, 2 decoders, 2,000 labels", 24, decoders=2, num_labels=2000),
        tiny.run("tiny, 1 decoder, 10 labels", 280, decoders=1, num_labels=10),
        tiny.run("tiny, 2 decoders, 400 labels", 280, decoders=2, num_labels=400),
        tiny.run("tiny, 2 decoders, 10 labels, windows of 1 s", 280, decoders=2, num_labels=10, windows="1s"),
    ]


class _Rig:
    """A model, videos, and what times the stages."""

    def __init__(self, model: str, paths: Sequence[str], folder: Path) -> None:
        from openxclip import Engine, ModelSource

        self.paths, self.folder, self.cores = paths, folder, os.cpu_count() or 1
        self.source = ModelSource(source=model, device="cpu")
        self.engine = Engine.load(self.source)

    def _job(self, num_labels: int, windows: str | None = None, decoders: int = 1) -> Any:
        from openxclip import LabelTexts
        from openxclip.tagging.options import RowOptions, RunOptions
        from openxclip.tagging.tag import Job

        output = self.folder / f"out {time.perf_counter_ns()}"
        texts = LabelTexts(labels=labels_of(num_labels))
        rows, run = RowOptions(windows=windows), RunOptions(decoders=decoders)
        return Job(self.engine, self.source, texts, str(output), rows, run)

    def decode_seconds(self, num_videos: int = 24) -> float:
        """Of a core for a video."""
        from openxclip.tagging.decoding import Piece, decode
        from openxclip.tagging.sources import Source

        plan = self._job(1).plan()
        pieces = [Piece(number=i, source=Source(path)) for i, path in enumerate(self.paths[:num_videos])]
        with _threads(time.process_time):
            return median_seconds(lambda: [decode(piece, plan) for piece in pieces]) / num_videos

    def waited_seconds(self, windows: str | None, num_videos: int = 24) -> float:
        """Until a decoder's process has sent a video back."""
        from openxclip.tagging.decoding import Piece
        from openxclip.tagging.sources import Source
        from openxclip.tagging.workers import Decoders

        pieces = [Piece(number=i, source=Source(path)) for i, path in enumerate(self.paths[:num_videos])]
        with Decoders(self._job(1, windows).plan(), 1, 60.0) as decoders:
            return (
                median_seconds(lambda: [decoders.read(piece) for piece in pieces], time.perf_counter)
                / num_videos
            )

    def _pixels(self, num_views: int) -> Any:
        import torch

        size = self.engine.model.config.vision.image_size_px
        frames = self.engine.model.config.num_frames
        return torch.randint(0, 256, (num_views, frames, 3, size, size), dtype=torch.uint8)

    def encode_seconds(self, clock: Clock = time.process_time) -> float:
        """Of a core for a view, in batches as a job makes them."""
        import torch

        pixels = self._pixels(self.engine.flow.batch_size)
        with torch.inference_mode(), _threads(clock) as num_threads:
            return num_threads * median_seconds(lambda: self.engine.encode(pixels), clock) / len(pixels)

    def compare_seconds(self, num_labels: int, clock: Clock = time.process_time) -> float:
        """Of a core for a view."""
        import torch

        from openxclip import LabelTexts

        pixels = self._pixels(self.engine.flow.batch_size)
        with torch.inference_mode(), _threads(clock) as num_threads:
            video = self.engine.encode(pixels)
            labels = repeated(self.engine.label_set(LabelTexts(labels=labels_of(10))), num_labels)
            return (
                num_threads * median_seconds(lambda: self.engine.compare(video, labels), clock) / len(pixels)
            )

    def text_seconds(self, num_labels: int, clock: Clock = time.process_time) -> float:
        """Of a core for so many labels."""
        from openxclip import LabelTexts

        with _threads(clock) as num_threads:
            started = clock()
            self.engine.label_set(LabelTexts(labels=labels_of(num_labels)))
            return num_threads * (clock() - started)

    def write_seconds(self, num_rows: int = 256) -> float:
        """Of a core for a row, a part at a time."""
        import numpy as np

        from openxclip.tagging.decoding import Facts
        from openxclip.tagging.output import Part
        from openxclip.tagging.rows import scored_row, table
        from openxclip.tagging.sources import Source

        job = self._job(400)
        sources = tuple(Source(path) for path in (*self.paths, *self.paths)[:num_rows])
        layout = job._layout(sources)
        facts = Facts(
            duration_seconds=10.0, fps=25.0, width=320, height=240, codec="h264", content_hash=None,
            windows=((0.0, 10.0),), num_windows=1,
        )  # fmt: skip
        scores = np.random.default_rng(0).random(400, np.float32)

        def write() -> None:
            rows = {
                number: [scored_row(layout, source, facts, 0, scores, None)]
                for number, source in enumerate(sources)
            }
            job.output.write(Part(0, sources), table(layout, rows))

        return median_seconds(write) / len(sources)

    def run(
        self, name: str, num_videos: int, *, decoders: int, num_labels: int, windows: str | None = None
    ) -> dict[str, Any]:
        """Time a job, and its stages before and after it."""
        from openxclip.tagging.decoding import Piece, decode
        from openxclip.tagging.sources import Source

        paths = [self.paths[number % len(self.paths)] for number in range(num_videos)]
        job = self._job(num_labels, windows, decoders)
        num_windows = 1.0
        if windows is not None:
            plan, some = job.plan(), paths[:24]
            found = [decode(Piece(number=0, source=Source(path)), plan)[1].num_windows for path in some]
            num_windows = sum(found) / len(found)
        before = self._stage_seconds(num_labels, windows, num_windows)
        once = (
            self._start_seconds(job, decoders) + self.text_seconds(num_labels, time.perf_counter) / self.cores
        )
        started = time.perf_counter()
        for _ in job.run([Source(path) for path in paths]):
            pass
        seconds = time.perf_counter() - started
        after = self._stage_seconds(num_labels, windows, num_windows)
        stages = {key: (before[key] + after[key]) / 2 for key in before}
        print(f"{name}: {seconds:.1f} s", file=sys.stderr)
        return {
            "name": name, "num_videos": num_videos, "cores": self.cores, "decoders": decoders, "once": once,
            "seconds": seconds, "load": os.getloadavg()[0], **stages,
        }  # fmt: skip

    def _stage_seconds(self, num_labels: int, windows: str | None, num_windows: float) -> dict[str, float]:
        clock = time.perf_counter
        model = self.encode_seconds(clock) + self.compare_seconds(num_labels, clock)
        return {
            "decode": self.waited_seconds(windows),
            "model": model * num_windows,
            "write": self.write_seconds() * num_windows,
        }

    def _start_seconds(self, job: Any, num_decoders: int) -> float:
        """Until the decoders of a job have started."""
        from concurrent.futures import ThreadPoolExecutor

        from openxclip.tagging.decoding import Piece
        from openxclip.tagging.sources import Source
        from openxclip.tagging.workers import Decoders

        started = time.perf_counter()
        with (
            Decoders(job.plan(), num_decoders, 60.0) as decoders,
            ThreadPoolExecutor(num_decoders) as threads,
        ):
            list(threads.map(decoders.read, [Piece(number=0, source=Source(self.paths[0]))] * num_decoders))
            return time.perf_counter() - started


def labels_of(number: int) -> list[str]:
    """Kinetics-400's labels, again with numbers where more are asked for."""
    from openxclip.text.labels import built_in_labels

    labels = built_in_labels("kinetics400")
    return [labels[i % 400] + (f" {i // 400}" if i >= 400 else "") for i in range(number)]


def repeated(labels: Any, number: int) -> Any:
    """A label set of so many: its features again and again, which take as long as others."""
    import dataclasses

    features = labels.features.repeat(-(-number // len(labels.features)), 1)[:number]
    return dataclasses.replace(labels, labels=tuple(map(str, range(number))), features=features)


@contextmanager
def _threads(clock: Clock) -> Iterator[int]:
    """Threads of a measurement: of processor time one, as those that wait use it too."""
    import torch

    number = torch.get_num_threads()
    if clock is time.process_time:
        torch.set_num_threads(1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(number)


def median_seconds(
    call: Callable[[], object], clock: Clock = time.process_time, num_rounds: int = 3
) -> float:
    """Of a call; the first is not counted."""
    call()
    times = []
    for _ in range(num_rounds):
        started = clock()
        call()
        times.append(clock() - started)
    return sorted(times)[num_rounds // 2]


def main(words: Sequence[str]) -> None:
    """See above."""
    if words[:1] == ["measure"]:
        from benchmarks.options import Options

        from openxclip.files import atomic_write

        paths = [str(path) for path in sorted((Options().data / "ucf8" / "videos").glob("*"))]
        if words[1:] == ["runs"]:
            values = json.loads(RESULTS.read_text(encoding="utf-8")) | {"runs": measure_runs(paths)}
        else:
            values = measure(paths)
        with atomic_write(RESULTS) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    for name, text in tables(Measured.read()).items():
        print(f"{name}\n\n{text}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
