"""Packed shards against the videos they come from: training clips a second, size on disk, and what is lost.

The sources are clips of UCF-101 (.avi, 320x240) and rendered ones of 1280x720 in H.264 with x264's usual settings. The
loader decodes and augments in its processes, or only decodes (`data.augment=device`).
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from benchmarks.clips import KINDS, write_clip
from benchmarks.harness import command, duration
from benchmarks.loading import FOLDER, INPUT_PX, LIST, NUM_FRAMES, SEED, clips_per_second
from benchmarks.options import Options, UnavailableError
from benchmarks.report import Section
from openxclip.data.dataset import DecodedFrames, TrainClips
from openxclip.data.manifest import read_manifest
from openxclip.data.media import FileMedia, Item, Manifest
from openxclip.data.packed import read_packed
from openxclip.data.packing import DataSet, PackSummary, pack
from openxclip.progress import progress_bar
from openxclip.reports.table import Table
from openxclip.steps import finished
from openxclip.video.decode import VideoReader
from openxclip.video.encode import EncodeOptions, even_size
from openxclip.video.transforms import TrainTransform

SUITE = "packing"
AVI, HD = "UCF-101, .avi 320x240", "rendered, H.264 1280x720"
HD_PX, HD_FRAMES, NUM_HD = (720, 1280), 300, 4
NUM_WORKERS = (1, 2)
NUM_CLIPS = {AVI: 96, HD: 32}  # that each measurement loads
MAX_ROUNDS = 3
NUM_COMPARED = 4  # videos whose frames are compared

Augment = Literal["workers", "device"]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A source and its packed shards."""

    original: Manifest
    packed: Manifest
    summary: PackSummary

    def bytes_of_original(self) -> int:
        """Of all files."""
        return sum(Path(item.media.facts()["file"]).stat().st_size for item in self.original.items)

    def psnr(self) -> float:
        """Median over frames of some videos, in decibels: what was decoded of the original against the shard's."""
        ratios = []
        size_of = partial(even_size, EncodeOptions().short_side_px)
        for before, after in islice(zip(self.original.items, self.packed.items, strict=True), NUM_COMPARED):
            with VideoReader(before.media.source()) as original, VideoReader(after.media.source()) as packed:
                pairs = zip(original.play(size_of), packed.play(size_of), strict=True)
                errors = [np.square(a[1].astype(float) - b[1]).mean() for a, b in pairs]
            ratios += [10 * np.log10(255**2 / max(error, 1e-9)) for error in errors]
        return statistics.median(ratios)


def run(options: Options) -> Section:
    """Real and rendered clips."""
    folder = options.data / FOLDER
    if not (folder / LIST).exists():
        raise UnavailableError(f"it needs {folder / LIST}; give the folder of the clips with --data")
    with TemporaryDirectory() as work:
        sources = {AVI: read_manifest(folder, list_name=LIST), HD: write_hd(Path(work) / "hd")}
        return measure(sources, Path(work), NUM_CLIPS, min(MAX_ROUNDS, options.num_rounds))


def write_hd(folder: Path, num_videos: int = NUM_HD, num_frames: int = HD_FRAMES) -> Manifest:
    """Rendered videos of 1280x720."""
    folder.mkdir()
    paths = [folder / f"{number}.mp4" for number in range(num_videos)]
    with progress_bar() as bar:
        task = bar.add_task("1280x720", total=num_videos * num_frames, note="")
        for number, path in enumerate(paths):
            for _ in write_clip(path, KINDS[0], num_frames, HD_PX, number):
                bar.advance(task)
    items = tuple(Item(path=path.name, label=0, media=FileMedia(path)) for path in paths)
    return Manifest(name=HD, labels=("scene",), items=items)


