"""Label sets: the built-in ones against the official lists, files and typed labels."""

import csv
from pathlib import Path

import pytest
from paths import DATA, needs_data

from openxclip.errors import InputError
from openxclip.text.labels import (
    BUILT_IN_LABEL_SETS,
    built_in_labels,
    check_labels,
    parse_labels,
    read_label_file,
)


def official(file_name: str) -> list[str]:
    with (DATA / "splits" / "labels" / file_name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == list(range(len(rows)))
    return [row["name"] for row in rows]


@needs_data("splits/labels")
@pytest.mark.parametrize(
    ("name", "file_name"),
    [
        ("kinetics400", "kinetics_400_labels.csv"),
        ("kinetics600", "kinetics_600_labels.csv"),
        ("hmdb51", "hmdb_51_labels.csv"),
    ],
)
def test_built_in_set_is_the_official_list(name: str, file_name: str) -> None:
    assert built_in_labels(name) == official(file_name)


@needs_data("splits/labels")
def test_ucf_is_the_official_list_as_spoken_words() -> None:
    labels = built_in_labels("ucf101")
    assert [label.replace(" ", "") for label in labels] == [
        name.lower() for name in official("ucf_101_labels.csv")
    ]
    assert {"apply eye makeup", "yo yo", "tai chi", "playing piano"} <= set(labels)


@needs_data("splits/labels")
def test_official_csv_files_can_be_read() -> None:
    for path in sorted((DATA / "splits").glob("*/*label*.csv")):
        assert len(read_label_file(path)) in (51, 101, 160, 400, 600)


def test_every_built_in_set_has_its_size() -> None:
    sizes = [len(parse_labels(name)) for name in BUILT_IN_LABEL_SETS]
    assert sizes == [400, 600, 101, 51]


def test_unknown_built_in_set_is_refused() -> None:
    with pytest.raises(InputError, match=r"kinetics700.*kinetics400, kinetics600, ucf101, hmdb51"):
        built_in_labels("kinetics700")


def test_typed_labels() -> None:
    assert parse_labels("playing piano,  surfing , C++") == ["playing piano", "surfing", "C++"]
    assert parse_labels("surfing") == ["surfing"]
    long = [f"label number {i}" for i in range(500)]  # longer than any file name may be
    assert parse_labels(", ".join(long)) == long


def test_a_file_goes_before_typed_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_labels("a, b") == ["a", "b"]
    Path("a, b").write_text("from the file\n")
    assert parse_labels("a, b") == ["from the file"]
    Path("surfing").mkdir()
    assert parse_labels("surfing") == ["surfing"]


def test_a_built_in_name_goes_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ucf101").write_text("mine\n")
    assert len(parse_labels("ucf101")) == 101
    assert parse_labels("./ucf101") == ["mine"]


@pytest.mark.parametrize("text", ["lables.txt", "Labels.CSV", "sets/mine", "/no/such/file"])
def test_a_path_that_is_not_there_is_no_label(text: str) -> None:
    with pytest.raises(InputError, match=f"no label file {text}"):
        parse_labels(text)


def test_text_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeff# my labels\r\n\r\n  playing, piano \r\n#skipped\r\ncafé\r\n".encode())
    assert read_label_file(path) == ["playing, piano", "café"]
    assert parse_labels(str(path)) == ["playing, piano", "café"]


def test_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes('\ufeffid,name\r\n2,c\r\n0,"a, with comma"\r\n\r\n1, b \r\n'.encode())
    assert read_label_file(path) == ["a, with comma", "b", "c"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "header id,name"),
        ("0,a\n1,b\n", "header id,name"),
        ("id,name\n", "no labels"),
        ("id,name\n0,a\n2,b\n", "ids 0 to 1"),
        ("id,name\n1,a\n2,b\n", "ids 0 to 1"),
        ("id,name\n0,a\n0,b\n", "ids 0 to 1"),
        ("id,name\n0,a,b\n", "quote a name"),
        ("id,name\n0\n", "quote a name"),
        ("id,name\nx,a\n", "quote a name"),
        ("id,name\n-1,a\n", "quote a name"),
        ("id,name\n0,a\n1, \n", "label 1 .* is empty"),
        ("id,name\n0,a\n1,A\n", "more than once: a, A"),
        ("id,name\n0," + "x" * 200_000, "is not a CSV file"),
    ],
)
def test_broken_csv_is_refused_by_name(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"labels.csv.*{complaint}"):
        read_label_file(path)


@pytest.mark.parametrize("name", ["labels.txt", "labels"])
def test_the_header_makes_a_csv_file_whatever_its_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("\n \nID, name\n1,b\n \n0,a\n")
    assert read_label_file(path) == ["a", "b"]
    path.write_text("a\nid,name\n")
    assert read_label_file(path) == ["a", "id,name"]


def test_a_generator_of_labels_is_a_list_of_them() -> None:
    assert check_labels((label for label in ("a ", "b")), "mine") == ["a", "b"]


def test_unreadable_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    (tmp_path / "comments.txt").write_text("# nothing\n\n")
    for name in ("binary.txt", "comments.txt", "absent.txt"):
        with pytest.raises(InputError, match=name):
            read_label_file(tmp_path / name)


@pytest.mark.parametrize("text", ["", " ", "a,,b", "a,", ","])
def test_empty_labels_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is empty"):
        parse_labels(text)


def test_repeated_labels_are_named() -> None:
    with pytest.raises(InputError, match="more than once: Surfing, surfing, STRASSE, straße"):
        parse_labels("Surfing, archery, surfing, STRASSE, straße")


@pytest.mark.parametrize("labels", ["surfing", [1, 2], ["a", None], None, 5])
def test_what_is_no_list_of_strings_is_refused(labels: object) -> None:
    with pytest.raises(InputError, match="mine: expected a list of strings"):
        check_labels(labels, "mine")
