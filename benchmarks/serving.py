"""Our server under many clients, against one client at a time, and against a handler that calls the model itself.

Clients run on the same cores as the servers. Every answer is compared with the offline result.
"""

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.options import Options
from benchmarks.report import Section
from benchmarks.weights import write_model
from openxclip import ModelSource, Recognizer
from openxclip.inference.views import Views
from openxclip.models import preset
from openxclip.progress import progress_bar
from openxclip.reports.table import Table
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.text.labels import BUILT_IN_LABEL_SETS, parse_labels

SUITE = "serving"
NUM_CLIENTS = 32
TURN_SECONDS = 20.0  # three turns make a minute
NUM_TURNS = 3
BIG = "B/32-8"
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05}  # other batch sizes round in another order
BOUNDARY = "openxclip-benchmark"
START_SECONDS = 600.0  # compiling takes a minute or two

OURS, ALONE, INT8 = "ours, 32 clients", "ours, one client", "ours, --int8 --compile, 32 clients"
MODEL = "plain handler that calls the model, 32 clients"
THREADS, SERIAL = (
    "the same, labels encoded once, 32 clients",
    "the same, one request after the other, 32 clients",
)
PLAIN = {MODEL: "model", THREADS: "threads", SERIAL: "serial"}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A server and how many ask it at once."""

    port: int
    path: str
    num_clients: int
    is_ours: bool


@dataclass
class Tally:
    """What came of the requests of a variant."""

    latencies: list[float] = field(default_factory=list)
    """Seconds of each answer."""
    seconds: float = 0.0
    num_wrong: int = 0
    num_lost: int = 0

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def row(self, name: str, against: "Tally") -> tuple[str, ...]:
        """Of the table."""
        p50, p99 = np.percentile(self.latencies, (50, 99))
        return (
            name,
            str(len(self.latencies)),
            f"{self.per_second:.1f}",
            f"{1000 * p50:.0f} ms",
            f"{1000 * p99:.0f} ms",
            str(self.num_wrong),
            str(self.num_lost),
            f"{self.per_second / against.per_second:.2f}",
        )


def run(options: Options) -> Section:
    """The shipped model, then B/32-8 with random weights."""
    del options  # the load is what the figures are about
    with TemporaryDirectory() as folder:
        big = write_model(Path(folder) / "model", preset(BIG))
        tables = [
            measure("openxclip-tiny", "openxclip-tiny", "float32", ", ".join(EXAMPLE_LABELS)),
            measure(f"{BIG}, random weights", str(big), "auto", "kinetics400", with_int8=True),
        ]
    return Section(suite=SUITE, tables=tuple(tables))


def measure(
    name: str,
    model: str,
    dtype: str,
    labels: str,
    *,
    with_int8: bool = False,
    turn_seconds: float = TURN_SECONDS,
    num_turns: int = NUM_TURNS,
) -> Table:
    """Every variant in turns, each for `turn_seconds`; `labels` as `--labels` takes them."""
    job, precision = _job(model, dtype, labels)
    with ExitStack() as stack, progress_bar() as bar:
        variants = _variants(stack, model, dtype, labels, with_int8)
        tallies = {what: Tally() for what in variants}
        for variant in variants.values():  # the first requests warm up
            load(variant, job, min(2.0, turn_seconds), Tally())
        task = bar.add_task(name, total=num_turns * len(variants), note="")
        for _ in range(num_turns):
            for what, variant in variants.items():
                bar.update(task, note=what)
                load(variant, job, turn_seconds, tallies[what])
                bar.advance(task)
    return Table(
        title=f"Server under load, {name}, {precision}",
        command=f"python -m benchmarks {SUITE}",
        columns=(
            "who asks",
            "answers",
            "a second",
            "p50",
            "p99",
            "wrong",
            "lost",
            "against the plain handler",
        ),
        rows=tuple(tally.row(what, tallies[MODEL]) for what, tally in tallies.items()),
        notes=(
            f"{num_turns} turns of {turn_seconds:g} s for each, one after the other. Clips of 2 s, 128 x 128 px, "
            f"{len(job.expected[0])} labels. Clients and servers share the cores.",
            "An answer is wrong if its best label, where that leads clearly, or a probability (beyond "
            f"{job.tolerance:g}) is not the offline one.",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is asked, and what the answers must be."""

    clips: tuple[bytes, ...]
    expected: tuple[dict[str, float], ...]
    """Of each clip, label -> probability."""
    label_fields: tuple[tuple[str, str], ...]
    tolerance: float


