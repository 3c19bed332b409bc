"""Annotations of events in their three forms, their faults, and the files that they belong to."""

import csv
import io
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openxclip.data.annotations import (
    Annotated,
    Event,
    labels_of,
    match_files,
    read_annotations,
)
from openxclip.errors import InputError
from openxclip.text.labels import built_in_labels

ACTIVITYNET = {
    "version": "VERSION 1.3",
    "taxonomy": [{"nodeName": "Drinking coffee", "nodeId": 1}],
    "database": {
        "QOlSCBRmfWY": {
            "subset": "training",
            "duration": 82.73,
            "resolution": "320x240",
            "annotations": [
                {"segment": [40, 82.5], "label": "Ballet"},
                {"segment": [0.83, 19.86], "label": "Ballet"},
            ],
        },
        "-4F5eXxRb5A": {
            "subset": "validation",
            "duration": 210,
            "annotations": [{"segment": [1, 209.5], "label": "Drinking coffee"}],
        },
        "withheld-01": {"subset": "testing", "duration": 9.5, "annotations": []},
    },
}
BALLET = Annotated(82.73, (Event("Ballet", 0.83, 19.86), Event("Ballet", 40.0, 82.5)))
COFFEE = Annotated(210.0, (Event("Drinking coffee", 1.0, 209.5),))


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def thumos(tmp_path: Path) -> Path:
    """Both halves of THUMOS'14 in one folder, as its two archives unpack."""
    folder = tmp_path / "annotation"
    folder.mkdir()
    write(
        folder / "BaseballPitch_test.txt",
        "video_test_0000324  6.2 8.0\nvideo_test_0000324  1.5 2.5\nvideo_test_0000004  12.2 15.8\n\n",
    )
    write(folder / "Shotput_test.txt", "video_test_0000324 1.5 2.5\r\n")
    write(folder / "Ambiguous_test.txt", "video_test_0000004 0.3 4.1\nvideo_test_0001292 1.0 2.0\n")
    write(folder / "CleanAndJerk_val.txt", "video_validation_0000051 67.5 75.9\n")
    write(folder / "detclasslist.txt", "7 BaseballPitch\n")
    write(folder / "._Shotput_test.txt", "left by another system")
    return folder


# --- ActivityNet -------------------------------------------------------------------------------------------


def test_activitynet(tmp_path: Path) -> None:
    path = write(tmp_path / "activity_net.v1-3.min.json", ACTIVITYNET)
    assert read_annotations(path) == {"QOlSCBRmfWY": BALLET, "-4F5eXxRb5A": COFFEE}


@pytest.mark.parametrize("subset", ["validation", "val", "Validation"])
def test_activitynet_subset(tmp_path: Path, subset: str) -> None:
    path = write(tmp_path / "net.json", ACTIVITYNET)
    assert read_annotations(path, subset) == {"-4F5eXxRb5A": COFFEE}


def test_activitynet_is_known_by_its_content(tmp_path: Path) -> None:
    path = write(tmp_path / "annotations", "\ufeff\n  " + json.dumps(ACTIVITYNET))
    assert list(read_annotations(path)) == ["QOlSCBRmfWY", "-4F5eXxRb5A"]


def test_a_video_may_lack_its_duration_and_its_events(tmp_path: Path) -> None:
    videos = {"a": {"annotations": [{"segment": [1, 2], "label": " x "}]}, "quiet": {"annotations": []}}
    found = read_annotations(write(tmp_path / "a.json", {"database": videos}))
    assert found == {"a": Annotated(None, (Event("x", 1.0, 2.0),)), "quiet": Annotated(None, ())}


