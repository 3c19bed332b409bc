"""Ablations: what the rows say, every variant's model, and a whole small study that shares, resumes and repeats."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import label_features_of
from videos import write_video

from openxclip.data.manifest import read_manifest
from openxclip.data.media import FileMedia, Manifest
from openxclip.data.moving_shapes import shapes_manifest, write_shapes
from openxclip.errors import InputError
from openxclip.experiments import bench
from openxclip.experiments.ablations import (
    ABLATIONS,
    TEXT_FACTOR,
    Ablation,
    AblationResult,
    named,
    without_descriptions,
)
from openxclip.experiments.bench import (
    check_configs,
    data_recipes,
    data_regimes,
    image_model_config,
    pretrain_image_models,
    run_ablation,
    shapes_recipes,
    shapes_regimes,
)
from openxclip.experiments.study import Study, Variant
from openxclip.inference.views import Views
from openxclip.recipes import recipe
from openxclip.reports.plots import far_points, plot_lines
from openxclip.reports.table import percent
from openxclip.shapes.splits import WORLD, WORLDS
from openxclip.training.config import TrainConfig
from openxclip.training.start import starting_point

SETTINGS = (
    "num_frames=2",
    "optim.epochs=1",
    "optim.warmup_epochs=0",
    "optim.batch_size=4",
    "data.samples_per_epoch=4",
)
PRETRAIN_SETTINGS = (
    "num_steps=2",
    "warmup_steps=0",
    "batch_size=4",
    "model.vision.num_layers=1",
    "model.text.num_layers=1",
)
SEEDS = (1, 2)


# What the rows say


def published(name: str) -> dict[str, dict[str, float]]:
    return {variant.name: dict(paper) for variant, paper in ABLATIONS[name].rows if paper}


def test_the_papers_numbers_stand_beside_their_rows():
    assert published("components") == {
        "frame mean": {"full": 80.0},
        "+ CCT": {"full": 81.2},
        "+ MIT": {"full": 81.7},
        "+ prompting": {"full": 82.3},
    }
    assert published("targets") == {
        "discrete labels": {"few": 32.0, "full": 81.6},
        "class names": {"few": 50.8, "full": 82.3},
    }
    assert published("branches") == {
        "both": {"zero": 72.9, "few": 54.6, "full": 82.4},
        "visual": {"zero": 70.0, "few": 50.8, "full": 82.3},
        "text": {"zero": 66.8, "few": 53.4, "full": 79.3},
        "none": {"zero": 64.2, "few": 47.3, "full": 79.1},
    }
    assert published("prompts") == {
        "bare name": {"zero": 63.2, "few": 49.6, "full": 81.7},
        "learnable context (CoOp)": {"zero": 63.2, "few": 49.9, "full": 82.0},
        "video-specific": {"zero": 70.0, "few": 50.8, "full": 82.3},
    }
    assert published("fine-tuning") == {
        "visual tower (X-CLIP)": {"zero": 72.0, "full": 84.7},
        "frame mean, both towers (ViFi-CLIP)": {"zero": 76.8, "full": 83.9},
        "both, all three (Open-VCLIP)": {"zero": 83.4},
        "both, features distilled (FROSTER)": {"zero": 84.8},
    }
    assert published("views") == {"1x1": {"full": 82.3}, "4x3": {"full": 83.8}}


def test_every_row_has_a_name_of_its_own():
    for name, ablation in ABLATIONS.items():
        names = [variant.name for variant, _ in ablation.rows]
        assert len(set(names)) == len(names) >= 2, name


def test_ablations_are_chosen_by_name():
    assert list(named(["views", "components"])) == ["views", "components"]
    assert named(["all"]) == ABLATIONS
    with pytest.raises(InputError, match=r"no ablation 'soup'; choose from components, .*, or all"):
        named(["views", "soup"])


# The model of every variant


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A study's folder with the image models of two seeds and short test lists of every class."""
    output = tmp_path_factory.mktemp("study")
    for name, every in (("small-test-base", 132), ("small-few-test", 66), ("small-test-novel", 66)):
        clips = shapes_manifest(name)
        write_shapes(replace(clips, items=clips.items[::every]), output / "lists" / name)
    pretrain_image_models(image_model_config(PRETRAIN_SETTINGS), output, SEEDS, "cpu")
    return output


VARIANTS = {f"{name}, {v.name}": v for name, ablation in ABLATIONS.items() for v, _ in ablation.rows}


