"""Evaluation against naive loops: accuracies, confusion, unreadable videos, and the files it writes."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import TINY, recognizer_of, tiny_model, tiny_tokenizer
from videos import moving_frames, write_video

from openxclip import Recognizer
from openxclip.data.manifest import read_manifest
from openxclip.data.media import FileMedia, Item, Manifest
from openxclip.errors import InputError, MissingExtraError, VideoError
from openxclip.evaluation.evaluate import Evaluation, evaluate
from openxclip.evaluation.metrics import confusion_matrix, per_class_accuracy, top_k_accuracy
from openxclip.inference.views import Views
from openxclip.reports.plots import drawable_fonts, plot_confusion, short_name
from openxclip.video import Preprocessor
from openxclip.video.source import VideoLimits

LABELS = ("running", "zo ve", "ki", "jumping", "de", "lo mu", "nobody does this")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return recognizer_of(
        tiny_model(), tiny_tokenizer(), Preprocessor.official(TINY.vision.image_size_px), LABELS
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    """Twelve videos of six of the seven classes; two of them cannot be read."""
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for i in range(12):
        if i == 4:
            (folder / "4.mp4").write_bytes(b"no video")
        elif i != 9:  # 9 is missing
            write_video(folder / f"{i}.mp4", frames=moving_frames(9 + i, seed=i))
        lines.append(f"{i}.mp4 {i % 6}\n")
    (folder / "list.txt").write_text("".join(lines))
    (folder / "labels.csv").write_text(
        "id,name\n" + "".join(f"{i},{name}\n" for i, name in enumerate(LABELS))
    )
    return read_manifest(folder / "list.txt")


@pytest.fixture(scope="module")
def result(recognizer, manifest) -> Evaluation:
    return evaluate(recognizer, manifest, Views(2, 1))


@st.composite
def scored(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (V, K) with many ties, and true labels (V,)."""
    num_classes, num_videos = draw(st.integers(1, 7)), draw(st.integers(1, 12))
    row = st.lists(st.integers(0, 3), min_size=num_classes, max_size=num_classes)
    scores = draw(st.lists(row, min_size=num_videos, max_size=num_videos))
    labels = draw(st.lists(st.integers(0, num_classes - 1), min_size=num_videos, max_size=num_videos))
    return torch.tensor(scores) / 4, torch.tensor(labels)


@settings(deadline=None)
@given(scored(), st.integers(1, 9))
def test_top_k_accuracy_is_the_share_of_labels_among_the_k_best(case, k):
    scores, labels = case
    hits = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        better = sum(score > row[label] for score in row)
        equal_before = sum(score == row[label] for score in row[:label])  # of equals the first wins
        hits += better + equal_before < k
    assert top_k_accuracy(scores, labels, k) == hits / len(labels)


@settings(deadline=None)
@given(scored())
def test_confusion_counts_every_video_once(case):
    scores, labels = case
    num_classes = scores.shape[1]
    expected = [[0] * num_classes for _ in range(num_classes)]
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        expected[label][row.index(max(row))] += 1
    confusion = confusion_matrix(scores.argmax(dim=1), labels, num_classes)
    assert confusion.tolist() == expected
    assert top_k_accuracy(scores, labels, 1) == confusion.trace().item() / len(labels)


@settings(deadline=None)
@given(scored())
def test_the_accuracy_of_a_class_is_exact_and_nan_without_videos(case):
    scores, labels = case
    confusion = confusion_matrix(scores.argmax(dim=1), labels, scores.shape[1])
    accuracies = per_class_accuracy(confusion).tolist()
    for label, accuracy in enumerate(accuracies):
        predicted = [
            s.argmax().item() for s, true in zip(scores, labels.tolist(), strict=True) if true == label
        ]
        if predicted:
            assert accuracy == predicted.count(label) / len(predicted)
        else:
            assert accuracy != accuracy


