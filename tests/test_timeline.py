"""Timelines: windows over a video that is played once, what none of the labels is, and segments."""

import io
import json
import re
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from videos import write_video

import openxclip
from openxclip.checkpoints.source import ModelSource
from openxclip.cli.main import run
from openxclip.errors import InputError
from openxclip.inference.engine import Engine
from openxclip.inference.reading import read_video
from openxclip.inference.views import Views
from openxclip.shapes.clip import FRAMES_PER_SECOND
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.shapes.long import LongVideo, usual_labels
from openxclip.text.label_texts import LabelTexts
from openxclip.timelines.background import Background
from openxclip.timelines.formats import write
from openxclip.timelines.options import SegmentRules, WindowOptions
from openxclip.timelines.segments import Segment, Segmenter, suppressed
from openxclip.timelines.watcher import Watcher, cells
from openxclip.timelines.windows import Span, Unseen, Window, WindowCollector, WindowPlan
from openxclip.video.playback import Break, PlayedFrame, Player

pytestmark = pytest.mark.on_cpu


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(ModelSource(source="openxclip-tiny", dtype="float32"))


def frames_of(length: int) -> np.ndarray:
    """Frames that all differ, smooth enough to survive a codec."""
    ramp = np.linspace(0, 1, 64)[None, :, None] * np.linspace(0.5, 1, 48)[:, None, None]
    phases = np.arange(length)[:, None, None, None]
    return (127 + 120 * np.sin(6 * ramp[None] + 0.37 * phases + np.array([0, 2, 4]))).astype(np.uint8)


