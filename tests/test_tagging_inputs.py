"""What a tagging job is asked for: listings that lose nothing, and the manifest's own columns."""

import decimal
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openxclip.errors import InputError, VideoError
from openxclip.tagging.output import Output
from openxclip.tagging.rows import extra_columns
from openxclip.tagging.sources import Source, absolute, extra_table, list_sources, source_at


def paths_of(address: object) -> list[str]:
    return [source.path for source in list_sources(str(address))]


def problems_of(address: object) -> dict[str, str]:
    """Path -> problem, of inputs that have one."""
    return {source.path: source.problem for source in list_sources(str(address)) if source.problem}


def write_tar(path: Path, *members: str, content: bytes = b"a video") -> Path:
    with tarfile.open(path, "w") as tar:
        for name in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def began(output: Path, sources: list[Source], part_size: int = 2) -> list[str]:
    """Paths of a job's inputs, after it began or went on."""
    job = Output(str(output))
    job.begin({}, overwrite=False)
    return [source.path for part in job.parts(sources, part_size) for source in part.sources]


# --- paths -----------------------------------------------------------------------------------------------------------


def test_an_input_is_the_same_by_every_spelling_of_its_path(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v" / "deep").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4", "deep/c.mp4"):
        (tmp_path / "v" / name).touch()
    write_tar(tmp_path / "v" / "s.tar", "d.mp4")
    (tmp_path / "link").symlink_to("v")
    (tmp_path / "list.csv").write_text("path\nv/a.mp4\n./v/b.mp4\nv/../v/deep/c.mp4\nv/s.tar::d.mp4\n")
    expected = [f"{tmp_path}/v/{name}" for name in ("a.mp4", "b.mp4", "deep/c.mp4", "s.tar::d.mp4")]
    spellings = ("v", "./v", "v/", str(tmp_path / "v"), f"file://{tmp_path}/v", "list.csv", "link", "../*/v")
    for spelling in spellings:
        assert began(tmp_path / "out", list_sources(spelling)) == expected, spelling
    monkeypatch.chdir(tmp_path / "v")
    assert paths_of("a.mp4") == paths_of("../v/*.mp4")[:1] == expected[:1]
    assert absolute(Source("deep/../a.mp4")) == Source(expected[0])
    with Source(expected[3], *_place(expected[3])).open() as file:
        assert file.read() == b"a video"


def _place(path: str) -> tuple[int | None, int | None]:
    source = source_at(path)
    return source.offset_bytes, source.size_bytes


