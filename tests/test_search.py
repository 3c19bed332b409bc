"""Searching: an index follows its files, and two stages find what scoring everything would."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

import openxclip
from openxclip.cli.main import run
from openxclip.errors import InputError
from openxclip.inference.engine import Engine
from openxclip.inference.label_set import label_features
from openxclip.search import index as index_module
from openxclip.search.index import Index, read_settings
from openxclip.shapes.clip import ShapesClip
from openxclip.shapes.examples import example_clips
from openxclip.shapes.splits import shapes_list

pytestmark = pytest.mark.on_cpu

MODEL = ["--model", "openxclip-tiny", "--dtype", "float32"]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(openxclip.ModelSource(source="openxclip-tiny", dtype="float32"))


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "videos"
    path.mkdir()
    for clip in example_clips():
        (path / f"{clip.kind.name}.mp4").write_bytes(clip.encode())
    return path


def open_index(tmp_path: Path, engine: Engine, **settings) -> Index:
    return Index.open(str(tmp_path / "index"), engine, "openxclip-tiny", **settings)


def best(hits) -> str:
    return Path(hits[0].path).stem


@pytest.mark.parametrize("keep_context", [True, False])
def test_words_find_their_video(keep_context, tmp_path, engine, folder) -> None:
    index = open_index(tmp_path, engine, keep_context=keep_context)
    update = index.update(str(folder), num_decoders=1)
    assert (update.num_added, update.num_rows, update.errors) == (6, 6, {})
    for clip in example_clips():
        hits = index.search(clip.kind.name, top_k=3)
        assert best(hits) == clip.kind.name
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert (hits[0].start_seconds, hits[0].end_seconds, hits[0].duration_seconds) == (0, 2, 2)


def test_both_ways_to_prompt_give_the_score_of_the_model(tmp_path, engine, folder) -> None:
    kept = open_index(tmp_path / "kept", engine)
    again = open_index(tmp_path / "again", engine, keep_context=False)
    for index in (kept, again):
        index.update(str(folder), num_decoders=1)
    text = "a green ring that rises"
    recognizer = openxclip.Recognizer(engine, [text, "other"])
    scale = float(engine.model.logit_scale.detach().exp())
    for of_kept, of_again in zip(kept.search(text), again.search(text), strict=True):
        pixels = recognizer.read(of_kept.path, openxclip.inference.views.Views())
        expected = float(engine.logits(pixels, recognizer.label_set)[0, 0]) / scale
        assert of_kept.path == of_again.path
        assert of_again.score == pytest.approx(expected, abs=2e-3), "embeddings are kept in 16 bits"
        assert of_kept.score == pytest.approx(expected, abs=2e-3)


def test_an_index_follows_its_files(tmp_path, engine, folder) -> None:
    index = open_index(tmp_path, engine)
    index.update(str(folder), num_decoders=1)
    assert index.update(str(folder), num_decoders=1).num_unchanged == 6
    rising, growing, star = (folder / f"{example_clips()[i].kind.name}.mp4" for i in (1, 2, 5))
    rising.write_bytes(example_clips()[3].encode())  # changed: now an orange triangle
    os.utime(rising, (1, 1))
    growing.unlink()
    (folder / "new's.mp4").write_bytes(example_clips()[2].encode())
    (folder / "broken.mp4").write_bytes(b"no video")
    update = index.update(str(folder), num_decoders=1)
    assert (update.num_added, update.num_changed, update.num_deleted, update.num_unchanged) == (1, 1, 1, 4)
    assert list(update.errors) == [str(folder / "broken.mp4")]
    assert update.num_rows == 6
    assert {Path(hit.path).name for hit in index.search("orange triangle spinning clockwise", top_k=2)} == {
        rising.name,
        "orange triangle spinning clockwise.mp4",
    }
    assert best(index.search("purple bar growing")) == "new's"
    (folder / "new's.mp4").unlink()
    (folder / "broken.mp4").write_bytes(example_clips()[2].encode())
    update = index.update(str(folder), num_decoders=1)
    assert (update.num_added, update.num_deleted, update.errors) == (1, 1, {})
    assert best(index.search("purple bar growing")) == "broken"
    assert star.exists()


def test_other_inputs_do_not_drop_these(tmp_path, engine, folder) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.mp4").write_bytes(example_clips()[0].encode())
    index = open_index(tmp_path, engine)
    index.update(str(folder), num_decoders=1)
    assert index.update(str(other), num_decoders=1).num_rows == 7
    (other / "a.mp4").unlink()
    (other / "b.mp4").write_bytes(example_clips()[0].encode())
    assert index.update(str(other), num_decoders=1).num_rows == 7


def test_a_video_of_two_roots_stands_in_the_index_once(tmp_path, engine, folder) -> None:
    index = open_index(tmp_path, engine)
    index.update(str(folder.parent), num_decoders=1)
    assert index.update(str(folder), num_decoders=1).num_rows == 6
    for path in folder.iterdir():
        path.unlink()
    assert index.update(str(folder.parent), num_decoders=1).num_rows == 0, "also the last one goes"


def test_candidates_of_later_windows_and_gone_ones(tmp_path, engine) -> None:
    from videos import write_video

    rising, growing = (example_clips()[i].frames(np.arange, 128) for i in (1, 2))
    (tmp_path / "videos").mkdir()
    frames = [*rising] * 36 + [*growing]
    video = write_video(tmp_path / "videos" / "long.mp4", frames=frames, fps=16, bit_rate=4_000_000)
    gone = write_video(tmp_path / "videos" / "gone.mp4", frames=rising, fps=16)
    scores = []
    for name, keep in (("kept", True), ("again", False)):
        index = open_index(tmp_path / name, engine, windows="2s", stride="1s", keep_context=keep)
        index.update(str(tmp_path / "videos"), num_decoders=1)
        scores.append(
            {(hit.path, hit.start_seconds): hit.score for hit in index.search("purple bar growing", top_k=99)}
        )
    assert scores[0].keys() == scores[1].keys()
    assert max(scores[0], key=scores[0].__getitem__) == (str(video), 72)
    assert scores[1] == {key: pytest.approx(score, abs=3e-3) for key, score in scores[0].items()}
    gone.unlink()
    last = index.search("green ring rising", top_k=99)[-1]
    assert (last.path, last.is_prompted) == (str(gone), False), "it ranks behind those that can be read"


def test_windows_filters_and_examples(tmp_path, engine) -> None:
    from videos import write_video

    rising, growing = (example_clips()[i].frames(np.arange, 128) for i in (1, 2))
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "cam2_both.mp4", frames=[*rising, *growing], fps=16, bit_rate=4_000_000)
    write_video(tmp_path / "videos" / "cam1.mp4", frames=growing, fps=16, bit_rate=4_000_000)
    index = open_index(tmp_path, engine, windows="2s")
    index.update(str(tmp_path / "videos"), num_decoders=1)
    hits = index.search("purple bar growing", where="duration_seconds > 3 and path like '%cam2%'")
    assert {Path(hit.path).name for hit in hits} == {"cam2_both.mp4"}
    assert (hits[0].start_seconds, hits[0].end_seconds) == (2, 4)
    with pytest.raises(InputError, match=r"'colour = 1' is invalid.*Columns are path"):
        index.search("x", where="colour = 1")
    for unclear in ("fps > 0; drop table windows", "fps > 0 -- and more"):
        with pytest.raises(InputError, match="is invalid"):
            index.search("x", where=unclear)
    example = write_video(tmp_path / "again.mp4", frames=growing, fps=16, bit_rate=900_000)  # coded anew
    hits = index.similar(str(example), top_k=3)
    assert [hit.is_near_duplicate for hit in hits] == [True, True, False]
    assert {Path(hit.path).name for hit in hits[:2]} == {"cam1.mp4", "cam2_both.mp4"}


def test_a_tag_output_becomes_an_index(tmp_path, engine, folder) -> None:
    job = [
        "tag",
        str(folder),
        "--labels",
        "a, b",
        "--model",
        "openxclip-tiny",
        "--dtype",
        "float32",
        "--part-size",
        "4",
    ]
    assert run([*job, "--output", str(tmp_path / "tags"), "--embedding"]) == 0
    index = open_index(tmp_path, engine, keep_context=False)
    assert index.update_from_tags(str(tmp_path / "tags")).num_rows == 6
    assert index.update_from_tags(str(tmp_path / "tags")).num_added == 0
    assert best(index.search("green ring rising")) == "green ring rising"
    (folder / "zz.mp4").write_bytes(example_clips()[0].encode())
    assert run([*job, "--output", str(tmp_path / "tags"), "--embedding"]) == 0
    assert index.update_from_tags(str(tmp_path / "tags")).num_added == 1
    assert run([*job, "--output", str(tmp_path / "plain")]) == 0
    with pytest.raises(InputError, match="--embedding"):
        index.update_from_tags(str(tmp_path / "plain"))
    with pytest.raises(InputError, match="--no-context"):
        open_index(tmp_path / "kept", engine).update_from_tags(str(tmp_path / "tags"))


def test_members_of_shards_are_found_again(tmp_path, engine, folder) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    index = open_index(tmp_path, engine, keep_context=False)
    index.update(str(tmp_path / "shard.tar"), num_decoders=1)
    hits = index.search("white star orbiting")
    assert hits[0].path == f"{tmp_path}/shard.tar::white star orbiting.mp4"


def test_an_index_of_another_model_or_other_windows_is_refused(tmp_path, engine) -> None:
    open_index(tmp_path, engine, windows="2s")
    with pytest.raises(InputError, match=r"windows '2s', now it is None"):
        open_index(tmp_path, engine)
    (tmp_path / "index" / "index.json").write_text("{}")
    with pytest.raises(InputError, match="create the index again"):
        read_settings(str(tmp_path / "index"))


def test_two_stages_find_what_prompting_everything_finds(tmp_path, engine) -> None:
    """500 rendered clips; docs/searching.md has the figures of 5,000."""
    index = open_index(tmp_path, engine)
    clips = [row.clip for row in shapes_list("test-novel").rows][:500]
    add_rendered(index, clips)
    for name in ("red circle moving left", "white star orbiting", "cyan cross bouncing"):
        two_stages = {hit.path for hit in index.search(name, top_k=10, rerank=100)}
        everything = {hit.path for hit in index.search(name, top_k=10, rerank=len(clips))}
        assert len(two_stages & everything) >= 9


def add_rendered(index: Index, clips: list[ShapesClip]) -> None:
    """Add rendered clips without a round through files."""
    from openxclip.inference.views import Views
    from openxclip.search.embedding import window_numbers, window_row
    from openxclip.tagging.decoding import Facts
    from openxclip.tagging.sources import Source

    facts = Facts(
        duration_seconds=2.0,
        fps=16.0,
        width=128,
        height=128,
        codec="none",
        content_hash=None,
        windows=((0.0, 2.0),),
        num_windows=1,
    )
    rows = []
    for i, clip in enumerate(clips):
        numbers = window_numbers(index.engine, True, index.engine.read_views(clip.read, Views()))
        row = window_row(index.settings.embed_dim, Source(f"{clip.kind.name}/{i}"), facts, 0, numbers)
        rows.append({**row, "root": "rendered", "fingerprint": "1"})
    index.add_rows(rows)


def test_the_text_is_that_of_the_model(engine) -> None:
    tokens = engine.tokenizer(["surfing"])
    assert label_features(engine.model, tokens, [1]).shape == (1, 64)


# --- what is gone, and what is out of reach -----------------------------------------------------------------------


class QuietHandler(SimpleHTTPRequestHandler):
    """A web server that says nothing."""

    def log_message(self, *words: object) -> None:
        del words


@contextmanager
def served(folder: Path, port: int = 0) -> Iterator[int]:
    """A web server over a folder -> its port."""
    server = ThreadingHTTPServer(("127.0.0.1", port), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_outage_is_no_change(tmp_path, engine) -> None:
    web = tmp_path / "web"
    web.mkdir()
    contents = [example_clips()[i].encode() for i in (0, 1)]
    size = max(map(len, contents))
    first, second = (content + bytes(size - len(content)) for content in contents)  # of the same size
    for name, content in (("a", first), ("b", second)):
        (web / f"{name}.mp4").write_bytes(content)
        os.utime(web / f"{name}.mp4", (1, 1))
    manifest, index = tmp_path / "list.csv", open_index(tmp_path, engine)
    with served(web) as port:
        address = f"http://127.0.0.1:{port}"
        manifest.write_text(f"path\n{address}/a.mp4\n{address}/b.mp4\n")
        assert index.update(str(manifest), num_decoders=1).num_added == 2
    update = index.update(str(manifest), num_decoders=1)
    assert (update.num_changed, update.num_deleted, update.num_rows) == (0, 0, 2)
    assert list(update.errors) == [f"{address}/a.mp4", f"{address}/b.mp4"]
    assert "unreachable" in update.errors[f"{address}/a.mp4"]
    (web / "a.mp4").write_bytes(second)
    os.utime(web / "a.mp4", (99, 99))
    with served(web, port):
        update = index.update(str(manifest), num_decoders=1)
        assert (update.num_changed, update.num_unchanged, update.num_rows) == (1, 1, 2)
        (web / "a.mp4").unlink()
        update = index.update(str(manifest), num_decoders=1)
    assert (update.num_deleted, update.num_unchanged, update.num_rows) == (1, 1, 1)
    assert "no such file" in update.errors[f"{address}/a.mp4"]


def test_paths_that_cannot_be_are_errors_of_their_own(tmp_path, engine, folder) -> None:
    names = [f"{folder}/green ring rising.mp4", f"{folder}/{'x' * 300}.mp4"]
    names += [f"{names[0]}/b.mp4", "no-such-protocol://a.mp4"]
    (tmp_path / "list.csv").write_text("path\n" + "\n".join(names) + "\n")
    update = open_index(tmp_path, engine).update(str(tmp_path / "list.csv"), num_decoders=1)
    assert (update.num_added, update.num_rows) == (1, 1)
    assert update.errors.keys() == set(names[1:])


def test_a_row_stays_until_its_successor_is_there(tmp_path, engine, folder) -> None:
    index = open_index(tmp_path, engine)
    index.update(str(folder), num_decoders=1)
    path = folder / "green ring rising.mp4"
    good = path.read_bytes()
    path.write_bytes(b"half an upload")
    update = index.update(str(folder), num_decoders=1)
    assert (update.num_changed, update.num_unchanged, update.num_rows) == (0, 5, 6)
    assert list(update.errors) == [str(path)]
    assert best(index.search("green ring rising")) == "green ring rising"
    path.write_bytes(good)
    os.utime(path, (5, 5))
    assert index.update(str(folder), num_decoders=1).num_changed == 1


@pytest.mark.parametrize("fingerprint", ["of before", None], ids=["killed", "written twice"])
def test_what_stands_twice_is_dropped(fingerprint, tmp_path, engine, folder) -> None:
    """A killed update leaves rows that it had replaced, two at once in an object store the same rows."""
    index = open_index(tmp_path, engine)
    index.update(str(folder), num_decoders=1)
    rows = index._table.to_arrow().to_pylist()
    for row in rows:
        row["fingerprint"] = fingerprint or row["fingerprint"]
    index.add_rows(
        [{name: np.array(v) if isinstance(v, list) else v for name, v in row.items()} for row in rows]
    )
    assert index.num_rows == 12
    update = index.update(str(folder), num_decoders=1)
    assert (update.num_rows, update.num_unchanged, update.num_deleted) == (6, 6, 0)
    assert best(index.search("green ring rising")) == "green ring rising"


def test_an_emptied_folder_and_a_damaged_shard(tmp_path, folder, capsys) -> None:
    made = ["index", str(folder), "--index", str(tmp_path / "index"), *MODEL]
    assert run(made) == 0
    with tarfile.open(folder / "shard.tar", "w") as tar:
        tar.add(folder / "green ring rising.mp4", "ring.mp4")
    assert run(made) == 0
    assert "7 rows" in capsys.readouterr().out.splitlines()[-1]
    whole = (folder / "shard.tar").read_bytes()
    (folder / "shard.tar").write_bytes(b"damaged")
    assert run(made) == 1, "what cannot be listed is not empty"
    assert "0 deleted, 6 unchanged; 7 rows" in capsys.readouterr().out
    (folder / "shard.tar").write_bytes(whole)
    for path in folder.iterdir():
        path.unlink()
    capsys.readouterr()
    assert run(made) == 0
    assert "7 deleted, 0 unchanged; 0 rows" in capsys.readouterr().out


def test_an_address_of_this_machine_is_its_path(tmp_path, engine, folder, monkeypatch) -> None:
    index = open_index(tmp_path, engine)
    assert index.update(f"file://{folder}", num_decoders=1).num_added == 6
    monkeypatch.chdir(tmp_path)
    for same in (str(folder), "videos", "./videos/", f"{folder}/../videos"):
        update = index.update(same, num_decoders=1)
        assert (update.num_unchanged, update.num_rows) == (6, 6)
    (tmp_path / "list.csv").write_text(
        f"path\nfile://{folder}/green ring rising.mp4\nvideos/white star orbiting.mp4\n"
    )
    assert index.update("list.csv", num_decoders=1).num_unchanged == 2


def test_one_update_at_a_time(tmp_path, engine, folder, capsys) -> None:
    steps = open_index(tmp_path, engine).update_in_steps(str(folder), num_decoders=1)
    next(steps)
    made = ["index", str(folder), "--index", str(tmp_path / "index"), *MODEL]
    assert run(made) == 2
    error = capsys.readouterr().err
    assert "another update" in error
    assert len(error.splitlines()) == 1
    steps.close()
    assert run(made) == 0
    assert "6 added, 0 changed, 0 deleted, 0 unchanged; 6 rows" in capsys.readouterr().out


def test_files_and_their_tags_stand_in_the_index_once(tmp_path, engine, folder) -> None:
    job = ["tag", str(folder), "--labels", "a, b", *MODEL, "--part-size", "4"]
    assert run([*job, "--output", str(tmp_path / "tags"), "--embedding"]) == 0
    index = open_index(tmp_path, engine, keep_context=False)
    assert index.update(str(folder), num_decoders=1).num_added == 6
    update = index.update_from_tags(str(tmp_path / "tags"))
    assert (update.num_added, update.num_changed, update.num_deleted, update.num_rows) == (0, 6, 0, 6)
    update = index.update(str(folder), num_decoders=1)
    assert (update.num_added, update.num_changed, update.num_rows) == (0, 6, 6)


def test_rows_wait_in_bounded_memory(tmp_path, engine, folder, monkeypatch) -> None:
    index = open_index(tmp_path, engine)
    monkeypatch.setattr(index_module, "ROW_BYTES_AT_ONCE", 2 * 2 * (64 + index.settings.num_context))
    before = index._table.version
    assert index.update(str(folder), num_decoders=1).num_rows == 6
    added = [v for v in index._table.list_versions() if v["version"] > before]
    assert len(added) >= 3, "two rows at once, not all six"


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A real S3-compatible server on loopback."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import fsspec

        fsspec.filesystem("s3").mkdir("found")
        yield "s3://found"
    server.stop()


@pytest.mark.filterwarnings("ignore")
def test_an_object_store_holds_videos_and_index(store, engine) -> None:
    import fsspec

    def put(name: str, clip: int) -> None:
        """As another process would: this one's file system keeps what it has listed."""
        other = fsspec.filesystem("s3", skip_instance_cache=True)
        other.pipe_file(f"found/videos/{name}.mp4", example_clips()[clip].encode())

    for i in (0, 1):
        put(f"{i}", i)
    index = Index.open(f"{store}/index", engine, "openxclip-tiny", keep_context=False)
    assert index.update(f"{store}/videos", num_decoders=1).num_added == 2
    put("1", 2)
    put("new", 3)
    update = index.update(f"{store}/videos/", num_decoders=1)
    assert (update.num_added, update.num_changed, update.num_unchanged) == (1, 1, 1)
    again = Index.for_search(f"{store}/index", engine)
    hits = again.search(example_clips()[2].kind.name)
    assert (hits[0].path, hits[0].is_prompted) == (f"{store}/videos/1.mp4", True)
    other = fsspec.filesystem("s3", skip_instance_cache=True)
    other.rm("found/videos", recursive=True)
    update = index.update(f"{store}/videos", num_decoders=1)
    assert (update.num_deleted, update.num_rows) == (3, 0)