def test_events_without_a_length_are_kept_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ActivityNet 1.3 has some: ZZVrH3Hv1fM is washing hands from 0 to 0."""
    videos = {"ZZVrH3Hv1fM": {"annotations": [{"segment": [0, 0], "label": "Washing hands"}]}}
    path = write(tmp_path / "a.json", {"database": videos})
    with caplog.at_level(logging.WARNING):
        found = read_annotations(path)
    assert found["ZZVrH3Hv1fM"].events == (Event("Washing hands", 0.0, 0.0),)
    assert "1 events" in caplog.text


VIDEO = "abc"
GOOD = {"label": "surfing", "segment": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"videos": {}}, r'no "database"'),
        ([1, 2], r'no "database"'),
        ({"database": [GOOD]}, r'no "database"'),
        ({"database": {VIDEO: [GOOD]}}, r"'abc': expected an object"),
        (
            {"database": {VIDEO: {"duration": 3}}},
            r"'abc': the key 'annotations' is missing \(it has duration",
        ),
        ({"database": {VIDEO: {"annotations": GOOD}}}, r"'abc': annotations must be a list"),
        ({"database": {VIDEO: {"annotations": [GOOD], "duration": "long"}}}, r"'abc': the duration must"),
        ({"database": {VIDEO: {"annotations": [GOOD], "duration": -1}}}, r"the duration must.*got -1"),
        ({"database": {VIDEO: {"annotations": [GOOD], "duration": True}}}, r"the duration must.*got True"),
    ],
)
def test_activitynet_faults_of_a_video(tmp_path: Path, values: object, message: str) -> None:
    path = write(tmp_path / "a.json", values)
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"label": "surfing"}, r"the key 'segment' is missing \(it has label\)"),
        ({"segment": [1, 2]}, r"the key 'label' is missing"),
        ("surfing", r"the key 'segment' is missing \(got 'surfing'\)"),
        ({**GOOD, "segment": [1]}, r"segment must be \[start, end\]"),
        ({**GOOD, "segment": 4}, r"segment must be a list"),
        ({**GOOD, "segment": [1, "soon"]}, r"the end must be a number of seconds.*'soon'"),
        ({**GOOD, "segment": [None, 2]}, r"the start must be a number of seconds.*None"),
        ({**GOOD, "segment": [-1, 2]}, r"the start must be .* 0 or more, got -1"),
        ({**GOOD, "segment": [1, float("nan")]}, r"the end must .*got nan"),
        ({**GOOD, "segment": [1, float("inf")]}, r"the end must .*got inf"),
        ({**GOOD, "segment": [1, 10**400]}, r"the end must be"),
        ({**GOOD, "segment": [3, 2.5]}, r"'surfing' ends at 2\.5 s, before it starts at 3 s"),
        ({**GOOD, "label": "  "}, r"the label is '  '"),
        ({**GOOD, "label": 7}, r"the label is 7"),
    ],
)
def test_activitynet_faults_of_an_annotation(tmp_path: Path, annotation: object, message: str) -> None:
    path = write(tmp_path / "a.json", {"database": {VIDEO: {"annotations": [GOOD, annotation]}}})
    with pytest.raises(InputError, match=rf"'abc', annotation 2: {message}"):
        read_annotations(path)


@pytest.mark.parametrize("text", ["", "{", '{"database": ', "[" * 100_000])
def test_broken_json(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"a\.json is not valid JSON"):
        read_annotations(write(tmp_path / "a.json", text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(InputError, match=r"cannot be read as UTF-8"):
        read_annotations(tmp_path / "a.json")


# --- THUMOS'14 ---------------------------------------------------------------------------------------------


def test_thumos_folder(thumos: Path) -> None:
    assert read_annotations(thumos) == {
        "video_test_0000004": Annotated(
            None, (Event("baseball pitch", 12.2, 15.8),), (Event("ambiguous", 0.3, 4.1),)
        ),
        "video_test_0001292": Annotated(None, (), (Event("ambiguous", 1.0, 2.0),)),
        "video_test_0000324": Annotated(
            None,
            (
                Event("baseball pitch", 1.5, 2.5),
                Event("shotput", 1.5, 2.5),
                Event("baseball pitch", 6.2, 8.0),
            ),
        ),
        "video_validation_0000051": Annotated(None, (Event("clean and jerk", 67.5, 75.9),)),
    }


@pytest.mark.parametrize(("subset", "count"), [("test", 3), ("val", 1), ("validation", 1)])
def test_thumos_subset(thumos: Path, subset: str, count: int) -> None:
    assert len(read_annotations(thumos, subset)) == count
    (thumos / "CleanAndJerk_val.txt").unlink()
    with pytest.raises(InputError, match=r"no subset 'train'\. Its subsets: test\."):
        read_annotations(thumos, "train")


def test_thumos_file_alone(thumos: Path) -> None:
    found = read_annotations(thumos / "BaseballPitch_test.txt")
    assert {name: len(video.events) for name, video in found.items()} == {
        "video_test_0000324": 2,
        "video_test_0000004": 1,
    }
    assert all(video.ignored == () for video in found.values())


@pytest.mark.parametrize("name", ["BaseballPitch", "CleanAndJerk", "Shotput", "VolleyballSpiking"])
def test_thumos_labels_are_those_of_ucf101(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / f"{name}_test.txt", "video_test_0000004 1.0 2.0\n")
    assert set(labels_of(read_annotations(path))) <= set(built_in_labels("ucf101"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("video_test_0000004 12.2", r"expected `video start end`"),
        ("video_test_0000004 12.2 15.8 16", r"expected `video start end`"),
        ("video_test_0000004 12.2 later", r"the end must be a number of seconds.*'later'"),
        ("video_test_0000004 15.8 12.2", r"'diving' ends at 12\.2 s, before it starts at 15\.8 s"),
    ],
)
def test_thumos_faults(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "Diving_test.txt", f"video_test_0000001 1.0 2.0\n{line}\n")
    with pytest.raises(InputError, match=rf"Diving_test\.txt, line 2: {message}"):
        read_annotations(path)


# --- CSV ---------------------------------------------------------------------------------------------------

HEADER = "video,label,start_seconds,end_seconds"


def test_csv(tmp_path: Path) -> None:
    text = f'\ufeff{HEADER}\r\na.mp4,"run, then jump",3,4.5\r\n\r\nb.mp4,jump,1,2\r\na.mp4, run ,0.5,2\r\n'
    assert read_annotations(write(tmp_path / "events.csv", text)) == {
        "a.mp4": Annotated(None, (Event("run", 0.5, 2.0), Event("run, then jump", 3.0, 4.5))),
        "b.mp4": Annotated(None, (Event("jump", 1.0, 2.0),)),
    }


def test_a_quoted_label_keeps_its_line_end(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", f'{HEADER}\na,"run,\nthen jump",1,2\nb,run,3,4\n')
    assert [event.label for video in read_annotations(path).values() for event in video.events] == [
        "run,\nthen jump",
        "run",
    ]


def test_csv_columns_of_any_order_and_quiet_videos(tmp_path: Path) -> None:
    text = (
        "note,End_Seconds,label,start_seconds,video,duration_seconds\n"
        "x,4,run,3,a,60\n"
        ",6,Ambiguous,5,a,\n"
        ",,,,quiet,7200\n"
        ",9,jump,8,a,60.0\n"
    )
    assert read_annotations(write(tmp_path / "events.txt", text)) == {
        "a": Annotated(
            60.0, (Event("run", 3.0, 4.0), Event("jump", 8.0, 9.0)), (Event("Ambiguous", 5.0, 6.0),)
        ),
        "quiet": Annotated(7200.0, ()),
    }


def test_csv_subset(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", f"{HEADER},subset\na,run,1,2,val\nb,run,1,2,train\nc,run,1,2,\n")
    assert list(read_annotations(path, "validation")) == ["a"]
    assert list(read_annotations(path)) == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"no subset 'dev'\. Its subsets: train, val\."):
        read_annotations(path, "dev")
    plain = write(tmp_path / "plain.csv", f"{HEADER}\na,run,1,2\n")
    with pytest.raises(InputError, match=r"no subset 'val'.*leave the subset out"):
        read_annotations(plain, "val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,label,start\na,run,1\n", r"line 1: the header lacks start_seconds, end_seconds"),
        (f"{HEADER},label\n", r"line 1: a column occurs twice"),
        (f"{HEADER}\na,run,1,2\na,run,1\n", r"line 3: expected 4 cells"),
        (f"{HEADER}\na,run, then jump,1,2\n", r"line 2: expected 4 cells .*quote a label"),
        (f"{HEADER}\n,run,1,2\n", r"line 2: the video has no name"),
        (f"{HEADER}\na,run,one,2\n", r"line 2: the start must be a number of seconds.*'one'"),
        (f"{HEADER}\na,run,,2\n", r"line 2: the start must be a number of seconds.*''"),
        (f"{HEADER}\na,,1,2\n", r"line 2: the label is ''"),
        (f"{HEADER}\na,run,2,1\n", r"line 2: 'run' ends at 1 s, before it starts at 2 s"),
        (f"{HEADER},duration_seconds\na,run,1,2,x\n", r"line 2: the duration_seconds must .*'x'"),
        (f"{HEADER},duration_seconds\na,run,1,2,9\na,run,3,4,8\n", r"line 3: 'a' lasts 8 s here and 9 s"),
        (f'{HEADER}\na,"run"x,1,2\n', r"line 2: invalid CSV"),
    ],
)
def test_csv_faults(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"e\.csv, {message}"):
        read_annotations(write(tmp_path / "e.csv", text))


# --- all forms ---------------------------------------------------------------------------------------------

times = st.integers(0, 10**6).map(lambda number: number / 64)
events = st.builds(
    lambda label, start, length: (label, start, start + length),
    st.text(st.characters(categories=["L", "N"]), min_size=1).filter(
        lambda text: text.lower() != "ambiguous"
    ),
    times,
    times,
)


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(events, min_size=1, max_size=4), min_size=1))
def test_json_and_csv_say_the_same(tmp_path_factory: pytest.TempPathFactory, videos: dict) -> None:
    folder = tmp_path_factory.mktemp("same")
    database = {
        name: {"annotations": [{"label": label, "segment": [start, end]} for label, start, end in listed]}
        for name, listed in videos.items()
    }
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(HEADER.split(","))
    rows.writerows((name, *event) for name, listed in videos.items() for event in listed)
    found = read_annotations(write(folder / "a.json", {"database": database}))
    assert found == read_annotations(write(folder / "a.csv", table.getvalue()))
    assert {name: sorted(map(vars_of, video.events)) for name, video in found.items()} == {
        name: sorted(listed) for name, listed in videos.items()
    }


def vars_of(event: Event) -> tuple[str, float, float]:
    return event.label, event.start_seconds, event.end_seconds


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "hello world\n", r"no known annotation format.*begins with 'hello world'"),
        ("a.bin", "", r"no known annotation format"),
        ("a.csv", "", r"has no event"),
        ("a.csv", f"{HEADER}\n", r"has no event"),
        ("a.csv", f"{HEADER}\na,Ambiguous,1,2\n", r"has no event"),
        ("Diving_val.txt", "", r"has no event"),
        ("a.json", '{"database": {}}', r"has no event"),
    ],
)
def test_nothing_to_read(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(path)
    assert str(path) in str(caught.value)
    assert "LABEL_test.txt" in str(caught.value)
    assert HEADER in str(caught.value)


def test_withheld_annotations_are_no_events(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", ACTIVITYNET)
    with pytest.raises(InputError, match=r"has no event in the subset 'testing'"):
        read_annotations(path, "testing")


def test_a_path_that_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no .*missing\.json"):
        read_annotations(tmp_path / "missing.json")
    with pytest.raises(InputError, match=r"no files such as BaseballPitch_test\.txt"):
        read_annotations(tmp_path)


# --- files -------------------------------------------------------------------------------------------------

NOTHING = Annotated(None, ())


@pytest.mark.parametrize(
    ("video", "file"),
    [
        ("QOlSCBRmfWY", "videos/v_QOlSCBRmfWY.mp4"),
        ("QOlSCBRmfWY", "QOlSCBRmfWY.webm"),
        ("v_QOlSCBRmfWY", "QOlSCBRmfWY.mkv"),
        ("v_QOlSCBRmfWY", "v_QOlSCBRmfWY.mkv"),
        ("-_x.y", "/data/v_-_x.y.mp4"),
        ("video_test_0000004", "/data/test/video_test_0000004.mp4"),
        ("clip.mp4", "/data/clip.mp4"),
        ("day 1/clip.mp4", "/data/day 1/clip.mp4"),
        ("day 1/clip", "/data/day 1/clip.mp4"),
        ("/data/clip.mp4", "/data/clip.mp4"),
        ("data/clip", "data/clip"),
    ],
)
def test_a_file_is_found_by_its_name(video: str, file: str) -> None:
    found = match_files({"other": NOTHING, video: NOTHING}, [file])
    assert found.files == {video: Path(file)}
    assert found.missing == ("other",)


def test_the_folder_tells_files_of_one_name_apart() -> None:
    annotations = {"day1/clip.mp4": NOTHING, "day2/clip.mp4": NOTHING}
    files = {name: Path("/data") / name for name in annotations}
    assert match_files(annotations, files.values()).files == files


def test_the_exact_name_wins() -> None:
    annotations = {"a": NOTHING, "v_a": NOTHING}
    assert match_files(annotations, ["v_a.mp4"]).files == {"v_a": Path("v_a.mp4")}
    assert match_files(annotations, ["a.mp4"]).files == {"a": Path("a.mp4")}


def test_files_and_videos_without_a_partner_are_told() -> None:
    found = match_files({"a": NOTHING, "b": NOTHING, "c": NOTHING}, ["x/b.mp4", "x/d.mp4"])
    assert found.files == {"b": Path("x/b.mp4")}
    assert found.unknown == (Path("x/d.mp4"),)
    assert found.missing == ("a", "c")


def test_two_files_of_one_video() -> None:
    with pytest.raises(InputError, match=r"one/a\.mp4 and two/v_a\.mp4 are both the annotated video 'a'"):
        match_files({"a": NOTHING}, ["one/a.mp4", "two/v_a.mp4"])


def test_no_file_is_annotated() -> None:
    with pytest.raises(
        InputError, match=r"None of the 2 files.*x\.mp4, y\.mp4\. Annotated: a\. Name each file"
    ):
        match_files({"a": NOTHING}, ["x.mp4", "y.mp4"])


def test_labels_are_sorted_and_unique(thumos: Path) -> None:
    assert labels_of(read_annotations(thumos, "test")) == ["baseball pitch", "shotput"]
