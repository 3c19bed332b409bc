"""Timelines as files: read back by other programs, and the page used in real headless Chromium."""

import base64
import csv
import dataclasses
import functools
import http.server
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import av
import numpy as np
import pytest
from PIL import Image
from videos import moving_frames, write_video

from openxclip.data.annotations import read_annotations
from openxclip.errors import InputError
from openxclip.reports import timeline as pages
from openxclip.reports.timeline_lanes import MAX_LANES, MAX_POINTS, clock, curves, lanes_of, ticks_seconds
from openxclip.timelines import formats
from openxclip.timelines.background import Background
from openxclip.timelines.segments import Segment
from openxclip.timelines.thumbnails import Thumbnails
from openxclip.timelines.timeline import Thumbnail, Timeline
from openxclip.video.playback import Break, PlayedFrame, Player

pytestmark = pytest.mark.on_cpu

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
SECONDS, FPS = 20, 10

HOSTILE_LABELS = (
    "<script>alert(1)</script>",
    "a --> b",
    "two\nlines\r\n\r\n00:00:01.000 --> 00:00:02.000",
    "very " * 200 + "long",
    "🏄‍♀️ 日本 \u202eright to left",
    "7",
    "\"quoted\", 'so' & {\\an8} $5 \\N",
    "</script><img src=x onerror=alert(1)>",
    "=1+1",
)
HOSTILE_FILES = (
    "<img src=x onerror=alert(1)>.webm",
    "a \"quoted\" & 'so'.webm",
    "50% #1 ?x=y.webm",
    "two\nlines.webm",
    "javascript:alert(1).webm",
    "日本 🏄.webm",
    "no\udce9text.webm",
    "x" * 240 + ".webm",
    ".hidden.webm",
    "-.webm",
)


def segment(label: str, start: float, end: float, score: float = 0.75) -> Segment:
    return Segment(label=label, start_seconds=start, end_seconds=end, score=score, peak=min(1.0, score + 0.1))


def timeline_of(**changes: object) -> Timeline:
    """Three labels over 20 seconds, and a hole in the second half."""
    starts = np.arange(0, 19, 0.5)
    middles = starts + 0.5
    scores = np.stack(
        [np.exp(-(((middles - middle) / width) ** 4)) for middle, width in ((3, 2), (9, 3), (16, 2))], axis=1
    )
    scores = (0.9 * scores / np.maximum(1, scores.sum(axis=1, keepdims=True))).astype(np.float32)
    scores[(middles > 11) & (middles < 13)] = np.nan
    values = {
        "path": "videos/talk.mp4",
        "labels": ("red circle", "green ring", "purple bar"),
        "model": "openxclip-tiny",
        "duration_seconds": float(SECONDS),
        "window_seconds": 1.0,
        "stride_seconds": 0.5,
        "starts_seconds": starts,
        "ends_seconds": starts + 1,
        "scores": scores,
        "segments": (
            segment("red circle", 1.0, 5.0),
            segment("green ring", 6.25, 11.0, 1 / 3),
            segment("purple bar", 14.0, 18.0),
        ),
        "breaks": (
            Break("damage", 11.5, 12.5, "a packet is damaged"),
            Break("jump", 15.0, 15.0, "the time stamps jump by +60.0 s"),
        ),
        "cuts_seconds": (6.0, 13.5),
        "background": Background.of_footage(np.array([[1.0, 2.0, 3.0], [1.5, 0.0, 2.0]])),
    }
    return Timeline(**(values | changes))


def hostile_timeline(path: str = "talk.mp4") -> Timeline:
    count = len(HOSTILE_LABELS)
    usual = timeline_of()
    segments = tuple(segment(label, 2 * i, 2 * i + 3) for i, label in enumerate(HOSTILE_LABELS))
    breaks = (Break("damage", 4.0, 5.0, "<b>damage</b> --> here"),)
    scores = np.full((len(usual.starts_seconds), count), 0.1, np.float32)
    return timeline_of(
        path=path,
        labels=HOSTILE_LABELS,
        segments=segments,
        breaks=breaks,
        scores=scores,
        background=None,
        model="<i>model</i>",
    )


def long_timeline(num_labels: int = 60, hours: float = 2) -> Timeline:
    """Many windows, labels and segments."""
    rng = np.random.default_rng(0)
    duration = 3600 * hours
    starts = np.arange(0, duration - 4, 2)
    scores = rng.random((len(starts), num_labels)).astype(np.float32) / num_labels
    labels = tuple(f"label {k}" for k in range(num_labels))
    moments = np.sort(rng.uniform(0, duration - 30, 900))
    segments = tuple(
        segment(labels[i % num_labels], float(moment), float(moment) + 30) for i, moment in enumerate(moments)
    )
    return timeline_of(
        labels=labels,
        duration_seconds=duration,
        starts_seconds=starts,
        ends_seconds=starts + 4,
        window_seconds=4.0,
        stride_seconds=2.0,
        scores=scores,
        segments=segments,
        breaks=(),
        cuts_seconds=tuple(np.sort(rng.uniform(0, duration, 5000)).tolist()),
        background=None,
    )


