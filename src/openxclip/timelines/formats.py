"""A timeline as files: JSON with everything, CSV with the segments, WebVTT chapters and SRT subtitles for players.

Shapes: M windows, K labels.
"""

import csv
import hashlib
import io
import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from pathlib import Path, PurePath
from typing import Any, TextIO

import numpy as np

from openxclip.errors import InputError
from openxclip.files import atomic_write
from openxclip.timelines.timeline import Timeline
from openxclip.video.jpeg import data_uri
from openxclip.wording import nearest

CSV_COLUMNS = ("video", "label", "start_seconds", "end_seconds", "score", "peak")
SECONDS_DIGITS, SCORE_DIGITS = 3, 6

ENDING = ".timeline."
"""Infix before the format: players would load `talk.srt` next to `talk.mp4` as subtitles."""
MAX_NAME_BYTES = 150
_FORBIDDEN = frozenset('<>:"/\\|?*')  # forbidden in file names on some system


def _about(timeline: Timeline) -> dict[str, Any]:
    """Everything that does not grow with the number of windows, as JSON values."""
    return {
        "video": _text(timeline.path),
        "model": _text(timeline.model),
        "duration_seconds": _seconds(timeline.duration_seconds),
        "window_seconds": _seconds(timeline.window_seconds),
        "stride_seconds": _seconds(timeline.stride_seconds),
        "labels": [_text(label) for label in timeline.labels],
        "background": None if timeline.background is None else timeline.background.to_dict(),
        "cuts_seconds": [_seconds(cut) for cut in timeline.cuts_seconds],
        "breaks": [
            {
                "kind": gap.kind,
                "start_seconds": _seconds(gap.start_seconds),
                "end_seconds": _seconds(gap.end_seconds),
                "reason": _text(gap.reason),
            }
            for gap in timeline.breaks
        ],
        "segments": [
            {
                "label": _text(segment.label),
                "start_seconds": _seconds(segment.start_seconds),
                "end_seconds": _seconds(segment.end_seconds),
                "score": _score(segment.score),
                "peak": _score(segment.peak),
            }
            for segment in timeline.segments
        ],
    }