# --- the model of the index ---------------------------------------------------------------------------------------


def changed_model(path: Path, scale: float) -> None:
    """Save the shipped model with other weights."""
    loaded = openxclip.load("openxclip-tiny", dtype="float32")
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(scale)
    openxclip.save_as(path, *loaded)


def test_an_index_is_searched_with_its_own_model(tmp_path, folder, monkeypatch, capsys) -> None:
    changed_model(tmp_path / "model", 1.0)
    monkeypatch.chdir(tmp_path)
    index = str(tmp_path / "index")
    assert run(["index", str(folder), "--index", index, "--model", "model", "--dtype", "float32"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    query = ["search", "green ring rising", "--index", index, "--top-k", "1"]
    assert run(query) == 0, "a relative path of a model is kept as an absolute one"
    shutil.move(tmp_path / "model", tmp_path / "moved")
    assert run([*query, "--model", str(tmp_path / "moved")]) == 0
    assert "green ring rising.mp4" in capsys.readouterr().out.splitlines()[-1]
    changed_model(tmp_path / "model", 1.5)
    assert run(query) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert "was created with" in error[0]


def test_an_index_of_other_frames_is_searched_with_them(tmp_path, folder, capsys) -> None:
    index = str(tmp_path / "index")
    assert run(["index", str(folder), "--index", index, *MODEL, "--frames", "4"]) == 0
    assert run(["search", "green ring rising", "--index", index, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])) == 6
    assert run(["search", "--video", str(folder / "green ring rising.mp4"), "--index", index]) == 0


def test_candidates_out_of_reach_rank_behind_the_others(tmp_path, folder, capsys, caplog) -> None:
    index = str(tmp_path / "index")
    assert run(["index", str(folder), "--index", index, *MODEL, "--no-context"]) == 0
    for path in folder.iterdir():
        if not path.name.startswith("green"):
            path.unlink()
    capsys.readouterr()
    query = ["search", "white star orbiting", "--index", index]
    assert run([*query, "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)
    assert [hit["is_prompted"] for hit in hits] == [True] + [False] * 5
    assert "green" in hits[0]["path"]
    assert [hit["score"] for hit in hits[1:]] == sorted((hit["score"] for hit in hits[1:]), reverse=True)
    assert "5 of 6 candidates cannot be read again" in caplog.text
    page = tmp_path / "page.html"
    assert run([*query, "--html", str(page)]) == 0
    assert capsys.readouterr().out.count("by the text alone") == 5
    assert page.read_text(encoding="utf-8").count("by the text alone") == 5
    for path in folder.iterdir():
        path.unlink()
    assert run([*query, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 6, "all are found by the text alone"


# --- what stores and disks do ---------------------------------------------------------------------------------------


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("words", [["index", "videos", *MODEL], ["search", "x"]], ids=["index", "search"])
def test_a_store_that_refuses_is_one_line(words, folder) -> None:
    pytest.importorskip("s3fs")
    environment = os.environ | {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    command = [sys.executable, "-m", "openxclip", *words, "--index", "s3://refused/index"]
    done = subprocess.run(
        command, cwd=folder.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "s3://refused/index" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("part", ["data", "_versions"])
def test_a_damaged_table_is_one_line(part, tmp_path, engine, folder, capsys) -> None:
    open_index(tmp_path, engine).update(str(folder), num_decoders=1)
    for path in (tmp_path / "index" / "windows.lance" / part).iterdir():
        path.write_bytes(b"damaged")
    index = str(tmp_path / "index")
    for more in ([], ["--filter", "fps > 0"]):
        assert run(["search", "x", "--index", index, *more]) == 1
        assert "create the index again" in one_line(capsys)
    assert run(["index", str(folder), "--index", index, *MODEL]) == 1
    assert "create the index again" in one_line(capsys)


def test_a_full_disk_is_one_line(tmp_path, folder) -> None:
    """Files of the process may not grow beyond a size, as on a disk that is full."""
    command = [
        sys.executable,
        "-m",
        "openxclip",
        "index",
        str(folder),
        "--index",
        str(tmp_path / "index"),
        *MODEL,
    ]
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (4096, 4096))
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be read or written" in done.stderr.splitlines()[-1]
    assert run(command[3:]) == 0, "with room again, it goes on"
    assert (
        Index.for_search(
            str(tmp_path / "index"),
            Engine.load(openxclip.ModelSource(source="openxclip-tiny", dtype="float32")),
        ).num_rows
        == 6
    )


def test_the_example_of_the_docs_runs(tmp_path, folder) -> None:
    text = (ROOT / "docs" / "searching.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "example.py").write_text(example.replace("microsoft/xclip-base-patch32", "openxclip-tiny"))
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5


# --- the commands -----------------------------------------------------------------------------------------------


def test_the_commands(tmp_path, folder, capsys) -> None:
    index = str(tmp_path / "index")
    made = ["index", str(folder), "--index", index, "--model", "openxclip-tiny"]
    assert run([*made, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_added"] == 6
    assert run(made) == 0
    assert "6 unchanged; 6 rows" in capsys.readouterr().out
    page = tmp_path / "found.html"
    query = ["search", "green ring rising", "--index", index, "--top-k", "2"]
    assert run([*query, "--json", "--html", str(page)]) == 0
    hits = json.loads(capsys.readouterr().out)
    assert len(hits) == 2
    assert hits[0]["path"].endswith("green ring rising.mp4")
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 2
    assert "http" not in text.replace("http-equiv", "")
    assert run(query) == 0
    assert "0:00.0-0:02.0" in capsys.readouterr().out
    assert run(["search", "--video", str(folder / "green ring rising.mp4"), "--index", index]) == 0
    assert "near duplicate" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "x", "--index", "none"], "openxclip index"),
        (["search", "--index", "none"], "--video"),
        (["search", "x", "--video", "y", "--index", "none"], "give either a text"),
        (["search", "x", "--index", "none", "--top-k", "0"], "--top-k"),
        (["index", "none", "--index", "i", "--model", "openxclip-tiny"], "none"),
        (["index", "none", "--index", "i", "--stride", "2s"], "--windows"),
    ],
)
def test_wrong_use_is_one_line(arguments, words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