@pytest.fixture(scope="module")
def changed(folder) -> Callable[[str], TrainConfig]:
    """The config of a variant's training."""
    base = shapes_recipes(folder, ())["full"](1)
    return lambda name: VARIANTS[name].change(base)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_a_model_with_room_for_the_class_names(changed, name):
    config = changed(name)
    names = shapes_manifest("small-test-novel").labels
    model, tokenizer, _ = starting_point(config, names)
    video = torch.randn(2, config.num_frames, 3, 32, 32)
    if config.expansion.discrete_labels:
        assert model.config.num_discrete_labels == len(names)
        return
    features = label_features_of(model, tokenizer, names, config.templates)
    assert len({tuple(row) for row in features.tolist()}) == len(names), "no two names are cut to the same"
    with torch.inference_mode():
        assert model.logits(model.encode_video(video), features).shape == (2, len(names))


def test_what_the_variants_change(changed):
    base = changed("components, + prompting")
    parts = {
        name: (
            config.expansion.message_tokens,
            bool(config.expansion.integration),
            bool(config.expansion.prompting),
        )
        for name in ("frame mean", "+ CCT", "+ MIT", "+ prompting")
        for config in [changed(f"components, {name}")]
    }
    assert parts == {
        "frame mean": (False, False, False),
        "+ CCT": (True, False, False),
        "+ MIT": (True, True, False),
        "+ prompting": (True, True, True),
    }
    discrete = changed("targets, discrete labels").expansion
    assert (discrete.discrete_labels, discrete.prompting) == (True, None)
    branches = {
        name: changed(f"branches, {name}").optim.factors for name in ("both", "visual", "text", "none")
    }
    assert {name: (f.visual, f.text) for name, f in branches.items()} == {
        "both": (1, 1), "visual": (1, 0), "text": (0, 1), "none": (0, 0),
    }  # fmt: skip
    assert {f.new for f in branches.values()} == {base.optim.factors.new}
    context = changed("prompts, learnable context (CoOp)").expansion
    assert (context.num_context_vectors, context.prompting) == (16, None)
    assert len(changed("prompts, 28 video templates").templates) == 28
    assert len(changed("prompts, 80 general templates").templates) == 80
    assert [changed(f"frames, {n}").num_frames for n in (2, 4, 8, 16)] == [2, 4, 8, 16]
    assert changed("sampling, dense").data.dense_stride == VARIANTS["sampling, dense"].views.dense_stride == 1
    for same in (
        "targets, class names",
        "prompts, video-specific",
        "sampling, sparse",
        "views, 4x3",
        "frames, 8",
    ):
        assert changed(same) == base, same


def test_what_fine_tuning_varies(changed):
    def factors(name: str) -> tuple[float, float]:
        config = changed(f"fine-tuning, {name}")
        return config.optim.factors.visual, config.optim.factors.text

    names = [variant.name for variant, _ in ABLATIONS["fine-tuning"].rows]
    assert {name: factors(name) for name in names} == {
        "visual tower (X-CLIP)": (1, 0),
        **dict.fromkeys(names[1:], (1, TEXT_FACTOR)),
    }
    mean = changed("fine-tuning, frame mean, both towers (ViFi-CLIP)").expansion
    assert (mean.message_tokens, mean.integration, mean.prompting) == (False, None, None)
    kept = {
        name: [part for part in ("averaging", "interpolated", "distillation") if getattr(config, part)]
        for name in names
        for config in [changed(f"fine-tuning, {name}")]
    }
    assert {name: parts for name, parts in kept.items() if parts} == {
        "both, weights averaged (SWA)": ["averaging"],
        "both, loss at interpolated weights": ["interpolated"],
        "both, that and averaged": ["averaging", "interpolated"],
        "both, all three (Open-VCLIP)": ["averaging", "interpolated"],
        "both, features distilled (FROSTER)": ["distillation"],
    }
    assert {name: VARIANTS[f"fine-tuning, {name}"].interpolate for name in names if "halfway" in name} == {
        "both, halfway to the image model (WiSE-FT)": 0.5
    }
    described = [name for name in names if VARIANTS[f"fine-tuning, {name}"].described]
    assert described == ["both, class descriptions"]
    (lacking,) = set(names) - {v.name for v, _ in without_descriptions(ABLATIONS["fine-tuning"]).rows}
    assert lacking == "both, class descriptions"
    assert without_descriptions(ABLATIONS["views"]) == ABLATIONS["views"]


