"""The output of a tagging job: a kill at any step loses no input, and only what jobs wrote is dropped."""

import contextlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openxclip.errors import InputError
from openxclip.tagging import output as output_module
from openxclip.tagging.output import INPUTS, JOB, LOCK, Output, Part
from openxclip.tagging.rows import Layout, by_input, error_row, table
from openxclip.tagging.sources import Source

LAYOUT = Layout(
    labels=("a",), model_id="m", label_set_id="l", top_k=1, embed_dim=None, all_scores=False, content_hash=False,
    extra=(),
)  # fmt: skip
QUESTION = {"top_k": 1}


def rows_of(part: Part) -> pa.Table:
    return table(
        LAYOUT, {i: (error_row(LAYOUT, s, "missing", "no file"),) for i, s in enumerate(part.sources)}
    )


def job(folder: Path, names: str, *, question: dict | None = None, overwrite: bool = False) -> Output:
    """A whole job: an error row for each input, parts of two."""
    output = Output(str(folder))
    with output.alone():
        output.begin(QUESTION if question is None else question, overwrite=overwrite)
        parts = output.parts([Source(f"/{name}.mp4") for name in names], 2)
        output.clean()
        for part in parts:
            if part.name not in output.done():
                output.write(part, rows_of(part))
        output.check_complete(parts)
    return output


def inputs_in(folder: Path) -> str:
    """Names of the inputs whose rows are there."""
    paths = [
        pq.read_table(path, columns=["path"])["path"].to_pylist() for path in sorted(folder.glob("part-*"))
    ]
    return "".join(Path(path).stem for part in paths for path in part)


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("num_steps", range(6))
@pytest.mark.parametrize("step", ["_remove", "_write"])
def test_killed_while_it_begins_anew_no_input_is_lost(num_steps, step, tmp_path, monkeypatch) -> None:
    """The first job knew d and e, which the second one's folder lacks; nothing of it may pass for the second's."""
    folder = tmp_path / "out"
    job(folder, "abcde")
    steps, original = [], getattr(Output, step)

    def killed(output: Output, *words: object) -> None:
        if len(steps) == num_steps:
            raise _Killed
        steps.append(words)
        original(output, *words)

    with monkeypatch.context() as patch:
        patch.setattr(Output, step, killed)
        try:
            job(folder, "bx", question={"top_k": 2}, overwrite=True)
        except _Killed:
            pass
        else:
            assert num_steps >= len(steps) > 1
    left = sorted(path.name for path in folder.glob("part-*"))
    is_refused = bool(left) and inputs_in(folder) != "bx"
    with pytest.raises(InputError, match="--overwrite") if is_refused else contextlib.nullcontext():
        job(folder, "bx", question={"top_k": 2})
    job(folder, "bx", question={"top_k": 2}, overwrite=is_refused)
    assert inputs_in(folder) == "bx"
    assert json.loads((folder / JOB).read_text()) == {"top_k": 2}


def test_a_first_run_that_is_killed_before_it_began_is_begun_anew(tmp_path) -> None:
    output = Output(str(tmp_path / "out"))
    output._write(INPUTS, b"the list is written first")
    job(tmp_path / "out", "ab")
    assert inputs_in(tmp_path / "out") == "ab"


@pytest.mark.parametrize(
    ("lost", "words"), [(INPUTS, "lost the list of its inputs"), (JOB, "without their job")]
)
def test_a_job_that_lost_a_file_is_refused(lost, words, tmp_path) -> None:
    job(tmp_path / "out", "abc")
    (tmp_path / "out" / lost).unlink()
    with pytest.raises(InputError, match=words) as caught:
        job(tmp_path / "out", "ab")
    assert "--overwrite" in str(caught.value)
    assert inputs_in(tmp_path / "out") == "abc"
    job(tmp_path / "out", "ab", overwrite=True)
    assert inputs_in(tmp_path / "out") == "ab"


def test_parts_that_the_list_of_inputs_does_not_know_are_refused(tmp_path) -> None:
    job(tmp_path / "other", "ab")
    job(tmp_path / "out", "abcd")
    (tmp_path / "out" / INPUTS).write_bytes((tmp_path / "other" / INPUTS).read_bytes())
    with pytest.raises(InputError, match=r"part-00000001\.parquet is not a part of this job"):
        job(tmp_path / "out", "ab")


def test_a_part_with_fewer_inputs_than_are_known_is_no_finished_job(tmp_path) -> None:
    output = job(tmp_path / "out", "abc")
    parts = output.parts([], 2)
    output.write(parts[0], rows_of(Part(0, parts[0].sources[:1])))
    with pytest.raises(InputError, match=r"part-00000000\.parquet holds 1 inputs instead of 2"):
        output.check_complete(parts)
    (tmp_path / "out" / "part-00000001.parquet").unlink()
    with pytest.raises(InputError, match=r"part-00000001\.parquet is missing"):
        output.check_complete(parts[1:])


