"""Packs the videos of a dataset into training shards (`packed.py` describes the folder).

Work in progress is in `unfinished/`: the shard that is being filled, and a journal with a line for each finished
video, written after its bytes. A killed packing resumes after the last intact line, so it ends in the same bytes as
one that was not interrupted.
"""

import csv
import hashlib
import io
import json
import re
import shutil
import tarfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from openxclip.configuration import require
from openxclip.data.manifest import list_names, read_manifest
from openxclip.data.media import Item, Manifest
from openxclip.data.packed import (
    INDEX,
    LABELS,
    LEFT_OUT,
    PACKING,
    SHARDS,
    PackedVideo,
    is_packed,
    read_index,
    read_left_out,
    shard_path,
)
from openxclip.errors import InputError, VideoError
from openxclip.files import held, read_json
from openxclip.video.encode import EncodedVideo, EncodeOptions, encode
from openxclip.video.source import VideoLimits
from openxclip.workers import in_order, num_cores

FORMAT = 1
LOCK, UNFINISHED, JOURNAL = ".lock", "unfinished", "journal.jsonl"
BLOCK_BYTES = tarfile.BLOCKSIZE
CRASHED = "the process that encoded it died, twice"


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """Settings that determine the bytes of a packing, besides its videos."""

    encode: EncodeOptions = field(default_factory=EncodeOptions)
    """Encoder settings."""
    shard_bytes: int = 256_000_000
    """Maximum size of a shard; only a single larger video may exceed it."""
    seed: int = 0
    """Seed of the order of the videos in the shards."""
    limits: VideoLimits = field(default_factory=VideoLimits)
    """Videos beyond these limits are left out."""

    def __post_init__(self) -> None:
        require(self.shard_bytes >= 1, f"the size of a shard must be 1 byte or more, got {self.shard_bytes}")
        require(self.seed >= 0, f"the seed must be 0 or more, got {self.seed}")

    def values(self) -> dict[str, Any]:
        """The settings as in packing.json."""
        limits = {"max_seconds": self.limits.max_seconds, "max_frame_px": self.limits.max_frame_px}
        return {**asdict(self.encode), "shard_bytes": self.shard_bytes, "seed": self.seed, **limits}


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Lists of videos with the same labels."""

    path: str
    """Origin of the lists."""
    lists: dict[str, Manifest]
    """Lists by name."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of all lists."""
        return next(iter(self.lists.values())).labels

    def videos(self) -> list[Item]:
        """Each video of all lists, once."""
        items = (item for manifest in self.lists.values() for item in manifest.items)
        return list({(item.path, item.media): item for item in items}.values())

    def places(self) -> dict[Any, dict[str, list[list[int]]]]:
        """For each video: name of a list -> [position in it, label id]."""
        places: dict[Any, dict[str, list[list[int]]]] = {}
        for name, manifest in self.lists.items():
            for place, item in enumerate(manifest.items):
                lists = places.setdefault((item.path, item.media), {})
                lists.setdefault(name, []).append([place, item.label])
        return places


def read_data_set(
    path: Path, names: Sequence[str] = (), labels: str | None = None, media_root: Path | None = None
) -> DataSet:
    """Some or all lists of a dataset.

    Args:
        path: what `read_manifest` takes.
        names: of the lists; empty means all.
        labels: as `read_manifest` takes them.
        media_root: as `read_manifest` takes it.

    Raises:
        InputError: a list cannot be read, or they have different labels.
    """
    lists = {}
    for name in names or list_names(path):
        manifest = read_manifest(path, list_name=name, labels=labels, media_root=media_root)
        lists[name or (path.name if path.is_file() else "all")] = manifest
    if len({manifest.labels for manifest in lists.values()}) > 1:
        raise InputError(
            f"The lists of {path} have different labels: {', '.join(lists)}. Pack them one by one."
        )
    root = "" if media_root is None else f", videos of {media_root.resolve()}"
    return DataSet(path=f"{path.resolve() if path.exists() else path}{root}", lists=lists)