# A whole study


class Told(NamedTuple):
    """A study and what it said it was working for."""

    study: Study
    work: list[str]


def new_study(folder: Path, num_shots: int = 2) -> Told:
    work: list[str] = []
    regimes, recipes = shapes_regimes(folder, num_shots), shapes_recipes(folder, SETTINGS)
    study = Study(regimes, recipes, folder, data=WORLD, descriptions=WORLD, device="cpu", on_work=work.append)
    return Told(study, work)


def trained(folder: Path) -> dict[Path, int]:
    """Every file that a training wrote, and when."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/last/*")}


@pytest.fixture(scope="module")
def targets(folder) -> AblationResult:
    return AblationResult(ABLATIONS["targets"], new_study(folder).study, SEEDS)


def test_a_study_trains_each_variant_in_each_regime_for_each_seed(targets, folder):
    assert targets.regimes == ["few", "full"]
    names = ("discrete labels", "class names, no prompting", "class names")
    assert set(targets.values) == {(name, regime) for name in names for regime in ("few", "full")}
    runs = sorted(path.name for path in (folder / "runs").iterdir())
    assert len(runs) == 12
    for run in runs:
        regime, _, seed = run.split("-")
        config = json.loads((folder / "runs" / run / "config.json").read_text())
        assert config["data"] == WORLD
        assert config["config"]["seed"] == int(seed.removeprefix("seed"))
        assert Path(config["config"]["init"]) == (folder / f"clip-{seed}").resolve()
        assert len(config["labels"]) == {"few": 33, "full": len(WORLDS["small"].base)}[regime]
    scores = [json.loads(path.read_text()) for path in folder.glob("runs/*/scores.json")]
    found = sorted(value for row in scores for value in row.values())
    assert found == sorted(value for values in targets.values.values() for value in values)


def test_the_table_has_mean_and_standard_deviation_beside_the_papers_numbers(targets):
    table = targets.table("openxclip ablate targets", "small shapes")
    assert table.title == "class names against discrete labels: top-1 on small shapes, %"
    assert table.columns == ("", "few", "full", "paper, few", "paper, full")
    values, regimes = targets.values, ("few", "full")
    assert table.rows == (
        ("discrete labels", *(percent(values["discrete labels", r]) for r in regimes), 32.0, 81.6),
        (
            "class names, no prompting",
            *(percent(values["class names, no prompting", r]) for r in regimes),
            "",
            "",
        ),
        ("class names", *(percent(values["class names", r]) for r in regimes), 50.8, 82.3),
    )
    assert table.notes == ("Seeds 1, 2; ± is the sample standard deviation over them.",)


def test_a_second_call_does_nothing_and_finds_the_same(targets, folder):
    before = trained(folder)
    study, work = new_study(folder)
    assert AblationResult(ABLATIONS["targets"], study, SEEDS).values == targets.values
    assert work == []
    assert trained(folder) == before


def test_ablations_share_their_trainings(targets, folder, caplog):
    before = trained(folder)
    study, work = new_study(folder)
    result = AblationResult(ABLATIONS["interpolation"], study, (1,))
    assert caplog.records == [], "nothing to warn of in what was asked for"
    assert trained(folder) == before, "the same training as `class names`"
    assert len(work) == 15  # five shares, three regimes
    for regime in ("few", "full"):
        assert result.values["1", regime] == targets.values["class names", regime][:1]
    points = result.points()["zero"]
    assert [x for x, _, _ in points] == [0, 0.25, 0.5, 0.75, 1]
    assert all(std is None for _, _, std in points)


def test_a_lost_score_is_measured_again_without_training(targets, folder):
    before = trained(folder)
    run = next((folder / "runs").glob("few-*-seed2"))
    scores = json.loads((run / "scores.json").read_text())
    (run / "scores.json").unlink()
    study, work = new_study(folder)
    assert AblationResult(ABLATIONS["targets"], study, SEEDS).values == targets.values
    assert len(work) == 1
    assert work[0].endswith(", few, seed 2")
    assert trained(folder) == before
    again = json.loads((run / "scores.json").read_text())
    assert again.items() <= scores.items()


def test_a_moved_study_is_still_known(targets, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "moved")
    study, work = new_study(tmp_path / "moved")
    assert AblationResult(ABLATIONS["targets"], study, SEEDS).values == targets.values
    assert work == []


def test_other_clips_and_another_start_are_other_trainings(targets, folder, tmp_path):
    class_names = VARIANTS["targets, class names"]
    study, work = new_study(folder, num_shots=3)
    study.top1(class_names, "few", 1)
    assert work == ["class names, few, seed 1"]
    elsewhere = shutil.copytree(folder / "clip-seed1", tmp_path / "clip")
    study, work = new_study(folder)
    study.recipes = {regime: partial(started_from, elsewhere, make) for regime, make in study.recipes.items()}
    study.top1(class_names, "few", 1)
    assert work == ["class names, few, seed 1"]


def started_from(init: Path, recipe: Callable[[int], TrainConfig], seed: int) -> TrainConfig:
    return replace(recipe(seed), init=str(init))


def test_an_interrupted_study_goes_on(targets, folder):
    study, work = new_study(folder)

    def interrupt(what: str) -> None:
        work.append(what)
        if len(work) == 2:
            raise KeyboardInterrupt

    study.on_work = interrupt
    four_views = Ablation(
        title="views", rows=[(Variant(name="4x1", views=Views(4, 1)), {})], regimes=("few", "full")
    )
    with pytest.raises(KeyboardInterrupt):
        AblationResult(four_views, study, SEEDS)
    study, work = new_study(folder)
    AblationResult(four_views, study, SEEDS)
    assert work == ["4x1, few, seed 2", "4x1, full, seed 1", "4x1, full, seed 2"]


def test_a_run_leaves_a_table_and_a_picture(targets, folder):
    study, work = new_study(folder)
    table = run_ablation("targets", ABLATIONS["targets"], study, SEEDS, "openxclip ablate targets")
    assert work == []
    assert json.loads((folder / "targets.json").read_text())["rows"] == [list(row) for row in table.rows]
    assert (folder / "targets.png").read_bytes().startswith(b"\x89PNG")
    assert table.title.endswith(f"on {WORLD}, %")


def test_fine_tuning_leaves_a_table_and_a_trade_off(folder):
    study, _ = new_study(folder)
    ablation = ABLATIONS["fine-tuning"]
    table = run_ablation("fine-tuning", ablation, study, (1,), "openxclip ablate fine-tuning")
    assert table.columns == ("", "zero", "motion", "full", "paper, zero", "paper, full")
    assert len(table.rows) == len(ablation.rows)
    points = AblationResult(ablation, study, (1,)).trade_off()
    assert list(points) == [variant.name for variant, _ in ablation.rows]
    cells = {row[0]: (row[3], row[1]) for row in table.rows}
    assert {name: tuple(percent([mean]) for mean, _ in axes) for name, axes in points.items()} == cells
    with Image.open(folder / "fine-tuning.png") as image:
        assert image.size == (1032, 552)  # the trade-off, and not the lines of other ablations


def test_points_far_from_all_others_do_not_set_the_scale():
    near = {str(i): ((0.70 + 0.01 * i, 0.1), (0.60 + 0.02 * i, None)) for i in range(4)}
    far = {"frame mean": ((0.08, 0.01), (0.10, 0.01))}
    assert far_points(near) == set()
    assert far_points(near | far) == {"frame mean"}
    assert far_points(far) == set()


def test_another_text_is_another_training_wherever_the_file_lies(folder, tmp_path):
    names = {*shapes_manifest("small-test-novel").labels, *shapes_manifest("small-train").labels}
    names |= {*shapes_manifest("small-few-train").labels}
    row = Variant(name="described", described=True)

    def runs(path: Path, text: str) -> set[Path]:
        path.write_text(json.dumps({name: text + name for name in names}))
        study = Study(
            shapes_regimes(folder, 2), shapes_recipes(folder, SETTINGS), folder,
            data=WORLD, descriptions=str(path), device="cpu",
        )  # fmt: skip
        before = {*folder.glob("runs/*")}
        study.top1(row, "few", 1)
        return {*folder.glob("runs/*")} - before

    (first,) = runs(tmp_path / "texts.json", "a ")
    config = json.loads((first / "config.json").read_text())["config"]
    assert config["descriptions"] == str(tmp_path / "texts.json")
    assert runs(tmp_path / "moved.json", "a ") == set()
    (second,) = runs(tmp_path / "texts.json", "the ")
    assert second != first


def test_classes_without_a_text_show_before_any_training(folder, tmp_path):
    (tmp_path / "texts.json").write_text('{"red star moving left": "a star"}')
    with pytest.raises(InputError, match="33 of 33 labels have no description"):
        Study(
            shapes_regimes(folder, 2), shapes_recipes(folder, SETTINGS), folder,
            data=WORLD, descriptions=str(tmp_path / "texts.json"),
        )  # fmt: skip


def axis_row(path: Path, names: Sequence[str]) -> int:
    """Draw steps of these names -> the row of pixels in which the axis lies, which is black from end to end."""
    plot_lines(path, "prompts", "", {"zero": [(name, 0.5, None) for name in names]})
    with Image.open(path) as image:
        dark = np.asarray(image.convert("L")) < 100
    return int(np.flatnonzero(dark.mean(axis=1) > 0.5)[-1])


def test_long_names_of_rows_take_a_second_line_in_the_picture(tmp_path):
    short = axis_row(tmp_path / "a.png", ("bare name", "learnable", "video-specific"))
    assert axis_row(tmp_path / "b.png", ("bare name", "learnable context (CoOp)", "none")) < short - 8
    assert axis_row(tmp_path / "c.png", ("frame mean", "+ CCT", "+ prompting")) == short


def test_lists_that_are_there_are_not_written_again(folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / "lists").rglob("*")}
    regimes = shapes_regimes(folder, num_shots=2)
    assert {path: path.stat().st_mtime_ns for path in (folder / "lists").rglob("*")} == before
    assert all(isinstance(item.media, FileMedia) for item in regimes.zero.items)
    assert regimes.names() == ("zero", "motion", "few", "full")
    assert [len(test.labels) for test in regimes.motion] == [11, 11, 11]
    assert sum(len(test.items) for test in regimes.motion) == len(regimes.zero.items)
    for test in regimes.motion:  # the names share colour and shape
        assert len({tuple(label.split()[:2]) for label in test.labels}) == 1
    few = regimes.few[0]
    assert len(few(1).items) == 2 * 33
    assert few(1) == few(1) != few(2)


def test_a_list_of_another_version_is_written_anew(tmp_path, caplog, monkeypatch):
    whole = shapes_manifest("val")
    short = replace(whole, items=whole.items[::100])
    monkeypatch.setattr(bench, "shapes_manifest", lambda name: short)
    lists = tmp_path / "lists"
    first = bench._from_files("val", lists)
    assert (first.fingerprint(), caplog.messages) == (short.fingerprint(), [])
    other = replace(whole, items=whole.items[50::100])
    monkeypatch.setattr(bench, "shapes_manifest", lambda name: other)
    second = bench._from_files("val", lists)
    assert second.fingerprint() == other.fingerprint()
    assert second.missing() == []
    assert caplog.messages == [
        f"{lists / 'val'} holds another list than moving-shapes/val is now; it is written anew"
    ]
    assert [path.name for path in lists.iterdir()] == ["val"]


@pytest.mark.slow
def test_commands_at_once_share_a_folder(tmp_path):
    """Both need the same image model, lists and training; each waits for what the other does, and no score is lost."""
    settings = [f"--set={setting}" for setting in SETTINGS]
    settings += [f"--pretrain-set={setting}" for setting in PRETRAIN_SETTINGS]
    names, output = ("views", "interpolation"), ["--output", str(tmp_path), "--seeds", "1"]
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "openxclip", "ablate", name, *output, *settings], stderr=subprocess.PIPE
        )
        for name in names
    ]
    errors = [command.communicate(timeout=300)[1].decode() for command in commands]
    assert [command.returncode for command in commands] == [0, 0], errors
    assert all((tmp_path / f"{name}.json").exists() for name in names)
    runs = [*tmp_path.glob("runs/*")]
    assert len(runs) == 2  # full and few
    scored = [len(json.loads((run / "scores.json").read_text())) for run in runs]
    assert sorted(scored) == [4 + 5, 2 * (4 + 5)]  # with all clips, the new classes are scored as well


def test_pretraining_is_done_once(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.glob("clip-seed*/last/*")}
    assert len(before) > 8
    pretrain_image_models(image_model_config(PRETRAIN_SETTINGS), folder, SEEDS, "cpu")
    assert {path: path.stat().st_mtime_ns for path in folder.glob("clip-seed*/last/*")} == before
    longer = image_model_config((*PRETRAIN_SETTINGS, "num_steps=3"))
    with pytest.raises(InputError, match=r"config\.num_steps: was 2, now 3"):
        pretrain_image_models(longer, folder, SEEDS, "cpu")


# Any data


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Lists of two classes and of a third, under one file of three labels."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(6):
        write_video(folder / f"{i}.mp4", num_frames=6)
    (folder / "labels.csv").write_text("id,name\n0,ski\n1,swim\n2,climb\n")
    (folder / "train.txt").write_text("0.mp4 0\n1.mp4 1\n2.mp4 0\n3.mp4 1\n")
    (folder / "test.txt").write_text("4.mp4 1\n")
    (folder / "novel.txt").write_text("5.mp4 2\n")
    return folder


def lists(data: Path, *names: str) -> list[Manifest]:
    return [read_manifest(data, list_name=f"{name}.txt") for name in names]


def test_classes_of_given_data_are_those_of_the_training_videos(data):
    train, test, novel = lists(data, "train", "test", "novel")
    regimes = data_regimes(train, test, novel, 1, skip_missing=False)
    assert regimes.full[0].labels == regimes.full[1].labels == regimes.few[1].labels == ("ski", "swim")
    assert [item.path for item in regimes.full[1].items] == ["4.mp4"]
    assert regimes.zero.labels == ("climb",)
    assert regimes.few[0](3).labels == ("ski", "swim")
    assert len(regimes.few[0](3).items) == 2
    assert data_regimes(train, test, None, 1, skip_missing=False).names() == ("few", "full")


def test_given_data_that_cannot_be_used(data, tmp_path):
    train, test, novel = lists(data, "train", "test", "novel")
    with pytest.raises(InputError, match=r"1 of 1 classes of .*test\.txt.* are training classes"):
        data_regimes(train, test, test, 1, skip_missing=False)
    (tmp_path / "labels.csv").write_text((data / "labels.csv").read_text())
    (tmp_path / "test.txt").write_text("nowhere.mp4 1\n")
    with pytest.raises(InputError, match="'ski' has 2 videos, but 3 shots"):
        data_regimes(train, test, novel, 3, skip_missing=False)
    lost = read_manifest(tmp_path, list_name="test.txt")
    with pytest.raises(
        InputError, match=r"test\.txt.*: 1 of 1 videos are missing, the first is nowhere\.mp4"
    ):
        data_regimes(train, lost, novel, 1, skip_missing=False)


def test_missing_training_videos_are_left_out_before_the_draw(data):
    train, test = lists(data, "train", "test")
    gone = [
        replace(item, media=FileMedia(data / "gone.mp4")) for item in train.items[:2]
    ]  # one of each class
    train = replace(train, items=(*gone, *train.items[2:]))
    with pytest.raises(InputError, match=r"2 of 4 videos are missing.*skip_missing=true"):
        data_regimes(train, test, None, 1, skip_missing=False)
    regimes = data_regimes(train, test, None, 1, skip_missing=True)
    assert regimes.full[0].items == train.items[2:]
    assert all(regimes.few[0](seed).items == train.items[2:] for seed in range(5))
    with pytest.raises(InputError, match="'ski' has 1 videos, but 2 shots"):
        data_regimes(train, test, None, 2, skip_missing=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("components", "recipe ucf8_fewshot has no expansion to vary"),
        ("targets", "recipe ucf8_fewshot has no expansion to vary"),
        ("interpolation", "recipe ucf8_fewshot starts from no image model"),
    ],
)
def test_a_recipe_that_an_ablation_cannot_vary_is_refused_before_any_work(name, message):
    with pytest.raises(InputError, match=message):
        check_configs([ABLATIONS[name]], data_recipes(recipe("ucf8_fewshot")))


def test_rows_of_fine_tuning_are_what_they_say_whatever_the_recipe_does():
    """froster distils, averages and trains the text tower; a row has of that what its name says."""
    for variant, _ in ABLATIONS["fine-tuning"].rows:
        config, name = variant.change(recipe("froster")), variant.name
        assert config.optim.factors.text == (0 if "X-CLIP" in name else TEXT_FACTOR), name
        assert bool(config.distillation) == ("FROSTER" in name), name
        assert bool(config.averaging) == ("average" in name or "Open-VCLIP" in name), name
        assert bool(config.interpolated) == ("interpolated" in name or "that" in name or "Open" in name), name


def test_every_ablation_can_vary_the_small_recipes_of_moving_shapes(tmp_path):
    check_configs(ABLATIONS.values(), shapes_recipes(tmp_path, ()))
    assert list(tmp_path.iterdir()) == []
