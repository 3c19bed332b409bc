"""The Ray engine: the rows of the local one, on one node and on two of which one dies."""

import os
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch
from paths import needs_data
from test_tagging import CRASH_HOOK, arguments, real_clips_and_broken_files, rows_of, tag
from videos import write_video

from openxclip.checkpoints.source import ModelSource
from openxclip.cli.main import run
from openxclip.errors import InputError
from openxclip.inference.engine import Engine
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.tagging.options import RowOptions, RunOptions
from openxclip.tagging.output import Part
from openxclip.tagging.sources import list_sources
from openxclip.tagging.tag import Job
from openxclip.text.label_texts import LabelTexts

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
    decoder, model = ray_engine._Decoder(work), ray_engine._Model(work)
    bundles = [model(row) for row in decoder({"part": pickle.dumps(part)})]
    decoder.decoders.__exit__()
    done = [pickle.loads(bundle["done"]) for bundle in bundles]
    assert len(done) > 3
    assert not ray_engine._are_all(done[:-1])
    assert not ray_engine._are_all(done[1:])
    joined = ray_engine._joined(part, done[::-1])
    assert joined.errors == {"unreadable": 1}
    assert joined.video_seconds == pytest.approx(70 + 3 + 40)
    assert_alike(joined.table.to_pylist(), expected)

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
    joined = ray_engine._joined(Part(0, ()), [last, first])
    assert joined.table.to_pylist() == [
        {"input_number": 0, "error_kind": None},
        {"input_number": 1, "error_kind": "crashed"},
        {"input_number": 2, "error_kind": None},
    ]
    assert (joined.errors, joined.video_seconds) == ({"crashed": 1}, 3.0)


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
