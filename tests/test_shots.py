"""Shot boundaries: cuts are found at their frame, in every kind of file; motion, flashes, fades and noise are none."""

import gc
import tracemalloc
import weakref
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from benchmarks import montages
from benchmarks.montages import Format, chosen, shots_of, write_film
from benchmarks.shots import Case, Score, detectors, ours, score_of, tables_of, watch_seconds
from paths import DATA, needs_data
from videos import write_video

from openxclip.timelines.shots import MIN_SHOT_SECONDS, CutDetector
from openxclip.video.playback import Break, PlayedFrame, Player

FPS = 25
HEIGHT, WIDTH = 96, 128
Frames = list[np.ndarray]


def scene(seed: int, num_frames: int = 20, speed: int = 2) -> Frames:
    """The camera pans over a picture of its own by so many pixels a frame."""
    rng = np.random.default_rng(seed)
    width = WIDTH + speed * num_frames
    picture = np.tile(rng.uniform(60, 190, 3), (HEIGHT, width, 1))
    for size, strength in ((48, 40), (16, 25), (4, 15)):
        cells = rng.normal(0, strength, (HEIGHT // size + 1, width // size + 1, 3))
        picture += cells.repeat(size, axis=0).repeat(size, axis=1)[:HEIGHT, :width]
    picture = picture.clip(0, 255).astype(np.uint8)
    return [picture[:, speed * i : speed * i + WIDTH] for i in range(num_frames)]


def mixed(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    return ((1 - share) * a + share * b).astype(np.uint8)


def cuts_of_file(path: Path) -> list[int]:
    """Numbers of the frames at which shots begin."""
    detector = CutDetector()
    with Player.of_file(path, ahead_seconds=1.0) as player:
        for _ in detector.watch(player):
            pass
        return [round(seconds * float(player.frame_rate)) for seconds in detector.cuts_seconds]


def cuts(frames: Sequence[np.ndarray], folder: Path, fps: int = FPS, **options: Any) -> list[int]:
    """Write, play and watch."""
    return cuts_of_file(write_video(folder / "film.mkv", frames=frames, fps=fps, **options))


def played(frames: Iterable[Any], fps: int = FPS, start: float = 0.0) -> Iterator[PlayedFrame]:
    """Frames as a player would give them."""
    for i, frame in enumerate(frames):
        image = av.VideoFrame.from_ndarray(frame, format="rgb24") if isinstance(frame, np.ndarray) else frame
        yield PlayedFrame(image, start + i / fps)


def watched(items: Iterable[PlayedFrame | Break]) -> list[float]:
    detector = CutDetector()
    for _ in detector.watch(items):
        pass
    return detector.cuts_seconds


THREE = [*scene(1), *scene(2), *scene(3)]
AT = [20, 40]


@pytest.mark.parametrize("fps", [10, 25, 30, 60])
def test_cuts_are_found_at_their_frame(tmp_path: Path, fps: int):
    assert cuts(THREE, tmp_path, fps) == AT


def test_moments_are_those_of_the_player(tmp_path: Path):
    path = write_video(tmp_path / "film.mp4", frames=THREE, fps=30, codec="libx264")
    detector = CutDetector()
    with Player.of_file(path, ahead_seconds=1.0) as player:
        moments = [item.seconds for item in detector.watch(player) if isinstance(item, PlayedFrame)]
    assert detector.cuts_seconds == [moments[20], moments[40]]


@pytest.mark.parametrize("size", [(16, 16), (100, 38), (322, 178), (1920, 1080)])
def test_any_size(size: tuple[int, int]):
    width, height = size
    frames = [
        av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(width, height, "yuv420p")
        for frame in THREE[8:32]
    ]
    assert watched(played(frames)) == [pytest.approx(12 / FPS)]


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("libx264", "yuv420p10le"),
        ("ffv1", "gray"),
        ("ffv1", "yuv444p"),
        ("ffv1", "yuv422p10le"),
        ("ffv1", "yuva420p"),
        ("ffv1", "gray10le"),
        ("ffv1", "gray16le"),
        ("ffv1", "bgr0"),
        ("ffv1", "gbrp12le"),
        ("rawvideo", "rgb24"),
        ("rawvideo", "bgr24"),
        ("rawvideo", "rgba"),
        ("rawvideo", "argb"),
        ("rawvideo", "nv12"),
        ("rawvideo", "yuyv422"),
        ("rawvideo", "rgb565le"),
    ],
)
def test_files_of_any_pixel_format(tmp_path: Path, codec: str, pix_fmt: str):
    path = write_video(tmp_path / "film.nut", frames=THREE, fps=FPS, codec=codec, pix_fmt=pix_fmt)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).format.name == pix_fmt
    assert cuts_of_file(path) == AT


