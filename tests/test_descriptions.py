"""Class descriptions: what a file may hold, which texts a label gets, and a training that learns from them."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY

from openxclip.checkpoints.load import load
from openxclip.data.descriptions import parse_descriptions
from openxclip.data.moving_shapes import shapes_manifest
from openxclip.errors import InputError
from openxclip.shapes.captions import all_words
from openxclip.shapes.splits import WORLD
from openxclip.shapes.words import ALL_CLASSES, shapes_descriptions
from openxclip.text.descriptions import MAX_BYTES, Descriptions, check_descriptions, texts_of
from openxclip.training.config import DataConfig, LearningRates, OptimConfig, TrainConfig
from openxclip.training.train import train_on

SURFING = ("a person rides a wave on a board", "someone surfs")


def write(folder: Path, text: str) -> str:
    path = folder / "texts.json"
    path.write_text(text, encoding="utf-8")
    return str(path)


# Reading


def test_a_label_has_one_text_or_several(tmp_path):
    text = '\ufeff{"surfing": ["a person rides a wave on a board", " someone surfs "], "ski": "on skis"}'
    found = parse_descriptions(write(tmp_path, text))
    assert found == {"surfing": SURFING, "ski": ("on skis",)}
    assert parse_descriptions(None) is None


letters = st.text(st.characters(categories=["L", "N", "P", "S", "Zs", "Cf"]), min_size=1).filter(str.strip)


@given(st.dictionaries(letters, letters | st.lists(letters, min_size=1), min_size=1))
def test_every_text_of_a_file_is_found(values):
    if len({label.strip().casefold() for label in values}) < len(values):
        with pytest.raises(InputError, match="more than once"):
            check_descriptions(json.loads(json.dumps(values)), "texts")
        return
    found = check_descriptions(json.loads(json.dumps(values)), "texts")
    texts = texts_of([label.strip() for label in values], found)
    wanted = [[value] if isinstance(value, str) else value for value in values.values()]
    assert [list(own) for own in texts] == [[text.strip() for text in own] for own in wanted]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"expected labels with their texts, such as .*, got \[\]"),
        ("{}", "expected labels with their texts"),
        ('"surfing"', "expected labels with their texts"),
        ("", "cannot be read as JSON: Expecting value"),
        ('{"a": "b"', "cannot be read as JSON"),
        ("[" * 200_000, "cannot be read as JSON"),
        ('{"a": ' + "1" * 5000 + "}", "cannot be read as JSON"),
        ('{"a": []}', r"'a': expected a text or a list of texts, got \[\]"),
        ('{"a": null}', "'a': expected a text or a list of texts, got None"),
        ('{"a": {"b": "c"}}', "'a': expected a text or a list of texts"),
        ('{"a": ""}', "'a': expected a text, got ''"),
        ('{"a": ["b", " "]}', "'a': expected a text, got ' '"),
        ('{"a": ["b", 3]}', "'a': expected a text, got 3"),
        ('{"a": [["b"]]}', r"'a': expected a text, got \['b'\]"),
        ('{"a": "half \\ud800"}', r"'a': expected a text, got 'half \\ud800'"),
        ('{" ": "b"}', "' ' is not a label"),
        ('{"a": "b", "a": "c"}', "a label occurs more than once"),
        ('{"ski": "b", "Ski": "c"}', "a label occurs more than once"),
        ('{"ski": "b", "ski ": "c"}', "a label occurs more than once"),
        ('{"a": [' + ", ".join(["7"] * 1000) + "]}", "'a': expected a text, got 7"),
        ("[" + ", ".join(["7"] * 1000) + "]", r"got \[7, 7, .*\.\.\.\."),
    ],
)
def test_what_is_no_description_is_one_short_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as raised:
        parse_descriptions(write(tmp_path, text))
    said = str(raised.value)
    assert "texts.json" in said
    assert "\n" not in said
    assert len(said.replace(str(tmp_path), "")) < 300


def test_what_cannot_be_read_as_text(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match=r"a\.json cannot be read as JSON: .*codec"):
        parse_descriptions(str(tmp_path / "a.json"))
    for missing in (str(tmp_path), str(tmp_path / "b.json"), "a person surfs"):
        with pytest.raises(InputError, match=r"a JSON file, such as \{.*\}, or moving-shapes; .* is neither"):
            parse_descriptions(missing)


def test_a_large_file_is_refused_unread(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match=r"large\.json has 4\.0 MiB; the limit is 4 MiB\. Keep"):
        parse_descriptions(str(path))
    path.write_text('{"a": "b"}'.ljust(MAX_BYTES))
    assert parse_descriptions(str(path)) == {"a": ("b",)}


# The texts of a label


def test_without_descriptions_a_name_is_its_own_text():
    assert texts_of(["surfing", "ski"], None) == [("surfing",), ("ski",)]


def test_labels_are_found_without_regard_to_case_and_others_may_stand_beside_them():
    descriptions = {"Surfing": SURFING, "ski": ("on skis",), "sleep": ("in bed",)}
    assert texts_of(["Ski", "surfing"], descriptions) == [("on skis",), SURFING]


def test_labels_without_a_text_are_named_beside_what_is_nearest():
    descriptions = {"surfing": SURFING, "ski": ("on skis",)}
    with pytest.raises(
        InputError, match=r"2 of 3 labels have no description: 'surfin' \(nearest: 'surfing'\), 'skii'"
    ):
        texts_of(["surfin", "ski", "skii"], descriptions)
    with pytest.raises(InputError, match=r"400 of 400 .* description: '0', '1', '2', '3', '4' and 395 more"):
        texts_of([str(i) for i in range(400)], descriptions)


def test_moving_shapes_have_honest_descriptions_of_their_own():
    found = parse_descriptions(WORLD)
    assert found == shapes_descriptions()
    assert found["red star moving left"] == (
        "a red star moving left",
        "a red star going to the left",
        "a crimson pentagram moving left",
        "a crimson pentagram going to the left",
    )
    assert set(found) == {kind.name for kind in ALL_CLASSES}
    assert max(Counter(text for texts in found.values() for text in texts).values()) == 1
    known = {word for text in all_words() for word in text.split()}
    assert {word for texts in found.values() for text in texts for word in text.split()} <= known


# Training

CONFIG = TrainConfig(
    recipe="test",
    model=replace(TINY, num_frames=2),
    num_frames=2,
    data=DataConfig(num_workers=0, samples_per_epoch=4, crop_scales=(1.0,)),
    optim=OptimConfig(
        epochs=1, learning_rate=1e-3, batch_size=4, warmup_epochs=0, factors=LearningRates(new=1)
    ),
    precision="float32",
)


def trained(run: Path, descriptions: Descriptions | None) -> dict[str, torch.Tensor]:
    """Weights after a step on four clips."""
    clips = shapes_manifest("small-few-train")
    config = CONFIG
    if descriptions is not None:
        config = replace(config, descriptions=write(run.parent, json.dumps(descriptions)))
    texts = parse_descriptions(config.descriptions)
    train_on(config, clips, None, run, descriptions=texts, device="cpu", data=WORLD)
    return load(run, device="cpu").model.state_dict()


def test_training_learns_from_the_texts_in_place_of_the_names(tmp_path):
    names = shapes_manifest("small-few-train").labels
    plain = trained(tmp_path / "plain", None)
    same = trained(tmp_path / "same", {name: (name,) for name in names})
    assert all(torch.equal(same[name], value) for name, value in plain.items())
    other = trained(tmp_path / "other", shapes_descriptions())
    assert any(not torch.equal(other[name], value) for name, value in plain.items())


def test_a_run_does_not_go_on_with_other_texts(tmp_path):
    """The file keeps its name; that it lies elsewhere, or describes other classes, too, is nothing to the run."""
    texts = shapes_descriptions()
    before = trained(tmp_path / "run", texts)
    again = trained(tmp_path / "run", {**texts, "surfing": SURFING})
    assert all(torch.equal(again[name], value) for name, value in before.items())
    first = shapes_manifest("small-few-train").labels[0]
    with pytest.raises(InputError, match=r"other settings \(descriptions: was '\w{16}', now '\w{16}'\)"):
        trained(tmp_path / "run", {**texts, first: ("another",)})


def test_a_class_without_a_text_shows_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="33 of 33 labels have no description"):
        trained(tmp_path / "run", {"surfing": SURFING})
    assert not (tmp_path / "run").exists()
