"""Label sets: the built-in ones against the official lists, files and typed labels."""

import csv
from pathlib import Path

import numpy as np
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
    assert sizes == [400, 600, 101, 51, 101]


@needs_data("splits/labels")
def test_ucf_names_as_released_are_one_word_each() -> None:
    labels = built_in_labels("ucf101-official")
    assert labels == official("ucf_101_labels.csv")
    assert [label.lower() for label in labels] == [
        label.replace(" ", "") for label in built_in_labels("ucf101")
    ]


def test_unknown_built_in_set_is_refused() -> None:
    with pytest.raises(InputError, match=r"kinetics700.*kinetics400, kinetics600, ucf101, hmdb51"):
        built_in_labels("kinetics700")


def test_typed_labels() -> None:
    assert parse_labels("playing piano,  surfing , C++") == ["playing piano", "surfing", "C++"]
    long = [f"label number {i}" for i in range(500)]  # longer than any file name may be
    assert parse_labels(", ".join(long)) == long


def test_a_file_goes_before_typed_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_labels("a, b") == ["a", "b"]
    Path("a, b").write_text("from the file\n")
    assert parse_labels("a, b") == ["from the file"]
    Path("a, c").mkdir()
    assert parse_labels("a, c") == ["a", "c"]


def test_a_built_in_name_goes_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ucf101").write_text("mine\n")
    assert len(parse_labels("ucf101")) == 101
    assert parse_labels("./ucf101") == ["mine"]


@pytest.mark.parametrize("text", ["lables.txt", "Labels.CSV", "sets/mine", "/no/such/file"])
def test_a_path_that_is_not_there_is_no_label(text: str) -> None:
    with pytest.raises(InputError, match=f"no label file {text}"):
        parse_labels(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("k400", "kinetics400"),
        ("k600", "kinetics600"),
        ("kinetics-400", "kinetics400"),
        ("UCF101", "ucf101"),
        ("ucf-101", "ucf101"),
        ("hmdb", "hmdb51"),
    ],
)
def test_a_near_miss_of_a_built_in_name_is_named(text: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"'{text}' is a single label.* Did you mean {meant}\?"):
        parse_labels(text)


def test_a_single_label_is_no_choice() -> None:
    with pytest.raises(
        InputError, match=r"'surfing' is a single label, with nothing to compare it to\. Give labels"
    ):
        parse_labels("surfing")
    assert parse_labels("surfing", takes_one=True) == ["surfing"]


def test_a_file_of_nearly_this_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,name\n0,a\n")
    with pytest.raises(InputError, match=r"no label file .*Did you mean .*labels\.csv\?"):
        parse_labels(str(tmp_path / "lables.csv"))


NAMES = ["surfing", "cooking, slowly", "tai chi", "パンを焼く"]
FORMS = {  # a header that says what the file is, and its rows
    "a.csv": ("id,name", ["0,surfing", '1,"cooking, slowly"', "2,tai chi", "3,パンを焼く"]),
    "b.txt": ("id,name", ['1,"cooking, slowly"', "0,surfing", "2,tai chi", "3,パンを焼く"]),
    "name_first.csv": ("name,id", ["surfing,0", '"cooking, slowly",1', "tai chi,2", "パンを焼く,3"]),
    "c.tsv": ("id\tname", ["0\tsurfing", "1\tcooking, slowly", "2\ttai chi", "3\tパンを焼く"]),
    "config.json": (
        '{"id2label": {',
        ['"0": "surfing", "1": "cooking, slowly",', '"2": "tai chi", "3": "パンを焼く"}}'],
    ),
    "inverse.json": (
        '{"label2id": {',
        ['"surfing": 0, "cooking, slowly": 1,', '"tai chi": 2, "パンを焼く": 3}}'],
    ),
    "list.json": ('["surfing",', ['"cooking, slowly", "tai chi", "パンを焼く"]']),
    "data.yaml": ("names:", ["  0: surfing", "  1: cooking, slowly", "  2: tai chi", "  3: パンを焼く"]),
    "list.yml": ("names:", ["- surfing", "- cooking, slowly", "- tai chi", "- パンを焼く"]),
    "classInd.txt": ("1 surfing", ["2 cooking, slowly", "3 tai chi", "4 パンを焼く"]),
    "from_zero.txt": ("0: surfing", ["1: cooking, slowly", "2: tai chi", "3: パンを焼く"]),
}


def write_form(folder: Path, name: str, header: str) -> Path:
    path = folder / name
    path.write_text("\n".join([header, *FORMS[name][1], ""]), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", FORMS)
def test_every_common_form_is_read_as_what_it_is(name: str, tmp_path: Path) -> None:
    path = write_form(tmp_path, name, FORMS[name][0])
    assert read_label_file(path) == parse_labels(str(path)) == NAMES


def mutated(text: str, kept: str, rng: np.random.Generator) -> str:
    """The text with one character changed, left out, doubled or put in; a class name in it, and before it, stays."""
    start = text.find(kept)
    own = range(start - 1, start + len(kept) + 1) if start >= 0 else ()
    free = [i for i in range(len(text)) if i not in own]
    at = int(rng.choice(free))
    other = str(rng.choice(list("aX7 ,;:{[<'\t-")))
    return (
        text[:at] + other + text[at + 1 :],
        text[:at] + text[at + 1 :],
        text[:at] + text[at] + text[at:],
        text[:at] + other + text[at:],
    )[rng.integers(4)]


def outcome(path: Path) -> tuple[list[str] | None, str]:
    """The names in a label file, or the error."""
    try:
        return read_label_file(path), ""
    except InputError as error:
        return None, str(error)


def test_1000_damaged_headers_give_the_right_names_or_a_clear_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for i in range(1000):
        name = list(FORMS)[i % len(FORMS)]
        header = mutated(FORMS[name][0], "surfing", rng)
        path = write_form(tmp_path, name, header)
        labels, error = outcome(path)
        if labels is None:
            assert str(path) in error, header
            refused += 1
        else:
            assert [label.strip(" ,;:.)|=-'\t") for label in labels] == NAMES, (name, header, labels)
    assert 300 < refused < 1000


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.json", '{"model_type": "xclip"}', "no list of names"),
        ("a.json", '{"id2label": {"0": "a", "2": "b"}}', "ids 0 to 1"),
        ("a.json", '{"0": "a", "0": "b"}', "a key occurs twice"),
        ("a.json", '["a", 5]', "no list of names"),
        ("a.json", "[" * 100_000, "not valid JSON"),
        ("a.yaml", "names: [a, b", "not valid YAML"),
        ("a.yaml", "!!python/object/apply:os.system [ls]", "not valid YAML"),
        ("a.txt", "names:\n  0: a\n  1: b\n", "a number, the others do not|as in YAML"),
        ("a.txt", "<html>\n<body>", "as in YAML or a page"),
        ("a.txt", "0 a\n5 b\n", "not 0 or 1 to 2"),
        ("a.tsv", "a\tb\n", "header"),
    ],
)
def test_what_is_no_label_file_is_refused(name: str, text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}.*({complaint})"):
        read_label_file(tmp_path / name)


@needs_data("faults")
def test_reported_label_files() -> None:
    assert read_label_file(DATA / "faults" / "kinetics400-id2label.json")[:2] == ["abseiling", "air drumming"]
    assert read_label_file(DATA / "faults" / "data.yaml") == ["surfing", "cooking"]
    ucf = read_label_file(DATA / "splits" / "ucf101" / "classInd.txt")
    assert ucf == built_in_labels("ucf101-official")


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
