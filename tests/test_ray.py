"""The Ray engine: the rows of the local one, on one node and on two of which one dies."""

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from paths import needs_data
from test_tagging import CRASH_HOOK, LABELS, arguments, real_clips_and_broken_files, rows_of, tag
from videos import write_video

from openxclip.checkpoints.source import ModelSource
from openxclip.cli.main import run
from openxclip.errors import InputError, OpenXCLIPError
from openxclip.inference.engine import Engine
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.tagging.options import RowOptions, RunOptions
from openxclip.tagging.output import Part
from openxclip.tagging.sources import Source, list_sources
from openxclip.tagging.tag import Job
from openxclip.text.label_texts import LabelTexts

pytest.importorskip("ray")

pytestmark = [pytest.mark.on_cpu, pytest.mark.slow]

DEPLOY = Path(__file__).parents[1] / "deploy" / "ray"
MORE = ("--engine", "ray", "--model-threads", str(os.cpu_count() or 1))
"""With the threads of the local engine, so that sums are the same to the last bit."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs") / "videos"
    folder.mkdir(parents=True)
    for copy in range(8):
        for clip in example_clips():
            (folder / f"{clip.kind.name} {copy}.mp4").write_bytes(clip.encode())
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def undisturbed(videos, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("outputs") / "undisturbed"
    assert run(arguments(videos, output)) == 1
    return output


def finished(process) -> None:
    _, error = process.communicate(timeout=400)
    assert process.returncode == 1, error.decode()[-3000:]


def test_the_rows_are_those_of_the_local_engine(videos, undisturbed, tmp_path) -> None:
    finished(tag(*arguments(videos, tmp_path / "out", *MORE)))
    assert rows_of(tmp_path / "out") == rows_of(undisturbed)


def test_windows_of_long_videos_travel_in_bundles(tmp_path, monkeypatch) -> None:
    """With the stages in this process and bundles of a few pieces; then on a cluster."""
    from openxclip.tagging import ray_engine
    from openxclip.tagging.rows import Layout

    inputs, more = tmp_path / "videos", ("--windows", "0.5s", "--views", "2x1")
    inputs.mkdir()
    for name, num_frames in (("long", 700), ("short", 30), ("two pieces", 400)):
        write_video(inputs / f"{name}.mp4", num_frames=num_frames, fps=10)
    (inputs / "broken.mp4").write_bytes(b"no video")
    assert run(arguments(inputs, tmp_path / "local", *more)) == 1
    expected = rows_of(tmp_path / "local")
    assert len(expected) == 1 + 140 + 6 + 80

    monkeypatch.setattr(ray_engine, "BUNDLE_BYTES", 2_000_000)
    source = ModelSource(source="openxclip-tiny", dtype="float32")
    engine = Engine.load(source)
    layout = Layout(
        labels=EXAMPLE_LABELS,
        model_id=expected[0]["model_id"],
        label_set_id=expected[0]["label_set_id"],
        top_k=5,
        embed_dim=None,
        all_scores=False,
        content_hash=False,
        extra=(),
    )
    job = Job(
        engine,
        source,
        LabelTexts(labels=EXAMPLE_LABELS),
        str(tmp_path / "none"),
        RowOptions(windows="0.5s", views="2x1"),
    )
    work = ray_engine.Work(
        model=job.source,
        inference=engine.options,
        texts=job.texts,
        layout=layout,
        plan=job.plan(),
        decode_seconds=60,
        num_threads=torch.get_num_threads(),
    )
    part = Part(0, tuple(list_sources(str(inputs))))
    journals = [ray_engine._Journal()]
    decoder, model = ray_engine._Decoder(work, journals), ray_engine._Model(work, journals)
    bundles = [model(row) for row in decoder({"part": pickle.dumps((part, range(4)))})]
    (one,) = [model(row) for row in decoder({"part": pickle.dumps((part, [2]))})]
    decoder.decoders.__exit__()
    done = [pickle.loads(bundle["done"]) for bundle in bundles]
    assert len(done) > 3
    assert not ray_engine._are_all(done[:-1])
    assert not ray_engine._are_all(done[1:])
    joined = ray_engine._joined(part, done[::-1], range(4))
    assert joined.errors == {"unreadable": 1}
    assert joined.video_seconds == pytest.approx(70 + 3 + 40)
    assert_alike(joined.table.to_pylist(), expected)
    again = ray_engine._joined(part, [pickle.loads(one["done"])], [2])
    assert_alike(again.table.to_pylist(), [row for row in expected if row["path"] == part.sources[2].path])
    assert set(again.table["input_number"].to_pylist()) == {2}

    finished(tag(*arguments(inputs, tmp_path / "out", *MORE, *more)))
    assert_alike(rows_of(tmp_path / "out"), expected)


def test_an_input_that_fails_in_a_later_piece_is_its_error_alone() -> None:
    import pyarrow as pa

    from openxclip.tagging import ray_engine

    def rows(numbers: list[int], errors: list[str | None]) -> pa.Table:
        return pa.table({"input_number": numbers, "error_kind": pa.array(errors, pa.string())})

    first = ray_engine._BundleRows(0, 0, False, rows([0, 1, 1], [None] * 3), {0: 1.0, 1: 9.0}, {})
    last = ray_engine._BundleRows(
        0, 1, True, rows([1, 2], ["crashed", None]), {1: 0.0, 2: 2.0}, {1: "crashed"}
    )
    part = Part(0, tuple(map(Source, "abc")))
    joined = ray_engine._joined(part, [last, first], range(3))
    assert joined.table.to_pylist() == [
        {"input_number": 0, "error_kind": None},
        {"input_number": 1, "error_kind": "crashed"},
        {"input_number": 2, "error_kind": None},
    ]
    assert (joined.errors, joined.video_seconds) == ({"crashed": 1}, 3.0)
    with pytest.raises(OpenXCLIPError, match=r"part 0: 1 inputs have no rows, d first"):
        ray_engine._joined(replace(part, sources=(*part.sources, Source("d"))), [last, first], range(4))


def test_a_journal_tells_what_workers_died_of() -> None:
    from openxclip.tagging.ray_engine import _Journal

    journal = _Journal()
    assert journal.begin_work("a", "part 0") == ({}, 0)
    assert journal.begin_work("b", "part 1") == ({}, 0)
    journal.begin("a", "part 0", 4)
    journal.end("a")
    journal.begin("a", "part 0", 5)
    journal.begin("b", "part 1", 5)
    assert journal.begin_work("c", "part 0") == ({5: 1}, 0), "a died of input 5; b is at another part"
    journal.begin("c", "part 0", 5)
    assert journal.begin_work("d", "part 0") == ({5: 2}, 0)
    assert journal.begin_work("e", "part 0") == ({5: 2}, 1), "d had not begun any input"
    journal.end("b")
    assert journal.begin_work("e", "part 1") == ({}, 1)
    assert journal.begin_work("f", "part 0") == ({}, 0), "e has finished it"


def test_a_second_try_is_alone_on_its_machine(tmp_path, monkeypatch) -> None:
    """Locks of this process on files of its own; each `_Machine` opens them anew, as a worker does."""
    from openxclip.tagging.ray_engine import _Machine

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    working, most_beside, alone = set(), [0], []

    def work(number: int) -> None:
        machine = _Machine()
        for turn in range(20):
            is_alone = (number + turn) % 5 == 0
            with machine.alone() if is_alone else machine.shared():
                working.add(number)
                time.sleep(0.002)
                (alone if is_alone else most_beside).append(len(working))
                working.discard(number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert set(alone) == {1}
    assert max(most_beside) > 1


def assert_alike(rows: list[dict], expected: list[dict]) -> None:
    """The same but for the last bits of the scores, by which two labels may change places: other batches."""
    none = {"scores": None, "labels": None, "input_number": None}  # the number depends on the parts
    assert [{**row, **none} for row in rows] == [{**row, **none} for row in expected]
    for row, right in zip(rows, expected, strict=True):
        if row["error_kind"] is None:
            by_label, wanted = (dict(zip(r["labels"], r["scores"], strict=True)) for r in (row, right))
            assert by_label == pytest.approx(wanted, abs=1e-5)


def test_a_video_that_kills_its_decoder_is_one_error_row(videos, undisturbed, tmp_path) -> None:
    name = "green ring rising 3.mp4"
    finished(tag(*arguments(videos, tmp_path / "out", *MORE), environment={CRASH_HOOK: name}))
    rows, expected = rows_of(tmp_path / "out"), rows_of(undisturbed)
    (crashed,) = [i for i, row in enumerate(rows) if row["error_kind"] == "crashed"]
    assert rows[crashed]["path"].endswith(name)
    assert [row["labels"] for i, row in enumerate(rows) if i != crashed] == [
        row["labels"] for i, row in enumerate(expected) if i != crashed
    ]


KILLS_ITS_WORKER = """
import multiprocessing, os, signal, sys

