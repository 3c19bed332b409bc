"""Tagging many videos: every input exactly once, whatever happens on the way."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from paths import DATA, needs_data
from videos import write_video

import openxclip
from openxclip.cli.main import run
from openxclip.durations import seconds_of
from openxclip.errors import InputError, VideoError
from openxclip.inference.engine import Engine
from openxclip.inference.views import Views
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.tagging.decoding import Piece, Plan, decode, spans_of
from openxclip.tagging.options import RowOptions, RunOptions
from openxclip.tagging.output import Output
from openxclip.tagging.sources import Source, list_sources, source_at
from openxclip.tagging.tag import Job
from openxclip.tagging.workers import CRASH_HOOK, Decoders, _Worker
from openxclip.text.label_texts import LabelTexts
from openxclip.video.source import VideoLimits
from openxclip.video.transforms import Preprocessor

pytestmark = pytest.mark.on_cpu

LABELS = ", ".join(EXAMPLE_LABELS)
MODEL = ["--model", "openxclip-tiny", "--dtype", "float32"]
NUM_BROKEN = 4


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Twelve clips in two folders, and four files that are none."""
    folder = tmp_path_factory.mktemp("inputs") / "videos"
    for copy in ("a", "b"):
        (folder / copy).mkdir(parents=True)
        for clip in example_clips():
            (folder / copy / f"{clip.kind.name}.mp4").write_bytes(clip.encode())
    good = (folder / "a" / "green ring rising.mp4").read_bytes()
    for number, content in enumerate((b"", b"no video", good[:700], bytes(5000))):
        (folder / f"broken {number}.mp4").write_bytes(content)
    (folder / "notes.txt").write_text("not a video")
    (folder / ".hidden.mp4").write_text("not a video")
    return folder


def arguments(inputs: object, output: object, *more: str) -> list[str]:
    return [
        "tag",
        str(inputs),
        "--labels",
        LABELS,
        *MODEL,
        "--output",
        str(output),
        "--part-size",
        "3",
        *more,
    ]


def rows_of(output: Path) -> list[dict]:
    """All rows in the order of the parts."""
    return [row for path in sorted(output.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


def tag(*words: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    command = [sys.executable, "-m", "openxclip", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | (environment or {})
    )


@pytest.fixture(scope="module")
def undisturbed(videos, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("outputs") / "undisturbed"
    assert run(arguments(videos, output)) == 1, "some inputs are broken"
    return output


# --- what is written ----------------------------------------------------------------------------------------------


def test_every_input_is_one_row_with_what_predict_says(videos, undisturbed) -> None:
    rows = rows_of(undisturbed)
    files = sorted(str(path) for path in videos.rglob("[!.]*.mp4"))
    assert [row["path"] for row in rows] == files
    source = openxclip.ModelSource(source="openxclip-tiny", dtype="float32")
    recognizer = openxclip.Recognizer.from_pretrained(source, EXAMPLE_LABELS)
    for row, expected in zip(rows, recognizer.predict(files), strict=True):
        if expected.error:
            assert (row["error_kind"], row["labels"]) == ("unreadable", None)
            assert row["error"]
            continue
        assert row["labels"] == [label for label, _ in expected.scores]
        assert np.allclose(row["scores"], [score for _, score in expected.scores], atol=1e-6)
        assert (row["width"], row["height"], row["codec"], row["fps"]) == (128, 128, "h264", 16)
        assert (row["start_seconds"], row["end_seconds"], row["duration_seconds"]) == (0, 2, 2)
        assert row["error_kind"] is None
    assert sum(row["error_kind"] is not None for row in rows) == NUM_BROKEN
    assert len({row["model_id"] for row in rows}) == len({row["label_set_id"] for row in rows}) == 1


def test_columns_on_request(videos, tmp_path) -> None:
    output = tmp_path / "out"
    assert (
        run(arguments(videos / "a", output, "--embedding", "--all-scores", "--content-hash", "--top-k", "2"))
        == 0
    )
    table = pa.concat_tables([pq.read_table(path) for path in sorted(output.glob("part-*"))])
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 64)
    assert table.schema.field("all_scores").type == pa.list_(pa.float32(), 12)
    assert table.schema.metadata[b"openxclip_schema_version"] == b"1"
    rows = table.to_pylist()
    assert all(len(row["labels"]) == 2 for row in rows)
    assert len({row["content_hash"] for row in rows}) == 6
    lengths = [np.linalg.norm(np.array(row["embedding"], float)) for row in rows]
    assert np.allclose(lengths, 1, atol=1e-3)
    for row in rows:
        assert sum(row["all_scores"]) == pytest.approx(1, abs=1e-5)
        assert row["scores"] == sorted(row["all_scores"], reverse=True)[:2]


def test_common_readers_read_it(videos, tmp_path, undisturbed) -> None:
    duckdb, pandas, polars = (pytest.importorskip(name) for name in ("duckdb", "pandas", "polars"))
    expected = [row["path"] for row in rows_of(undisturbed)]
    pattern = str(undisturbed / "*.parquet")
    assert pandas.read_parquet(undisturbed)["path"].tolist() == expected
    assert polars.read_parquet(pattern)["path"].to_list() == expected
    found = duckdb.sql(f"select path, labels[1] as best from '{pattern}' order by path").fetchall()
    assert [path for path, _ in found] == sorted(expected)
    count = duckdb.sql(f"select count(*) from '{pattern}' where error_kind is null").fetchall()
    assert count == [(12,)]


# --- inputs ------------------------------------------------------------------------------------------------------


def test_manifests_keep_their_columns(videos, tmp_path) -> None:
    paths = sorted((videos / "a").glob("*.mp4"))[:3]
    records = [{"path": str(path), "camera": f"cam{i}", "day": i} for i, path in enumerate(paths)]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "camera", "day"])
        writer.writeheader()
        writer.writerows(records)
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "list.parquet")
    for name, kind in (("list.csv", str), ("list.jsonl", int), ("list.parquet", int)):
        output = tmp_path / f"{name}.out"
        assert run(arguments(tmp_path / name, output)) == 0
        rows = rows_of(output)
        assert [row["camera"] for row in rows] == ["cam0", "cam1", "cam2"]
        assert [row["day"] for row in rows] == [kind(i) for i in range(3)]