def test_an_evaluation_is_what_single_predictions_add_up_to(recognizer, manifest, result):
    confusion = [[0] * 7 for _ in range(7)]
    hits = {1: 0, 5: 0}
    for item, row in zip(manifest.items, result.videos, strict=True):
        assert (row.path, row.label) == (item.path, LABELS[item.label])
        assert Path(row.file) == item.media.path
        if item.path in ("4.mp4", "9.mp4"):
            continue
        scores = recognizer.predict(item.media.path, top_k=7, views="2x1").scores
        names = [label for label, _ in scores]
        assert row.predicted == scores[0][0]
        assert row.probability == pytest.approx(scores[0][1], abs=1e-5)  # scored beside others there
        confusion[item.label][LABELS.index(names[0])] += 1
        for k in hits:
            hits[k] += LABELS[item.label] in names[:k]
    assert result.confusion == confusion
    assert (result.top1, result.top5) == (hits[1] / 10, hits[5] / 10)
    assert 0 < result.top5 < 1  # neither trivial
    for i, row in enumerate(result.classes):
        count = sum(confusion[i])
        assert (row.label, row.num_videos) == (LABELS[i], count)
        assert row.accuracy == (confusion[i][i] / count if count else None)
    assert result.classes[6].accuracy is None
    assert (result.data, result.views) == (manifest.name, "2x1")
    assert (result.fingerprint, result.altered) == (manifest.fingerprint(), "")


def test_unreadable_videos_are_counted_and_named(result):
    assert (result.num_videos, result.num_unreadable) == (12, 2)
    errors = {row.path: row.error for row in result.videos if row.error is not None}
    assert set(errors) == {"4.mp4", "9.mp4"}
    assert "damaged" in errors["4.mp4"]
    assert "no such file" in errors["9.mp4"]
    assert all((row.predicted is None) != (row.error is None) for row in result.videos)
    assert sum(map(sum, result.confusion)) == 10


def test_limits_hold_for_evaluations(recognizer, manifest):
    """Videos 0 to 11 have 9 to 20 frames at 25 a second; two cannot be read anyway."""
    limited = Recognizer(recognizer.engine, LABELS, VideoLimits(max_seconds=0.5))
    errors = {row.path: row.error for row in evaluate(limited, manifest, Views()).videos if row.error}
    assert {path for path, error in errors.items() if "over the limit max_seconds=0.5" in error} == {
        f"{i}.mp4" for i in (5, 6, 7, 8, 10, 11)
    }


def test_the_same_evaluation_twice_is_the_same(recognizer, manifest, result):
    seen = []
    assert evaluate(recognizer, manifest, Views(2, 1), lambda: seen.append(1)) == result
    assert len(seen) == 12


def test_the_file_holds_everything(result, tmp_path):
    result.save(tmp_path / "evaluation.json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    values = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=refuse)
    assert values["classes"][6] == {"label": "nobody does this", "num_videos": 0, "accuracy": None}
    for name in (
        "fingerprint",
        "altered",
        "data",
        "views",
        "num_videos",
        "num_unreadable",
        "top1",
        "top5",
        "confusion",
    ):
        assert values[name] == getattr(result, name), name
    assert values["videos"] == [video.to_dict() for video in result.videos]
    unreadable = values["videos"][4]
    assert unreadable.keys() == {"path", "label", "file", "error"}
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]
    assert Evaluation.read(tmp_path / "evaluation.json") == result


@pytest.mark.parametrize(("num_videos", "num_views"), [(1, 1), (5, 1), (3, 7), (2, 17)])
def test_scores_do_not_depend_on_the_batch(recognizer, num_videos, num_views):
    shape = (num_videos, num_views, TINY.num_frames, 3, 32, 32)
    pixels = torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(num_views)
    )
    together = recognizer.probabilities_of(pixels)
    assert together.shape == (num_videos, len(LABELS))
    alone = [
        torch.stack([recognizer.probabilities(view[None]) for view in video]).mean(dim=0) for video in pixels
    ]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=0)
    for video, scores in zip(pixels, together, strict=True):
        torch.testing.assert_close(recognizer.probabilities(video), scores, atol=1e-5, rtol=0)


def test_videos_may_be_altered_on_the_way(recognizer, manifest, result):
    first = manifest.items[0]
    altered = evaluate(recognizer, manifest, Views(2, 1), alter=lambda item, read: read(first))
    best, probability = (result.videos[0].predicted, result.videos[0].probability)
    assert altered.num_unreadable == 0
    assert [row.path for row in altered.videos] == [item.path for item in manifest.items]
    assert {row.predicted for row in altered.videos} == {best}
    assert [row.probability for row in altered.videos] == pytest.approx([probability] * 12, abs=1e-5)


