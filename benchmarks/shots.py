"""Hard cuts in films of real clips, and what looks like cuts: ours, and PySceneDetect where it is installed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np

from benchmarks import montages
from benchmarks.harness import Timing, command, interleave
from benchmarks.montages import Effect, Format, Join, Written, chosen, shots_of, write_film
from benchmarks.options import Options, UnavailableError
from benchmarks.report import Section
from openxclip.data.manifest import read_manifest
from openxclip.data.media import FileMedia
from openxclip.progress import progress_bar
from openxclip.reports.table import Table
from openxclip.timelines.shots import CutDetector
from openxclip.video.playback import PlayedFrame, Player

SUITE = "shots"
LIST = Path("ucf8") / "test.txt"
PEER = "scenedetect"
OURS = "ours"
DECODING = "decoding alone"
NUM_SHOTS, NUM_HARD_SHOTS = 24, 20
TOLERANCE = 1  # frames
TIMED = (Format(width=640, height=360, fps=25), Format(width=1920, height=1080, fps=25))
NUM_TIMED_SHOTS, NUM_IN_MEMORY = 8, 150
MAX_ROUNDS = 5

Detector = Callable[[Path], list[int]]
"""A file -> numbers of the frames with which new shots begin."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A film to be made."""

    name: str
    format: Format = field(default_factory=lambda: Format(width=480, height=360, fps=25))
    join: Join = montages.cut
    effect: Effect | None = None
    num_shots: int = NUM_HARD_SHOTS
    shot_seconds: tuple[float, float] = montages.SHOT_SECONDS

    def write(self, folder: Path, paths: Sequence[Path], seed: int) -> Written:
        """Make it of random clips."""
        rng = np.random.default_rng([2026, seed])
        shots = shots_of(chosen(paths, self.num_shots, rng), self.format, rng, self.shot_seconds)
        film = self.join(shots, self.format.fps)
        if self.effect is not None:
            film = self.effect(film, self.format.fps, rng)
        return write_film(folder / f"{self.name}.mp4", film, self.format)


PLAIN = tuple(
    Case(
        name=f"{width}x{height}, {fps} frames a second",
        format=Format(width=width, height=height, fps=fps),
        num_shots=NUM_SHOTS,
    )
    for width, height, fps in (
        (320, 240, 25),
        (640, 360, 30),
        (480, 360, 12),
        (854, 480, 50),
        (1280, 720, 24),
    )
)
HARD = (
    Case(name="quick cuts, 0.5 to 1 s", shot_seconds=(0.5, 1.0)),
    Case(name="a mixed frame at each cut", join=montages.blended_cut),
    Case(name="noise", effect=montages.noise),
    Case(name="a fifth of the light", effect=montages.dark),
    Case(name="gray", effect=montages.gray),
    Case(name="still pictures", effect=montages.still),
    Case(name="every frame twice", effect=montages.doubled),
    Case(name="photo flashes", effect=montages.flashes),
    Case(name="fades through black", join=montages.fade),
    Case(name="dissolves", join=montages.dissolve),
    Case(name="whip pans", join=montages.whip_pan),
    Case(name="shaking camera", effect=montages.shake),
    Case(name="stutter", effect=montages.stutter),
)


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a detector made of one or more films."""

    found: int = 0
    missed: int = 0
    wrong: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            found=self.found + other.found, missed=self.missed + other.missed, wrong=self.wrong + other.wrong
        )

    @property
    def precision(self) -> float:
        """Share of the reported cuts that are some; 1 where none was reported."""
        return self.found / (self.found + self.wrong) if self.wrong else 1.0

    @property
    def recall(self) -> float:
        """Share of the cuts that were found; 1 where there is none."""
        return self.found / (self.found + self.missed) if self.missed else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.found / max(1, 2 * self.found + self.missed + self.wrong)


def score_of(cuts: Sequence[int], reported: Sequence[int], tolerance: int = TOLERANCE) -> Score:
    """Match each cut with the nearest report within the tolerance, each report once."""
    left = list(reported)
    for cut in cuts:
        nearest = min(left, key=lambda frame: abs(frame - cut), default=None)
        if nearest is not None and abs(nearest - cut) <= tolerance:
            left.remove(nearest)
    found = len(reported) - len(left)
    return Score(found=found, missed=len(cuts) - found, wrong=len(left))


def run(options: Options) -> Section:
    """Which cuts are found, then what it costs."""
    path = options.data / LIST
    if not path.exists():
        raise UnavailableError(f"it needs {path}; give the folder of the clips with --data")
    clips = [item.media.path for item in read_manifest(path).items if isinstance(item.media, FileMedia)]
    with TemporaryDirectory() as folder:
        tables = tables_of(PLAIN, HARD, clips, Path(folder))
        costs = [cost(format, clips, Path(folder), min(options.num_rounds, MAX_ROUNDS)) for format in TIMED]
    timings = {name: timing for _, found in costs for name, timing in found.items()}
    return Section(suite=SUITE, tables=(*tables, *(table for table, _ in costs)), timings=timings)


def detectors() -> dict[str, Detector]:
    """Ours, and PySceneDetect's where it is installed."""
    if find_spec(PEER) is None:
        return {OURS: ours}
    import scenedetect

    def peer(make: Callable[[], Any]) -> Detector:
        def detect(path: Path) -> list[int]:
            scenes = scenedetect.detect(str(path), make(), backend="pyav")
            return [start.frame_num for start, _ in scenes[1:]]

        return detect

    return {
        OURS: ours,
        "ContentDetector": peer(scenedetect.ContentDetector),
        "AdaptiveDetector": peer(scenedetect.AdaptiveDetector),
    }