def strict_json(text: str) -> dict:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


# --- JSON and CSV -----------------------------------------------------------------------------------------------


def test_json_holds_everything() -> None:
    timeline = timeline_of()
    found = strict_json(formats.json_text(timeline))
    assert json.loads("".join(formats.json_line(timeline))) == found
    assert "\n" not in "".join(formats.json_line(timeline))
    with_pictures = timeline_of(thumbnails=(Thumbnail(1.5, b"one"), Thumbnail(3.0, b"two")))
    pictures = strict_json(formats.json_text(with_pictures, thumbnails=True)).pop("thumbnails")
    assert [picture["seconds"] for picture in pictures] == [1.5, 3.0]
    assert base64.b64decode(pictures[1]["image"].partition(",")[2]) == b"two"
    assert found["video"] == "videos/talk.mp4"
    assert found["labels"] == list(timeline.labels)
    assert (found["duration_seconds"], found["window_seconds"], found["stride_seconds"]) == (20, 1, 0.5)
    assert found["cuts_seconds"] == [6, 13.5]
    assert found["breaks"][0] == {
        "kind": "damage",
        "start_seconds": 11.5,
        "end_seconds": 12.5,
        "reason": "a packet is damaged",
    }
    assert found["segments"][1] == {
        "label": "green ring",
        "start_seconds": 6.25,
        "end_seconds": 11.0,
        "score": 0.333333,
        "peak": 0.433333,
    }
    assert timeline.background is not None
    assert found["background"] == timeline.background.to_dict()
    assert len(found["windows"]) == len(timeline.scores)
    for window, scores, start in zip(found["windows"], timeline.scores, timeline.starts_seconds, strict=True):
        assert window["start_seconds"] == start
        if np.isnan(scores).any():
            assert window["scores"] is None
            assert window["none"] is None
        else:
            assert window["scores"] == pytest.approx(scores.tolist(), abs=5.1e-7)
            assert window["none"] == pytest.approx(1 - scores.sum(), abs=1e-6)
    assert sum(window["scores"] is None for window in found["windows"]) == timeline.num_unseen == 3


def test_json_is_for_people_as_well() -> None:
    """A line for each window, letters as they are."""
    lines = formats.json_text(timeline_of(labels=("日本", "b", "c"))).splitlines()
    assert sum('"scores"' in line for line in lines) == 38
    assert any("日本" in line for line in lines)


def test_without_a_background_there_is_no_none() -> None:
    found = strict_json(formats.json_text(timeline_of(background=None)))
    assert found["background"] is None
    assert {window["none"] for window in found["windows"]} == {None}


def test_a_csv_is_read_as_annotations(tmp_path) -> None:
    (path,) = formats.write(timeline_of(), tmp_path, ["csv"])
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["video", "label", "start_seconds", "end_seconds", "score", "peak"]
    assert rows[1] == {
        "video": "videos/talk.mp4",
        "label": "green ring",
        "start_seconds": "6.25",
        "end_seconds": "11.0",
        "score": "0.333333",
        "peak": "0.433333",
    }
    (video,) = read_annotations(path).values()
    found = [(event.label, event.start_seconds, event.end_seconds) for event in video.events]
    assert found == [("red circle", 1, 5), ("green ring", 6.25, 11), ("purple bar", 14, 18)]


def test_a_csv_without_segments_names_the_video(tmp_path) -> None:
    (path,) = formats.write(timeline_of(segments=()), tmp_path, ["csv"])
    with path.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row.pop("video") == "videos/talk.mp4"
    assert set(row.values()) == {""}


# --- WebVTT and SRT ---------------------------------------------------------------------------------------------

Cue = tuple[float, float, str]


def cues_of(path: Path) -> list[Cue]:
    """(start, end, text) as FFmpeg reads them."""
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert stream.type == "subtitle"
        return [
            (
                float(packet.pts * packet.time_base),
                float((packet.pts + packet.duration) * packet.time_base),
                "".join(subtitle.dialogue.decode() for subtitle in packet.decode()),
            )
            for packet in container.demux(stream)
            if packet.size
        ]


@pytest.mark.parametrize("format", ["vtt", "srt"])
def test_players_read_the_cues(tmp_path, format) -> None:
    hours = 3600 * 123.0  # a stream of days
    timeline = timeline_of(
        segments=(
            segment("last", hours, hours + 1.0015),
            segment("long", 1.25, 9.0),
            segment("red circle", 1.25, 2.5),
            segment("overlapping", 2.0, 3.0),
            segment("shorter than a millisecond", 7.0001, 7.0002),
        )
    )
    (path,) = formats.write(timeline, tmp_path, [format])
    found = cues_of(path)
    assert [text for _, _, text in found] == [
        "long",
        "red circle",
        "overlapping",
        "shorter than a millisecond",
        "last",
    ]
    times = [time for start, end, _ in found for time in (start, end)]
    expected = [1.25, 9, 1.25, 2.5, 2, 3, 7, 7.001, hours, hours + 1.002]
    assert times == pytest.approx(expected, abs=1e-6)


