"""The protocols against what single predictions add up to, and what they are made of."""

import dataclasses
import hashlib
import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import TINY, tiny_model, tiny_tokenizer
from videos import moving_frames, write_video

from openxclip import Recognizer
from openxclip.checkpoints.load import Loaded, load
from openxclip.checkpoints.save import save_as
from openxclip.data.manifest import read_manifest
from openxclip.data.media import Item, Manifest, MissingMedia
from openxclip.errors import InputError
from openxclip.evaluation import protocols
from openxclip.evaluation.backgrounds import background, foreground, frozen, partners, with_background_of
from openxclip.evaluation.evaluate import Evaluation
from openxclip.evaluation.metrics import harmonic_mean
from openxclip.evaluation.protocols import Score, scorer
from openxclip.experiments.few_shot import FewShot, fixed, run_few_shot, sampled, with_targets
from openxclip.inference.engine import Engine
from openxclip.inference.views import Views
from openxclip.reports.plots import plot_lines, plot_trade_off
from openxclip.reports.table import Table, mean_std, percent
from openxclip.text.label_texts import LabelTexts
from openxclip.text.labels import built_in_labels
from openxclip.training.config import DataConfig, LearningRates, OptimConfig, TrainConfig
from openxclip.video import Preprocessor

LABELS = ("running", "zo ve", "ki", "jumping", "de", "lo mu")


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return Loaded(tiny_model(), tiny_tokenizer(), Preprocessor.official(TINY.vision.image_size_px))


@pytest.fixture(scope="module")
def score(loaded) -> Score:
    return scorer(Engine(loaded), Views())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Twelve videos of six classes, 7.mp4 unreadable; base.txt has the first three classes, novel.txt the others."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(12):
        write_video(folder / f"{i}.mp4", frames=moving_frames(9 + i, seed=i))
    (folder / "7.mp4").write_bytes(b"no video")
    lines = [f"{i}.mp4 {i % 6}\n" for i in range(12)]
    (folder / "all.txt").write_text("".join(lines))
    (folder / "base.txt").write_text("".join(line for i, line in enumerate(lines) if i % 6 < 3))
    (folder / "novel.txt").write_text("".join(line for i, line in enumerate(lines) if i % 6 >= 3))
    rows = "".join(f"{i},{name}\n" for i, name in enumerate(LABELS))
    (folder / "labels.csv").write_text("id,name\n" + rows)
    return folder


def read(data: Path, name: str) -> Manifest:
    return read_manifest(data, list_name=name)


def best_labels(loaded: Loaded, manifest: Manifest, labels: tuple[str, ...]) -> dict[str, str]:
    """Path -> best label, one video at a time; unreadable ones are left out."""
    recognizer = Recognizer(Engine(loaded), labels)
    found = recognizer.predict([item.media.path for item in manifest.items], top_k=1)
    return {
        item.path: prediction.scores[0][0]
        for item, prediction in zip(manifest.items, found, strict=True)
        if prediction.scores
    }


def accuracy(loaded: Loaded, manifest: Manifest, labels: tuple[str, ...]) -> float:
    best = best_labels(loaded, manifest, labels)
    right = [best[item.path] == manifest.labels[item.label] for item in manifest.items if item.path in best]
    return sum(right) / len(right)


# What they are scored with


def test_supervised_is_top_1_and_top_5(score, loaded, data):
    manifest = read(data, "all.txt")
    result = protocols.supervised(score, manifest)
    assert result.figures["top-1"] == accuracy(loaded, manifest, LABELS)
    assert result.figures["top-5"] == result.evaluations["test"].top5
    assert result.evaluations["test"].num_unreadable == 1


def test_zero_shot_is_each_split_and_their_mean_and_spread(score, loaded, data):
    splits = {
        "first": read(data, "base.txt"),
        "second": read(data, "novel.txt"),
        "third": read(data, "all.txt"),
    }
    result = protocols.zero_shot(score, splits)
    top1 = [accuracy(loaded, split, LABELS) for split in splits.values()]
    assert len(set(top1)) > 1  # a spread of nothing would tell nothing
    assert [result.figures[f"top-1, {name}"] for name in splits] == top1
    assert result.figures["top-1, mean over splits"] == pytest.approx(statistics.mean(top1))
    assert result.figures["top-1, std over splits"] == pytest.approx(statistics.stdev(top1))
    assert list(result.evaluations) == list(splits)
    assert "top-1, mean over splits" not in protocols.zero_shot(score, {"one": splits["first"]}).figures