@pytest.mark.parametrize(
    "pix_fmt", ["gbrp", "p010le", "yuv420p16be", "x2rgb10le", "abgr", "rgb8", "rgb48le", "yuvj420p"]
)
def test_frames_of_any_pixel_format(pix_fmt: str):
    frames = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt) for frame in THREE]
    assert watched(played(frames)) == [20 / FPS, 40 / FPS]


@pytest.mark.parametrize(
    "others", [("rgb24", "bgr24", "argb", "bgr0", "gbrp"), ("yuv420p", "nv12", "p010le")]
)
def test_another_format_is_no_cut(others: tuple[str, ...]):
    reds = [frame // (1, 2, 4) for frame in scene(1, 60, speed=0)]
    frames = [
        av.VideoFrame.from_ndarray(red.astype(np.uint8), format="rgb24").reformat(
            format=others[i // 10 % len(others)]
        )
        for i, red in enumerate(reds)
    ]
    assert watched(played(frames)) == []


def upside_down(frames: Frames) -> list[av.VideoFrame]:
    """The frames flipped, as FFmpeg does it: the last line comes first, the lines go backwards in memory."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=WIDTH, height=HEIGHT, format="yuv420p", time_base=Fraction(1, FPS))
    flip, sink = graph.add("vflip"), graph.add("buffersink")
    source.link_to(flip)
    flip.link_to(sink)
    graph.configure()
    flipped = []
    for i, frame in enumerate(frames):
        image = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
        image.pts, image.time_base = i, Fraction(1, FPS)
        source.push(image)
        flipped.append(sink.pull())
    return flipped


def test_lines_from_bottom_to_top():
    flipped = upside_down(THREE)
    assert flipped[0].planes[0].line_size < 0
    assert watched(played(flipped)) == [20 / FPS, 40 / FPS]
    upright = upside_down([np.ascontiguousarray(frame[::-1]) for frame in THREE[10:20]])
    usual = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p") for frame in THREE]
    assert watched(played([*usual[:10], *upright])) == []


def test_colour_counts_where_brightness_does_not(tmp_path: Path):
    """The second shot is the first one mirrored, as bright, in another colour."""
    gray = scene(1)[0].mean(axis=2, keepdims=True)
    tint = np.array([40.0, -20.4, 0.0])  # no luma
    shots = (gray + tint).clip(0, 255), (gray[:, ::-1] - tint).clip(0, 255)
    assert cuts([shot.astype(np.uint8) for shot in shots for _ in range(20)], tmp_path) == [20]


# What is no cut


@pytest.mark.parametrize("speed", [8, 20, 40])
def test_motion_is_no_cut(tmp_path: Path, speed: int):
    assert cuts(scene(4, 60, speed), tmp_path) == []


def test_motion_that_begins_all_at_once_is_no_cut(tmp_path: Path):
    pan = scene(4, 40, 20)
    assert cuts([*[pan[0]] * 20, *pan], tmp_path) == []


def test_motion_in_jumps_is_no_cut(tmp_path: Path):
    assert cuts([frame for frame in scene(4, 10, 20) for _ in range(7)], tmp_path) == []
    pan = scene(4, 8, 20)
    assert cuts([*pan[:4], *[pan[3]] * 3, *[pan[4]] * 3], tmp_path, fps=5) == []


def test_a_cut_out_of_motion(tmp_path: Path):
    assert cuts([*scene(4, 20, 8), *scene(5, 20, 8)], tmp_path) == [20]


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(tmp_path: Path, length: int):
    frames = scene(6, 60)
    for start in (15, 35):
        for i in range(start, start + length):
            frames[i] = mixed(frames[i], np.full_like(frames[i], 255), 0.8)
    assert cuts(frames, tmp_path) == []


def test_a_strobe_is_no_cut(tmp_path: Path):
    frames = [frame // (1 + 4 * (i // 2 % 2)) for i, frame in enumerate(scene(6, 60))]
    assert cuts(frames, tmp_path) == []


@pytest.mark.parametrize("at", [14, 17, 20, 21, 24])
def test_a_cut_beside_a_flash(tmp_path: Path, at: int):
    frames = list(THREE[:40])
    frames[at] = mixed(frames[at], np.full_like(frames[at], 255), 0.8)
    assert cuts(frames, tmp_path) == [20]


@pytest.mark.parametrize("num_steps", [8, 20])
def test_a_fade_is_no_cut(tmp_path: Path, num_steps: int):
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    steps = [min(1.0, i / num_steps, (29 - i) / num_steps) for i in range(30)]
    frames = [mixed(black, f, s) for seed in (1, 2) for f, s in zip(scene(seed, 30), steps, strict=True)]
    assert cuts(frames, tmp_path) == []


@pytest.mark.parametrize("num_steps", [6, 15])
def test_a_dissolve_is_no_cut(tmp_path: Path, num_steps: int):
    old, new = scene(1, 20 + num_steps), scene(2, 20 + num_steps)
    between = [mixed(old[20 + i], new[i], (i + 1) / (num_steps + 1)) for i in range(num_steps)]
    assert cuts([*old[:20], *between, *new[num_steps:]], tmp_path) == []


def test_a_mixed_frame_at_the_cut(tmp_path: Path):
    """As a change of the frame rate leaves it: one cut, not two."""
    found = cuts([*THREE[:19], mixed(THREE[19], THREE[20], 0.5), *THREE[20:40]], tmp_path)
    assert found in ([19], [20])


def test_stills(tmp_path: Path):
    assert cuts([scene(1)[0]] * 60, tmp_path) == []
    slides = [scene(seed)[0] for seed in (1, 2, 3) for _ in range(20)]
    assert cuts(slides, tmp_path) == AT


@pytest.mark.parametrize("times", [2, 3])
def test_repeated_frames(tmp_path: Path, times: int):
    assert cuts([frame for frame in THREE for _ in range(times)], tmp_path) == [20 * times, 40 * times]


def test_noise_and_black(tmp_path: Path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(30)]
    assert cuts(noise, tmp_path) == []
    black = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 30
    assert cuts(black, tmp_path) == []
    assert cuts([*black, *scene(1), *black], tmp_path) == [30, 50]


def test_a_cut_in_noise_and_in_the_dark(tmp_path: Path):
    rng = np.random.default_rng(0)
    grainy = [(f + rng.normal(0, 25, f.shape)).clip(0, 255).astype(np.uint8) for f in THREE]
    assert cuts(grainy, tmp_path) == AT
    assert cuts([frame // 6 for frame in THREE], tmp_path) == AT


def test_a_short_shot_counts_as_part_of_the_next(tmp_path: Path):
    num_short = int(MIN_SHOT_SECONDS * FPS) - 2
    assert cuts([*scene(1), *scene(2, num_short), *scene(3)], tmp_path) == [20]
    insert = scene(1, 40)
    insert[20:22] = scene(2, 2)
    assert cuts(insert, tmp_path) == []


# Breaks, and what is kept


def test_everything_comes_through_unchanged():
    gap = Break("gap", 0.8, 1.0, "no frames came")
    items = [*played(THREE[:20]), gap, *played(THREE[20:], start=1.0)]
    assert all(a is b for a, b in zip(CutDetector().watch(items), items, strict=True))


def test_no_cut_across_a_break():
    gap = Break("gap", 20 / FPS, 1.0, "no frames came")
    later = list(played(THREE[20:], start=1.0))
    assert watched([*played(THREE[:20]), gap, *later]) == [later[20].seconds]
    assert watched([*played(THREE[:20]), *later]) == [later[0].seconds, later[20].seconds]


def test_a_cut_is_known_two_frames_later():
    detector = CutDetector()
    known = [bool(detector.cuts_seconds) for _ in detector.watch(played(THREE[:30]))]
    assert known.index(True) == 22


def test_another_size_is_no_cut():
    frames = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p") for frame in THREE]
    small = [frame.reformat(WIDTH // 2, HEIGHT // 2) for frame in frames]
    assert watched(played([*frames[:10], *small[10:20]])) == []
    assert watched(played([*frames[:20], *small[20:40]])) == [20 / FPS]


def test_frames_are_let_go_and_memory_does_not_grow():
    detector, images = CutDetector(), [item.image for item in played(THREE)]

    def endless(count: int) -> Iterator[PlayedFrame]:
        for i in range(count):
            yield PlayedFrame(images[i % 10], i / FPS)

    references = [weakref.ref(item) for item in detector.watch(endless(100))]
    gc.collect()
    assert sum(reference() is not None for reference in references) == 0
    tracemalloc.start()
    try:
        for _ in detector.watch(endless(500)):
            pass
        before, _ = tracemalloc.get_traced_memory()
        for _ in detector.watch(endless(3000)):
            pass
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000


# Real clips


def real_clips(num_clips: int) -> list[Path]:
    names = [line.split()[0] for line in (DATA / "ucf8" / "test.txt").read_text().splitlines()]
    paths = [DATA / "ucf8" / "videos" / name for name in names]
    return chosen(paths, num_clips, np.random.default_rng(0))


@needs_data("ucf8/test.txt")
def test_real_clips_one_after_the_other(tmp_path: Path):
    format = Format(width=320, height=240, fps=25)
    shots = shots_of(real_clips(8), format, np.random.default_rng(1))
    film = write_film(tmp_path / "film.mp4", montages.cut(shots, 25), format)
    assert len(film.cuts) == 7
    assert cuts_of_file(film.path) == list(film.cuts)


@needs_data("ucf8/test.txt")
@pytest.mark.parametrize("join", [montages.fade, montages.dissolve, montages.whip_pan])
def test_real_clips_without_hard_cuts(tmp_path: Path, join: montages.Join):
    format = Format(width=320, height=240, fps=25)
    shots = shots_of(real_clips(4), format, np.random.default_rng(1))
    film = write_film(tmp_path / "film.mp4", join(shots, 25), format)
    assert film.cuts == ()
    assert cuts_of_file(film.path) == []


@needs_data("ucf8/test.txt")
def test_a_jolt_of_the_camera_is_no_cut(tmp_path: Path):
    """By a thirtieth of the width, out of a picture that stands still."""
    format = Format(width=320, height=240, fps=25)
    for shot in shots_of(real_clips(8), format, np.random.default_rng(1)):
        frames = [shot[0][:, :310]] * 20 + [shot[0][:, 10:]] * 20
        assert cuts(frames, tmp_path) == []


# The benchmark


def test_cuts_are_matched_once_and_within_a_frame():
    assert score_of([10, 20, 30], [10, 21, 33]) == Score(found=2, missed=1, wrong=1)
    assert score_of([10], [9, 10, 11]) == Score(found=1, wrong=2)
    assert score_of([], [5]) == Score(wrong=1)
    score = Score(found=3, missed=1, wrong=2)
    assert (score.precision, score.recall) == (0.6, 0.75)
    assert score.f1 == pytest.approx(2 * 0.6 * 0.75 / (0.6 + 0.75))
    assert (Score().precision, Score().recall) == (1.0, 1.0)


@needs_data("ucf8/test.txt")
def test_the_benchmark_finds_the_cuts_of_what_it_writes(tmp_path: Path):
    format = Format(width=160, height=120, fps=25)
    plain = Case(name="plain", format=format, num_shots=3)
    hard = Case(name="twice", format=format, effect=montages.doubled, num_shots=2)
    plain_table, hard_table = tables_of([plain], [hard], real_clips(3), tmp_path)
    assert plain_table.columns[2:] == tuple(detectors())
    assert plain_table.rows[0][1:3] == ("2", "1.000 / 1.000 / 1.000")
    assert hard_table.rows[0][2:4] == ("1", "0 / 0")


def test_the_benchmark_watches_what_it_times(tmp_path: Path):
    path = write_video(tmp_path / "film.mp4", frames=THREE, fps=FPS, codec="libx264")
    assert ours(path) == AT
    assert watch_seconds(path) > 0


def test_effects_keep_the_cuts():
    film = [(picture, i in AT) for i, picture in enumerate(THREE)]
    rng = np.random.default_rng(0)
    effects = (montages.flashes, montages.noise, montages.dark, montages.gray, montages.still)
    for effect in effects:
        assert [is_cut for _, is_cut in effect(film, FPS, rng)] == [is_cut for _, is_cut in film]
    twice = [i for i, (_, is_cut) in enumerate(montages.doubled(film, FPS, rng)) if is_cut]
    assert twice == [40, 80]
    shots = [scene(seed) for seed in (1, 2, 3)]
    blended = list(montages.blended_cut(shots, FPS))
    assert [i for i, (_, is_cut) in enumerate(blended) if is_cut] == AT
    assert len(blended) == len(THREE)
