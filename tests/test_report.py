"""Reports of real small runs and evaluations: what the page shows, that nothing escapes, that nothing is fetched."""

import base64
import dataclasses
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import TINY, recognizer_of, tiny_model, tiny_tokenizer
from videos import moving_frames, write_video

import openxclip
from openxclip.cli.main import run as run_command
from openxclip.configuration import with_overrides
from openxclip.data.manifest import read_manifest
from openxclip.data.media import Manifest
from openxclip.data.moving_shapes import shapes_manifest
from openxclip.errors import CheckpointError, InputError
from openxclip.evaluation.backgrounds import frozen
from openxclip.evaluation.evaluate import Alter, Evaluation, evaluate
from openxclip.inference.views import Views
from openxclip.recipes import pretrain_recipe
from openxclip.reports.contact_sheet import film_strip
from openxclip.reports.plots import Curve, draw_curves, thinned
from openxclip.reports.report import choose_examples, write_report
from openxclip.reports.table import Table
from openxclip.training.config import DataConfig, OptimConfig, TrainConfig
from openxclip.training.contrastive import pretrain
from openxclip.training.train import train
from openxclip.video.sampling import centred

EVIL = "<script>alert('x')</script> & \"co\""
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would make of the page: its texts, images and tables, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.texts: list[str] = []
        self.images: list[bytes] = []
        self.tables: list[list[list[str]]] = []
        self.addresses: list[str] = []
        self.num_scripts = 0
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.addresses += [values[name] for name in ("src", "href", "action", "data") if name in values]
        if tag == "img":
            kind, data = values["src"].split(";base64,")
            assert kind in ("data:image/png", "data:image/jpeg")
            self.images.append(base64.b64decode(data))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.num_scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def table(self, *columns: str) -> list[list[str]]:
        """Rows of the one table with these columns."""
        (found,) = [rows for rows in self.tables if rows[0] == list(columns)]
        return found[1:]


