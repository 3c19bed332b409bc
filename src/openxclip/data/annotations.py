"""Annotations of what happens when in videos: events with a label, a start and an end.

    ActivityNet  a .json: {"database": {id: {"subset", "duration", "annotations": [{"label", "segment": [s, e]}]}}}
    THUMOS'14    a folder of LABEL_test.txt and LABEL_val.txt, or one of them: lines of `video start end`
    CSV          the columns video,label,start_seconds,end_seconds, optionally duration_seconds and subset

Events labelled "Ambiguous", as in THUMOS'14, are ignored by an evaluation. A CSV row with a video but without label,
start and end means that nothing happens in that video.
"""

import csv
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openxclip.errors import InputError
from openxclip.files import read_lines
from openxclip.wording import shortened

logger = logging.getLogger(__name__)

CSV_COLUMNS = ("video", "label", "start_seconds", "end_seconds")
AMBIGUOUS = "ambiguous"

FORMS = (
    f"Give ActivityNet's .json, a folder of THUMOS'14's LABEL_test.txt files, or a .csv with the header "
    f"{','.join(CSV_COLUMNS)}"
)
_THUMOS_FILE = re.compile(r"([^._].*)_(test|val)\.txt")
_SUBSETS = {"train": "training", "val": "validation", "validate": "validation", "test": "testing"}
"""Other names of ActivityNet's subsets."""


@dataclass(frozen=True)
class Event:
    """Something that happens in a video."""

    label: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Annotated:
    """What happens in one video."""

    duration_seconds: float | None
    """None if the annotations do not give it."""
    events: tuple[Event, ...]
    """Events by time."""
    ignored: tuple[Event, ...] = ()
    """Stretches that count neither for nor against a prediction."""


@dataclass(frozen=True, kw_only=True)
class Matched:
    """The files of annotated videos."""

    files: dict[str, Path]
    """Video id -> its file."""
    unknown: tuple[Path, ...]
    """Files without annotations."""
    missing: tuple[str, ...]
    """Ids of annotated videos without a file."""


def read_annotations(path: Path, subset: str | None = None) -> dict[str, Annotated]:
    """Video id -> what happens in it, from any of the three forms.

    Args:
        path: a file, or THUMOS'14's folder.
        subset: only videos of this one, such as "validation" (also "val"); None takes all.

    Raises:
        InputError: it has none of these forms, is malformed, or has no event.
    """
    found = _reader(path)(path, subset)
    if not any(video.events for video in found.values()):
        raise InputError(f"{path} has no event{_of_subset(subset)}. {FORMS}, with one event or more.")
    empty = [
        event
        for video in found.values()
        for event in video.events
        if event.end_seconds == event.start_seconds
    ]
    if empty:
        logger.warning("%d events of %s have zero length; no prediction can match them", len(empty), path)
    return found


def labels_of(annotations: Mapping[str, Annotated]) -> list[str]:
    """Every label that occurs, sorted."""
    return sorted({event.label for video in annotations.values() for event in video.events}, key=str.casefold)


def match_files(annotations: Mapping[str, Annotated], paths: Iterable[str | Path]) -> Matched:
    """Find the video of each file by name: "folder/v_ID.mp4" is "folder/v_ID.mp4", "v_ID.mp4", "v_ID" or "ID".

    Raises:
        InputError: no file is an annotated video, or two are the same.
    """
    files: dict[str, Path] = {}
    unknown = []
    for path in map(Path, paths):
        video = next((name for name in _names(path) if name in annotations), None)
        if video is None:
            unknown.append(path)
        elif video in files:
            raise InputError(
                f"{files[video]} and {path} are both the annotated video {video!r}; give one of them."
            )
        else:
            files[video] = path
    if not files:
        raise InputError(
            f"None of the {len(unknown)} files is an annotated video. Files: {shortened(list(map(str, unknown)), 3)}. "
            f"Annotated: {shortened(list(annotations), 3)}. Name each file after its video, as ID.mp4 or v_ID.mp4."
        )
    missing = tuple(video for video in annotations if video not in files)
    return Matched(files=files, unknown=tuple(unknown), missing=missing)


