"""The Ray engine: the rows of the local one, on one node and on two of which one dies."""

import os
import signal
import time
from pathlib import Path

import pytest
from paths import needs_data
from test_tagging import CRASH_HOOK, arguments, real_clips_and_broken_files, rows_of, tag

from openxclip.cli.main import run
from openxclip.errors import InputError
from openxclip.shapes.examples import example_clips
from openxclip.tagging.options import RunOptions

pytest.importorskip("ray")

pytestmark = [pytest.mark.on_cpu, pytest.mark.slow]

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


def test_a_video_that_kills_its_decoder_is_one_error_row(videos, undisturbed, tmp_path) -> None:
    name = "green ring rising 3.mp4"
    finished(tag(*arguments(videos, tmp_path / "out", *MORE), environment={CRASH_HOOK: name}))
    rows, expected = rows_of(tmp_path / "out"), rows_of(undisturbed)
    (crashed,) = [i for i, row in enumerate(rows) if row["error_kind"] == "crashed"]
    assert rows[crashed]["path"].endswith(name)
    assert [row["labels"] for i, row in enumerate(rows) if i != crashed] == [
        row["labels"] for i, row in enumerate(expected) if i != crashed
    ]


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
        if entry.name.isdigit():
            try:
                name = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::") and b"Map" in name:
                os.kill(int(entry.name), signal.SIGKILL)
                return True
    return False


def test_models_that_leave_no_core_for_decoding_are_refused(videos, tmp_path) -> None:
    process = tag(*arguments(videos, tmp_path / "out", *MORE, "--models", "500"))
    _, error = process.communicate(timeout=200)
    assert process.returncode == 2
    assert b"Lower --models" in error


@pytest.mark.parametrize(
    "wrong", [{"models": "0"}, {"models": "4-2"}, {"models": "x"}, {"address": "auto"}, {"model_gpus": -1.0}]
)
def test_wrong_settings(wrong) -> None:
    with pytest.raises(InputError):
        RunOptions(**wrong).check()