def ours(path: Path) -> list[int]:
    """`CutDetector` on frames as they are played."""
    detector = CutDetector()
    with Player.of_file(path, ahead_seconds=1.0) as player:
        for _ in detector.watch(player):
            pass
        return [round(seconds * float(player.frame_rate)) for seconds in detector.cuts_seconds]


def _decode(path: Path) -> None:
    with Player.of_file(path, ahead_seconds=1.0) as player:
        for _ in player:
            pass


# Which cuts are found


def tables_of(
    plain: Sequence[Case], hard: Sequence[Case], clips: Sequence[Path], folder: Path
) -> tuple[Table, Table]:
    """Both tables of cuts."""
    scores = scores_of([*plain, *hard], clips, folder)
    return _plain_table(plain, scores), _hard_table(hard, scores)


def scores_of(
    cases: Sequence[Case], clips: Sequence[Path], folder: Path
) -> dict[str, tuple[Written, dict[str, Score]]]:
    """Name of a case -> its film, and what each detector made of it."""
    found, scores = detectors(), {}
    with progress_bar() as bar:
        task = bar.add_task("films", total=len(cases), note="")
        for seed, case in enumerate(cases):
            bar.update(task, note=case.name)
            film = case.write(folder, clips, seed)
            scores[case.name] = (
                film,
                {name: score_of(film.cuts, detect(film.path)) for name, detect in found.items()},
            )
            film.path.unlink()
            bar.advance(task)
    return scores


def _plain_table(cases: Sequence[Case], scores: Mapping[str, tuple[Written, dict[str, Score]]]) -> Table:
    names = list(scores[cases[0].name][1])
    totals = {name: sum((scores[case.name][1][name] for case in cases), Score()) for name in names}
    num_cuts = sum(len(scores[case.name][0].cuts) for case in cases)
    films = [(case.name, str(len(scores[case.name][0].cuts)), scores[case.name][1]) for case in cases]
    return Table(
        title="Films of real clips: precision, recall and F1 of cuts within one frame",
        command=command(SUITE),
        columns=("film", "cuts", *names),
        rows=tuple(
            (name, count, *(f"{s.precision:.3f} / {s.recall:.3f} / {s.f1:.3f}" for s in by_name.values()))
            for name, count, by_name in [*films, ("all", str(num_cuts), totals)]
        ),
        notes=(
            f"H.264, {cases[0].num_shots} clips in each film, 2 to 5 s of each as far as it lasts. Our thresholds were "
            f"chosen on clips of other recordings. {_about_the_peer()}",
        ),
    )