def test_trained_classes_are_no_zero_shot_classes(data):
    manifest = read(data, "all.txt")
    protocols.check_disjoint(["surfing", "runnin"], manifest)
    with pytest.raises(InputError, match=r"2 of 6 classes .* not new ones: running, ki\. .*--allow-overlap"):
        protocols.check_disjoint(["KI", "surfing", "Running"], manifest)


def test_so_many_kinetics_classes_are_in_the_usual_zero_shot_tests():
    """By name alone: why --allow-overlap is there."""
    counts = {
        name: sum(label in set(built_in_labels("kinetics400")) for label in built_in_labels(name))
        for name in ("ucf101", "hmdb51")
    }
    assert counts == {"ucf101": 19, "hmdb51": 1}


def test_base_to_novel_keeps_the_two_apart(score, loaded, data):
    base, novel = read(data, "base.txt"), read(data, "novel.txt")
    result = protocols.base_to_novel(score, base, novel)
    first, second = accuracy(loaded, base, LABELS[:3]), accuracy(loaded, novel, LABELS[3:])
    assert (result.figures["base"], result.figures["novel"]) == (first, second)
    assert result.figures["harmonic mean"] == pytest.approx(statistics.harmonic_mean([first, second]))
    assert [row.label for row in result.evaluations["novel"].classes] == list(LABELS[3:])
    with pytest.raises(InputError, match="share 3 classes: running, zo ve, ki"):
        protocols.base_to_novel(score, base, read(data, "all.txt"))


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_harmonic_mean_is_that_of_the_library(first, second):
    assert harmonic_mean(first, second) == pytest.approx(statistics.harmonic_mean([first, second]))


def test_label_union_leaves_training_names_among_the_candidates(score, loaded, data):
    base = protocols.occurring(read(data, "base.txt"))
    trained = ("jumping", "de", "KI", "lo mu")  # one of them is a test class as well
    result = protocols.label_union(score, base, trained)
    best = best_labels(loaded, base, ("running", "zo ve", "ki", "jumping", "de", "lo mu"))
    assert result.figures["top-1, test labels alone"] == accuracy(loaded, base, LABELS[:3])
    assert result.figures["top-1, with training labels"] == accuracy(loaded, base, LABELS)
    stolen = sum(label in LABELS[3:] for label in best.values()) / len(best)
    assert result.figures["best label is a training class"] == stolen
    assert 0 < stolen < 1


# Static bias


def scene(ground: int, side: int = 24, num_frames: int = 8) -> torch.Tensor:
    """One view (1, T, 3, S, S): a bright 6 x 6 block that crosses a noisy ground, never twice at one place."""
    noise = torch.randint(-5, 6, (3, side, side), generator=torch.Generator().manual_seed(ground))
    frames = (ground + noise).to(torch.uint8).repeat(num_frames, 1, 1, 1)
    for i in range(num_frames):
        left = 2 * i
        frames[i, :, 8:14, left : left + 6] = 250
    return frames[None]


def test_the_background_is_what_a_pixel_shows_most_of_the_time():
    clip = scene(60)
    empty = background(clip)
    assert empty.shape == (1, 1, 3, 24, 24)
    assert int(empty.max()) <= 65  # the block is gone
    share = foreground(clip)[0]
    for i in range(8):
        inner = share[i, 0, 9:13, 2 * i + 1 : 2 * i + 5]
        assert (inner == 1).all()
        away = share[i, 0].clone()
        away[7:15, max(0, 2 * i - 1) : 2 * i + 7] = 0
        assert (away == 0).all()


def test_the_foreground_is_pasted_over_the_other_background():
    swapped = with_background_of(scene(60), scene(150))
    assert swapped.dtype == torch.uint8
    for i in range(8):
        assert (swapped[0, i, :, 9:13, 2 * i + 1 : 2 * i + 5] == 250).all()
        assert torch.equal(swapped[0, i, :, 16:], background(scene(150))[0, 0, :, 16:])


def test_a_still_video_has_no_foreground_and_a_frozen_one_no_motion():
    clip = torch.randint(0, 256, (2, 5, 3, 8, 8), dtype=torch.uint8)
    still = frozen(clip)
    assert still.shape == clip.shape
    assert all(torch.equal(still[:, i], clip[:, 2]) for i in range(5))
    assert (foreground(still) == 0).all()
    assert torch.equal(with_background_of(still, clip), background(clip).expand_as(clip))


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=9).filter(lambda labels: len(set(labels)) > 1))
def test_a_partner_is_drawn_from_the_videos_of_other_classes(labels):
    items = [Item(path=str(i), label=label, media=MissingMedia("")) for i, label in enumerate(labels)]
    found = partners(items)
    for item in items:
        others = [other for other in items if other.label != item.label]
        others.sort(key=lambda other: (other.label, other.path))
        lot = int(hashlib.sha256(item.path.encode()).hexdigest(), 16)
        assert found[item] is others[lot % len(others)]
    assert partners(items[::-1]) == found