CONFIG = TrainConfig(
    recipe="test",
    model=dataclasses.replace(TINY),
    num_frames=TINY.num_frames,
    data=DataConfig(train_list="train.txt", val_list="val.txt", num_workers=0, cached_frames=8),
    optim=OptimConfig(epochs=2, learning_rate=1e-3, batch_size=4, warmup_epochs=1),
    precision="float32",
    seed=7,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """The folder of a run of two epochs, with an evaluation in it; one video of it is broken, one moved away."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs") / "mine"
    for i in range(8):
        write_video(data / f"{i}.mp4", frames=moving_frames(10, seed=i))
    (data / "labels.csv").write_text(f'id,name\n0,running\n1,"{EVIL.replace(chr(34), chr(34) * 2)}"\n')
    (data / "train.txt").write_text("".join(f"{i}.mp4 {i % 2}\n" for i in range(8)))
    (data / "val.txt").write_text("0.mp4 0\n1.mp4 1\n")
    (data / "test.txt").write_text("".join(f"{i}.mp4 {i % 2}\n" for i in range(8)) + "broken.mp4 1\n")
    (data / "broken.mp4").write_bytes(b"no video")
    train(CONFIG, data, output)
    manifest = read_manifest(data, list_name="test.txt")
    recognizer = openxclip.Recognizer.from_pretrained(str(output), manifest.labels)
    (output / "evaluation").mkdir()
    evaluate(recognizer, manifest, Views()).save(output / "evaluation" / "evaluation.json")
    (data / "7.mp4").unlink()
    return output


@pytest.fixture(scope="module")
def page(results) -> Page:
    assert run_command(["report", str(results)]) == 0
    return Page(results / "report.html")


def test_the_page_is_whole_and_fetches_nothing(page):
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not re.search(r"https?://|url\(|@import", page.source)
    assert "default-src 'none'" in page.source
    assert "$" not in re.sub(r"<script>.*</script>", "", page.source, flags=re.DOTALL)


def test_what_a_label_holds_is_text_and_never_html(page):
    assert "<script>alert" not in page.source
    assert page.num_scripts == 1  # the page's own
    assert EVIL in page.text


def test_the_numbers_of_the_training_are_those_of_its_log(results, page):
    rows = [json.loads(line) for line in (results / "log.jsonl").read_text().splitlines()]
    epochs = [row for row in rows if "mean_loss" in row]
    assert "2 epochs 4 steps" in page.text
    assert f"{epochs[-1]['mean_loss']:.3f} loss of the last epoch" in page.text
    assert f"{max(row['val_top1'] for row in epochs):.1%} best validation top-1" in page.text


def test_every_setting_is_in_the_page_as_the_set_option_takes_it(results, page):
    settings = dict(page.table("setting", "value"))
    assert settings["optim.learning_rate"] == "0.001"
    assert settings["model.vision.image_size_px"] == "32"
    assert settings["data.crop_scales"] == "[1.0, 0.875, 0.75, 0.66]"
    assert settings["init"] == "null"
    assert json.loads(settings["labels"]) == ["running", EVIL]


def test_the_classes_and_the_confusion_are_those_of_the_evaluation(results, page):
    result = json.loads((results / "evaluation" / "evaluation.json").read_text())
    for name, value in (("top-1", result["top1"]), ("top-5", result["top5"])):
        assert f"{value:.1%} {name}" in page.text
    assert "9 videos" in page.text
    assert "1 not readable" in page.text
    for row, expected in zip(
        page.table("class", "videos", "top-1", "most often taken for"), result["classes"], strict=True
    ):
        assert row[:3] == [expected["label"], str(expected["num_videos"]), f"{expected['accuracy']:.1%}"]
    confusion = page.table("", "running", EVIL)
    assert [row[0] for row in confusion] == ["running", EVIL]
    assert [[int(cell or 0) for cell in row[1:]] for row in confusion] == result["confusion"]


def test_pictures_are_charts_and_strips_of_the_videos(page):
    images = [Image.open(io.BytesIO(data)) for data in page.images]
    assert [image.format for image in images] == ["PNG"] * 3 + ["JPEG"] * 7
    assert {image.size for image in images[3:]} == {(8 * 128 + 7 * 4, 96)}  # eight frames of 64 x 48
    for title in ("Loss", "Learning rate", "Validation top-1"):
        assert title in page.text
    strip = np.asarray(images[3]).astype(int)
    assert strip.std() > 20
    assert (strip[:, 129:131] > 220).all()


def test_a_video_that_is_gone_gets_a_note_in_its_place(page):
    assert page.source.count('class="missing"') == 1
    assert re.search(r"7\.mp4 : [✓✗] .* Not shown: there is no such file", page.text)


def test_the_same_results_give_the_same_page(results, page, tmp_path):
    write_report(results, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page.source
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]


def test_the_command_prints_where_the_page_is(results, tmp_path, capsys):
    assert run_command(["report", str(results), "--output", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"


def test_a_log_that_was_cut_off_is_shown_as_far_as_it_goes(results, tmp_path):
    for name in ("config.json", "log.jsonl"):
        shutil.copy(results / name, tmp_path)
    lines = (results / "log.jsonl").read_text().splitlines()
    (tmp_path / "log.jsonl").write_text("\n".join(lines[:1]) + '\n{"epoch": 1, "st')
    write_report(tmp_path, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "1 lines of the log cannot be read" in page.text
    assert "0 epochs 1 steps" in page.text
    assert len(page.images) == 2


def test_a_long_run_makes_a_small_page(results, tmp_path):
    shutil.copy(results / "config.json", tmp_path)
    with (tmp_path / "log.jsonl").open("w") as file:
        for step in range(1, 20_001):
            row = {"epoch": 1, "step": step, "loss": 9 / step, "learning_rate": 1e-3, "seconds": 0.5}
            row["waited_seconds"] = 0.03
            file.write(json.dumps(row) + "\n")
    write_report(tmp_path, tmp_path / "report.html")
    text = Page(tmp_path / "report.html").text
    assert "20000 steps" in text
    assert "166.7 minutes in steps" in text
    assert "10.0 minutes waiting for clips" in text
    assert (tmp_path / "report.html").stat().st_size < 300_000


def test_thinning_keeps_short_curves_and_averages_long_ones():
    points = [(float(i), float(i % 10)) for i in range(1000)]
    assert thinned(points[:400], 400) == points[:400]
    means = thinned(points, 100)
    assert means == [(10 * i + 4.5, 4.5) for i in range(100)]
    assert len(thinned(points, 300)) == 250
    assert thinned([]) == []


def test_a_chart_of_one_point_shows_it():
    with Image.open(io.BytesIO(draw_curves("step", [Curve(points=[(1, 2.0)])]))) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert (pixels == (59, 130, 246, 255)).all(axis=-1).sum() > 20
    assert pixels[0, 0, 3] == 0  # no background, for dark pages


def video(label: str, predicted: str | None, probability: float = 0.5, path: str = "") -> dict:
    row = {"path": path, "file": None, "label": label}
    outcome = (
        {"error": "damaged"} if predicted is None else {"predicted": predicted, "probability": probability}
    )
    return row | outcome


def test_examples_are_the_surest_mistakes_and_hits_over_the_whole_list():
    mistakes = [video("a", "b", i / 20, f"mistake {i}") for i in range(10)]
    hits = [video("a", "a", 0.9, f"hit {i}") for i in range(60)]
    broken = [video("a", None, path="broken")]
    chosen = [row["path"] for row in choose_examples([*broken, *hits, *mistakes])]
    assert chosen == [f"mistake {i}" for i in (9, 8, 7, 6, 5, 4)] + [
        f"hit {i}" for i in (5, 15, 25, 35, 45, 55)
    ]


@pytest.mark.parametrize(
    ("num_mistakes", "num_hits", "shown"),
    [(0, 0, (0, 0)), (0, 99, (0, 12)), (99, 0, (12, 0)), (2, 99, (2, 10)), (99, 3, (9, 3)), (2, 3, (2, 3))],
)
def test_there_are_twelve_examples_if_there_are_videos(num_mistakes, num_hits, shown):
    rows = [video("a", "b")] * num_mistakes + [video("a", "a")] * num_hits
    chosen = choose_examples(rows)
    wrong = sum(row["predicted"] != row["label"] for row in chosen)
    assert (wrong, len(chosen) - wrong) == shown


def test_of_many_classes_the_most_confused_pairs_are_listed(tmp_path):
    labels = [f"class {i}" for i in range(40)]
    confusion = (5 * np.eye(40, dtype=int)).tolist()
    confusion[3][7], confusion[9][2], confusion[0][1] = 8, 11, 8
    classes = [{"label": label, "num_videos": 5, "accuracy": None} for label in labels]
    result = {
        "data": "many",
        "views": "1x1",
        "num_videos": 200,
        "num_unreadable": 0,
        "top1": 0.5,
        "top5": 0.75,
    }
    result |= {
        "classes": classes,
        "confusion": confusion,
        "videos": [video("class 1", "class 2", path="old")],
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(result))
    write_report(tmp_path, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    pairs = page.table("class", "taken for", "videos")
    assert pairs == [
        ["class 9", "class 2", "11"],
        ["class 0", "class 1", "8"],
        ["class 3", "class 7", "8"],
    ]
    assert "does not say which file" in page.text
    rows = page.table("class", "videos", "top-1", "most often taken for")
    assert rows[9] == ["class 9", "5", "-", "class 2 (11)"]
    assert rows[4] == ["class 4", "5", "-", ""]


def test_tables_of_an_ablation_stand_beside_their_pictures(tmp_path):
    columns, rows = ("model", "top-1"), ((f"mean {EVIL}", "31.2 ± 0.8"), ("+ CCT", 75.0))
    Table(
        title="Components",
        command="openxclip ablate components",
        columns=columns,
        rows=rows,
        notes=("3 seeds",),
    ).save(tmp_path / "components.json")
    Image.new("RGB", (30, 20), "red").save(tmp_path / "components.png")
    Image.new("RGB", (31, 21), "red").save(tmp_path / "unrelated.png")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "other.json").write_text('{"rows": 3}')
    write_report(tmp_path, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert page.table(*columns) == [[f"mean {EVIL}", "31.2 ± 0.8"], ["+ CCT", "75.0"]]
    assert "3 seeds openxclip ablate components" in page.text
    (image,) = page.images
    assert Image.open(io.BytesIO(image)).size == (30, 20)


def test_a_pretraining_has_a_page(tmp_path):
    image_model = pretrain_recipe("shapes_clip_small")
    settings = ["num_steps=2", "batch_size=4", "warmup_steps=1", "model.vision.image_size_px=16"]
    pretrain(with_overrides(image_model, settings), tmp_path, "cpu")
    write_report(tmp_path, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "0 epochs 2 steps" in page.text
    assert "minutes in steps" in page.text
    assert len(page.images) == 2  # loss and learning rate
    assert dict(page.table("setting", "value"))["model.vision.image_size_px"] == "16"
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    old = "".join(json.dumps({k: v for k, v in row.items() if k != "seconds"}) + "\n" for row in rows)
    (tmp_path / "log.jsonl").write_text(old)  # as an earlier version wrote it
    write_report(tmp_path, tmp_path / "report.html")
    assert "minutes in steps" not in Page(tmp_path / "report.html").text


def test_runs_of_an_experiment_are_folded(results, tmp_path):
    evaluation = (results / "evaluation" / "evaluation.json").read_text()
    for name in ("text/2shot-seed1", "text/2shot-seed2", "evaluation/evaluation-supervised-test"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "evaluation.json").write_text(evaluation)
    write_report(tmp_path, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    shown, *folded = re.split(r"<details>", page.source)
    assert shown.count("Evaluation on") == 1
    assert "evaluation/evaluation-supervised-test/evaluation.json" in shown
    assert [part.partition("</summary>")[0] for part in folded] == [
        f"<summary>text/2shot-seed{seed}" for seed in (1, 2)
    ]
    assert all(part.count("Evaluation on") == 1 for part in folded)


def evaluated(manifest: Manifest, folder: Path, alter: Alter | None = None) -> Evaluation:
    preprocess = openxclip.video.Preprocessor.official(TINY.vision.image_size_px)
    recognizer = recognizer_of(tiny_model(), tiny_tokenizer(), preprocess, manifest.labels)
    result = evaluate(recognizer, manifest, Views(), alter=alter)
    result.save(folder / "evaluation.json")
    return result


def test_rendered_clips_are_rendered_again(tmp_path):
    whole = shapes_manifest("test-novel-other-background")
    manifest = dataclasses.replace(whole, items=whole.items[::100])
    result = evaluated(manifest, tmp_path)
    write_report(tmp_path, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "Not shown" not in page.text
    assert len(page.images) == len(manifest.items) == 6
    shown = [row["path"] for row in choose_examples([video.to_dict() for video in result.videos])]
    for path, data in zip(shown, page.images, strict=True):
        (item,) = [item for item in manifest.items if item.path == path]
        expected = film_strip(item.media.frames(lambda n: centred(n, 8), 96))
        with Image.open(io.BytesIO(data)) as image:
            difference = np.asarray(image).astype(int) - expected
        assert np.abs(difference).mean() < 4  # JPEG
    values = json.loads((tmp_path / "evaluation.json").read_text())
    values["videos"][0]["clip"]["kind"] = {"colour": "red"}
    (tmp_path / "evaluation.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"evaluation\.json: setting kind\.shape is missing"):
        write_report(tmp_path, tmp_path / "report.html")


def test_strips_of_altered_videos_say_what_was_scored(tmp_path):
    whole = shapes_manifest("test-novel")
    manifest = dataclasses.replace(whole, items=whole.items[:2])
    result = evaluated(manifest, tmp_path, alter=lambda item, read: frozen(read(item)))
    dataclasses.replace(result, altered="its <b> middle frame").save(tmp_path / "evaluation.json")
    write_report(tmp_path, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "Scored for each video: its <b> middle frame." in page.text
    assert page.text.count("shown: the original video; scored: its <b> middle frame") == 2


def test_a_folder_without_results_is_one_clear_line(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")  # a model's, say
    assert run_command(["report", str(tmp_path)]) == 2
    assert run_command(["report", str(tmp_path / "absent")]) == 2
    assert run_command(["report", str(tmp_path), "--output", str(tmp_path)]) == 2
    assert run_command(["report", str(tmp_path), "--output", str(tmp_path / "no" / "page.html")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    for line, part in zip(
        lines, ("holds no results", "There is no folder", "is a folder", "there is no folder"), strict=True
    ):
        assert part in line
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{", InputError),
        ('{"confusion": [], "videos": []}', CheckpointError),
        ('{"columns": [1], "rows": 3}', CheckpointError),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, kind):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(kind, match=r"evaluation\.json"):
        write_report(tmp_path, tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]