def _hard_table(cases: Sequence[Case], scores: Mapping[str, tuple[Written, dict[str, Score]]]) -> Table:
    names = list(scores[cases[0].name][1])
    return Table(
        title="Hard films: cuts missed, and cuts reported where there are none",
        command=command(SUITE),
        columns=("film", "frames", "cuts", *(f"{name}: missed / wrong" for name in names)),
        rows=tuple(
            (
                case.name,
                str(scores[case.name][0].num_frames),
                str(len(scores[case.name][0].cuts)),
                *(f"{score.missed} / {score.wrong}" for score in scores[case.name][1].values()),
            )
            for case in cases
        ),
        notes=(
            "480x360, 25 frames a second. Fades and dissolves are no hard cuts. PySceneDetect takes no "
            "shot below 15 frames by default, so it misses quick cuts by design.",
        ),
    )


def _about_the_peer() -> str:
    if find_spec(PEER) is None:
        return "PySceneDetect is not installed, so ours alone was measured (pip install 'openxclip[bench]')."
    import scenedetect

    return f"PySceneDetect {scenedetect.__version__} with its defaults, decoding with PyAV {version('av')}."


# What it costs


def cost(
    format: Format, clips: Sequence[Path], folder: Path, num_rounds: int
) -> tuple[Table, dict[str, Timing]]:
    """Turns of decoding alone and of decoding with each detector, and our detector on frames in memory."""
    size = f"{format.width}x{format.height}"
    film = Case(name=size, format=format, num_shots=NUM_TIMED_SHOTS).write(folder, clips, seed=0)
    variants = {name: _cpu_seconds(run) for name, run in {DECODING: _decode, **detectors()}.items()}
    measured = interleave(variants, [film.path] * num_rounds, size)
    cpu = {name: min(seconds) for name, seconds in measured.outputs.items()}
    wall = {name: min(timing.seconds) for name, timing in measured.timings.items()}
    rows = [
        (
            name,
            f"{film.num_frames / wall[name]:.0f}",
            *(
                "-" if name == DECODING else f"{1e6 * (by[name] - by[DECODING]) / film.num_frames:.0f}"
                for by in (wall, cpu)
            ),
        )
        for name in measured.timings
    ]
    in_memory = watch_seconds(film.path)
    table = Table(
        title=f"Cost at {size}",
        command=command(SUITE),
        columns=(
            "what",
            "frames a second",
            "us a frame on top of decoding",
            "CPU us a frame on top of decoding",
        ),
        rows=tuple(rows),
        notes=(
            f"Best of {num_rounds} rounds over {film.num_frames} frames of H.264. Ours on frames in memory: "
            f"{1e6 * in_memory:.0f} us a frame. PySceneDetect decodes in a thread of its own; ours runs in the thread "
            "that plays the video.",
        ),
    )
    return table, {f"{name}, {size}": timing for name, timing in measured.timings.items()}


def _cpu_seconds(run: Callable[[Path], object]) -> Callable[[Path], float]:
    """The CPU time of all threads."""

    def measured(path: Path) -> float:
        started = time.process_time()
        run(path)
        return time.process_time() - started

    return measured


def watch_seconds(path: Path, num_frames: int = NUM_IN_MEMORY) -> float:
    """Seconds a frame of our detector alone, on the first frames of a file; the best of five passes."""
    with av.open(str(path)) as container:
        frames = [
            PlayedFrame(frame, i / 25)
            for i, frame in zip(range(num_frames), container.decode(video=0), strict=False)
        ]
    passes = []
    for _ in range(5):
        detector = CutDetector()
        started = time.perf_counter()
        for _ in detector.watch(frames):
            pass
        passes.append((time.perf_counter() - started) / len(frames))
    return min(passes)