def test_overwrite_drops_what_jobs_wrote_and_nothing_else(tmp_path) -> None:
    folder = tmp_path / "out"
    job(folder, "abc")
    (folder / "_job" / "notes.txt").write_text("mine")
    (folder / "_job" / ".inputs.parquet.0a1b2c3d").write_text("half")
    (folder / ".part-00000000.parquet.0a1b2c3d").write_text("half")
    job(folder, "d", overwrite=True)
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert left == sorted([INPUTS, JOB, LOCK, "_job/notes.txt", "part-00000000.parquet"])
    pq.write_table(pa.table({"mine": [1]}), folder / "part-00000007.parquet")
    before = inputs_in(folder / "none")
    with pytest.raises(InputError, match=r"part-00000007\.parquet is damaged, or was not written by a job"):
        job(folder, "e", overwrite=True)
    assert (folder / JOB).exists()
    assert pq.read_table(folder / "part-00000007.parquet").to_pylist() == [{"mine": 1}]
    assert before == ""


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_part_that_no_job_wrote_is_refused_by_name(overwrite, tmp_path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    pq.write_table(pa.table({"mine": [1]}), folder / "part-00000000.parquet")
    with pytest.raises(InputError, match=r"holds no job, but part-00000000\.parquet"):
        job(folder, "a", overwrite=overwrite)
    assert [path.name for path in folder.iterdir()] == ["part-00000000.parquet"], "nothing is left in it"


@pytest.mark.parametrize("content", [b"", b"half", b"[1]", b"PAR1" + bytes(30) + b"PAR1"])
@pytest.mark.parametrize("name", [JOB, INPUTS])
def test_a_damaged_job_is_named(name, content, tmp_path) -> None:
    job(tmp_path / "out", "abc")
    (tmp_path / "out" / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is damaged"):
        job(tmp_path / "out", "abc")
    job(tmp_path / "out", "abc", overwrite=True)


def test_one_output_by_two_names_is_held_once(tmp_path, monkeypatch) -> None:
    (tmp_path / "link").symlink_to("out")
    monkeypatch.chdir(tmp_path)
    with Output(str(tmp_path / "out")).alone():
        for name in ("link", "./out", f"{tmp_path}/link/", f"file://{tmp_path}/out"):
            monkeypatch.setenv("TMPDIR", str(tmp_path / name.replace("/", "_")))
            with pytest.raises(InputError, match="another job"), Output(name).alone():
                pass
    with Output("link").alone():
        pass


def test_an_output_that_nothing_knows_is_one_line() -> None:
    for address in ("nothing://x", "nothing://x/y"):
        with pytest.raises(InputError, match="cannot be used as output"):
            Output(address)


@pytest.mark.filterwarnings("ignore")
def test_an_object_store_that_does_not_answer_is_one_line(monkeypatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(InputError, match=r"s3://bucket/out cannot be used \(EndpointConnectionError"):
            Output("s3://bucket/out").begin({}, overwrite=False)
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("group_bytes", [1, 1 << 30])
@pytest.mark.parametrize("address", ["{folder}", "memory://tagging-output-{group_bytes}"])
def test_a_part_is_written_in_the_order_of_its_inputs(group_bytes, address, tmp_path, monkeypatch) -> None:
    """They come in another."""
    monkeypatch.setattr(output_module, "GROUP_BYTES", group_bytes)
    output = Output(address.format(folder=tmp_path / "out", group_bytes=group_bytes))
    part = Part(0, tuple(Source(f"/{name}.mp4") for name in "abcd"))
    whole = rows_of(part)
    with output.writing(part, LAYOUT.schema()) as writer:
        for number in (1, 3, 0, 2):
            writer.add(number, by_input(whole)[number])
            assert output.done() == set()
    assert output.read(part).equals(whole)
    assert output.count([part.name]) == (4, 4)
    output.check_complete([part])


def test_a_part_that_breaks_off_leaves_nothing(tmp_path) -> None:
    output = Output(str(tmp_path / "out"))
    part = Part(0, (Source("/a.mp4"), Source("/b.mp4")))

    def break_off() -> None:
        with output.writing(part, LAYOUT.schema()) as writer:
            writer.add(0, by_input(rows_of(part))[0])
            raise InputError("no decoders")

    with pytest.raises(InputError):
        break_off()
    assert list((tmp_path / "out").iterdir()) == []


def test_work_of_a_folder_moves_with_it(tmp_path) -> None:
    """Nothing but the folder itself says what is done."""
    job(tmp_path / "out", "abc")
    os.rename(tmp_path / "out", tmp_path / "moved")  # noqa: PTH104
    job(tmp_path / "moved", "abcd")
    assert inputs_in(tmp_path / "moved") == "abcd"