def test_symlinked_folders_are_entered_once(tmp_path) -> None:
    (tmp_path / "v" / "real").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("v/real/a.mp4", "elsewhere/b.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "v" / "again").symlink_to(tmp_path / "v" / "real")
    (tmp_path / "v" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "v")
    assert paths_of(tmp_path / "v") == [f"{tmp_path}/v/link/b.mp4", f"{tmp_path}/v/real/a.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "a.mp4").touch()
    assert list(problems_of(tmp_path)) == [f"{tmp_path}/closed"]


def test_entries_of_a_manifest_may_begin_with_a_tilde(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Path("~x.mp4").write_bytes(b"x")
    Path("list.csv").write_text("path\n~x.mp4\n~/y.mp4\n")
    assert paths_of("list.csv") == [f"{tmp_path}/~x.mp4", f"{tmp_path}/home/y.mp4"]
    assert paths_of("~x.mp4") == [f"{tmp_path}/~x.mp4"]
    with list_sources("list.csv")[0].open() as file:
        assert file.read() == b"x"


# --- shards ----------------------------------------------------------------------------------------------------------


def test_a_damaged_shard_is_one_error_and_stops_nothing(tmp_path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "junk.tar").write_bytes(b"\x01" * 5000)
    (tmp_path / "empty.tar").write_bytes(b"")
    whole = write_tar(
        tmp_path / "z.tar", "0.mp4", "1.mp4", "2.mp4", content=bytes(range(200)) * 10
    ).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: 512 + 2048 + 512 + 700])
    (tmp_path / "hole.tar").write_bytes(whole[:2560] + b"\x02" * 512 + whole[3072:])
    problems = problems_of(tmp_path)
    assert sorted(Path(path).name for path in problems) == ["cut.tar", "empty.tar", "hole.tar", "junk.tar"]
    members = [Path(path).name for path in paths_of(tmp_path) if path not in problems]
    assert members == ["a.mp4", "cut.tar::0.mp4", "cut.tar::1.mp4", "hole.tar::0.mp4"] + [
        f"z.tar::{i}.mp4" for i in range(3)
    ]
    for source in list_sources(str(tmp_path / "cut.tar"))[1:]:
        with pytest.raises(
            VideoError, match=r"shard (ends after 700 of its 2000 bytes|is damaged)"
        ) as caught:
            source.open()
        assert caught.value.kind == "unreadable"


def test_a_shard_that_is_whole_again_gives_its_members(tmp_path) -> None:
    whole = write_tar(tmp_path / "z.tar", "0.mp4", "1.mp4").read_bytes()
    shard = tmp_path / "z.tar"
    shard.write_bytes(whole[:1100])
    names = [Path(path).name for path in began(tmp_path / "out", list_sources(str(shard)))]
    assert names == ["z.tar::0.mp4", "z.tar"]
    shard.write_bytes(whole)
    names = [Path(path).name for path in began(tmp_path / "out", list_sources(str(shard)))]
    assert names == ["z.tar::0.mp4", "z.tar", "z.tar::1.mp4"]


def test_odd_members_of_a_shard(tmp_path) -> None:
    shard = write_tar(tmp_path / "s.tar", "a.mp4", "._a.mp4", "a.mp4", "x::y.mp4", "b.mp4/../c.mp4")
    with tarfile.open(shard, "a", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("\udcff.mp4"), io.BytesIO(b""))
    sources = list_sources(str(shard))
    names = ["a.mp4", "a.mp4#2", "x::y.mp4", "b.mp4/../c.mp4", "\\udcff.mp4"]
    assert [source.path for source in sources] == [f"{shard}::{name}" for name in names]
    assert all(source.address == str(shard) for source in sources)
    assert [source_at(source.path) for source in sources] == sources
    for source in sources[:4]:
        with source.open() as file:
            assert file.read() == b"a video"


def test_a_manifest_may_name_members_of_shards(tmp_path) -> None:
    write_tar(tmp_path / "s.tar", "1.mp4", "2.mp4")
    rows = ["path,n", "s.tar::2.mp4,a", "s.tar::3.mp4,b", "none.tar::1.mp4,c"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    found, *missing = list_sources(str(tmp_path / "list.csv"))
    with found.open() as file:
        assert file.read() == b"a video"
    for source in missing:
        with pytest.raises(VideoError) as caught:
            source.open()
        assert caught.value.kind == "missing"
    assert extra_table([found, *missing])["n"].to_pylist() == ["a", "b", "c"]


# --- the web ---------------------------------------------------------------------------------------------------------


class _Refusing(BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        self.send_error(int(Path(self.path).stem))

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *words: object) -> None:
        pass


def test_only_what_is_not_there_is_missing() -> None:
    pytest.importorskip("aiohttp")
    with socket.socket() as free, ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        free.bind(("127.0.0.1", 0))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        served = f"http://127.0.0.1:{server.server_port}"
        addresses = [f"{served}/{status}.mp4" for status in (404, 403, 500)]
        addresses.append(f"http://127.0.0.1:{free.getsockname()[1]}/none.mp4")
        code = """
import json, sys
from openxclip.errors import VideoError
from openxclip.tagging.sources import Source
found = []
for address in sys.argv[1:]:
    try:
        Source(address).open()
    except VideoError as error:
        found.append((error.kind, error.reason))
print(json.dumps(found))
"""
        command = [sys.executable, "-c", code, *addresses]
        found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)
        server.shutdown()
    assert [kind for kind, _ in found] == ["missing", "unreadable", "unreadable", "unreadable"]
    for (_, reason), words in zip(found, ("no such file", "403", "500", "Cannot connect"), strict=True):
        assert words in reason


# --- columns of a manifest -------------------------------------------------------------------------------------------

COLUMNS = {
    "ns": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns", "UTC")),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "big": pa.array([2**64 - 1, 0], pa.uint64()),
    "small": pa.array([1, -1], pa.int8()),
    "fixed": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
    "price": pa.array([decimal.Decimal("1.20"), None], pa.decimal128(20, 2)),
    "nothing": pa.nulls(2, pa.struct([("x", pa.int16())])),
    "empty": pa.array([[], []], pa.list_(pa.int32())),
}


def test_a_parquet_manifest_keeps_its_types(tmp_path) -> None:
    table = pa.table({"path": ["a.mp4", "b.mp4"], **COLUMNS})
    pq.write_table(table, tmp_path / "list.parquet")
    sources = list_sources(str(tmp_path / "list.parquet"))
    wanted = table.drop_columns(["path"])
    assert extra_columns(sources) == tuple((field.name, field.type) for field in wanted.schema)
    for _ in range(2):  # the second time from what the job keeps
        output = Output(str(tmp_path / "out"))
        output.begin({}, overwrite=False)
        (part,) = output.parts(sources[:2], 5)
        assert extra_table(part.sources).equals(wanted)
    assert extra_table([sources[1], Source("c.mp4"), sources[0]]).equals(wanted.take(pa.array([1, None, 0])))


def test_categories_are_kept_as_their_values(tmp_path) -> None:
    table = pa.table({"path": ["a.mp4", "b.mp4"], "camera": pa.array(["x", "y"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "list.parquet")
    assert extra_columns(list_sources(str(tmp_path / "list.parquet"))) == (("camera", pa.string()),)


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ('"n": 1', '"n": 1.5', "'n' was of type int64, now its values are double"),
        ('"n": []', '"n": ["x"]', "'n' was of type list<item: null>, now its values are list<item: string>"),
        ('"n": 1', '"m": 1', "'m' is new"),
        ('"n": 1, "m": 1', '"n": 1', "'m' is missing"),
        ('"n": 1, "m": 1', '"m": 1, "n": 1', "another order"),
    ],
)
def test_a_manifest_that_grows_out_of_its_types_says_what_helps(before, now, words, tmp_path) -> None:
    def begin(columns: str) -> None:
        (tmp_path / "list.jsonl").write_text(f'{{"path": "a.mp4", {columns}}}\n')
        kinds = extra_columns(list_sources(str(tmp_path / "list.jsonl")))
        output = Output(str(tmp_path / "out"))
        output.begin({"columns": [[name, str(kind)] for name, kind in kinds]}, overwrite=False)
        output.parts([], 1)

    begin(before)
    begin(before)
    with pytest.raises(InputError) as caught:
        begin(now)
    assert words in str(caught.value)
    assert "a Parquet manifest states its types" in str(caught.value)


def test_half_characters_in_json_are_escaped(tmp_path) -> None:
    (tmp_path / "list.jsonl").write_text('{"path": "\\ud800.mp4", "n": {"\\udfff": ["\\ud800"]}}\n')
    sources = list_sources(str(tmp_path / "list.jsonl"))
    assert began(tmp_path / "out", sources) == [f"{tmp_path}/\\ud800.mp4"]
    assert extra_table(sources)["n"].to_pylist() == [{"\\udfff": ["\\ud800"]}]


def test_a_corrected_column_counts_for_what_is_computed_later(tmp_path) -> None:
    def parts(*values: str) -> list:
        rows = "".join(f"{i}.mp4,{value}\n" for i, value in enumerate(values))
        (tmp_path / "list.csv").write_text("path,camera\n" + rows)
        output = Output(str(tmp_path / "out"))
        output.begin({}, overwrite=False)
        return output.parts(list_sources(str(tmp_path / "list.csv")), 2)

    parts("x", "y", "z")
    found = parts("x", "corrected", "z", "new")
    cameras = [extra_table(part.sources)["camera"].to_pylist() for part in found]
    assert cameras == [["x", "corrected"], ["z"], ["new"]]
    output = Output(str(tmp_path / "out"))
    output.begin({}, overwrite=False)
    kept = [extra_table(part.sources)["camera"].to_pylist() for part in output.parts([], 2)]
    assert kept == cameras