def read_activitynet(path: Path, subset: str | None = None) -> dict[str, Annotated]:
    """ActivityNet's JSON. Videos of the testing subset, whose annotations are withheld, are left out."""
    database = _json(path)
    subsets = {str(video.get("subset")) for video in database.values() if "subset" in video}
    _check_subset(path, subset, subsets)
    found = _Collector()
    for name, video in database.items():
        place = f"{path}, video {name!r}"
        own = _subset(str(video.get("subset")))
        annotations = _list(_member(video, "annotations", place), "annotations", place)
        if (subset is not None and own != _subset(subset)) or (own == "testing" and not annotations):
            continue
        duration = video.get("duration")
        found.video(name, None if duration is None else _seconds(duration, "duration", place), place)
        for number, annotation in enumerate(annotations, start=1):
            here = f"{place}, annotation {number}"
            segment = _list(_member(annotation, "segment", here), "segment", here)
            if len(segment) != 2:
                raise InputError(
                    f"{here}: segment must be [start, end] in seconds, got {segment!r}. Correct it."
                )
            found.add(name, _member(annotation, "label", here), segment, here)
    return found.annotated()


def read_thumos(path: Path, subset: str | None = None) -> dict[str, Annotated]:
    """THUMOS'14's text files. Labels are the names of the files as words: BaseballPitch is "baseball pitch".

    Args:
        path: the folder, or one file of it.
        subset: "test" or "val".
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    named = [(file, match) for file in files if (match := _THUMOS_FILE.fullmatch(file.name))]
    if not named:
        raise InputError(f"{path} has no files such as BaseballPitch_test.txt. {FORMS}.")
    _check_subset(path, subset, {match[2] for _, match in named})
    found = _Collector()
    for file, match in named:
        if subset is not None and _subset(match[2]) != _subset(subset):
            continue
        label = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", match[1]).lower()
        for number, line in enumerate(read_lines(file), start=1):
            place, fields = f"{file}, line {number}", line.split()
            if fields and len(fields) != 3:
                raise InputError(
                    f"{place}: expected `video start end`, times in seconds, got {line!r}. Correct it."
                )
            if fields:
                found.add(fields[0], label, fields[1:], place)
    return found.annotated()


def read_csv(path: Path, subset: str | None = None) -> dict[str, Annotated]:
    """A table with the columns of `CSV_COLUMNS`; duration_seconds and subset are optional, others are not read."""
    rows = _rows(path)
    _check_subset(path, subset, {row["subset"] for _, row in rows if row.get("subset")})
    found = _Collector()
    for place, row in rows:
        if subset is not None and _subset(row.get("subset", "")) != _subset(subset):
            continue
        name, *values = (row[column] for column in CSV_COLUMNS)
        if not name:
            raise InputError(f"{place}: the video has no name. Give it in the column video.")
        duration = row.get("duration_seconds")
        found.video(name, _seconds(duration, "duration_seconds", place) if duration else None, place)
        if any(values):
            found.add(name, values[0], values[1:], place)
    return found.annotated()


@dataclass
class _Collector:
    """Collects the facts about each video, in the order of the file."""

    durations: dict[str, float | None] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=dict)

    def video(self, name: str, duration_seconds: float | None, place: str) -> None:
        """A video, with or without events."""
        before = self.durations.setdefault(name, duration_seconds)
        if before is not None and duration_seconds not in (None, before):
            raise InputError(
                f"{place}: {name!r} lasts {duration_seconds:g} s here and {before:g} s in an earlier row. Correct one."
            )
        self.durations[name] = duration_seconds if before is None else before
        self.events.setdefault(name, [])

    def add(self, name: str, label: object, times: Iterable[object], place: str) -> None:
        """An event from its start and end."""
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"{place}: the label is {label!r}. Give the name of what happens.")
        start, end = (
            _seconds(value, which, place) for value, which in zip(times, ("start", "end"), strict=True)
        )
        if end < start:
            raise InputError(
                f"{place}: {label!r} ends at {end:g} s, before it starts at {start:g} s. Correct the times."
            )
        self.video(name, None, place)
        self.events[name].append(Event(label.strip(), start, end))

    def annotated(self) -> dict[str, Annotated]:
        """The videos; ambiguous stretches are kept separately."""
        return {name: self._annotated(name) for name in self.events}

    def _annotated(self, name: str) -> Annotated:
        ordered = sorted(
            self.events[name], key=lambda event: (event.start_seconds, event.end_seconds, event.label)
        )
        ignored = tuple(event for event in ordered if event.label.casefold() == AMBIGUOUS)
        events = tuple(event for event in ordered if event.label.casefold() != AMBIGUOUS)
        return Annotated(self.durations[name], events, ignored)


Reader = Callable[[Path, str | None], dict[str, Annotated]]
"""Path, subset -> video id -> what happens in it."""


def _reader(path: Path) -> Reader:
    """The reader of this form."""
    if path.is_dir() or (path.is_file() and _THUMOS_FILE.fullmatch(path.name)):
        return read_thumos
    if not path.is_file():
        raise InputError(f"There is no {path}. {FORMS}.")
    first, suffix = _first_line(path), path.suffix.lower()
    if suffix == ".json" or first[:1] == "{":
        return read_activitynet
    if suffix == ".csv" or set(CSV_COLUMNS) <= set(_header(first.split(","))):
        return read_csv
    raise InputError(f"{path} has no known annotation format; it begins with {first[:60]!r}. {FORMS}.")


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return next((line.strip() for line in file if line.strip()), "")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}. Give a readable file.") from error


def _json(path: Path) -> dict[str, dict[str, Any]]:
    """The videos of ActivityNet's JSON."""
    try:
        values = json.loads("\n".join(read_lines(path)))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}). Download it again.") from error
    database = values.get("database") if isinstance(values, dict) else None
    if not isinstance(database, dict):
        raise InputError(
            f'{path} has no "database" of videos: expected {{"database": {{id: {{"annotations": [...]}}}}}}. {FORMS}.'
        )
    for name, video in database.items():
        if not isinstance(video, dict):
            raise InputError(
                f"{path}, video {name!r}: expected an object with annotations, got {video!r}. Correct it."
            )
    return database


