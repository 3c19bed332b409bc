"""Searching: an index follows its files, and two stages find what scoring everything would."""

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

import openxclip
from openxclip.cli.main import run
from openxclip.errors import InputError
from openxclip.inference.engine import Engine
from openxclip.inference.label_set import label_features
from openxclip.search.index import Index, read_settings
from openxclip.shapes.clip import ShapesClip
from openxclip.shapes.examples import example_clips
from openxclip.shapes.splits import shapes_list

pytestmark = pytest.mark.on_cpu


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
    assert str(gone) not in {hit.path for hit in index.search("green ring rising", top_k=99)}


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
    with pytest.raises(InputError, match=r"'colour = 1' cannot be used.*Columns are path"):
        index.search("x", where="colour = 1")
    for unclear in ("fps > 0; drop table windows", "fps > 0 -- and more"):
        with pytest.raises(InputError, match="cannot be used"):
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
    with pytest.raises(InputError, match="make the index anew"):
        read_settings(str(tmp_path / "index"))


def test_two_stages_find_what_prompting_everything_finds(tmp_path, engine) -> None:
    """500 rendered clips; docs/scale.md has the figures of 5,000."""
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
        (["search", "x", "--video", "y", "--index", "none"], "not both"),
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