def test_web_vtt_is_to_the_letter() -> None:
    text = formats.vtt_text(timeline_of())
    blocks = text.rstrip("\n").split("\n\n")
    assert blocks[0] == "WEBVTT"
    assert blocks[1] == "00:00:01.000 --> 00:00:05.000\nred circle"
    assert len(blocks) == 4
    assert formats.vtt_text(timeline_of(segments=())) == "WEBVTT\n"
    assert formats.srt_text(timeline_of(segments=())) == ""


def test_no_label_breaks_out_of_its_cue(tmp_path) -> None:
    vtt, srt = formats.write(hostile_timeline(), tmp_path, ["vtt", "srt"])
    plain = [" ".join(label.split()) for label in HOSTILE_LABELS]
    assert len(cues_of(vtt)) == len(cues_of(srt)) == len(plain)
    blocks = vtt.read_text(encoding="utf-8").rstrip("\n").split("\n\n")[1:]
    assert [len(block.split("\n")) for block in blocks] == [2] * len(plain)
    texts = [block.split("\n")[1] for block in blocks]
    assert all("<" not in text and "-->" not in text for text in texts)
    assert [
        re.sub("&(lt|gt|amp);", lambda m: {"lt": "<", "gt": ">", "amp": "&"}[m[1]], t) for t in texts
    ] == plain
    blocks = srt.read_text(encoding="utf-8").rstrip("\n").split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == [str(i + 1) for i in range(len(plain))]
    assert all(not set("<>{}") & set(block.split("\n")[2]) for block in blocks)


# --- files ------------------------------------------------------------------------------------------------------


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(InputError, match=r"'jsn'; choose from json, csv, vtt, srt; did you mean json\?"):
        formats.write(timeline_of(), folder, ["csv", "jsn"])
    with pytest.raises(InputError, match="'pdf'; choose from json, csv, vtt, srt, html, png"):
        pages.write(timeline_of(), folder, ["json", "pdf"])
    assert not folder.exists()


def test_files_are_named_after_the_video(tmp_path) -> None:
    found = pages.write(timeline_of(), tmp_path / "new" / "folder")
    names = [f"talk.timeline.{format}" for format in ("json", "csv", "vtt", "srt", "html", "png")]
    assert [path.name for path in found] == names
    assert sorted(path.name for path in found[0].parent.iterdir()) == sorted(names)


def test_a_file_is_whole_or_not_there(tmp_path) -> None:
    (path,) = formats.write(timeline_of(), tmp_path, ["json"])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Out of range float values"):
        formats.write(timeline_of(duration_seconds=float("inf")), tmp_path, ["json"])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_two_videos_of_one_stem_do_not_overwrite_each_other(tmp_path) -> None:
    videos = ["a/talk.mp4", "b/talk.mp4", "a/talk.avi", "a/TALK.mkv", "other.mp4", "./a/talk.mp4"]
    names = formats.output_names(videos, tmp_path)
    assert names[4] == "other"
    assert names[0] == names[5]  # the same video
    assert len({name.casefold() for name in names}) == 5
    assert all(name.casefold().startswith("talk-") for name in names[:4])
    assert formats.output_names(videos[::-1], tmp_path) == names[::-1]


def test_a_later_run_does_not_overwrite_another_video(tmp_path) -> None:
    (first,) = formats.write(timeline_of(path="a/talk.mp4"), tmp_path, ["json"])
    kept = first.read_bytes()
    others = formats.write(timeline_of(path="b/talk.mp4"), tmp_path, ["json", "csv"])
    assert first.name == "talk.timeline.json"
    assert first.read_bytes() == kept
    assert len(list(tmp_path.iterdir())) == 3
    again = formats.write(timeline_of(path="b/talk.mp4"), tmp_path, ["json", "csv"])
    assert again == others
    assert formats.write(timeline_of(path="a/talk.mp4"), tmp_path, ["json"]) == [first]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_later_run_without_json_does_not_overwrite_another_video(tmp_path) -> None:
    for segments in ({}, {"segments": ()}):
        first = formats.write(timeline_of(path="a/talk.mp4", **segments), tmp_path, ["csv", "vtt"])
        other = formats.write(timeline_of(path="b/talk.mp4", **segments), tmp_path, ["csv", "vtt"])
        assert [path.name for path in first] == ["talk.timeline.csv", "talk.timeline.vtt"]
        assert not set(first) & set(other)
        assert formats.write(timeline_of(path="a/talk.mp4"), tmp_path, ["csv"]) == first[:1]


def test_a_file_that_tells_of_no_video_is_left_alone(tmp_path) -> None:
    path = tmp_path / "talk.timeline.json"
    for content in (b"notes", b"[]", b'{\n"video": 5,\n', b"\xff\xfe", b""):
        path.write_bytes(content)
        assert formats.output_names(["talk.mp4"], tmp_path)[0] != "talk"