def look(event, arguments):
    if event == "open" and str(arguments[0]).endswith(NAMES) and multiprocessing.parent_process() is not None:
        with open(TRIES, "a") as file:
            file.write(str(arguments[0]) + "\\n")
        os.kill(os.getppid(), signal.SIGKILL)

sys.addaudithook(look)
"""
"""A module that every Python process imports at its start: in decoders it kills the parent when a file is opened."""


def test_videos_that_kill_their_worker_are_error_rows_and_hold_up_no_part(
    videos, undisturbed, tmp_path
) -> None:
    names, tries = ("green ring rising 3.mp4", "green ring rising 4.mp4"), tmp_path / "tries"
    code = KILLS_ITS_WORKER.replace("NAMES", repr(names)).replace("TRIES", repr(str(tries)))
    (tmp_path / "sitecustomize.py").write_text(code)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    output = tmp_path / "out"
    finished(tag(*arguments(videos, output, *MORE), environment={"PYTHONPATH": path}))
    rows, expected = rows_of(output), rows_of(undisturbed)
    crashed = [i for i, row in enumerate(rows) if row["error_kind"] == "crashed"]
    assert [Path(rows[i]["path"]).name for i in crashed] == list(names)
    assert [row for i, row in enumerate(rows) if i not in crashed] == [
        row for i, row in enumerate(expected) if i not in crashed
    ]
    paths = tries.read_text().split("\n")[:-1]
    assert {Path(path).name: paths.count(path) for path in paths} == dict.fromkeys(names, 2)


def test_a_cluster_of_two_nodes_loses_a_worker_and_then_a_node(videos, undisturbed, tmp_path) -> None:
    disturbed(videos, tmp_path / "out", ())
    assert rows_of(tmp_path / "out") == rows_of(undisturbed)


@needs_data("ucf8/videos")
def test_real_clips_on_two_nodes_that_are_disturbed(tmp_path) -> None:
    inputs = real_clips_and_broken_files(tmp_path / "inputs")
    more = ("--part-size", "16")
    assert run(arguments(inputs, tmp_path / "undisturbed", *more)) == 1
    disturbed(inputs, tmp_path / "out", more)
    rows = rows_of(tmp_path / "out")
    assert rows == rows_of(tmp_path / "undisturbed")
    assert sum(row["error_kind"] is not None for row in rows) == 20
    print(f"{len(rows)} rows on two nodes, of which one died")


def disturbed(inputs: Path, output: Path, more: tuple[str, ...]) -> None:
    """Run a job on two nodes; a worker dies, then one of the nodes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        second = cluster.add_node(num_cpus=2)
        process = tag(*arguments(inputs, output, *MORE, *more, "--address", cluster.address))
        wait_for_parts(output, 2, process)
        killed = kill_a_worker()
        wait_for_parts(output, 5, process)
        cluster.remove_node(second, allow_graceful=False)
        finished(process)
        assert killed
    finally:
        cluster.shutdown()