def test_many_videos_have_many_partners():
    """Of a list that is sorted by class, not all get the first video of the next class."""
    items = [Item(path=f"{i}.mp4", label=i // 100, media=MissingMedia("")) for i in range(1000)]
    chosen = partners(items).values()
    assert {item.label for item in chosen} == set(range(10))
    assert len(set(chosen)) > 500


def test_videos_of_one_class_have_no_partner():
    items = [Item(path=str(i), label=1, media=MissingMedia("")) for i in range(3)]
    with pytest.raises(InputError, match="all 3 readable videos have one label"):
        partners(items)


def test_static_bias_of_real_videos(score, loaded, data):
    manifest = read(data, "all.txt")
    recognizer = Recognizer(Engine(loaded), LABELS)
    result = protocols.static_bias(score, manifest)
    readable = [item for item in manifest.items if item.path != "7.mp4"]
    clips = [recognizer.engine.read_views(item.media.read, Views()) for item in readable]
    best = {"as-is": [], "other-background": [], "frozen": []}
    others = partners(readable)
    for item, clip in zip(readable, clips, strict=True):
        other = clips[readable.index(others[item])]
        versions = (clip, with_background_of(clip, other), clip[:, 2:3].expand_as(clip))
        for name, version in zip(best, versions, strict=True):
            best[name].append(LABELS[int(recognizer.probabilities(version).argmax())])
    truth = [LABELS[item.label] for item in readable]
    right = {name: sum(map(str.__eq__, labels, truth)) / 11 for name, labels in best.items()}
    assert result.figures["top-1, as they are"] == right["as-is"]
    assert result.figures["top-1, other background"] == right["other-background"]
    assert result.figures["top-1, frozen middle frame"] == right["frozen"]
    same = sum(map(str.__eq__, best["as-is"], best["other-background"])) / 11
    assert result.figures["same label over both"] == same
    found = [row.predicted for row in result.evaluations["frozen"].videos]
    assert found == best["frozen"]
    altered = [evaluation.altered for evaluation in result.evaluations.values()]
    assert altered == ["", "its moving parts over the background of another video", "its middle frame alone"]


def test_static_bias_of_given_scenes(score, data):
    manifest = read(data, "all.txt")
    items = manifest.items
    others = dataclasses.replace(  # the same labels at the same places, another video behind each
        manifest,
        name="swapped",
        items=tuple(
            dataclasses.replace(item, path=f"other {item.path}", media=items[(i + 6) % 12].media)
            for i, item in enumerate(items)
        ),
    )
    result = protocols.static_bias(score, manifest, others)
    over = result.evaluations["other-background"]
    assert (over.num_videos, over.num_unreadable) == (
        11,
        1,
    )  # 7 is left out; in the place of 1 stands the broken file
    before = {
        row.path: row.predicted for row in result.evaluations["as-is"].videos if row.predicted is not None
    }
    same = [
        before[row.path.removeprefix("other ")] == row.predicted for row in over.videos if row.error is None
    ]
    assert len(same) == 10
    assert result.figures["same label over both"] == sum(same) / 10
    with pytest.raises(InputError, match=r"swapped \(11 videos\) does not list the scenes of .* \(12\)"):
        protocols.static_bias(score, manifest, dataclasses.replace(others, items=others.items[1:]))
    with pytest.raises(InputError, match="does not list the scenes"):
        protocols.static_bias(score, manifest, dataclasses.replace(others, labels=LABELS[::-1]))


# Tables and pictures


def test_a_table_in_three_forms(tmp_path):
    table = Table(
        title="few-shot", command="openxclip evaluate x", columns=("K", "a|b"), rows=((2, "31.0 ± 2.5"), (16, 7)),
        notes=("Three seeds.",),
    )  # fmt: skip
    table.save(tmp_path / "table.json")
    assert json.loads((tmp_path / "table.json").read_text()) == {
        "title": "few-shot", "command": "openxclip evaluate x", "columns": ["K", "a|b"],
        "rows": [[2, "31.0 ± 2.5"], [16, 7]], "notes": ["Three seeds."],
    }  # fmt: skip
    assert table.text().splitlines() == [
        "few-shot", "", "K          a|b", "2   31.0 ± 2.5", "16           7", "", "Three seeds.",
    ]  # fmt: skip
    lines = table.markdown().splitlines()
    assert lines[2:6] == [r"| K | a\|b |", "|---|---|", "| 2 | 31.0 ± 2.5 |", "| 16 | 7 |"]
    assert "openxclip evaluate x" in lines
    with pytest.raises(InputError, match="has 1 cells"):
        dataclasses.replace(table, rows=((1,),))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_mean_and_sample_standard_deviation(values):
    mean, std = mean_std(values)
    assert mean == pytest.approx(statistics.mean(values), abs=1e-12)
    assert std == pytest.approx(statistics.stdev(values), abs=1e-9)


def test_shares_in_percent():
    assert percent([0.25]) == "25.0"
    assert percent([0.5, 0.7]) == "60.0 ± 14.1"
    assert mean_std([0.3]) == (0.3, None)
    with pytest.raises(InputError, match="at least one value"):
        mean_std([])


@pytest.mark.parametrize("xs", [(2, 4, 8), (1, 2), ("frame mean", "+CCT", "$x_"), (0, 0.5, 1)])
def test_lines_are_drawn(tmp_path, xs):
    series = {"text": [(x, 0.5, 0.1) for x in xs], "discrete_$": [(x, 0.2, None) for x in xs]}
    plot_lines(tmp_path / "lines.png", "few-shot, $5", "K_", series)
    with Image.open(tmp_path / "lines.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(maxcolors=1 << 20)}
    assert {(31, 119, 180), (255, 127, 14)} <= colours  # a line of each


@pytest.mark.parametrize("num_points", [1, 11])
def test_a_trade_off_is_drawn_as_a_point_for_each_name(tmp_path, num_points):
    points = {
        f"${i}_": ((0.3 + 0.05 * i, 0.01), (0.9 - 0.05 * i, None if i else 0.02)) for i in range(num_points)
    }
    plot_trade_off(tmp_path / "trade_off.png", "5 $ and %", points)
    with Image.open(tmp_path / "trade_off.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(maxcolors=1 << 20)}
    shown = {(31, 119, 180), (255, 127, 14), (23, 190, 207)}  # the first, the second and the tenth colour
    assert len(shown & colours) == (1 if num_points == 1 else 3)


# Few-shot

RECIPE = TrainConfig(
    recipe="test",
    model=TINY,
    num_frames=TINY.num_frames,
    data=DataConfig(num_workers=0, cached_frames=8),
    optim=OptimConfig(
        epochs=2, learning_rate=1e-3, batch_size=4, warmup_epochs=0, factors=LearningRates(new=1, visual=1)
    ),
    precision="float32",
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Two classes, told by how bright they are: three training and two test videos of each."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(10):
        level = 60 if i % 2 else 190
        noise = np.random.default_rng(i).integers(-40, 40, size=(6, 48, 64, 3))
        write_video(folder / f"{i}.mp4", frames=list((level + noise).astype(np.uint8)))
    (folder / "train.txt").write_text("".join(f"{i}.mp4 {i % 2}\n" for i in range(6)))
    (folder / "test.txt").write_text("".join(f"{i}.mp4 {i % 2}\n" for i in range(6, 10)))
    (folder / "labels.csv").write_text("id,name\n0,ba de\n1,ki lo\n")
    return folder


def few_shot_of(folder: Path, **changes: object) -> FewShot:
    whole = FewShot(
        config=RECIPE,
        clips=sampled(read(folder, "train.txt"), (1, 2)),
        test=read(folder, "test.txt"),
        seeds=(1, 2),
        targets=("text", "discrete"),
        views=Views(),
    )
    return dataclasses.replace(whole, **changes)


def run_all(experiment: FewShot, output: Path) -> tuple[dict[str, Evaluation], list[str]]:
    """Folder of each run -> its evaluation, and what was announced."""
    said: list[str] = []
    outcome = run_few_shot(experiment, output, data="clips", device="cpu", on_run=said.append)
    found = {run.folder.relative_to(output).as_posix(): value for run, value in outcome.evaluations.items()}
    return found, said


def test_few_shot_goes_on_where_it_stopped(clips, tmp_path):
    experiment = few_shot_of(clips)
    found, said = run_all(experiment, tmp_path)
    assert list(found) == [
        f"{targets}/{shots}shot-seed{seed}"
        for targets in ("text", "discrete") for shots in (1, 2) for seed in (1, 2)
    ]  # fmt: skip
    assert len(said) == 8
    assert said[0] == f"1 of 8: {tmp_path / 'text' / '1shot-seed1'}"
    for folder, evaluation in found.items():
        config = json.loads((tmp_path / folder / "config.json").read_text())
        assert config["config"]["seed"] == int(folder[-1])
        assert (config["config"]["model"]["num_discrete_labels"] is None) == folder.startswith("text")
        assert evaluation == Evaluation.read(tmp_path / folder / "evaluation.json")
        assert evaluation.num_videos == 4
    logs = {path: path.read_text() for path in tmp_path.rglob("log.jsonl")}
    (tmp_path / "text" / "1shot-seed2" / "evaluation.json").unlink()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("evaluation.json")}
    again, _ = run_all(experiment, tmp_path)
    assert again == found
    assert {
        path: path.read_text() for path in tmp_path.rglob("log.jsonl")
    } == logs  # nothing was trained again
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps  # nor measured
    other_views, _ = run_all(dataclasses.replace(experiment, views=Views(2, 1)), tmp_path)
    assert {evaluation.views for evaluation in other_views.values()} == {"2x1"}


def test_few_shot_measures_again_what_was_measured_on_something_else(clips, tmp_path):
    folder = shutil.copytree(clips, tmp_path / "data")
    one = {"seeds": (1,), "targets": ("text",), "clips": sampled(read(folder, "train.txt"), (1,))}
    name, output = "text/1shot-seed1", tmp_path / "output"
    path = output / name / "evaluation.json"
    first = run_all(few_shot_of(folder, **one), output)[0][name]
    (folder / "test.txt").write_text("".join(f"{i}.mp4 {(i + 1) % 2}\n" for i in range(6, 10)))
    second = run_all(few_shot_of(folder, **one), output)[0][name]  # a list of the same name and length
    assert second.top1 == 1 - first.top1
    assert Evaluation.read(path) == second
    values = json.loads(path.read_text())
    del values["fingerprint"]
    path.write_text(json.dumps(values | {"top1": 0.123}))  # as an earlier version left it
    assert run_all(few_shot_of(folder, **one), output)[0][name] == second
    broken = (folder / "9.mp4").read_bytes()
    (folder / "9.mp4").write_bytes(b"no video")
    path.unlink()
    assert run_all(few_shot_of(folder, **one), output)[0][name].num_unreadable == 1
    (folder / "9.mp4").write_bytes(broken)
    assert run_all(few_shot_of(folder, **one), output)[0][name] == second


def test_few_shot_measures_with_the_texts_that_it_trained_with(clips, tmp_path):
    test = read(clips, "test.txt")
    texts = {label: (f"{label} {label}", "zo") for label in test.labels}
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    config = dataclasses.replace(RECIPE, descriptions=str(tmp_path / "texts.json"))
    experiment = few_shot_of(clips, config=config, seeds=(1,), targets=("text",))
    found, _ = run_all(experiment, tmp_path / "runs")
    for folder, evaluation in found.items():
        trained = load(tmp_path / "runs" / folder, device="cpu", dtype="float32")
        engine = Engine(trained)
        described = scorer(engine, Views(), lambda labels: LabelTexts(labels=labels, descriptions=texts))
        assert described(test) == evaluation
        assert scorer(engine, Views())(test).videos != evaluation.videos


def test_few_shot_takes_lists_as_they_are(clips, tmp_path):
    experiment = few_shot_of(clips, clips=fixed({"train_3shot": read(clips, "train.txt")}), targets=("text",))
    runs = list(experiment.runs(tmp_path))
    assert [run.folder.name for run in runs] == ["train_3shot-seed1", "train_3shot-seed2"]
    assert all(run.clips == read(clips, "train.txt") for run in runs)


def test_wrong_few_shot_stops_before_any_training(clips, tmp_path):
    with pytest.raises(InputError, match="'ba de' has 3 videos, but 4 shots"):
        run_all(few_shot_of(clips, clips=sampled(read(clips, "train.txt"), (2, 4))), tmp_path)
    test = dataclasses.replace(read(clips, "test.txt"), labels=("other", "names"))
    with pytest.raises(InputError, match="have different labels"):
        run_all(few_shot_of(clips, test=test), tmp_path)
    assert list(tmp_path.iterdir()) == []
    for changes in ({"seeds": ()}, {"seeds": (1, 1)}, {"clips": {}}):
        with pytest.raises(InputError, match="at least one of both, seeds once"):
            few_shot_of(clips, **changes)


def test_discrete_targets_keep_the_parts_of_given_weights(loaded, tmp_path):
    save_as(tmp_path / "model", *loaded)
    config = dataclasses.replace(RECIPE, model=None, init=str(tmp_path / "model"))
    assert with_targets(config, "text", 3) is config
    expansion = with_targets(config, "discrete", 3).expansion
    assert expansion.discrete_labels
    assert expansion.prompting is None
    assert expansion.integration == TINY.integration  # not the default's number of heads