def test_labels_of_something_else_are_refused(recognizer, manifest):
    other = Manifest(name="other", labels=(*LABELS[:-1], "else"), items=manifest.items)
    with pytest.raises(InputError, match="the recognizer's labels are not those of other"):
        evaluate(recognizer, other, Views())
    shuffled = Manifest(name="shuffled", labels=LABELS[::-1], items=manifest.items)
    with pytest.raises(InputError, match="labels are not those of shuffled"):
        evaluate(recognizer, shuffled, Views())


def test_nothing_readable_is_an_error_that_says_why(recognizer):
    items = tuple(
        Item(path=f"{i}.mp4", label=i, media=FileMedia(Path(f"/nowhere/{i}.mp4"))) for i in range(3)
    )
    lost = Manifest(name="lost", labels=LABELS, items=items)
    message = (
        r"lost: none of its 3 videos can be read; they are missing or damaged; the first, 0\.mp4: there is no"
    )
    with pytest.raises(VideoError, match=message):
        evaluate(recognizer, lost, Views())


@pytest.mark.parametrize("num_classes", [1, 3, 60, 150])
def test_the_confusion_matrix_is_drawn(tmp_path, num_classes):
    diagonal = [[4 * int(i == j) for i in range(num_classes)] for j in range(num_classes)]
    path = tmp_path / "confusion.png"
    plot_confusion(diagonal, [f"class number {i}" for i in range(num_classes)], path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert 400 <= image.width == image.height <= 3000
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    if num_classes == 3:
        full, empty = (8, 48, 107), (247, 251, 255)  # the two ends of the scale of blues
        num_full, num_empty = ((pixels == colour).all(axis=1).sum() for colour in (full, empty))
        assert num_empty / num_full == pytest.approx(2, rel=0.1)  # six cells against three
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("label", ["win $100 or $2_", r"a\$x$^$", "{}", "%s", "_", "two\nlines"])
def test_any_label_can_be_drawn(tmp_path, label):
    plot_confusion([[1, 0], [2, 0]], [label, "b"], tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.width > 100


def test_long_names_leave_room_for_the_matrix_and_stay_apart(tmp_path):
    fonts = drawable_fonts()
    long = "putting a somewhat long name of a class beside " * 3
    names = [short_name(long + end, i, fonts) for i, end in enumerate("ab")]
    assert max(map(len, names)) <= 32
    assert [name[-5:] for name in names] == ["… (0)", "… (1)"]
    for name, text in (("long", long[:100]), ("short", "a")):
        plot_confusion([[1, 0], [0, 1]], [text, "b"], tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        dark = (pixels == (8, 48, 107)).all(axis=1).mean()
        assert dark > 0.02, name


@pytest.mark.parametrize("label", ["パンを焼く", "做面包", "빵 굽기", "\U0010ffff"])
def test_names_that_no_font_can_draw_are_ids(label, tmp_path):
    """Never empty boxes: matplotlib warns of those, and warnings are errors here."""
    fonts = drawable_fonts()
    drawable = all(any(font.get_char_index(ord(char)) for font in fonts.values()) for char in label)
    assert short_name(label, 7, fonts) == (label if drawable else "class 7")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_confusion([[1, 0], [0, 1]], [label, "b"], tmp_path / "confusion.png")


def test_each_of_400_classes_has_pixels_of_its_own(tmp_path):
    """Every second class is always mistaken for the next: the diagonal must show gaps, not a grey line."""
    confusion = [[int(j == i + i % 2) for j in range(401)] for i in range(401)]
    plot_confusion(confusion, [f"class {i}" for i in range(401)], tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    dark = (pixels == (8, 48, 107)).all(axis=2)
    changes = np.abs(np.diff(dark.any(axis=0).astype(int))).sum()
    assert 395 < changes < 405  # columns with and without a dark cell in turn


def test_a_class_without_videos_can_be_drawn(tmp_path):
    plot_confusion([[0, 0], [1, 2]], ["a", "b"], tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_without_matplotlib_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"  # import machinery's own way to say: not there
        "from openxclip.errors import MissingExtraError\n"
        "try: import openxclip.reports.plots\n"
        "except MissingExtraError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("matplotlib is needed for this and is not installed")
    assert "pip install 'openxclip[train]'" in run.stdout
    assert issubclass(MissingExtraError, ImportError)