def measure(
    sources: Mapping[str, Manifest], work: Path, num_clips: Mapping[str, int], num_rounds: int
) -> Section:
    """The suite on any sources of files."""
    packed = {
        name: _packed(manifest, work / f"packed-{number}")
        for number, (name, manifest) in enumerate(sources.items())
    }
    rates = {
        name: loader_rates(pair, num_clips[name], num_rounds, title=name) for name, pair in packed.items()
    }
    figures = {
        figure: rates[name]["packed", "workers", NUM_WORKERS[-1]]
        / rates[name]["original", "workers", NUM_WORKERS[-1]]
        for figure, name in {"packing_avi": AVI, "packing_720p": HD}.items()
        if name in rates
    }
    return Section(suite=SUITE, tables=(_rate_table(rates, num_rounds), _size_table(packed)), figures=figures)


def _packed(manifest: Manifest, folder: Path) -> Packed:
    data = DataSet(path=manifest.name, lists={"all": manifest})
    summary = finished(pack(data, folder))
    return Packed(original=manifest, packed=read_packed(folder, None), summary=summary)


Variant = tuple[str, Augment, int]
"""original or packed, where augmentation happens, worker processes."""


def loader_rates(pair: Packed, num_clips: int, num_rounds: int, title: str) -> dict[Variant, float]:
    """Clips a second of each variant, the median of rounds in turns."""
    augments: tuple[Augment, ...] = ("workers", "device")
    variants: list[Variant] = [
        (kind, augment, count)
        for augment in augments
        for count in NUM_WORKERS
        for kind in ("original", "packed")
    ]
    rates: dict[Variant, list[float]] = {variant: [] for variant in variants}
    with progress_bar() as bar:
        task = bar.add_task(title, total=num_rounds * len(variants), note="")
        for _ in range(num_rounds):
            for kind, augment, count in variants:
                manifest = pair.original if kind == "original" else pair.packed
                rates[kind, augment, count].append(
                    clips_per_second(_clips(manifest, augment), count, num_clips)
                )
                bar.advance(task)
    return {variant: statistics.median(measured) for variant, measured in rates.items()}


def _clips(manifest: Manifest, augment: Augment) -> TrainClips:
    transform = TrainTransform(input_size_px=INPUT_PX)
    frames = DecodedFrames(transform.short_side_px)
    return TrainClips(manifest, frames, transform, NUM_FRAMES, SEED, augment=augment)


def _rate_table(rates: Mapping[str, Mapping[Variant, float]], num_rounds: int) -> Table:
    rows = []
    for name, by_variant in rates.items():
        for kind, augment, count in by_variant:
            if kind == "original":
                before, after = by_variant[kind, augment, count], by_variant["packed", augment, count]
                work = "decode and augment" if augment == "workers" else "decode"
                rows.append(
                    (name, work, str(count), f"{before:.1f}", f"{after:.1f}", f"{after / before:.1f}x")
                )
    return Table(
        title=f"Training clips a second of the loader, {NUM_FRAMES} frames for {INPUT_PX} px",
        command=command(SUITE),
        columns=("source", "workers", "processes", "original", "packed", "packed against original"),
        rows=tuple(rows),
        notes=(f"Medians of {num_rounds} rounds in turns, after the first batches of each.",),
    )


def _size_table(packed: Mapping[str, Packed]) -> Table:
    return Table(
        title="What packing costs",
        command=command(SUITE),
        columns=("source", "videos", "original", "packed", "PSNR", "time"),
        rows=tuple(_size_row(name, pair) for name, pair in packed.items()),
        notes=(
            f"PSNR against the frames that went into the encoder: the median over all frames of {NUM_COMPARED} videos.",
        ),
    )


def _size_row(name: str, pair: Packed) -> tuple[str, ...]:
    return (
        name,
        str(pair.summary.num_videos),
        f"{pair.bytes_of_original() / 1e6:.1f} MB",
        f"{pair.summary.num_bytes / 1e6:.1f} MB",
        f"{pair.psnr():.1f} dB",
        duration(pair.summary.seconds),
    )