def _job(model: str, dtype: str, labels: str) -> tuple[Job, str]:
    """With the offline results, and the precision they were computed in."""
    names = parse_labels(labels)
    recognizer = Recognizer.from_pretrained(ModelSource(source=model, dtype=dtype), names)
    clips = tuple(clip.encode() for clip in example_clips())
    precision = str(recognizer.label_set.features.dtype).removeprefix("torch.")
    own = (
        (("label_set", labels),)
        if labels in BUILT_IN_LABEL_SETS
        else tuple(("labels", name) for name in names)
    )
    expected = tuple(_offline(recognizer, clip) for clip in clips)
    return Job(clips=clips, expected=expected, label_fields=own, tolerance=TOLERANCES[precision]), precision


def _variants(stack: ExitStack, model: str, dtype: str, labels: str, with_int8: bool) -> dict[str, Variant]:
    """Start every server -> what asks them."""
    ours = ("openxclip", "serve", "--port", "0", "--model", model, "--dtype", dtype)
    port = stack.enter_context(_served(*ours))
    variants = {
        OURS: Variant(port=port, path="/v1/predict", num_clients=NUM_CLIENTS, is_ours=True),
        ALONE: Variant(port=port, path="/v1/predict", num_clients=1, is_ours=True),
    }
    if with_int8:
        port = stack.enter_context(_served(*ours, "--int8", "--compile"))
        variants[INT8] = Variant(port=port, path="/v1/predict", num_clients=NUM_CLIENTS, is_ours=True)
    for what, kind in PLAIN.items():
        port = stack.enter_context(_served("benchmarks.plain_server", model, dtype, kind, labels))
        variants[what] = Variant(port=port, path="/predict", num_clients=NUM_CLIENTS, is_ours=False)
    return variants


def _offline(recognizer: Recognizer, clip: bytes) -> dict[str, float]:
    probabilities = recognizer.probabilities(recognizer.read(clip, Views()))
    return dict(zip(recognizer.labels, probabilities.tolist(), strict=True))


@contextmanager
def _served(module: str, *arguments: str) -> Iterator[int]:
    """A server in a process of its own -> its port."""
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stderr is not None
    assert process.stdout is not None
    ready: list[int] = []
    is_ready = threading.Event()

    def read() -> None:  # to the end: a full pipe would stop the server
        for line in process.stderr or ():
            if not ready and (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)):
                ready.append(int(found[1]))
                is_ready.set()

    readers = [
        threading.Thread(target=read, daemon=True),
        threading.Thread(target=process.stdout.read, daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        if not is_ready.wait(START_SECONDS):
            raise RuntimeError(f"{module} did not start")
        yield ready[0]
    finally:
        process.terminate()
        process.wait(60)
        for reader in readers:
            reader.join(10)
        process.stderr.close()
        process.stdout.close()


def load(variant: Variant, job: Job, seconds: float, tally: Tally) -> None:
    """Ask again and again for so long; what was asked before the end is waited for."""
    bodies = [_body(clip, job, variant.is_ours) for clip in job.clips]
    started = time.perf_counter()
    until = started + seconds

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", variant.port, timeout=120)
        turn = first
        while time.perf_counter() < until:
            place, turn = turn % len(bodies), turn + 1
            begun = time.perf_counter()
            try:
                headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
                connection.request("POST", variant.path, bodies[place], headers)
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError):
                tally.num_lost += 1
                connection.close()
                continue
            tally.latencies.append(time.perf_counter() - begun)
            is_right = response.status == 200 and _is_right(
                answer, variant.is_ours, job.expected[place], job.tolerance
            )
            tally.num_wrong += not is_right
        connection.close()

    with ThreadPoolExecutor(variant.num_clients) as pool:
        list(pool.map(client, range(variant.num_clients)))
    tally.seconds += time.perf_counter() - started


def _body(clip: bytes, job: Job, is_ours: bool) -> bytes:
    def part(name: str, content: bytes) -> bytes:
        disposition = f'Content-Disposition: form-data; name="{name}"'
        return f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + content + b"\r\n"

    fields = [part('video"; filename="a.mp4', clip)]
    if is_ours:
        fields += [part(name, value.encode()) for name, value in job.label_fields]
        fields.append(part("top_k", str(len(job.expected[0])).encode()))
    return b"".join(fields) + f"--{BOUNDARY}--\r\n".encode()


def _is_right(answer: dict, is_ours: bool, expected: dict[str, float], tolerance: float) -> bool:
    found = {score["label"]: score["probability"] for score in answer["scores"]} if is_ours else answer
    best, second = sorted(expected.values(), reverse=True)[:2]
    same_best = max(found, key=found.__getitem__) == max(expected, key=expected.__getitem__)
    close = all(abs(found[label] - value) <= tolerance for label, value in expected.items())
    return close and (same_best or best - second < 2 * tolerance)