def wait_for_parts(output: Path, count: int, process) -> None:
    until = time.monotonic() + 200
    while len(list(output.glob("part-*.parquet"))) < count:
        assert time.monotonic() < until
        assert process.poll() is None, process.stderr.read().decode()[-3000:]
        time.sleep(0.05)


def kill_a_worker() -> bool:
    """Kill a process that runs a stage."""
    for entry in Path("/proc").iterdir():
        name = read_name(entry) if entry.name.isdigit() else b""
        if name.startswith(b"ray::") and b"Map" in name:
            os.kill(int(entry.name), signal.SIGKILL)
            return True
    return False


def test_errors_are_tried_again_on_the_cluster(tmp_path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    clips = example_clips()[:4]
    for number, clip in enumerate(clips):
        (folder / f"{number}.mp4").write_bytes(clip.encode() if number % 2 else b"not yet")
    finished(tag(*arguments(folder, tmp_path / "out", *MORE)))
    before = rows_of(tmp_path / "out")
    (folder / "0.mp4").write_bytes(clips[0].encode())
    finished(tag(*arguments(folder, tmp_path / "out", *MORE, "--retry-errors")))
    rows = rows_of(tmp_path / "out")
    assert [row["error_kind"] for row in rows] == [None, None, "unreadable", None]
    assert rows[0]["labels"][0] == clips[0].kind.name
    assert rows[1:] == before[1:]


def test_models_that_leave_no_core_for_decoding_are_refused(videos, tmp_path) -> None:
    process = tag(*arguments(videos, tmp_path / "out", *MORE, "--models", "500"))
    _, error = process.communicate(timeout=200)
    assert process.returncode == 2
    assert b"Lower --models" in error


class _Script:
    """deploy/ray as it stands, with a home that is empty."""

    def __init__(self, home: str) -> None:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        own = {"HOME": home, "PATH": path, "CPUS": "1", "PORT": str(free_port()), "PART_SIZE": "8"}
        self.environment = os.environ | own | {"ADDRESS": f"127.0.0.1:{own['PORT']}"}

    def nodes(self, word: str) -> None:
        command = ["bash", DEPLOY / "two-nodes.sh", word]
        done = subprocess.run(
            command, env=self.environment, check=False, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr

    def job(self, *words: object) -> subprocess.Popen:
        command = ["bash", DEPLOY / "job.sh", *map(str, words)]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def decoding_processes(port: str) -> int:
    """Decoding workers of a cluster: their parents are its raylets, which know the port of the head."""
    found = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    workers = [entry for entry in found if re.match(rb"ray::.*_Decoder", read_name(entry))]
    return sum(f":{port}".encode() in read_name(_parent(entry)) for entry in workers)


def _parent(process: Path) -> Path:
    try:
        return Path("/proc") / (process / "stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return process


def read_name(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


OTHER_CLUSTER = """
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
print("up", flush=True)
input()
print(ray.get(ray.remote(lambda: 6 * 7).remote()), flush=True)
"""


def test_the_scripts_run_as_they_stand_and_a_node_that_joins_is_used(videos, tmp_path) -> None:
    script = _Script(str(tmp_path))
    names = [str(path) for path in sorted(videos.glob("green*.mp4"))] * 2000
    (tmp_path / "many.csv").write_text("\n".join(["path", *names]))
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "up\n"
        script.nodes("start")
        try:
            process = script.job(tmp_path / "many.csv", LABELS, tmp_path / "out")
            wait_for_parts(tmp_path / "out", 3, process)
            assert decoding_processes(script.environment["PORT"]) == 1, (
                "two cores, of which the model has one"
            )
            script.environment["CPUS"] = "2"
            script.nodes("add")
            until = time.monotonic() + 200
            while decoding_processes(script.environment["PORT"]) < 2:
                assert time.monotonic() < until
                assert process.poll() is None, process.stderr.read().decode()[-3000:]
                time.sleep(0.1)
            process.kill()
            process.communicate()
        finally:
            script.nodes("stop")
        assert other.communicate("\n", timeout=60)[0] == "42\n", "stop ends the script's nodes alone"


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "no-such-host.invalid:6379", "auto"])
def test_an_address_without_a_cluster_is_refused_in_one_line(videos, tmp_path, address) -> None:
    process = tag(*arguments(videos, tmp_path / "out", *MORE, "--address", address))
    _, error = process.communicate(timeout=100)
    assert process.returncode == 2
    (line,) = [line for line in error.decode().splitlines() if line.startswith("openxclip:")]
    assert f"no Ray cluster answers at {address}" in line
    assert b"Traceback" not in error


def test_the_address_of_a_cluster_that_is_gone_is_refused_in_one_line(videos, tmp_path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    words = (*arguments(videos, tmp_path / "out", *MORE), "--address", "auto")
    process = tag(*words, environment={"RAY_TMPDIR": str(tmp_path)})
    _, error = process.communicate(timeout=100)
    assert process.returncode == 2
    (line,) = [line for line in error.decode().splitlines() if line.startswith("openxclip:")]
    assert "no Ray cluster answers at auto" in line
    assert "Connection refused" in line, "the address that was left behind was tried"


@pytest.mark.parametrize(
    "wrong", [{"models": "0"}, {"models": "4-2"}, {"models": "x"}, {"address": "auto"}, {"model_gpus": -1.0}]
)
def test_wrong_settings(wrong) -> None:
    with pytest.raises(InputError):
        RunOptions(**wrong).check()