def test_columns_of_any_type_are_kept(videos, tmp_path) -> None:
    path = str(videos / "a" / "green ring rising.mp4")
    first = {
        "path": path,
        "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "day": date(2026, 1, 2),
        "tags": ["a", "b"],
        "place": {"name": "here", "xy": [1.5, 2.5]},
        "raw": b"\x00\xff",
        "none": None,
    }
    second = {**first, "when": None, "tags": [], "place": None}
    pq.write_table(pa.Table.from_pylist([first, second]), tmp_path / "list.parquet")
    for _ in range(2):  # the second time from what the job keeps
        assert run(arguments(tmp_path / "list.parquet", tmp_path / "out")) == 0
        assert [{name: row[name] for name in first} for row in rows_of(tmp_path / "out")] == [first, second]
        (tmp_path / "out" / "part-00000000.parquet").unlink()


def test_addresses_of_the_web_are_inputs(videos, tmp_path) -> None:
    pytest.importorskip("aiohttp")
    handler = partial(QuietHandler, directory=str(videos / "a"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        lines = ["path", f"{address}/green%20ring%20rising.mp4", f"{address}/none.mp4"]
        (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
        found = tag(*arguments(tmp_path / "list.csv", tmp_path / "out"))
        _, error = found.communicate(timeout=120)
        assert found.returncode == 1, error
        server.shutdown()
    good, missing = rows_of(tmp_path / "out")
    assert good["labels"][0] == "green ring rising"
    assert (missing["path"], missing["error_kind"]) == (lines[2], "missing")


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *words: object) -> None:
        pass


def test_paths_of_a_manifest_are_relative_to_it_and_may_repeat(videos, tmp_path) -> None:
    (videos.parent / "list.csv").write_text(
        "video\nvideos/a/green ring rising.mp4\nvideos/a/green ring rising.mp4\n"
    )
    assert run(arguments(videos.parent / "list.csv", tmp_path / "out")) == 0
    rows = rows_of(tmp_path / "out")
    assert [row.pop("input_number") for row in rows] == [0, 1]
    assert rows[0] == rows[1]


def test_tar_shards(videos, tmp_path) -> None:
    for shard, folder in enumerate(("a", "b")):
        with tarfile.open(tmp_path / f"{shard:03d}.tar", "w") as tar:
            for path in sorted((videos / folder).glob("*.mp4")):
                tar.add(path, path.name)
                (tmp_path / "meta.json").write_text("{}")
                tar.add(tmp_path / "meta.json", path.stem + ".json")
    assert run(arguments(tmp_path / "*.tar", tmp_path / "out")) == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 12
    assert rows[0]["path"] == f"{tmp_path}/000.tar::{sorted(p.name for p in (videos / 'a').glob('*'))[0]}"
    best = {row["path"].rpartition("::")[2]: row["labels"][0] for row in rows}
    assert best["green ring rising.mp4"] == "green ring rising"


@pytest.fixture(scope="module")
def store():
    """A real S3-compatible server on loopback."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        import fsspec

        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.mark.filterwarnings("ignore")
def test_an_object_store_holds_inputs_and_output(store, videos, undisturbed) -> None:
    import fsspec

    system = fsspec.filesystem("s3")
    system.put(f"{videos}/a", "bucket/videos/a", recursive=True)
    system.pipe_file("bucket/videos/broken.mp4", b"no video")
    first = tag(*arguments(f"{store}/videos", f"{store}/out"))
    assert first.wait(120) == 1, first.stderr.read()
    names = sorted(name.rpartition("/")[2] for name in system.glob("bucket/out/*.parquet"))
    assert names == ["part-00000000.parquet", "part-00000001.parquet", "part-00000002.parquet"]
    rows = [row for name in names for row in pq.read_table(system.open(f"bucket/out/{name}")).to_pylist()]
    assert [row["path"] for row in rows][:1] == [f"{store}/videos/a/cyan cross bouncing.mp4"]
    local = {Path(row["path"]).name: row["scores"] for row in rows_of(undisturbed)}
    for row in rows[:-1]:
        assert np.allclose(row["scores"], local[row["path"].rpartition("/")[2]], atol=1e-6)
    assert rows[-1]["error_kind"] == "unreadable"
    again = tag(*arguments(f"{store}/videos", f"{store}/out"), "--json")
    assert again.wait(120) == 1
    assert json.loads(again.stdout.read())["num_computed"] == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name\na\n", "path, video, file"),
        ("path,error\na.mp4,x\n", "'error'"),
        ("", "no rows"),
        ("path,n\n,1\n", "row 1"),
        ("path,n\na.mp4,1\na.mp4,1,2\n", "row 2: it has more values"),
        ('{"path": "a.mp4"}\n["a.mp4"]\n', "line 2: it must be an object"),
        ('{"path": "a.mp4"}\n\n{"path": \n', "line 3: invalid JSON"),
        ('{"path": "a.mp4", "n": 1}\n{"path": "b.mp4", "n": "x"}\n', "'n' cannot be kept"),
        ('{"path": "a.mp4", "n": {}}\n', "'n' cannot be kept"),
    ],
)
def test_a_wrong_manifest_is_one_line(content, words, tmp_path, capsys) -> None:
    name = "list.jsonl" if content.startswith("{") else "list.csv"
    (tmp_path / name).write_text(content)
    assert run(arguments(tmp_path / name, tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert words in error.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_nothing_to_tag_is_one_line(tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    for inputs in (tmp_path / "none", tmp_path / "empty", "nothing://x/y"):
        assert run(arguments(inputs, tmp_path / "out")) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert run(arguments(tmp_path, "nothing://x/y")) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# --- exactly once ---------------------------------------------------------------------------------------------------


def killed_and_finished(inputs: Path, output: Path, num_kills: int, *more: str) -> int:
    """Kill the job at random moments, then let it finish -> how often it was killed before it was done.

    The moments are shares of what a whole job takes here: a quick machine would be done before any fixed one.
    """
    started = time.monotonic()
    tag(*arguments(inputs, output.with_name("whole"), *more)).communicate(timeout=600)
    seconds = min(time.monotonic() - started, 8.0)
    moments, killed = random.Random(0), 0
    for _ in range(num_kills):
        process = tag(*arguments(inputs, output, *more))
        time.sleep(moments.uniform(0.3, 0.75) * seconds)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait(60)
        process.stdout.close()
        process.stderr.close()
    last = tag(*arguments(inputs, output, *more))
    _, error = last.communicate(timeout=600)
    assert last.returncode == 1, error.decode()
    return killed


def test_killed_at_random_moments_it_goes_on(videos, undisturbed, tmp_path) -> None:
    output = tmp_path / "out"
    assert killed_and_finished(videos, output, 3) >= 1
    assert rows_of(output) == rows_of(undisturbed)
    assert not [path.name for path in output.rglob(".*")], "nothing half-written is left under any name"


@pytest.mark.slow
@needs_data("ucf8/videos")
def test_real_clips_killed_ten_times(tmp_path) -> None:
    """The clips of ucf8 and 20 broken files: rows equal those of an undisturbed run, and 20 errors are named."""
    inputs = real_clips_and_broken_files(tmp_path / "inputs")
    more = ("--part-size", "16")
    assert run(arguments(inputs, tmp_path / "undisturbed", *more)) == 1
    killed = killed_and_finished(inputs, tmp_path / "out", 10, *more)
    rows = rows_of(tmp_path / "out")
    assert rows == rows_of(tmp_path / "undisturbed")
    assert sum(row["error_kind"] is not None for row in rows) == 20
    print(f"{len(rows)} rows, killed {killed} times")


def real_clips_and_broken_files(folder: Path) -> Path:
    """The clips of ucf8, and 20 files that are none."""
    folder.mkdir()
    for path in (DATA / "ucf8" / "videos").rglob("*.*"):
        (folder / path.name).symlink_to(path)
    whole = min(folder.iterdir()).read_bytes()
    for number in range(20):
        (folder / f"broken_{number}.avi").write_bytes(whole[: 40 * number])
    return folder


def test_another_question_is_refused_and_overwrite_begins_anew(videos, tmp_path, capsys) -> None:
    output = tmp_path / "out"
    assert run(arguments(videos / "a", output)) == 0
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")}
    for change, word in ((["--top-k", "2"], "top_k"), (["--templates", "video"], "label_set"),
                         (["--frames", "4"], "frames"), (["--windows", "1s"], "windows"),
                         (["--shortlist", "3"], "shortlist"), (["--int8"], "int8"),
                         (["--max-seconds", "1"], "max_seconds"),
                         (["--max-frame-px", "100"], "max_frame_px")):  # fmt: skip
        assert run(arguments(videos / "a", output, *change)) == 2
        error = capsys.readouterr().err
        assert word in error
        assert "--overwrite" in error
    assert {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")} == before
    assert run(arguments(videos / "a", output, "--top-k", "2", "--overwrite")) == 0
    assert all(len(row["labels"]) == 2 for row in rows_of(output))
    (output / "notes.txt").write_text("mine")
    assert run(arguments(videos / "a", output, "--overwrite")) == 0
    assert (output / "notes.txt").read_text() == "mine", "only what jobs wrote is dropped"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("not a job")
    assert run(arguments(videos / "a", tmp_path / "mine", "--overwrite")) == 2
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "not a job"


def test_new_files_are_added_and_errors_tried_again(tmp_path, capsys) -> None:
    folder, output = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    clips = [clip.encode() for clip in example_clips()]
    for i in range(4):
        (folder / f"{i}.mp4").write_bytes(clips[i] if i != 2 else b"still being copied")
    assert run(arguments(folder, output)) == 1
    before = rows_of(output)
    (folder / "0a.mp4").write_bytes(clips[4])  # sorts among the others, and still comes behind them
    (folder / "2.mp4").write_bytes(clips[2])
    assert run(arguments(folder, output)) == 1
    rows = rows_of(output)
    assert rows[:4] == before
    assert [Path(row["path"]).name for row in rows] == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "0a.mp4"]
    capsys.readouterr()
    assert run([*arguments(folder, output), "--retry-errors", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["num_computed"], summary["num_rows"], summary["num_errors"]) == (1, 5, 0)
    healed = rows_of(output)
    assert [row for row in healed if not row["path"].endswith("2.mp4")] == [
        row for row in rows if not row["path"].endswith("2.mp4")
    ]
    assert healed[2]["labels"][0] == "purple bar growing"


def test_what_a_kill_leaves_does_not_stop_the_next_run(videos, tmp_path) -> None:
    output = tmp_path / "out"
    (output / "_job").mkdir(parents=True)
    (output / "_job" / ".job.json.0a1b2c3d").write_text("{")
    (output / ".part-00000000.parquet.0a1b2c3d").write_text("half")
    assert run(arguments(videos / "a", output)) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "_job",
        "part-00000000.parquet",
        "part-00000001.parquet",
    ]


def test_errors_tried_again_keep_the_windows_of_the_others(tmp_path) -> None:
    """One frame a second and windows of half the stride: several begin close to each other."""
    write_video(tmp_path / "0.mp4", num_frames=5, fps=1)
    (tmp_path / "1.mp4").write_bytes(b"no video yet")
    write_video(tmp_path / "2.mp4", num_frames=40, fps=10)
    (tmp_path / "list.csv").write_text("path\n0.mp4\n1.mp4\n2.mp4\n")
    more = ("--windows", "1s", "--stride", "0.5s")
    assert run(arguments(tmp_path / "list.csv", tmp_path / "out", *more)) == 1
    before = [row for row in rows_of(tmp_path / "out") if row["error"] is None]
    assert run(arguments(tmp_path / "list.csv", tmp_path / "out", *more, "--retry-errors")) == 1
    rows = rows_of(tmp_path / "out")
    assert [row for row in rows if row["error"] is None] == before
    assert [row["path"] for row in rows if row["error"] is not None] == [str(tmp_path / "1.mp4")]


def test_errors_tried_again_take_corrected_columns(tmp_path, capsys) -> None:
    clips = [clip.encode() for clip in example_clips()]
    for i in range(3):
        (tmp_path / f"{i}.mp4").write_bytes(b"not yet" if i == 1 else clips[i])

    def tagged(cameras: str, *more: str) -> list[str]:
        rows = "".join(f"{i}.mp4,{camera}\n" for i, camera in enumerate(cameras))
        (tmp_path / "list.csv").write_text("path,camera\n" + rows)
        run(arguments(tmp_path / "list.csv", tmp_path / "out", *more))
        return [row["camera"] for row in rows_of(tmp_path / "out")]

    assert tagged("xyz") == ["x", "y", "z"]
    before = rows_of(tmp_path / "out")
    (tmp_path / "1.mp4").write_bytes(clips[1])
    assert tagged("abc") == ["x", "y", "z"]
    assert tagged("abc", "--retry-errors") == ["x", "b", "z"]
    rows = rows_of(tmp_path / "out")
    assert [rows[0], rows[2]] == [before[0], before[2]]
    assert rows[1]["labels"][0] == "green ring rising"


def test_a_finished_job_without_one_of_its_parts_has_no_summary(videos, tmp_path) -> None:
    source = openxclip.ModelSource(source="openxclip-tiny", dtype="float32")
    texts = LabelTexts(labels=EXAMPLE_LABELS)
    job = Job(Engine.load(source), source, texts, str(tmp_path / "out"), run=RunOptions(part_size=1))
    steps = job.run(str(videos / "a"))
    next(steps)
    steps.close()
    with pytest.raises(InputError, match=r"part-00000000\.parquet is missing"):
        job.summary()


def test_a_damaged_part_is_named(videos, tmp_path, capsys) -> None:
    assert run(arguments(videos / "a", tmp_path / "out")) == 0
    part = tmp_path / "out" / "part-00000001.parquet"
    part.write_bytes(part.read_bytes()[:100])
    assert run(arguments(videos / "a", tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert f"{part} is damaged" in error
    assert "delete it" in error
    part.unlink()
    assert run(arguments(videos / "a", tmp_path / "out")) == 0
    assert len(rows_of(tmp_path / "out")) == 6


def test_two_jobs_do_not_write_one_output(videos, tmp_path, capsys) -> None:
    output = Output(str(tmp_path / "out"))
    with output.alone():
        assert run(arguments(videos / "a", tmp_path / "out")) == 2
        assert "another job" in capsys.readouterr().err
    assert run(arguments(videos / "a", tmp_path / "out")) == 0


def test_odd_names_are_inputs_like_others(videos, tmp_path) -> None:
    folder = tmp_path / "vid [2024]"
    folder.mkdir()
    good = (videos / "a" / "green ring rising.mp4").read_bytes()
    for name in ("it's, \u00e4 \U0001f3ac.mp4", "two\nlines.mp4", "a::b.mp4", "c.tar::d.mp4"):
        (folder / name).write_bytes(good)
    Path(os.fsdecode(os.fsencode(str(folder)) + b"/\xff.mp4")).write_bytes(good)
    assert run(arguments(folder, tmp_path / "out")) == 1
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 5
    assert [row["error_kind"] for row in rows].count(None) == 4
    assert all(source_at(row["path"]).offset_bytes is None for row in rows)
    assert [row["path"] for row in rows if row["error_kind"]] == [f"{folder}/\\udcff.mp4"]


# --- decoders that die ----------------------------------------------------------------------------------------------


def test_a_video_that_kills_its_decoder_is_one_error_row(videos, undisturbed, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(CRASH_HOOK, "a/green ring rising.mp4")
    assert run(arguments(videos, tmp_path / "out")) == 1
    rows, expected = rows_of(tmp_path / "out"), rows_of(undisturbed)
    (crashed,) = [i for i, row in enumerate(rows) if row["error_kind"] == "crashed"]
    assert rows[crashed]["path"].endswith("a/green ring rising.mp4")
    for i, (row, right) in enumerate(zip(rows, expected, strict=True)):
        if i == crashed:
            continue
        assert (row["path"], row["labels"], row["error_kind"]) == (
            right["path"],
            right["labels"],
            right["error_kind"],
        )
        if row["scores"] is not None:  # another batch: the last bits may differ
            assert np.allclose(row["scores"], right["scores"], atol=1e-6)


def test_the_second_try_of_a_video_is_alone(tmp_path, monkeypatch) -> None:
    """While it is decoded again no other is."""
    monkeypatch.setenv(CRASH_HOOK, "bad.mp4")
    pieces = [
        Piece(number=n, source=Source(str(write_video(tmp_path / name))))
        for n, name in enumerate(("bad.mp4", *(f"{i}.mp4" for i in range(8))))
    ]
    working: list[str] = []
    beside_the_second: list[list[str]] = []
    decode_by = _Worker.decode

    def watched(worker: _Worker, piece: Piece, max_seconds: float) -> tuple:
        name = Path(piece.source.path).name
        if name == "bad.mp4" and tries.append(name) is None and len(tries) == 2:
            beside_the_second.append(list(working))
        assert not (name != "bad.mp4" and "bad.mp4" in working and len(tries) == 2)
        working.append(name)
        try:
            return decode_by(worker, piece, max_seconds)
        finally:
            working.remove(name)

    tries: list[str] = []
    monkeypatch.setattr(_Worker, "decode", watched)
    with Decoders(PLAN, 3, max_seconds=60) as decoders, ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(decoders.read, piece) for piece in pieces]
        with pytest.raises(VideoError, match="died, twice"):
            futures[0].result()
        assert all(future.result().shape == (6, 4, 3, 32, 32) for future in futures[1:])
    assert tries == ["bad.mp4", "bad.mp4"]
    assert beside_the_second == [[]]


PLAN = Plan(
    preprocess=Preprocessor.official(32),
    num_frames=4,
    views=Views(2, 3),
    window_seconds=None,
    stride_seconds=None,
    content_hash=False,
    limits=VideoLimits(),
)


def test_a_decoder_that_hangs_is_ended(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it waits for a writer that never comes
    good = Piece(number=1, source=Source(str(write_video(tmp_path / "good.mp4"))))
    with Decoders(PLAN, 1, max_seconds=20) as decoders:
        assert decoders.read(good).shape == (6, 4, 3, 32, 32)
        decoders._max_seconds = 1
        with pytest.raises(VideoError, match="longer than 1 s") as caught:
            decoders.read(Piece(number=0, source=Source(str(tmp_path / "pipe.mp4"))))
        assert caught.value.kind == "too-slow"
        decoders._max_seconds = 20
        assert decoders.read(good).shape == (6, 4, 3, 32, 32)
        with pytest.raises(VideoError) as caught:
            decoders.read(Piece(number=2, source=Source(str(tmp_path / "none.mp4"))))
        assert caught.value.kind == "missing"


# --- windows ---------------------------------------------------------------------------------------------------------


def test_windows_are_rows_with_the_scores_of_their_stretch(tmp_path) -> None:
    """Two clips in one file: the first half shows one, the second the other."""
    rising, growing = (example_clips()[i].frames(np.arange, 128) for i in (1, 2))
    video = write_video(tmp_path / "both.mp4", frames=[*rising, *growing], fps=16, bit_rate=4_000_000)
    assert run(arguments(video, tmp_path / "out", "--windows", "2s", "--stride", "1s")) == 0
    rows = rows_of(tmp_path / "out")
    assert [(row["start_seconds"], row["end_seconds"]) for row in rows] == [(0, 2), (1, 3), (2, 4)]
    assert rows[0]["labels"][0] == "green ring rising"
    assert rows[2]["labels"][0] == "purple bar growing"
    assert {row["duration_seconds"] for row in rows} == {4}


def test_a_long_video_is_read_in_pieces_and_comes_out_in_order(tmp_path) -> None:
    video = write_video(tmp_path / "long.mp4", num_frames=400, fps=20, width=64, height=48)
    short = write_video(tmp_path / "short.mp4", num_frames=20, fps=20)
    (tmp_path / "list.csv").write_text(f"path\n{video}\n{short}\n")
    assert (
        run(arguments(tmp_path / "list.csv", tmp_path / "out", "--windows", "0.2s", "--stride", "0.1s")) == 0
    )
    rows = rows_of(tmp_path / "out")
    starts = [row["start_seconds"] for row in rows if row["path"] == str(video)]
    assert len(starts) == 199
    assert starts == sorted(starts)
    assert [row["path"] for row in rows] == [str(video)] * 199 + [str(short)] * 9


@pytest.mark.parametrize(
    ("window", "stride", "expected"),
    [
        (4.0, 2.0, [(0, 40), (20, 60), (40, 80), (60, 100)]),
        (20.0, 20.0, [(0, 100)]),
        (3.0, 3.0, [(0, 30), (30, 60), (60, 90), (90, 100)]),
        (0.05, 5.0, [(0, 1), (50, 51)]),
    ],
)
def test_spans(window, stride, expected) -> None:
    plan = replace(PLAN, window_seconds=window, stride_seconds=stride)
    assert spans_of(plan, 100, 10.0) == expected


def test_each_window_decodes_the_frames_that_its_own_video_would(tmp_path) -> None:
    video = write_video(tmp_path / "a.mp4", num_frames=40, fps=10)
    plan = replace(PLAN, window_seconds=2.0, stride_seconds=1.0)
    pixels, facts = decode(Piece(number=0, source=Source(str(video))), plan)
    whole, _ = decode(Piece(number=0, source=Source(str(video))), replace(PLAN, num_frames=40, views=Views()))
    assert pixels.shape == (3, 6, 4, 3, 32, 32)
    assert facts.windows == ((0.0, 2.0), (1.0, 3.0), (2.0, 4.0))
    indices = 10 + Views(2, 3).indices(20, 4)
    plain, _ = decode(Piece(number=0, source=Source(str(video))), replace(plan, views=Views(2, 1)))
    assert np.array_equal(plain[1], whole[0, 0][indices])


@pytest.mark.parametrize(("text", "seconds"), [("4s", 4), ("0.5", 0.5), ("2m", 120), (" 3 s ", 3)])
def test_lengths(text, seconds) -> None:
    assert seconds_of("--windows", text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "0s", "1h", "4 seconds"])
def test_wrong_lengths(text) -> None:
    with pytest.raises(InputError, match="--windows"):
        RowOptions(windows=text).check()


def test_wrong_settings() -> None:
    for options in (
        RowOptions(top_k=0),
        RowOptions(stride="1s"),
        RunOptions(part_size=0),
        RunOptions(decoders=0),
    ):
        with pytest.raises(InputError):
            options.check()


# --- in Python ---


def test_inputs_and_parts_are_listed_the_same_each_time(videos, tmp_path) -> None:
    sources = list_sources(str(videos))
    assert sources == list_sources(str(videos))
    output = Output(str(tmp_path / "out"))
    output.begin({"a": 1}, overwrite=False)
    parts = output.parts(sources, 5)
    assert [len(part.sources) for part in parts] == [5, 5, 5, 1]
    assert output.parts(sources, 7) == parts
    assert [source for part in parts for source in part.sources] == sources