@dataclass(frozen=True, kw_only=True)
class PackSummary:
    """Summary of a packing."""

    output: str
    num_videos: int
    """Videos in the shards."""
    num_left_out: int
    """Videos listed in left_out.csv."""
    num_frames: int
    num_shards: int
    num_bytes: int
    """Total size of all packed videos."""
    lists: dict[str, int]
    """Name of a list -> number of its videos in the shards."""
    num_encoded: int
    """Videos of this run, including those left out."""
    seconds: float
    """Duration of this run."""


@dataclass(frozen=True, kw_only=True)
class PackStep:
    """Progress of a packing, after each video."""

    num_done: int
    num_videos: int
    num_left_out: int


def pack(
    data: DataSet, output: Path, options: PackOptions | None = None, num_processes: int | None = None
) -> Generator[PackStep, None, PackSummary]:
    """Pack a dataset, or resume packing it; works in steps (`steps.finished` takes them all).

    Processes import the main module: call this under `if __name__ == "__main__":`.

    Args:
        data: what to pack.
        output: the folder.
        options: how to pack.
        num_processes: number of encoding processes; None takes one per core. It does not affect the output.

    Raises:
        InputError: the folder holds something else, or another process packs into it.
    """
    options, started = options or PackOptions(), time.perf_counter()
    _check_free(output)
    output.mkdir(parents=True, exist_ok=True)
    with held(output / LOCK, f"another process packs into {output}; wait for it, or stop it"):
        job = _Job(data, output, options)
        job.begin()
        num_encoded = 0
        if not (output / INDEX).is_file():
            for step in job.run(num_processes or num_cores()):
                num_encoded += 1
                yield step
            job.finish()
        shutil.rmtree(output / UNFINISHED, ignore_errors=True)
    return _summary(output, data, num_encoded, time.perf_counter() - started)


def _summary(output: Path, data: DataSet, num_encoded: int, seconds: float) -> PackSummary:
    videos = read_index(output)
    return PackSummary(
        output=str(output),
        num_videos=len(videos),
        num_left_out=len(read_left_out(output)),
        num_frames=sum(video.num_frames for video in videos),
        num_shards=len({video.shard for video in videos}),
        num_bytes=sum(video.size_bytes for video in videos),
        lists={name: sum(len(video.lists.get(name, ())) for video in videos) for name in data.lists},
        num_encoded=num_encoded,
        seconds=seconds,
    )


def _check_free(output: Path) -> None:
    """Refuse a folder that holds something else."""
    if not output.exists() or is_packed(output):
        return
    if not output.is_dir():
        raise InputError(f"{output} is not a folder; give another output")
    foreign = sorted(entry.name for entry in output.iterdir() if entry.name not in (LOCK, UNFINISHED))
    if foreign:
        raise InputError(f"{output} holds no packing, but {foreign[0]}; give another output")


@dataclass(frozen=True, kw_only=True)
class _Done:
    """A line of the journal: the position of a video, or why it was left out."""

    path: str
    reason: str | None = None
    shard: int = 0
    offset_bytes: int = 0
    size_bytes: int = 0
    sha256: str = ""
    num_frames: int = 0