def _windows(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """Windows with scores; None for a window that was not seen."""
    for m, scores in enumerate(timeline.scores):
        yield {
            "start_seconds": _seconds(timeline.starts_seconds[m]),
            "end_seconds": _seconds(timeline.ends_seconds[m]),
            "scores": [_score(score) for score in scores] if np.isfinite(scores).all() else None,
            "none": None if timeline.none is None else _score(timeline.none[m]),
        }


def _pictures(timeline: Timeline) -> Iterator[dict[str, Any]]:
    for thumbnail in timeline.thumbnails:
        yield {"seconds": _seconds(thumbnail.seconds), "image": data_uri(thumbnail.jpeg)}


def json_pieces(timeline: Timeline, *, thumbnails: bool = False) -> Iterator[str]:
    """JSON with a line for each window, segment and break, piece by piece: a long video has many windows."""
    rows: dict[str, Iterable[dict[str, Any]]] = {"windows": _windows(timeline)}
    if thumbnails:
        rows["thumbnails"] = _pictures(timeline)
    sign = "{\n"
    for name, value in {**_about(timeline), **rows}.items():
        yield f"{sign}{json.dumps(name)}: "
        yield from _lines(value) if name in (*rows, "breaks", "segments") else [_json(value)]
        sign = ",\n"
    yield "\n}\n"


def _lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A JSON list with one line per object."""
    sign = "[\n  "
    for row in rows:
        yield sign + _json(row)
        sign = ",\n  "
    yield "[]" if sign == "[\n  " else "\n]"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def json_text(timeline: Timeline, *, thumbnails: bool = False) -> str:
    """The result of `json_pieces` as one text."""
    return "".join(json_pieces(timeline, thumbnails=thumbnails))


def json_line(timeline: Timeline) -> Iterator[str]:
    """The same without thumbnails and on one line, piece by piece."""
    return (piece.replace("\n", "") for piece in json_pieces(timeline))


def csv_text(timeline: Timeline) -> str:
    """The segments, a row for each, or one row without a label; `openxclip.data.annotations` reads them."""
    file = io.StringIO()
    rows = csv.writer(file)
    rows.writerow(CSV_COLUMNS)
    for segment in timeline.segments:
        times = _seconds(segment.start_seconds), _seconds(segment.end_seconds)
        scores = _score(segment.score), _score(segment.peak)
        rows.writerow([_text(timeline.path), _text(segment.label), *times, *scores])
    if not timeline.segments:
        rows.writerow([_text(timeline.path), *[""] * (len(CSV_COLUMNS) - 1)])
    return file.getvalue()


def vtt_text(timeline: Timeline) -> str:
    """The segments as WebVTT chapters; they may overlap."""
    cues = (
        f"{clock(start)} --> {clock(end)}\n{escape(label, quote=False)}\n"
        for start, end, label in _cues(timeline)
    )
    return "\n".join(["WEBVTT\n", *cues])


def srt_text(timeline: Timeline) -> str:
    """The segments as SRT subtitles. The format has no escapes: characters that look like markup are replaced."""
    cues = (
        f"{number}\n{clock(start, ',')} --> {clock(end, ',')}\n{label.translate(_PLAIN)}\n"
        for number, (start, end, label) in enumerate(_cues(timeline), start=1)
    )
    return "\n".join(cues)


_PLAIN = str.maketrans("<>{}", "\u2039\u203a()")


def _cues(timeline: Timeline) -> list[tuple[int, int, str]]:
    """(start, end, label) of segments in milliseconds, by start; for equal starts the longest first."""
    cues = []
    for segment in timeline.segments:
        start, end = (round(1000 * seconds) for seconds in (segment.start_seconds, segment.end_seconds))
        cues.append((start, max(end, start + 1), _one_line(segment.label)))
    return sorted(cues, key=lambda cue: (cue[0], -cue[1], cue[2]))


def clock(milliseconds: int, sign: str = ".") -> str:
    """HH:MM:SS.mmm, with more digits for hours if needed."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{sign}{rest:03}"


def _one_line(text: str) -> str:
    """The text without line breaks and control characters, which would end a cue."""
    visible = (" " if unicodedata.category(sign) == "Cc" else sign for sign in _text(text))
    return " ".join("".join(visible).split())


def _text(text: str) -> str:
    """Valid Unicode: invalid bytes of a file name are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def _seconds(value: float) -> float:
    return round(float(value), SECONDS_DIGITS)


def _score(value: float) -> float | None:
    return round(float(value), SCORE_DIGITS) if np.isfinite(value) else None


_WRITERS: dict[str, Callable[[Timeline], Iterable[str]]] = {
    "json": json_pieces,
    "csv": lambda timeline: [csv_text(timeline)],
    "vtt": lambda timeline: [vtt_text(timeline)],
    "srt": lambda timeline: [srt_text(timeline)],
}
FORMATS = tuple(_WRITERS)
"""Names of formats that `write` knows."""


def write(
    timeline: Timeline, folder: Path, formats: Sequence[str] = FORMATS, name: str | None = None
) -> list[Path]:
    """Write a file for each format, atomically, as `NAME.timeline.FORMAT`.

    Args:
        timeline: what to write.
        folder: created if missing.
        formats: of `FORMATS`.
        name: by default that of `output_names`.

    Raises:
        InputError: a format is unknown; then nothing is written.
    """
    check_formats(formats)
    name = name or output_names([timeline.path], folder)[0]
    folder.mkdir(parents=True, exist_ok=True)
    return [write_one(timeline, output_path(folder, name, format), format) for format in formats]


def check_formats(formats: Iterable[str], known: Sequence[str] = FORMATS) -> None:
    """Refuse unknown formats.

    Raises:
        InputError: one is unknown; the message lists the known ones.
    """
    for format in formats:
        if format not in known:
            meant = nearest(format, known)
            hint = f"; did you mean {meant}?" if meant else ""
            raise InputError(f"there is no format {format!r}; choose from {', '.join(known)}{hint}")


def output_path(folder: Path, name: str, format: str) -> Path:
    """Path of the file in a format."""
    return folder / f"{name}{ENDING}{format}"


def write_one(timeline: Timeline, path: Path, format: str) -> Path:
    """Write one format to this path, atomically."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(_WRITERS[format](timeline))
    return path


def output_names(videos: Sequence[str], folder: Path) -> list[str]:
    """The base name of each video's files: its stem.

    If several of these videos share a stem, or a file of that name in the folder belongs to another video, a digest of
    the video's path follows the stem: no video overwrites another one's files, and names are stable between runs. Stems
    that differ only in case count as equal, as on some file systems.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    for video in videos:
        owners[_stem(video).casefold()].add(_identity(video))
    names = []
    for video in videos:
        stem = _stem(video)
        is_free = len(owners[stem.casefold()]) == 1 and not _is_of_another(folder, stem, video)
        digest = hashlib.sha256(_identity(video).encode()).hexdigest()[:8]
        names.append(stem if is_free else f"{stem}-{digest}")
    return names


def _is_of_another(folder: Path, name: str, video: str) -> bool:
    """Whether the JSON or the CSV file of this name belongs to another video, or cannot be read."""
    for format, owner_of in (("json", _owner_of_json), ("csv", _owner_of_csv)):
        try:
            with output_path(folder, name, format).open(encoding="utf-8", newline="") as file:
                owner = owner_of(file)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, StopIteration, csv.Error):
            return True
        if not isinstance(owner, str) or _identity(owner) != _identity(video):
            return True
    return False


def _owner_of_json(file: TextIO) -> object:
    head = [file.readline(), file.readline()]
    return json.loads("".join(head).rstrip().rstrip(",") + "}")["video"]


def _owner_of_csv(file: TextIO) -> object:
    return next(csv.DictReader(file))["video"]


def _identity(video: str) -> str:
    """The absolute path of a file; a URL as it is."""
    is_file = "://" not in video and video != "-" and not video.startswith("<")
    return _text(os.path.abspath(video) if is_file else video)  # noqa: PTH100 without links


def _stem(video: str) -> str:
    """The name of a file or the last part of a URL, valid on any file system."""
    if video == "-":
        return "stdin"
    if "://" in video:  # credentials and query strings may be secret
        place = re.split("[?#]", video.partition("://")[2])[0].rstrip("/")
        video = place.rpartition("/")[2].rpartition("@")[2]
    stem = PurePath(video).stem
    allowed = "".join(sign if sign.isprintable() and sign not in _FORBIDDEN else "_" for sign in stem)
    short = allowed.encode("utf-8")[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    return short.strip(" .") or "video"
