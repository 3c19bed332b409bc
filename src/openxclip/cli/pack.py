"""`openxclip pack`: pack a dataset into training shards."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from openxclip.cli.options import Json, Labels, LimitOptions, MediaRoot

if TYPE_CHECKING:
    from openxclip.data.packing import DataSet, PackOptions, PackSummary


@dataclass(frozen=True, kw_only=True)
class PackArguments:
    """Options of `openxclip pack`."""

    data: Annotated[
        tyro.conf.Positional[Path],
        tyro.conf.arg(help="what train takes: class folders, lists with labels.csv, a dataset's own files"),
    ]
    output: Annotated[
        Path | None, tyro.conf.arg(help="folder of the shards; an unfinished packing there is resumed")
    ] = None
    lists: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(name="list", help="pack only this list; can be repeated; by default all lists"),
    ] = ()
    labels: Labels = None
    media_root: MediaRoot = None
    short_side: Annotated[
        int,
        tyro.conf.arg(
            help="short side in pixels; larger frames are scaled down to it, smaller ones are kept"
        ),
    ] = 256
    group_of_pictures: Annotated[
        int, tyro.conf.arg(help="frames between key frames: smaller values read faster and take more space")
    ] = 1
    quality: Annotated[int, tyro.conf.arg(help="libx264's crf: 0 is lossless, 51 the worst")] = 20
    shard_size: Annotated[str, tyro.conf.arg(help="maximum size of a shard, e.g. 1GB")] = "256MB"
    processes: Annotated[
        int | None, tyro.conf.arg(help="number of encoding processes; by default one per core")
    ] = None
    seed: Annotated[int, tyro.conf.arg(help="random seed of the video order")] = 0
    verify: Annotated[
        bool, tyro.conf.arg(help="verify all checksums of a packed folder, given as PATH, and pack nothing")
    ] = False
    print_json: Json = False
    limits: LimitOptions = field(default_factory=LimitOptions)


def pack(options: Annotated[PackArguments, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]) -> int:
    """Pack videos into training shards: small frames with fast random access, in tar files with an index.

    The folder is read like any dataset: `openxclip train --data DIR`. If interrupted, run the same command again: it
    resumes and ends in the same bytes. Videos that cannot be read are left out and listed with the reason; the exit
    status is then 1. A summary goes to stdout (--json).
    """
    from openxclip.errors import InputError

    if options.verify:
        return _verify(options.data, options.print_json)
    if options.output is None:
        raise InputError("give a folder for the shards: --output DIR")
    if options.processes is not None and options.processes < 1:
        raise InputError(f"--processes must be 1 or more, got {options.processes}")
    from openxclip.data.packing import read_data_set

    how = _how(options)
    data = read_data_set(options.data, options.lists, options.labels, options.media_root)
    summary = _show_progress(data, options.output, how, options.processes)
    print(json.dumps(asdict(summary)) if options.print_json else _text(summary))
    return int(summary.num_left_out > 0)


def _how(options: PackArguments) -> "PackOptions":
    from openxclip.data.packing import PackOptions, parse_bytes
    from openxclip.video.encode import EncodeOptions

    return PackOptions(
        encode=EncodeOptions(
            short_side_px=options.short_side,
            group_of_pictures=options.group_of_pictures,
            quality=options.quality,
        ),
        shard_bytes=parse_bytes("--shard-size", options.shard_size),
        seed=options.seed,
        limits=options.limits.limits(),
    )


def _show_progress(data: "DataSet", output: Path, how: "PackOptions", processes: int | None) -> "PackSummary":
    from openxclip.data.packing import PackStep, pack
    from openxclip.progress import progress_bar
    from openxclip.steps import finished

    with progress_bar() as bar:
        task = bar.add_task("packing", total=None, note="")

        def show(step: PackStep) -> None:
            note = f"{step.num_left_out} left out" if step.num_left_out else ""
            bar.update(task, total=step.num_videos, completed=step.num_done, note=note)

        return finished(pack(data, output, how, processes), show)


def _text(summary: "PackSummary") -> str:
    lines = [
        f"{summary.output}: {summary.num_videos} videos, {summary.num_frames} frames, "
        f"{summary.num_bytes / 1e6:.1f} MB in {summary.num_shards} shards; {summary.num_left_out} left out",
        f"  this run: {summary.num_encoded} videos in {summary.seconds:.1f} s",
    ]
    lines += [f"  list {name}: {count} videos" for name, count in summary.lists.items()]
    if summary.num_left_out:
        lines.append(f"  reasons: {Path(summary.output) / 'left_out.csv'}")
    return "\n".join(lines)


def _verify(folder: Path, print_json: bool) -> int:
    from openxclip.data.packed import damage, read_index
    from openxclip.progress import progress_bar

    videos, problems = read_index(folder), []
    with progress_bar() as bar:
        task = bar.add_task("verifying", total=len(videos), note="")
        for video in videos:
            if (problem := damage(folder, video)) is not None:
                problems.append(problem)
            bar.advance(task)
    if print_json:
        print(json.dumps({"num_videos": len(videos), "problems": problems}))
    else:
        print("\n".join([*problems, f"{folder}: {len(videos)} videos, {len(problems)} of them damaged"]))
    return int(bool(problems))