class _Job:
    """One packing into one folder."""

    def __init__(self, data: DataSet, output: Path, options: PackOptions) -> None:
        self.data, self.output, self.options = data, output, options
        videos = data.videos()
        order = np.random.default_rng(options.seed).permutation(len(videos))
        self.videos = [videos[i] for i in order]
        self.unfinished = output / UNFINISHED

    def begin(self) -> None:
        """Record the settings of the packing, or compare them with the recorded ones.

        Raises:
            InputError: the folder holds another packing.
        """
        question = self._question()
        if is_packed(self.output):
            before = read_json(self.output / PACKING)
            for name in sorted(question.keys() | before.keys()):
                if question.get(name) != before.get(name):
                    raise InputError(
                        f"{self.output} holds another packing: its {name} is {before.get(name)}, not "
                        f"{question.get(name)}; give another output"
                    )
        self.unfinished.mkdir(exist_ok=True)
        (self.output / SHARDS).mkdir(exist_ok=True)
        self._put(PACKING, json.dumps(question, indent=2) + "\n")

    def _question(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for name, manifest in self.data.lists.items():
            digest.update(json.dumps([name, manifest.fingerprint()]).encode())
        about = {
            "data": self.data.path,
            "lists": list(self.data.lists),
            "fingerprint": digest.hexdigest()[:16],
        }
        return {"format": FORMAT, **about, **self.options.values()}

    def run(self, num_processes: int) -> Iterator[PackStep]:
        """Encode and write the remaining videos."""
        journal = _read_journal(self.unfinished / JOURNAL)
        with _Shards(self.output, self.options.shard_bytes) as shards:
            journal = journal[: shards.resume(journal)]
            _rewrite(self.unfinished / JOURNAL, journal)
            num_left_out = sum(done.reason is not None for done in journal)
            work = partial(_encoded, options=self.options)
            remaining = self.videos[len(journal) :]
            outcomes: Iterator[EncodedVideo | str] = in_order(work, remaining, num_processes, CRASHED)
            with (self.unfinished / JOURNAL).open("a", encoding="ascii") as lines:
                for number, outcome in enumerate(outcomes, start=len(journal)):
                    done = self._write(shards, number, outcome)
                    lines.write(_line(done))
                    lines.flush()
                    num_left_out += done.reason is not None
                    yield PackStep(
                        num_done=number + 1, num_videos=len(self.videos), num_left_out=num_left_out
                    )
            shards.close_shard()

    def _write(self, shards: "_Shards", number: int, outcome: EncodedVideo | str) -> _Done:
        path = self.videos[number].path
        if isinstance(outcome, str):
            return _Done(path=path, reason=outcome)
        shard, offset = shards.add(_member(number), outcome.data)
        return _Done(
            path=path,
            shard=shard,
            offset_bytes=offset,
            size_bytes=len(outcome.data),
            sha256=hashlib.sha256(outcome.data).hexdigest(),
            num_frames=outcome.num_frames,
        )

    def finish(self) -> None:
        """Write the labels, the list of left-out videos, and finally the index."""
        journal, places = _read_journal(self.unfinished / JOURNAL), self.data.places()
        left_out = [(done.path, done.reason) for done in journal if done.reason is not None]
        self._put(LABELS, _csv([("id", "name"), *enumerate(self.data.labels)]))
        self._put(LEFT_OUT, _csv([("path", "reason"), *left_out]))
        lines = []
        for number, (item, done) in enumerate(zip(self.videos, journal, strict=True)):
            if done.reason is None:
                values = {name: value for name, value in asdict(done).items() if name != "reason"}
                lists = places[item.path, item.media]
                lines.append(_line(PackedVideo(member=_member(number), lists=lists, **values)))
        self._put(INDEX, "".join(lines))

    def _put(self, name: str, text: str) -> None:
        """Write a file atomically."""
        with (self.unfinished / name).open(
            "w", encoding="utf-8", errors="surrogateescape", newline=""
        ) as file:
            file.write(text)
        (self.unfinished / name).replace(self.output / name)


class _Shards:
    """Appends files to the shards of a folder; the bytes depend only on the files and their order."""

    def __init__(self, output: Path, max_bytes: int) -> None:
        self.output, self.max_bytes = output, max_bytes
        self.number = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def resume(self, journal: Sequence[_Done]) -> int:
        """Resume after the last intact line -> number of intact lines.

        Raises:
            InputError: a finished shard is missing.
        """
        packed = [(number, done) for number, done in enumerate(journal) if done.reason is None]
        if not packed:
            return len(journal)
        self.number = packed[-1][1].shard
        for number in range(self.number):
            if not shard_path(self.output, number).is_file():
                raise InputError(
                    f"{shard_path(self.output, number)} is missing; delete {self.output} and pack again"
                )
        if shard_path(self.output, self.number).is_file():
            self.number += 1
            return len(journal)
        self._file = self._open("r+b" if self._path().is_file() else "w+b")
        end = 0
        for number, done in packed:
            if done.shard == self.number:
                if not self._holds(done):
                    return self._cut(end, number)
                end = done.offset_bytes + _padded(done.size_bytes)
        return self._cut(end, len(journal))

    def _cut(self, end: int, num_lines: int) -> int:
        assert self._file is not None
        self._file.truncate(end)
        self._file.seek(end)
        return num_lines

    def _holds(self, done: _Done) -> bool:
        assert self._file is not None
        self._file.seek(done.offset_bytes)
        data = self._file.read(_padded(done.size_bytes))
        return len(data) == _padded(done.size_bytes) and (
            hashlib.sha256(data[: done.size_bytes]).hexdigest() == done.sha256
        )

    def add(self, name: str, data: bytes) -> tuple[int, int]:
        """Append a file -> its shard, and the offset of its bytes in it."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        header = info.tobuf(tarfile.USTAR_FORMAT)
        content = header + data + bytes(_padded(len(data)) - len(data))
        end_bytes = 2 * BLOCK_BYTES
        if self._file and self._file.tell() and self._file.tell() + len(content) + end_bytes > self.max_bytes:
            self.close_shard()
        if self._file is None:
            self._file = self._open("w+b")
        start = self._file.tell()
        self._file.write(content)
        self._file.flush()
        return self.number, start + len(header)

    def close_shard(self) -> None:
        """Finish the shard and give it its final name."""
        if self._file is None:
            return
        self._file.write(bytes(2 * BLOCK_BYTES))
        self._file.close()
        self._file = None
        self._path().replace(shard_path(self.output, self.number))
        self.number += 1

    def _path(self) -> Path:
        return self.output / UNFINISHED / f"{self.number:05d}.tar"

    def _open(self, mode: str) -> Any:
        return self._path().open(mode)


def _encoded(item: Item, options: PackOptions) -> EncodedVideo | str:
    """The job of a worker process: a video -> its encoded form, or an error."""
    try:
        return encode(item.media.source(), options.encode, options.limits)
    except VideoError as error:
        return error.reason
    except (MemoryError, RuntimeError, ValueError, OSError) as error:
        return f"it cannot be encoded ({type(error).__name__}: {error})"


def _read_journal(path: Path) -> list[_Done]:
    """The lines that were written completely."""
    if not path.is_file():
        return []
    journal = []
    for line in path.read_text(encoding="ascii", errors="replace").splitlines(keepends=True):
        try:
            journal.append(_Done(**json.loads(line)))
        except (ValueError, TypeError):
            break
        if not line.endswith("\n"):
            journal.pop()
    return journal


def _rewrite(path: Path, journal: Sequence[_Done]) -> None:
    beside = path.with_suffix(".new")
    beside.write_text("".join(map(_line, journal)), encoding="ascii")
    beside.replace(path)


def _line(row: _Done | PackedVideo) -> str:
    return json.dumps(asdict(row)) + "\n"


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _member(number: int) -> str:
    return f"{number:08d}.mp4"


def _padded(size_bytes: int) -> int:
    """The space that this many bytes take in a tar."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def parse_bytes(option: str, text: str) -> int:
    """Parse a size such as "256MB", "1GB", "1GiB" or "1000".

    Raises:
        InputError: the text has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(i?)B?", text.strip(), re.IGNORECASE)
    if not match or (match[3] and not match[2]):
        raise InputError(f"{option} must be a size such as 256MB or 1GB, got {text!r}")
    step = 1024 if match[3] else 1000
    return int(float(match[1]) * step ** " KMG".index(match[2].upper() or " "))
