"""8 and 32 frames of a clip, short side 256: ours against PyAV's usual loop, torchcodec, decord2 and OpenCV.

Shapes: T frames, F all frames of a clip.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.clips import HEIGHT_PX, WIDTH_PX, write_clips
from benchmarks.harness import Timing, command, duration, interleave
from benchmarks.options import Options
from benchmarks.readers import OURS, READERS, Job, Reader
from benchmarks.report import Section
from openxclip.reports.table import Table
from openxclip.video.convert import FrameSize

SUITE = "decoding"
SHORT_SIDE_PX = 256
COUNTS = (8, 32)
THREADS = {0: "automatic threads", 1: "one thread"}
"""Number for the decoder -> how it is called: automatic suits a single clip, one thread many clips side by side."""
THUMBNAIL_PX = (18, 32)  # height and width at which frames are told apart


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the readers did with one job."""

    kind: str
    """Of the clip."""
    job: Job
    """What was asked for."""
    timings: dict[str, Timing]
    """By reader."""
    exact: dict[str, float]
    """By reader, the share of its frames that are those asked for."""

    @property
    def best_peer(self) -> str:
        """The fastest that gives the frames asked for."""
        peers = [name for name in self.timings if name != OURS and self.exact[name] == 1]
        return min(peers, key=lambda name: self.timings[name].median_seconds)

    @property
    def speed(self) -> float:
        """Ours against that peer."""
        return self.timings[OURS].speed_against(self.timings[self.best_peer])

    def row(self) -> tuple[str, ...]:
        """Of the table: a cell for each reader, a star where frames are wrong."""
        cells = [
            duration(timing.median_seconds) + ("" if self.exact[name] == 1 else f" * {self.exact[name]:.0%}")
            for name, timing in self.timings.items()
        ]
        return self.kind, *cells, f"{self.speed:.2f}x ({self.best_peer})"


def run(options: Options) -> Section:
    """Every kind, count and number of threads, in turns of readers."""
    with TemporaryDirectory() as folder:
        return measure(write_clips(Path(folder)), options.num_rounds)


def measure(clips: Mapping[str, Path], num_rounds: int) -> Section:
    """The suite on any clips of the same size."""
    width_px, height_px = FrameSize(short_side_px=SHORT_SIDE_PX).of(WIDTH_PX, HEIGHT_PX)
    references = {kind: clip_thumbnails(path) for kind, path in clips.items()}
    outcomes = [
        outcome_of(
            kind,
            Job(path=path, num_frames=count, width_px=width_px, height_px=height_px, num_threads=num_threads),
            references[kind],
            num_rounds,
        )
        for num_threads in THREADS
        for count in COUNTS
        for kind, path in clips.items()
    ]
    tables = [
        _table(
            [o for o in outcomes if (o.job.num_threads, o.job.num_frames) == (num_threads, count)], num_rounds
        )
        for num_threads in THREADS
        for count in COUNTS
    ]
    return Section(suite=SUITE, tables=tuple(tables), figures=_figures(outcomes), timings=_timings(outcomes))


def outcome_of(kind: str, job: Job, reference: np.ndarray, num_rounds: int) -> Outcome:
    """Check every reader's frames against a full decode, then time the readers in turns."""
    exact = {name: share_exact(read(job), job, reference) for name, read in READERS.items()}
    title = f"{kind}, {job.num_frames} frames, {THREADS[job.num_threads]}"
    timings = interleave(
        {name: _timed(read) for name, read in READERS.items()}, [job] * num_rounds, title
    ).timings
    return Outcome(kind=kind, job=job, timings=timings, exact=exact)


def _timed(read: Reader) -> Callable[[Job], None]:
    """The reader, its frames thrown away: those of all rounds would fill the memory."""

    def timed(job: Job) -> None:
        read(job)

    return timed


def clip_thumbnails(path: Path) -> np.ndarray:
    """(F, 18, 32, 3): every frame that a sequential decode of the whole clip yields, small."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return thumbnails(np.stack(frames))


def thumbnails(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 -> (T, 18, 32, 3): means over areas, so that no reader's way to scale matters."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(pixels, THUMBNAIL_PX).permute(0, 2, 3, 1).numpy()


def share_exact(frames: np.ndarray, job: Job, reference: np.ndarray) -> float:
    """The share of `frames` (T, H, W, 3) that look like the wanted frame more than like any other of the clip."""
    distances = np.abs(thumbnails(frames)[:, None] - reference[None]).mean(axis=(2, 3, 4))  # (T, F)
    return float((distances.argmin(axis=1) == job.indices(len(reference))).mean())


def _table(outcomes: Sequence[Outcome], num_rounds: int) -> Table:
    job = outcomes[0].job
    return Table(
        title=f"{job.num_frames} frames, {THREADS[job.num_threads]}: medians of {num_rounds} rounds",
        command=command(SUITE),
        columns=("clip", *READERS, "ours against the best exact peer"),
        rows=tuple(outcome.row() for outcome in outcomes),
        notes=(
            f"Clips of 10 s, {WIDTH_PX}x{HEIGHT_PX}; opening the file and finding its length are counted. A star "
            "marks readers that gave other frames than those asked for, with the share that was right.",
        ),
    )


def _figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Of a single clip, which is decoded with automatic threads: the worst kind counts."""
    figures = {
        f"decoding_{count}": min(
            outcome.speed
            for outcome in outcomes
            if (outcome.job.num_threads, outcome.job.num_frames) == (0, count)
        )
        for count in COUNTS
    }
    return figures | {"decoding_exact": min(outcome.exact[OURS] for outcome in outcomes)}


def _timings(outcomes: Sequence[Outcome]) -> dict[str, Timing]:
    return {
        f"{name}: {outcome.kind}, {outcome.job.num_frames} frames, {THREADS[outcome.job.num_threads]}": timing
        for outcome in outcomes
        for name, timing in outcome.timings.items()
    }