@pytest.mark.parametrize("video", HOSTILE_FILES)
def test_any_file_name_gives_a_name_for_any_system(tmp_path, video) -> None:
    paths = pages.write(timeline_of(path=video), tmp_path)
    assert len({path.name for path in paths}) == 6
    for path in paths:
        assert path.is_file()
        assert path.name.isprintable()
        assert not set(path.name) & set('<>:"/\\|?*')
        assert not path.name.startswith((".", " "))
    found = strict_json(paths[0].read_text(encoding="utf-8"))["video"]
    assert found == video.encode("utf-8", "backslashreplace").decode()
    assert pages.write(timeline_of(path=video), tmp_path) == paths  # the same name again


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("-", "stdin"),
        ("rtsp://user:secret@camera.local:554/yard/live.sdp?token=secret", "live"),
        ("https://host/list.m3u8#secret", "list"),
        ("udp://user:secret@239.0.0.1:1234", "239.0.0"),
        ("<bytes>", "_bytes_"),
        ("", "video"),
        ("shards/a.tar::folder/b.mp4", "b"),
    ],
)
def test_addresses_give_names_without_secrets(tmp_path, address, name) -> None:
    assert formats.output_names([address], tmp_path) == [name]


# --- thumbnails -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """20 seconds; every second has a brightness of its own."""
    frames = [np.full((90, 160, 3), 40 + 10 * (i // FPS), np.uint8) for i in range(SECONDS * FPS)]
    for frame, moving in zip(frames, moving_frames(len(frames), 64, 48), strict=True):
        frame[:48, :64] = moving
    path = tmp_path_factory.mktemp("film") / "50% off #1 'talk'.webm"
    options = {"deadline": "realtime", "cpu-used": "8"}
    return write_video(path, frames=frames, codec="libvpx-vp9", fps=FPS, options=options, gop=FPS)


def watched(path: Path, max_count: int = 60) -> tuple[list[PlayedFrame | Break], tuple[Thumbnail, ...]]:
    with Player.of_file(path, ahead_seconds=2) as player:
        thumbnails = Thumbnails(player, max_count)
        return list(thumbnails.watch(player)), thumbnails.pictures()


def pixels_of(thumbnail: Thumbnail) -> np.ndarray:
    with Image.open(io.BytesIO(thumbnail.jpeg)) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB"), int)


def test_thumbnails_show_their_moments_and_everything_is_passed_on(film) -> None:
    played, thumbnails = watched(film)
    assert len(played) == SECONDS * FPS
    assert [thumbnail.seconds for thumbnail in thumbnails] == pytest.approx(
        np.arange(0, SECONDS, 0.5), abs=1e-3
    )
    for thumbnail in thumbnails:
        pixels = pixels_of(thumbnail)
        assert pixels.shape == (90, 160, 3)
        assert pixels[60:, 80:].mean() == pytest.approx(40 + 10 * int(thumbnail.seconds + 0.01), abs=4)


@pytest.mark.parametrize("max_count", [1, 2, 7, 39, 40])
def test_there_are_never_too_many_thumbnails_and_they_are_evenly_spread(film, max_count) -> None:
    thumbnails = watched(film, max_count)[1]
    assert max_count / 2 <= len(thumbnails) <= max_count
    steps = np.diff([thumbnail.seconds for thumbnail in thumbnails])
    assert steps == pytest.approx(np.full(len(steps), steps.mean() if len(steps) else 0), abs=0.01)
    assert thumbnails[0].seconds == 0


def test_thumbnails_of_days_stay_few(film) -> None:
    """Two days of one frame every 10 seconds, with a hole of half a day: the same frame over and over."""
    with Player.of_file(film, ahead_seconds=2) as player:
        image = next(iter(player)).image
        thumbnails = Thumbnails(player, 60)
        hole = Break("gap", 40_000.0, 83_200.0, "no frames came")
        played: list[PlayedFrame | Break] = [
            PlayedFrame(image, float(t)) for t in range(0, 172_800, 10) if not 40_000 < t < 83_200
        ]
        played.insert(4001, hole)
        counts = []
        for number, item in enumerate(thumbnails.watch(iter(played))):
            assert item is played[number]
            counts.append(len(thumbnails.pictures()))
    assert max(counts) == 60
    moments = np.array([thumbnail.seconds for thumbnail in thumbnails.pictures()])
    steps = np.diff(moments)
    usual = np.median(steps)
    assert len(moments) > 20
    assert sum(np.abs(steps - usual) > 10) == 2  # only beside the hole
    assert sum(len(thumbnail.jpeg) for thumbnail in thumbnails.pictures()) < 1_000_000


@pytest.mark.parametrize(
    ("width", "height", "rotation", "shape"),
    [
        (64, 128, 0, (160, 80, 3)),
        (128, 64, 90, (160, 80, 3)),
        (512, 16, 0, (5, 160, 3)),
        (640, 2, 0, (1, 320, 3)),
    ],
)
def test_the_long_side_is_160_px_and_upright(tmp_path, width, height, rotation, shape) -> None:
    path = tmp_path / "clip.mp4"
    frames = [np.full((height, width, 3), 90, np.uint8)] * 4
    write_video(path, frames=frames, rotation=rotation, codec="mpeg4")
    thumbnails = watched(path)[1]
    assert pixels_of(thumbnails[0]).shape == shape


def test_no_thumbnails_at_all_are_refused(film) -> None:
    with Player.of_file(film, ahead_seconds=2) as player, pytest.raises(InputError, match="1 or more, got 0"):
        Thumbnails(player, 0)


# --- what pictures show -----------------------------------------------------------------------------------------


def test_each_label_with_a_segment_has_a_lane() -> None:
    lanes = lanes_of(timeline_of(labels=("red circle", "green ring", "purple bar")))
    assert [lane.name for lane in lanes] == [
        "red circle",
        "green ring",
        "purple bar",
        "none of these",
        "gaps and jumps",
        "shot boundaries",
    ]
    quiet = timeline_of(segments=(), background=None, breaks=(), cuts_seconds=())
    assert lanes_of(quiet) == []
    damaged = timeline_of(segments=(), background=None, cuts_seconds=(), breaks=timeline_of().breaks[:1])
    assert [lane.name for lane in lanes_of(damaged)] == ["gaps"]


def test_a_curve_is_broken_where_nothing_was_seen_and_reaches_the_ends() -> None:
    timeline = timeline_of()
    first, second = curves(timeline, timeline.scores[:, 1])
    assert first[0][0] == 0
    assert second[-1][0] == SECONDS
    assert first[-1][0] == pytest.approx(
        11.25
    )  # between the middles of the last window seen and the next one
    assert second[0][0] == pytest.approx(12.75)
    assert dict(first)[9.0] == pytest.approx(timeline.scores[17, 1])


def test_a_long_curve_is_short_and_keeps_its_peaks() -> None:
    timeline = long_timeline(num_labels=2)
    values = np.zeros(len(timeline.starts_seconds))
    values[[100, 1000, 3001]] = 0.5, 0.75, 1.0
    values[2000] = np.nan
    (curve,) = curves(timeline, values)
    assert len(curve) <= MAX_POINTS + 2
    assert sorted(y for _, y in curve if y) == [0.5, 0.75, 1.0]
    peak = next(x for x, y in curve if y == 1.0)
    assert peak == pytest.approx(2 * 3001 + 2, abs=2 * len(values) / MAX_POINTS + 2)


def test_many_labels_are_bounded_to_those_seen_longest() -> None:
    timeline = long_timeline(num_labels=60)
    lanes = [lane for lane in lanes_of(timeline) if lane.kind == "label"]
    assert len(lanes) == MAX_LANES
    starts = [lane.stretches[0].start_seconds for lane in lanes]
    assert starts == sorted(starts)


@pytest.mark.parametrize("seconds", [0.3, 1, 5, 19, 59, 61, 600, 3599, 7200, 86_400, 400_000])
def test_ticks_are_few_and_round(seconds) -> None:
    ticks = ticks_seconds(seconds)
    assert 2 <= len(ticks) <= 9
    assert ticks[0] == 0
    assert ticks[-1] <= seconds
    assert np.diff(ticks) == pytest.approx(np.full(len(ticks) - 1, ticks[1]))


def test_clocks() -> None:
    assert [clock(t) for t in (0, 9.6, 59.6, 3599.6, 3725)] == ["0:00", "0:10", "1:00", "1:00:00", "1:02:05"]
    assert [clock(t, 1) for t in (0.04, 59.96, 3725.25)] == ["0:00.0", "1:00.0", "1:02:05.2"]


# --- PNG --------------------------------------------------------------------------------------------------------


def drawn(tmp_path: Path, timeline: Timeline) -> np.ndarray:
    """Pixels (H, W, 3)."""
    (path,) = pages.write(timeline, tmp_path, ["png"], "picture")
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"), int)


def test_the_picture_has_segments_where_they_are(tmp_path) -> None:
    pixels = drawn(tmp_path, timeline_of(breaks=(), cuts_seconds=()))
    blue = np.flatnonzero(
        (pixels == (31, 119, 180)).all(axis=-1).sum(axis=0) > 4
    )  # the bar under the first segment
    width = pixels.shape[1]
    left, right = ((0.3 + 2.6 + 9.8 * share) / 13 * width for share in (1 / 20, 5 / 20))
    assert (blue.min(), blue.max()) == pytest.approx((left, right), abs=3)


def test_the_picture_grows_with_thumbnails_and_lanes(tmp_path, film) -> None:
    timeline = timeline_of(thumbnails=watched(film)[1])
    plain = drawn(tmp_path, timeline_of())
    assert drawn(tmp_path, timeline).shape[0] > plain.shape[0] + 50
    assert drawn(tmp_path, timeline_of(segments=())).shape[0] < plain.shape[0]
    assert (drawn(tmp_path, timeline_of(breaks=())) != plain).any()  # hatched
    one = timeline_of(thumbnails=timeline.thumbnails[:1])
    assert drawn(tmp_path, one).shape[0] < 1000


@pytest.mark.parametrize(
    "video", ["talk.mp4", HOSTILE_FILES[0], HOSTILE_FILES[5], HOSTILE_FILES[6], "$x$ " * 80]
)
def test_any_name_can_be_drawn(tmp_path, video) -> None:
    drawn(tmp_path, hostile_timeline(video))


def test_a_timeline_of_nothing_can_be_written(tmp_path) -> None:
    empty = timeline_of(
        duration_seconds=0.0,
        starts_seconds=np.zeros(0),
        ends_seconds=np.zeros(0),
        scores=np.zeros((0, 3), np.float32),
        segments=(),
        breaks=(),
        cuts_seconds=(),
    )
    assert len(pages.write(empty, tmp_path)) == 6


def test_only_a_png_needs_matplotlib(tmp_path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from openxclip.errors import MissingExtraError\n"
        "from openxclip.reports.timeline import check_formats\n"
        "check_formats(['json', 'html'])\n"
        "try: check_formats(['html', 'png'])\n"
        "except MissingExtraError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'openxclip[train]'" in run.stdout


# --- the page as text -------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Addresses, texts and tags of a page, and whether every tag is closed."""

    VOID = ("meta", "img", "br", "link", "polyline", "polygon")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[tuple[str, str]] = []
        self.text = ""
        self.titles: list[str] = []
        self.handlers: list[str] = []
        self.num_points = 0
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.addresses += [
            (tag, values[name]) for name in ("src", "href", "action", "data") if name in values
        ]
        self.handlers += [name for name in values if name.startswith("on")]
        self.titles += [values["title"]] if "title" in values else []
        self.num_points += len(values.get("points", "").split())
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def page_of(timeline: Timeline, folder: Path) -> tuple[Page, Path]:
    (path,) = pages.write(timeline, folder, ["html"])
    return Page(path.read_text(encoding="utf-8")), path


def test_names_are_text_and_never_html(tmp_path) -> None:
    page, path = page_of(hostile_timeline(), tmp_path)
    source = path.read_text(encoding="utf-8")
    text = " ".join(page.text.split())
    assert all(" ".join(label.split()) in text for label in HOSTILE_LABELS)
    assert "<script>alert" not in source
    assert "<i>model" not in source
    assert page.handlers == []
    assert page.addresses == []
    assert source.count("<script") == 2  # the template's and the timeline's
    assert not re.search(r"https?://|url\(|@import", source)
    assert "default-src 'none'" in source


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_the_address_of_the_player_leads_to_the_file(tmp_path, name) -> None:
    folder = tmp_path / "what # is % this"
    folder.mkdir()
    video = folder / name
    video.write_bytes(b"")
    for output in (folder, tmp_path / "out" / "deeper"):
        page, path = page_of(timeline_of(path=str(video)), output)
        ((tag, address),) = page.addresses
        assert tag == "video"
        assert re.fullmatch(r"[\w%./~-]+", address)
        found = path.parent / unquote(address, errors="surrogateescape")
        assert found.samefile(video)


def test_two_hours_are_a_page_of_bounded_size(tmp_path) -> None:
    page, path = page_of(long_timeline(), tmp_path)
    assert page.num_points <= (2 * MAX_POINTS + 6) * MAX_LANES
    assert path.stat().st_size < 3_000_000
    assert "20 more labels have no lane" in page.text


# --- the page in a browser --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium from the system's packages (scripts/browser.sh)")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """A page of a fresh profile. Everything that it fetches and says is watched."""

    def __init__(self, browser, url: str, allowed: tuple[str, ...], **settings) -> None:
        self.context = browser.new_context(**{"viewport": DESKTOP, **settings})
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.said: list[str] = []
        self.allowed = allowed
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.goto(url)

    def close(self) -> None:
        self.context.close()
        assert self.said == []
        assert [url for url in self.requests if not url.startswith(("data:", *self.allowed))] == []

    def seconds(self) -> float:
        """Where the player is, once it has got there."""
        self.until("!player.seeking")
        return self.page.evaluate("player.currentTime")

    def until(self, expression: str) -> None:
        """Wait for something to be true. The page's policy forbids what the library's own way to wait needs."""
        end = time.monotonic() + 30
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(20)

    def click(self, selector: str, share: float = 0.5) -> None:
        """At a share of an element's width."""
        element = self.page.locator(selector).first
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        element.click(position={"x": box["width"] * share, "y": box["height"] / 2})

    def now(self) -> str:
        return self.page.locator("#now").inner_text()


@pytest.fixture
def visit(browser):
    visits: list[Visit] = []

    def begin(url: str, *allowed: str, **settings) -> Visit:
        visits.append(Visit(browser, url, (url, *allowed), **settings))
        return visits[-1]

    yield begin
    for one in visits:
        one.close()


@pytest.fixture(scope="module")
def shown(film, tmp_path_factory) -> Path:
    """The page of the film, in another folder."""
    timeline = timeline_of(path=str(film), thumbnails=watched(film)[1])
    return pages.write(timeline, tmp_path_factory.mktemp("out"), ["html"])[0]


@pytest.fixture
def one(visit, shown, film) -> Visit:
    visit = visit(shown.as_uri(), film.as_uri().replace("'", "%27"), film.as_uri())
    visit.until("player.readyState > 0")
    return visit


def test_a_click_on_a_segment_a_lane_or_a_thumbnail_moves_the_player(one) -> None:
    assert one.page.evaluate("player.duration") == pytest.approx(SECONDS, abs=0.2)
    assert one.seconds() == 0
    one.click(".colour-1 i")
    assert one.seconds() == pytest.approx((6.25 + 11) / 2, abs=0.1)
    assert one.now().endswith("green ring")
    one.click(".colour-1 .track", 0.9)
    assert one.seconds() == pytest.approx(18, abs=0.1)
    assert "green" not in one.now()
    one.click(".thumbs .track", 0.125)
    assert one.seconds() == pytest.approx(2.5, abs=0.1)
    one.click("#axis", 0.5)
    assert one.seconds() == pytest.approx(10, abs=0.1)
    one.click(".gaps i", 0.5)
    assert 11.4 < one.seconds() < 12.6


def playhead(one: Visit) -> float:
    """Its share of the track's width."""
    return one.page.evaluate(
        "parseFloat(getComputedStyle(document.querySelector('.over'), '::after').left)"
        " / document.querySelector('#axis').clientWidth"
    )


def test_the_playhead_moves_with_the_player(one) -> None:
    one.click("#axis", 0.25)
    one.until("!player.seeking")
    assert playhead(one) == pytest.approx(0.25, abs=0.01)
    one.page.evaluate("player.muted = true; player.play()")
    one.until("player.currentTime > 6.4 && now.textContent.endsWith('green ring')")
    one.page.evaluate("player.pause()")
    one.until("Math.abs(Number(axis.ariaValueNow) - player.currentTime) < 0.1")
    assert playhead(one) == pytest.approx(one.seconds() / SECONDS, abs=0.01)


def test_a_row_of_the_list_moves_the_player_and_headings_sort(one) -> None:
    one.page.locator("tr:has-text('purple bar') .text").first.click()
    assert one.seconds() == pytest.approx(14, abs=0.1)
    assert one.page.locator("tr.on").count() == 1

    def first_labels() -> list[str]:
        return one.page.locator("table").first.locator("td.text").all_inner_texts()

    one.page.get_by_role("button", name="label", exact=True).click()
    assert first_labels() == ["green ring", "purple bar", "red circle"]
    heading = one.page.get_by_role("columnheader", name="label", exact=True)
    assert heading.get_attribute("aria-sort") == "ascending"
    one.page.get_by_role("button", name="label", exact=True).click()
    assert first_labels() == ["red circle", "purple bar", "green ring"]
    assert heading.get_attribute("aria-sort") == "descending"
    one.page.get_by_role("button", name="start", exact=True).first.click()
    assert first_labels() == ["red circle", "green ring", "purple bar"]
    one.page.get_by_role("button", name="00:06.2").press("Enter")
    assert one.seconds() == pytest.approx(6.25, abs=0.1)


def test_by_keyboard_alone(one) -> None:
    axis = one.page.get_by_role("slider", name="position")
    axis.focus()
    for key, seconds in (("ArrowRight", 0.5), ("PageUp", 2.5), ("ArrowLeft", 2.0), ("End", 20), ("Home", 0)):
        one.page.keyboard.press(key)
        assert one.seconds() == pytest.approx(seconds, abs=0.1)
    assert axis.get_attribute("aria-valuenow") == "0.0"
    assert axis.get_attribute("aria-valuetext") == "0:00.0 of 0:20.0"
    one.page.keyboard.press("Tab")
    assert one.page.evaluate("document.activeElement.textContent") == "red circle1 segment"
    assert one.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    one.page.keyboard.press("ArrowRight")
    assert one.seconds() == pytest.approx(1, abs=0.1)
    one.page.keyboard.press("ArrowDown")
    one.page.keyboard.press("Enter")
    assert one.seconds() == pytest.approx(6.25, abs=0.1)
    one.page.keyboard.press("ArrowUp")
    one.page.keyboard.press("ArrowLeft")
    assert one.seconds() == pytest.approx(1, abs=0.1)
    for name in ("gaps and jumps", "shot boundaries"):
        assert one.page.get_by_role("button", name=name).is_visible()


def test_the_mouse_shows_the_nearest_thumbnail(one) -> None:
    one.page.locator("#axis").hover(position={"x": 10, "y": 5})
    preview = one.page.locator("#preview")
    assert preview.is_visible()
    first = preview.locator("img").get_attribute("src")
    one.page.locator(".colour-2 .track").hover()
    assert preview.locator("img").get_attribute("src") != first
    assert re.fullmatch(r"0:(09\.9|10\.[01])", preview.inner_text())
    one.page.locator("h1").hover()
    assert not preview.is_visible()


@pytest.mark.parametrize("is_there", ["nothing", "no video"])
def test_a_page_works_without_its_video(visit, film, tmp_path, is_there) -> None:
    video = tmp_path / "gone.webm"
    video.write_bytes(film.read_bytes())
    path = page_of(timeline_of(path=str(video)), tmp_path)[1]
    video.write_bytes(b"no video")
    if is_there == "nothing":
        video.unlink()
    one = visit(path.as_uri(), video.as_uri())
    one.until("!missing.hidden")
    assert "no longer where it was" in one.page.locator("#missing").inner_text()
    assert not one.page.locator("#player").is_visible()
    one.click(".colour-1 i")
    assert one.now().endswith("green ring")
    assert playhead(one) == pytest.approx((6.25 + 11) / 2 / 20, abs=0.01)
    one.said = [text for text in one.said if "ERR_FILE_NOT_FOUND" not in text]  # that is what is tested


def test_a_page_of_a_stream_has_no_player(visit, tmp_path) -> None:
    one = visit(page_of(timeline_of(path="rtsp://camera/<live>"), tmp_path)[1].as_uri())
    assert one.page.locator("video").count() == 0
    assert "rtsp://camera/<live> is not a file" in one.page.locator("#missing").inner_text()
    one.click("#axis", 0.2)
    assert one.now().startswith("0:04.0")


def test_hostile_names_do_nothing_in_a_browser(visit, film, tmp_path) -> None:
    video = tmp_path / HOSTILE_FILES[0]
    video.write_bytes(film.read_bytes())
    one = visit(page_of(hostile_timeline(str(video)), tmp_path)[1].as_uri(), tmp_path.as_uri())
    one.until("player.readyState > 0")
    one.click(".lane i", 0.2)
    assert one.seconds() > 0
    assert "<script>alert(1)</script>" in one.now()
    assert one.page.evaluate("document.documentElement.scrollWidth") <= DESKTOP["width"]
    assert one.page.locator("img[src=x]").count() == 0


def test_a_page_plays_over_http(visit, shown, film, tmp_path) -> None:
    shutil.copy(film, tmp_path / "talk.webm")
    page_of(timeline_of(path=str(tmp_path / "talk.webm")), tmp_path / "out")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        root = f"http://127.0.0.1:{server.server_port}/"
        try:
            one = visit(f"{root}out/talk.timeline.html", f"{root}talk.webm")
            one.until("player.readyState > 0")
            one.page.goto("about:blank")
        finally:
            server.shutdown()
            thread.join()
    one.allowed += ("about:blank",)
    one.said = [text for text in one.said if "favicon" not in text and "404" not in text]
    one.requests = [url for url in one.requests if not url.endswith("/favicon.ico")]


CONTRASTS = """() => {
  const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  const behind = element => {
    const paints = [];
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      paints.push(...(style.backgroundImage.match(/rgba?\\([^)]*\\)/g) || []).map(numbers));
      const paint = numbers(style.backgroundColor);
      if (paint.length === 3) return [...paints, paint].filter(p => p.length === 3);
    }
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || ["STYLE", "SCRIPT"].includes(element.tagName)) continue;
    const ink = numbers(getComputedStyle(element).color);
    if (ink.length === 4) continue;
    for (const paint of behind(element)) {
      found.push([ratio(ink, paint), 4.5, element.tagName + ": " + element.textContent.trim().slice(0, 30)]);
    }
  }
  for (const line of document.querySelectorAll("polyline")) {
    const stroke = numbers(getComputedStyle(line).stroke);
    found.push([ratio(stroke, behind(line.closest(".track"))[0]), 3, "curve of " + line.closest(".lane").className]);
  }
  const mark = getComputedStyle(document.querySelector(innerWidth < 640 ? ".track" : ".over"), "::after");
  const lane = behind(document.querySelector(".lane .track"))[0];
  found.push([ratio(numbers(mark.backgroundColor), lane), 3, "playhead"]);
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_legible_in_both_themes_on_any_screen(visit, shown, film, scheme, viewport) -> None:
    one = visit(
        shown.as_uri(),
        film.as_uri().replace("'", "%27"),
        film.as_uri(),
        viewport=viewport,
        color_scheme=scheme,
    )
    one.until("player.readyState > 0")
    one.click(".colour-1 i")
    one.until("!player.seeking")
    background = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([int(value) for value in re.findall(r"\d+", background)[:3]])
    assert (brightness < 60) == (scheme == "dark")
    assert one.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    contrasts = one.page.evaluate(CONTRASTS)
    assert len(contrasts) > 40
    assert [(text, round(ratio, 2)) for ratio, least, text in contrasts if ratio < least] == []


def test_every_lane_and_control_has_a_name(one) -> None:
    nameless = one.page.evaluate(
        """[...document.querySelectorAll("button, [role], [tabindex]")]
        .filter(e => !(e.ariaLabel || e.textContent.trim())).map(e => e.outerHTML)"""
    )
    assert nameless == []
    assert one.page.locator("button.name").count() == 5


def test_all_moves_work_on_a_page_of_two_hours(visit, tmp_path) -> None:
    timeline = dataclasses.replace(long_timeline(), path="talk")
    one = visit(page_of(timeline, tmp_path)[1].as_uri())
    one.click("#axis", 0.5)
    assert one.now().startswith("1:00:0")
    row = one.page.locator(".seek tbody tr").nth(700)
    row.click()
    now = float(one.page.locator("#axis").get_attribute("aria-valuenow"))
    assert now == pytest.approx(float(row.get_attribute("data-start")), abs=0.1)