def _member(values: object, key: str, place: str) -> object:
    if not isinstance(values, dict) or key not in values:
        has = f"it has {', '.join(values) or 'none'}" if isinstance(values, dict) else f"got {values!r}"
        raise InputError(f"{place}: the key {key!r} is missing ({has}). Add it.")
    return values[key]


def _list(value: object, name: str, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{place}: {name} must be a list, got {value!r}. Correct it.")
    return value


def _rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Position, and cells by column name, of each non-blank row of a CSV."""
    reader = csv.reader((f"{line}\n" for line in read_lines(path)), strict=True)
    rows: list[tuple[str, dict[str, str]]] = []
    header: list[str] = []
    try:
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = _checked_header(cells, place)
            elif len(cells) != len(header):
                raise InputError(
                    f"{place}: expected {len(header)} cells ({','.join(header)}; quote a label with a comma in it), "
                    f"got {cells}. Correct the row."
                )
            else:
                rows.append((place, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}))
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: invalid CSV ({error}). Correct the row."
        ) from error
    return rows


def _header(cells: Iterable[str]) -> list[str]:
    return [cell.strip().lower() for cell in cells]


def _checked_header(cells: Iterable[str], place: str) -> list[str]:
    header = _header(cells)
    if missing := [name for name in CSV_COLUMNS if name not in header]:
        raise InputError(
            f"{place}: the header lacks {', '.join(missing)}; it has {','.join(header)}. "
            f"Begin with {','.join(CSV_COLUMNS)}."
        )
    if len(set(header)) < len(header):
        raise InputError(f"{place}: a column occurs twice in {','.join(header)}. Keep one.")
    return header


def _seconds(value: object, name: str, place: str) -> float:
    """A time from JSON or from a text file."""
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(
            f"{place}: the {name} must be a number of seconds, 0 or more, got {value!r}. Correct it."
        )
    return seconds


def _subset(name: str) -> str:
    return _SUBSETS.get(name.casefold(), name.casefold())


def _of_subset(subset: str | None) -> str:
    return "" if subset is None else f" in the subset {subset!r}"


def _check_subset(path: Path, subset: str | None, found: Iterable[str]) -> None:
    """Refuse a subset that does not occur."""
    if subset is not None and _subset(subset) not in {_subset(name) for name in found}:
        names = ", ".join(sorted(found)) or "none; leave the subset out"
        raise InputError(f"{path} has no subset {subset!r}. Its subsets: {names}.")


def _names(path: Path) -> list[str]:
    """Names that annotations may use for a video file, the longest first."""
    tails = [path.as_posix(), *("/".join(path.parts[i:]) for i in range(1, len(path.parts)))]
    without_suffix = [tail.removesuffix(path.suffix) for tail in tails]
    return [*tails, *without_suffix, path.stem.removeprefix("v_"), f"v_{path.stem}"]