def cut_out(path: Path, begin: int, end: int, source: np.ndarray, fps: int | Fraction) -> Path:
    """A video of these frames alone, without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.height, stream.width = source.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in source[begin:end]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


# --- windows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "length", "window", "stride", "views"),
    [
        (25, 260, "4s", "2s", "1x1"),
        (Fraction(30000, 1001), 200, "2s", "0.7s", "1x1"),
        (24, 60, "4s", "2s", "1x1"),  # shorter than a window
        (10, 75, "2s", "1s", "2x3"),
        (30, 130, "1s", "2s", "1x1"),  # gaps between windows
    ],
)
def test_windows_score_as_predict_does_on_them_cut_out(
    fps, length, window, stride, views, tmp_path, engine
) -> None:
    source = frames_of(length)
    whole = cut_out(tmp_path / "whole.mkv", 0, length, source, fps)
    watcher = Watcher(
        engine, EXAMPLE_LABELS, windows=WindowOptions(window=window, stride=stride, views=views)
    )
    timeline = watcher.watch(whole)
    assert timeline.duration_seconds == pytest.approx(length / fps, abs=2e-3)
    starts, ends = (
        np.round(np.array(seconds) * float(fps)).astype(int)
        for seconds in (timeline.starts_seconds, timeline.ends_seconds)
    )
    assert starts[0] == 0
    assert ends[-1] == length or float(stride[:-1]) > float(window[:-1])
    for begin, end, scores in zip(starts, ends, timeline.scores, strict=True):
        alone = cut_out(tmp_path / f"{begin}.mkv", begin, end, source, fps)
        pixels = read_video(engine, alone, Views.parse(views))
        expected = engine.probabilities(pixels, watcher.label_set)
        assert np.abs(scores - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize("is_even", [True, False])
def test_frames_that_nobody_needs_are_left_out_and_change_nothing(is_even, tmp_path, engine) -> None:
    """H.264 with frames that no other refers to; also with time stamps that are not even."""
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "g": "50"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        rng, now = np.random.default_rng(0), 0
        for frame in frames_of(400):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts, image.time_base = now, Fraction(1, 1000)
            now += 40 if is_even else int(rng.integers(20, 300))
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    plan = WindowPlan(window_seconds=3, stride_seconds=1.7, num_frames=8)
    found = {}
    for skips in (False, True):
        with Player.of_file(path, ahead_seconds=4) as player:
            collector = WindowCollector(player, plan, engine.preprocess)
            if skips:
                player.skip_unless(collector.is_wanted)
            decoded: list[float] = []
            played = (decoded.append(item.seconds) or item for item in player)  # type: ignore[union-attr,func-returns-value]
            windows = [(w.start_seconds, w.end_seconds, w.pixels) for w in collector.windows(played)]
            found[skips] = windows, len(decoded)
    whole, fewer = found[False], found[True]
    assert whole[1] == 400
    assert fewer[1] < 0.7 * whole[1] or not is_even
    assert len(fewer[0]) == len(whole[0]) > 5
    for (start, end, pixels), (right_start, right_end, right) in zip(fewer[0], whole[0], strict=True):
        assert (start, end) == (right_start, right_end)
        assert torch.equal(pixels, right)


def test_a_frame_is_converted_once_and_nothing_is_kept(tmp_path, engine, monkeypatch) -> None:
    path = write_video(tmp_path / "video.mp4", num_frames=300, fps=25)
    converted: list[float] = []
    pixels = Player.pixels

    def counted(player: Player, frame: PlayedFrame, size: object) -> np.ndarray:
        converted.append(frame.seconds)
        return pixels(player, frame, size)  # type: ignore[arg-type]

    monkeypatch.setattr(Player, "pixels", counted)
    plan = WindowPlan(window_seconds=4, stride_seconds=1, num_frames=8)
    with Player.of_file(path, ahead_seconds=5) as player:
        collector = WindowCollector(player, plan, engine.preprocess)
        kept = [len(collector._crops) for item in collector.windows(player) if isinstance(item, Window)]
    assert len(kept) == 9
    assert max(kept) <= 4 * 8
    assert len(converted) == len(set(converted)) > 8


def test_uneven_frames_are_those_on_screen(tmp_path, engine) -> None:
    """A frame a second for four seconds, then 20 a second: a window looks at what a viewer sees."""
    path, source = tmp_path / "uneven.mkv", frames_of(84)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "bgr0"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, frame in enumerate(source):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts = 1000 * number if number < 4 else 4000 + 50 * (number - 4)
            image.time_base = Fraction(1, 1000)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    plan = WindowPlan(window_seconds=4, stride_seconds=4, num_frames=8)
    with Player.of_file(path, ahead_seconds=5) as player:
        windows = list(WindowCollector(player, plan, engine.preprocess).windows(player))
    assert [(window.start_seconds, window.end_seconds) for window in windows] == [
        (pytest.approx(0, abs=0.1), pytest.approx(4, abs=0.1)),
        (pytest.approx(4, abs=0.1), pytest.approx(8, abs=0.1)),
    ]
    first = windows[0].pixels[0]
    assert [bool(torch.equal(first[i], first[i + 1])) for i in range(7)] == [True, False] * 3 + [True]
    second = windows[1].pixels[0]
    assert not any(torch.equal(second[i], second[i + 1]) for i in range(7))


class Playing:
    """Frames at given moments, and breaks; the last one ends at `end_seconds`, if that is known."""

    def __init__(self, items: Sequence[float | Break], end_seconds: float | None, rate: int = 10) -> None:
        self.items, self.end_seconds, self.frame_rate = items, end_seconds, Fraction(rate)

    def pixels(self, frame: PlayedFrame, size: object) -> np.ndarray:
        return np.full((3, 72, 72), round(frame.seconds * 10) % 256, np.uint8)

    def __iter__(self) -> Iterator[PlayedFrame | Break]:
        for item in self.items:
            yield item if isinstance(item, Break) else PlayedFrame(None, item)


def collected(
    playing: Playing, engine: Engine, window: float = 2, stride: float = 1, frames: int = 4
) -> list:
    plan = WindowPlan(window_seconds=window, stride_seconds=stride, num_frames=frames)
    return list(WindowCollector(playing, plan, engine.preprocess).windows(playing))


def seen_at(window: Window) -> list[int]:
    return window.pixels[0, :, 0, 0, 0].tolist()


def test_a_gap_leaves_windows_unseen_and_the_others_whole(engine) -> None:
    moments = [i / 10 for i in range(40)]
    gap = Break("damage", 4.0, 7.0, "x")
    after = [7 + i / 10 for i in range(30)]
    found = collected(Playing([*moments, gap, *after], 10.0), engine)
    windows = {item.number: item for item in found if isinstance(item, Window)}
    assert sorted(windows) == [0, 1, 2, 7, 8]
    assert seen_at(windows[2]) == [22, 27, 32, 37]
    assert seen_at(windows[7]) == [72, 77, 82, 87]
    unseen = [item.number for item in found if isinstance(item, Span) and item.number not in windows]
    assert unseen == [3, 4, 5, 6]
    assert gap in found


@pytest.mark.parametrize("is_shown", [False, True])
def test_a_hole_of_days_takes_no_memory(is_shown, engine) -> None:
    days = 3 * 86400.0
    hole = [] if is_shown else [Break("gap", 1.0, days, "x")]
    playing = Playing([i / 10 for i in range(10)] + hole + [days], None)
    plan = WindowPlan(window_seconds=2, stride_seconds=1, num_frames=4)
    windows = WindowCollector(playing, plan, engine.preprocess).windows(playing)
    tracemalloc.start()
    found = [type(item) for item in islice(windows, 200)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(found) == {Window if is_shown else Unseen}
    assert peak < (8 << 20)


@pytest.mark.parametrize(
    ("length", "end", "expected"),
    [
        (35, 3.5, [(0, 2), (1, 3), (2, 3.5)]),  # the end is known: the last window stops there
        (30, 3.0, [(0, 2), (1, 3)]),
        (35, None, [(0, 2), (1, 3), (2, 3.5)]),  # nobody tells: most of the last window was seen
        (31, None, [(0, 2), (1, 3)]),
        (5, None, [(0, 0.5)]),
        (1, 0.1, [(0, 0.1)]),
    ],
)
def test_the_last_window(length, end, expected, engine) -> None:
    found = collected(Playing([i / 10 for i in range(length)], end), engine)
    assert [(window.start_seconds, window.end_seconds) for window in found] == expected
    assert all(isinstance(window, Window) for window in found)


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(0.02, 2.5), min_size=1, max_size=60),
    window=st.floats(0.3, 5),
    stride=st.floats(0.2, 5),
    knows_end=st.booleans(),
)
# A frame comes in the very middle of a tick:
@example(gaps=[1.25, 1.0], window=1.0, stride=0.375, knows_end=False)
def test_windows_show_what_is_on_screen_whatever_the_frames(gaps, window, stride, knows_end, engine) -> None:
    moments = np.concatenate([[0], np.cumsum(gaps)]).tolist()
    end = moments[-1] + 0.1
    found = collected(Playing(moments, end if knows_end else None), engine, window, stride)
    assert found
    assert [item.number for item in found] == list(range(len(found)))
    for item in found:
        plan = round(item.start_seconds * 10), round(item.end_seconds * 10)
        assert plan[0] == round(item.number * max(1.0, stride * 10))
        if item.end_seconds < moments[-1]:
            ticks = plan[0] + Views().indices(max(1, plan[1] - plan[0]), 4)[0]
            on_screen = [max(moment for moment in moments if moment * 10 <= tick + 0.5) for tick in ticks]
            assert seen_at(item) == [round(moment * 10) % 256 for moment in on_screen]


# --- none of these ------------------------------------------------------------------------------------------------


def test_nothing_in_the_footage_is_a_label() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 40)) * rng.uniform(0.5, 3, 40) + rng.uniform(-10, 20, 40)
    background = Background.of_footage(logits)
    scores = np.stack([background.probabilities(row[None]) for row in logits])
    assert scores.sum(axis=1).max() <= 0.5 + 1e-9
    event = logits[0].copy()
    event[7] = background.ceilings[7] + max(0, background.strength) + 5
    assert background.probabilities(event[None])[7] > 0.9
    assert Background.from_dict(json.loads(json.dumps(background.to_dict()))).strength == background.strength


def test_a_single_label_is_nothing_in_its_own_footage() -> None:
    logits = np.random.default_rng(0).normal(size=(500, 1)) * 3
    background = Background.of_footage(logits)
    scores = np.stack([background.probabilities(row[None]) for row in logits]).astype(np.float32)
    assert 0.49 < scores.max() < SegmentRules().enter


def test_a_mostly_quiet_video_is_its_own_background() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 10))
    logits[100:140, 3] += 15
    background = Background.of_mostly_quiet(logits)
    scores = np.stack([background.probabilities(row[None]) for row in logits])
    assert scores[100:140, 3].min() > 0.9
    assert (np.delete(scores, range(100, 140), axis=0).max(axis=1) > 0.5).mean() < 0.01


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ceilings": [1, "x"], "strength": 0, "num_windows": 3},
        {"ceilings": [float("nan")], "strength": 0, "num_windows": 1},
    ],
)
def test_a_wrong_background_is_refused(values) -> None:
    with pytest.raises(InputError, match="calibrate again"):
        Background.from_dict(values)
    with pytest.raises(InputError, match="longer footage"):
        Background.of_footage(np.empty((0, 3)))


# --- segments -----------------------------------------------------------------------------------------------------


def segments_of(scores: Sequence[float], **rules: float) -> list[tuple[float, float]]:
    """Segments of one label from the scores of cells of one second."""
    segmenter = Segmenter(("a",), SegmentRules(**{"min_seconds": 0.0, "close_gap_seconds": 0.0} | rules))
    found = [s for t, score in enumerate(scores) for s in segmenter.add(float(t), np.array([score]))]
    found += segmenter.close(float(len(scores)))
    return [(segment.start_seconds, segment.end_seconds) for segment in found]


@pytest.mark.parametrize(
    ("scores", "rules", "expected"),
    [
        ([0, 0.9, 0.9, 0], {}, [(1, 3)]),
        ([0, 0.4, 0.9, 0.4, 0.2], {}, [(1, 4)]),  # it reaches back to where it rose over `leave`
        ([0.4, 0.4, 0.4], {}, []),  # never reaches `enter`
        ([0.9, 0.4, 0.9], {}, [(0, 3)]),  # wavers, and is one
        ([0.9, 0.1, 0.9], {}, [(0, 1), (2, 3)]),
        ([0.9, 0.1, 0.9], {"close_gap_seconds": 1.0}, [(0, 3)]),
        ([0.9, 0.1, 0.4, 0.1, 0.9], {"close_gap_seconds": 1.0}, [(0, 1), (4, 5)]),
        ([0.9, 0.1, 0.1, 0.9, 0.1, 0.9], {"close_gap_seconds": 1.0}, [(0, 1), (3, 6)]),
        ([0.9, 0, 0.9, 0.9, 0], {"min_seconds": 2.0}, [(2, 4)]),
        ([0.9], {}, [(0, 1)]),
        ([], {}, []),
    ],
)
def test_segments(scores, rules, expected) -> None:
    assert segments_of(scores, **rules) == expected


def test_scores_and_unseen_cells() -> None:
    segmenter = Segmenter(("a", "b"), SegmentRules(min_seconds=0, close_gap_seconds=0))
    assert segmenter.add(0, np.array([0.6, 0.1])) == []
    assert segmenter.add(1, np.array([0.8, 0.1])) == []
    assert segmenter.is_open(0)
    assert segmenter.add(2, None) == [], "it may still be joined"
    (first,) = segmenter.add(3, np.array([0.0, 0.9]))
    assert (first.label, first.start_seconds, first.end_seconds) == ("a", 0, 2)
    assert (first.score, first.peak) == (pytest.approx(0.7), pytest.approx(0.8))
    (second,) = segmenter.close(4)
    assert (second.label, second.start_seconds, second.end_seconds) == ("b", 3, 4)


@given(
    st.lists(st.floats(0, 1), max_size=40),
    st.floats(0.1, 1),
    st.floats(0.1, 1),
    st.floats(0, 3),
    st.floats(0, 3),
)
def test_segments_are_apart_and_long_enough(scores, one, other, gap, shortest) -> None:
    rules = {
        "enter": max(one, other),
        "leave": min(one, other),
        "close_gap_seconds": gap,
        "min_seconds": shortest,
    }
    found = segments_of(scores, **rules)
    assert found == sorted(found)
    assert all(end - start >= shortest - 1e-9 for start, end in found)
    if shortest == 0:
        assert all(after - end > gap for (_, end), (after, _) in pairwise(found))
        for t, score in enumerate(scores):
            if score >= rules["enter"]:
                assert any(start <= t < end for start, end in found)


def test_better_labels_suppress_others() -> None:
    def segment(label: str, start: float, end: float, score: float) -> Segment:
        return Segment(label=label, start_seconds=start, end_seconds=end, score=score, peak=score)

    best, inside, later = segment("a", 0, 10, 0.9), segment("b", 1, 9, 0.6), segment("b", 9, 15, 0.5)
    assert suppressed([inside, later, best], 0.5) == [best, later]
    assert suppressed([inside, later, best], None) == [best, inside, later]
    assert inside.overlap(best) == pytest.approx(0.8)


@pytest.mark.parametrize("num_frames", [1, 30])
def test_a_video_shorter_than_any_segment_is_labelled_as_a_whole(num_frames, tmp_path, engine) -> None:
    cut_out(tmp_path / "short.mp4", 0, num_frames, frames_of(num_frames), 25)
    found = Watcher(engine, EXAMPLE_LABELS[:2], rules=SegmentRules(min_seconds=2)).watch(
        tmp_path / "short.mp4"
    )
    (segment,) = found.segments
    assert (segment.start_seconds, segment.end_seconds) == (0.0, found.duration_seconds)


def test_cells_end_at_cuts() -> None:
    spans = [
        Span(number=i, start_seconds=2.0 * i, end_seconds=2.0 * i + 4) for i in range(4)
    ]  # middles 2 4 6 8
    found = [(cell.start_seconds, cell.window, cell.is_cut) for cell in cells(spans, [4.5, 7.2, 7.4, 9.5])]
    assert found == [
        (0, 0, False),
        (3, 1, False),
        (4.5, 2, True),
        (7.2, None, True),
        (7.4, 3, True),
        (9.5, None, True),
    ]
    assert [cell.window for cell in cells(spans, [1.0])][:2] == [None, 0]
    assert list(cells([])) == []


@pytest.mark.parametrize(
    "rules",
    [
        {"enter": 0.2, "leave": 0.3},
        {"enter": 1.1},
        {"leave": 0.0},
        {"min_seconds": -1},
        {"close_gap_seconds": float("inf")},
        {"suppress": 2.0},
    ],
)
def test_rules_that_mean_nothing(rules) -> None:
    with pytest.raises(InputError, match="--"):
        SegmentRules(**rules).check()


# --- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_what_is_readable_of_a_damaged_video_is_labelled_and_gaps_are_said(seconds, tmp_path, engine) -> None:
    """Bytes overwritten in five places: elsewhere every window scores as in the sound video."""
    video = LongVideo(key="damage", seconds=seconds, labels=usual_labels(), quiet_seconds=3.0)
    video.write(tmp_path / "sound.mp4")
    data = bytearray((tmp_path / "sound.mp4").read_bytes())
    rng = np.random.default_rng(3)
    for place in range(5):
        at = round(len(data) * (0.12 + 0.17 * place))
        data[at : at + 120] = rng.integers(0, 256, 120, dtype=np.uint8).tobytes()
    (tmp_path / "damaged.mp4").write_bytes(data)
    watcher = Watcher(engine, usual_labels(), windows=WindowOptions(window="2s", stride="1s"))
    sound, damaged = watcher.watch(tmp_path / "sound.mp4"), watcher.watch(tmp_path / "damaged.mp4")
    assert damaged.breaks
    assert {item.kind for item in damaged.breaks} == {"damage"}
    assert damaged.scores.shape == sound.scores.shape
    unseen = np.isnan(damaged.scores).any(axis=1)
    assert damaged.num_unseen == unseen.sum()
    assert 5 <= unseen.sum() < 0.6 * len(unseen)
    assert np.abs(damaged.scores[~unseen] - sound.scores[~unseen]).max() < 1e-5
    for start, end in zip(damaged.starts_seconds[unseen], damaged.ends_seconds[unseen], strict=True):
        assert any(item.start_seconds < end and item.end_seconds > start for item in damaged.breaks)


def test_a_damaged_end_is_not_labelled(tmp_path, engine) -> None:
    """No key frame follows the damage: nothing is shown any more, and that is said."""
    video = LongVideo(key="end", seconds=20, labels=usual_labels(), quiet_seconds=3.0)
    video.write(tmp_path / "sound.mp4")
    data = bytearray((tmp_path / "sound.mp4").read_bytes())
    with av.open(str(tmp_path / "sound.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    key = max(packet.pts for packet in packets if packet.is_keyframe)
    late = sorted((packet for packet in packets if packet.pts > key), key=lambda packet: packet.dts)[4:8]
    for packet in late:
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    (tmp_path / "damaged.mp4").write_bytes(data)
    found = Watcher(engine, usual_labels(), windows=WindowOptions(window="2s", stride="1s")).watch(
        tmp_path / "damaged.mp4"
    )
    assert found.duration_seconds == pytest.approx(20)
    assert found.breaks[-1].end_seconds == pytest.approx(20)
    start = found.breaks[-1].start_seconds
    assert start < 19
    assert np.isnan(found.scores[found.ends_seconds > start + 1.2]).all()
    assert all(segment.end_seconds < start + 2 for segment in found.segments)


def test_time_stamps_that_jump_in_a_broadcast_are_no_time(tmp_path, engine) -> None:
    from test_live import stream

    (tmp_path / "jump.ts").write_bytes(stream(2) + stream(2, shift_seconds=50_000))
    found = Watcher(engine, EXAMPLE_LABELS, windows=WindowOptions(window="2s", stride="2s")).watch(
        tmp_path / "jump.ts"
    )
    assert found.duration_seconds == pytest.approx(8, abs=0.3)
    assert "jump" in {item.kind for item in found.breaks}


def test_a_hole_in_a_broadcast_is_a_gap(tmp_path, engine) -> None:
    clips = example_clips()[:4]
    with av.open(str(tmp_path / "hole.ts"), "w") as container:
        video = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"g": "16", "bf": "0"})
        video.width, video.height, video.pix_fmt = 128, 128, "yuv420p"
        for number, picture in enumerate(frame for clip in clips for frame in clip.frames(np.arange, 128)):
            image = av.VideoFrame.from_ndarray(picture, format="rgb24")
            seconds = number / FRAMES_PER_SECOND + (5 if number >= 4 * FRAMES_PER_SECOND else 0)
            image.pts, image.time_base = round(seconds * FRAMES_PER_SECOND), Fraction(1, FRAMES_PER_SECOND)
            container.mux(video.encode(image))
        container.mux(video.encode(None))
    found = Watcher(engine, EXAMPLE_LABELS, windows=WindowOptions(window="2s", stride="2s")).watch(
        tmp_path / "hole.ts"
    )
    (gap,) = found.breaks
    assert (gap.kind, gap.start_seconds, gap.end_seconds) == ("gap", pytest.approx(4), pytest.approx(9))
    assert found.starts_seconds[~np.isnan(found.scores).any(axis=1)].tolist() == [0.0, 2.0, 10.0, 12.0]


def test_an_open_group_of_pictures_is_no_damage(tmp_path) -> None:
    """A broadcast joined at a key frame whose first pictures need some from before it: from it on all is shown."""
    options = {
        "x264-params": "open-gop=1:keyint=24:min-keyint=24:bframes=3:b-adapt=0:scenecut=0:log-level=none"
    }
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=24, options=options)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for frame in frames_of(240):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(io.BytesIO(file.getvalue())) as container:
        keys = [packet.pos for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
    cut = file.getvalue()[keys[3] // 188 * 188 :]
    joined = (
        file.getvalue()[: 188 * 3] + cut
    )  # the tables of the stream, and then from its fourth key frame on
    with Player.of_file(joined, ahead_seconds=3) as player:
        items = list(player)
    shown = [item for item in items if isinstance(item, PlayedFrame)]
    assert len(shown) >= 240 - 3 * 24 - 6
    assert all(after.seconds - before.seconds < 0.2 for before, after in pairwise(shown))


def test_a_video_that_breaks_off_keeps_what_is_there(tmp_path, engine) -> None:
    video = LongVideo(key="short", seconds=20, labels=usual_labels(), quiet_seconds=3.0)
    video.write(tmp_path / "sound.mp4")
    with av.open(str(tmp_path / "sound.mp4")) as source, av.open(str(tmp_path / "sound.mkv"), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    data = (tmp_path / "sound.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(data[: len(data) // 2])
    watcher = Watcher(engine, usual_labels(), windows=WindowOptions(window="2s", stride="1s"))
    whole, half = watcher.watch(tmp_path / "sound.mkv"), watcher.watch(tmp_path / "half.mkv")
    assert 4 < half.duration_seconds < 16
    assert half.breaks[-1].end_seconds == pytest.approx(20, abs=0.2), "the header tells how long it was"
    shared = int((~np.isnan(half.scores).any(axis=1)).sum()) - 2
    assert shared >= 3
    assert np.abs(half.scores[:shared] - whole.scores[:shared]).max() < 1e-5


@pytest.mark.parametrize("content", [b"", b"no video", bytes(5000)])
def test_no_video_is_one_line(content, tmp_path, capsys) -> None:
    (tmp_path / "bad.mp4").write_bytes(content)
    write_video(tmp_path / "good.mp4", num_frames=60, fps=10)
    paths = [str(tmp_path / name) for name in ("bad.mp4", "none.mp4", "good.mp4")]
    assert run(["timeline", *paths, "--labels", "a, b", "--model", "openxclip-tiny", "--json"]) == 1
    out, error = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line.get("kind") for line in lines] == ["unreadable", "missing", None]
    assert lines[2]["video"] == paths[2]
    assert sum("bad.mp4" in line for line in error.splitlines()) == 1
    assert "Traceback" not in error


# --- whole ------------------------------------------------------------------------------------------------------------


def test_events_are_found_and_quiet_stays_quiet(engine) -> None:
    """Ten minutes of a camera: with its quiet footage almost all is right, without it quiet is something."""
    watcher = Watcher(
        engine,
        usual_labels(),
        windows=WindowOptions(window="2s", stride="1s"),
        rules=SegmentRules(min_seconds=3.0),
    )
    video = LongVideo(key="whole", seconds=600, labels=usual_labels(), share_overlapping=0, share_others=0)
    guessed = watcher.watch(video)
    watcher.calibrate([video.quiet(300)])
    found = watcher.watch(video)

    def is_right(segment: Segment) -> bool:
        truth = (
            Segment(
                label=one.label, start_seconds=one.start_seconds, end_seconds=one.end_seconds, score=1, peak=1
            )
            for one in video.truth
        )
        return any(one.label == segment.label and one.overlap(segment) >= 0.5 for one in truth)

    assert len(video.truth) >= 10
    right = [segment for segment in found.segments if is_right(segment)]
    assert len(right) >= 0.8 * len(video.truth)
    assert len(right) >= 0.8 * len(found.segments)
    assert found.none is not None
    assert guessed.none is None
    quiet = np.array(
        [
            not any(one.start_seconds < end and one.end_seconds > start for one in video.events)
            for start, end in zip(found.starts_seconds, found.ends_seconds, strict=True)
        ]
    )
    assert (found.scores[quiet].max(axis=1) >= 0.5).mean() < 0.02
    assert (guessed.scores[quiet].max(axis=1) >= 0.5).mean() > 0.3


def test_the_command_writes_what_is_asked_for_and_calibrates_from_it(tmp_path, capsys) -> None:
    video = LongVideo(key="command", seconds=40, labels=usual_labels(), quiet_seconds=4.0)
    video.write(tmp_path / "gate.mp4")
    video.quiet(30).write(tmp_path / "quiet.mp4")
    common = [
        "--labels",
        ", ".join(usual_labels()),
        "--model",
        "openxclip-tiny",
        "--window",
        "2s",
        "--stride",
        "1s",
    ]
    output = ["--output", str(tmp_path / "out"), "--formats", "json,csv,vtt,srt,html,png"]
    gate = ["timeline", str(tmp_path / "gate.mp4"), *common]
    assert run([*gate, "--background", str(tmp_path / "quiet.mp4"), *output, "--shots"]) == 0
    assert f"{tmp_path}/gate.mp4" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"gate.timeline.{ending}" for ending in ("csv", "html", "json", "png", "srt", "vtt")]
    first = json.loads((tmp_path / "out" / "gate.timeline.json").read_text())
    assert run([*gate, "--background", str(tmp_path / "out" / "gate.timeline.json"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["background"] == first["background"]
    assert again["windows"] == first["windows"]
    single = [*gate[:2], "--labels", usual_labels()[0], *common[2:], "--json"]
    assert run(single) == 2
    assert "single label" in capsys.readouterr().err
    assert run([*single, "--background", str(tmp_path / "quiet.mp4")]) == 0
    assert all(window["none"] > 0 for window in json.loads(capsys.readouterr().out)["windows"])
    other = [*gate[:2], "--labels", "a, b", *common[2:]]
    assert run([*other, "--background", str(tmp_path / "out" / "gate.timeline.json")]) == 2
    assert "other labels" in capsys.readouterr().err
    stored = ["--background", str(tmp_path / "out" / "gate.timeline.json")]
    assert run([*gate[:-4], "--window", "1s", "--stride", "1s", *stored]) == 2
    assert "--window 2s" in capsys.readouterr().err
    capsys.readouterr()
    for labels, background, words in (
        ([], None, "without a background"),
        (5, first["background"], "is not a timeline"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps({**first, "labels": labels, "background": background}))
        assert run([*gate, "--background", str(tmp_path / "bad.json")]) == 2
        assert words in capsys.readouterr().err
    both = ["--background", "self", "--background", str(tmp_path / "quiet.mp4")]
    assert run([*gate, *both]) == 2
    assert "or self" in capsys.readouterr().err


def test_evaluation_of_annotated_videos(tmp_path, capsys) -> None:
    video = LongVideo(key="evaluated", seconds=60, labels=usual_labels(), quiet_seconds=3.0)
    (tmp_path / "videos").mkdir()
    video.write(tmp_path / "videos" / "v_gate.mp4")
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    lines = ["video,label,start_seconds,end_seconds", "broken,x,0,1"]
    lines += ["missing,x,0,1"]
    lines += [f"gate,{one.label},{one.start_seconds},{one.end_seconds}" for one in video.truth]
    (tmp_path / "truth.csv").write_text("\n".join(lines) + "\n")
    arguments = [
        "--data",
        str(tmp_path / "truth.csv"),
        "--videos",
        str(tmp_path / "videos"),
        "--model",
        "openxclip-tiny",
    ]
    more = [
        "--window",
        "2s",
        "--stride",
        "1s",
        "--background",
        "self",
        "--labels",
        ", ".join(usual_labels()),
        "--output",
        str(tmp_path / "out"),
    ]
    assert run(["evaluate", "timeline", *arguments, *more, "--json"]) == 1
    out, error = capsys.readouterr()
    found = json.loads(out)
    assert found["num_videos"] == 1
    assert found["num_events"] == len(video.truth)
    assert list(found["unreadable"]) == ["broken", "missing"]
    assert "missing: " in error.splitlines()[-1]
    assert run(["evaluate", "timeline", *arguments, "--labels", "flying, swimming"]) == 2
    assert "none of the labels flying, swimming is annotated; annotated labels: x" in capsys.readouterr().err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["evaluation.json", "labels.json", "table.json", "v_gate.timeline.csv"]


def test_evaluation_on_rendered_hours(capsys) -> None:
    arguments = ["--model", "openxclip-tiny", "--data", "moving-shapes", "--hours", "0.05", "--window", "2s"]
    assert run(["evaluate", "timeline", *arguments, "--stride", "2s", "--only-events"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^0\.5 +\d", out, re.MULTILINE)
    assert "per hour" in out
    for hours in ("0", "0.0001", "inf"):
        assert run(["evaluate", "timeline", *arguments[:4], "--hours", hours]) == 2
        assert "--hours" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("moving-shapes", ["--background", "self"], "--background is for annotated files"),
        ("moving-shapes", ["--subset", "val"], "--subset is for annotated files"),
        ("truth.csv", ["--hours", "2"], "--hours is for --data moving-shapes"),
        ("truth.csv", ["--only-events"], "--only-events is for --data moving-shapes"),
        ("truth.csv", [], "only 'falling' is annotated"),
    ],
)
def test_options_of_an_evaluation_that_mean_nothing(
    data, options, words, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("truth.csv").write_text("video,label,start_seconds,end_seconds\ngate,falling,0,1\n")
    Path("gate.mp4").touch()
    assert run(["evaluate", "timeline", "--model", "nowhere/no-model", "--data", data, *options]) == 2
    assert words in capsys.readouterr().err


def test_from_python(tmp_path) -> None:
    video = LongVideo(key="python", seconds=20, labels=usual_labels(), quiet_seconds=3.0)
    video.write(tmp_path / "gate.mp4")
    found = openxclip.timeline(
        tmp_path / "gate.mp4",
        usual_labels(),
        ModelSource(source="openxclip-tiny", dtype="float32"),
        background=["self"],
        windows=WindowOptions(window="2s", stride="1s"),
    )
    assert found.duration_seconds == pytest.approx(20)
    assert found.scores.shape == (19, 12)
    assert found.model == "openxclip-tiny"


def test_a_single_label_needs_a_background(tmp_path, engine) -> None:
    """Alone it would score 100 % in every window."""
    video = LongVideo(key="single", seconds=20, labels=usual_labels()[:1], quiet_seconds=6.0)
    video.write(tmp_path / "gate.mp4")
    watcher = Watcher(engine, usual_labels()[:1], windows=WindowOptions(window="2s", stride="2s"))
    with pytest.raises(InputError, match="nothing to compare it to"):
        watcher.watch(tmp_path / "gate.mp4")
    watcher.is_own_background = True
    assert watcher.watch(tmp_path / "gate.mp4").none is not None


@pytest.mark.parametrize(
    ("changed", "words"), [({"templates": ("a film of {}",)}, {}), ({}, {"views": "3x1"})]
)
def test_a_stored_background_is_of_the_same_sentences_and_views(changed, words, tmp_path, engine) -> None:
    video = LongVideo(key="stored", seconds=12, labels=usual_labels(), quiet_seconds=3.0)
    video.write(tmp_path / "gate.mp4")
    texts = LabelTexts(labels=usual_labels())
    windows = WindowOptions(window="2s", stride="2s")
    watcher = Watcher(engine, texts, windows=windows)
    watcher.is_own_background = True
    (path,) = write(watcher.watch(tmp_path / "gate.mp4"), tmp_path, ["json"])
    Watcher(engine, texts, windows=windows).calibrate_with([str(path)])
    other = Watcher(engine, replace(texts, **changed), windows=replace(windows, **words))
    with pytest.raises(InputError, match="other sentences, views or another precision"):
        other.calibrate_with([str(path)])
