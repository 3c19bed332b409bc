"""Reads datasets' own files as published.

    UCF-101     a folder with classInd.txt, trainlist01.txt, testlist01.txt, ...; lists "train1", "test1", ...
    HMDB-51     a folder with brush_hair_test_split1.txt, ...; lists "train1", "test1", ...
    Kinetics    a .csv with the columns label, youtube_id, time_start, time_end, split; lists are values of `split`

Videos are where their downloads unpack them: `Archery/v_Archery_g01_c01.avi`, `brush_hair/name.avi`, and
`abseiling/id_000010_000020.mp4` or, without class folders, `id_000010_000020.mp4`.
"""

import csv
import re
from collections.abc import Callable
from pathlib import Path

from openxclip.data.media import Item, Manifest, MediaRoot, find_media
from openxclip.errors import InputError
from openxclip.files import read_lines
from openxclip.text.labels import built_in_labels, read_label_file

KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")

Reader = Callable[[Path, str | None, list[str] | None, Path | None], Manifest]
"""Path, list name, labels instead of the dataset's own, media root -> manifest."""


def recognise(path: Path) -> Reader | None:
    """The reader for a folder or file with a dataset's own lists; None for others."""
    if (path / "classInd.txt").is_file():
        return read_ucf101
    if path.is_dir() and any(path.glob("*_test_split[0-9].txt")):
        return read_hmdb51
    if path.suffix.lower() == ".csv" and path.is_file() and "youtube_id" in read_lines(path)[0]:
        return read_kinetics
    return None


def official_lists(path: Path) -> list[str] | None:
    """Names of all lists, if a folder or file holds a dataset's own lists."""
    reader = recognise(path)
    if reader is read_ucf101:
        return sorted(_ucf101_lists(path))
    if reader is read_hmdb51:
        return sorted(_hmdb51_lists(path))
    return sorted({row["split"] for row in _kinetics_rows(path)}) if reader is read_kinetics else None


def read_ucf101(
    folder: Path, list_name: str | None, labels: list[str] | None = None, media_root: Path | None = None
) -> Manifest:
    """UCF-101's lists. Labels are the names of classInd.txt as words: ApplyEyeMakeup is "apply eye makeup".

    Args:
        folder: with classInd.txt and the lists.
        list_name: "train1" is trainlist01.txt, "test1" testlist01.txt.
        labels: other names of the classes, in the order of classInd.txt.
        media_root: folder or .tar with the class folders.
    """
    kind, split = _choose(folder, list_name, _ucf101_lists(folder))
    path = folder / f"{kind}list0{split}.txt"
    classes = _class_index(folder / "classInd.txt")
    media = find_media(folder, media_root)
    items = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        name = line.split()[0]  # a train list also has the id, which the folder's name implies
        if (class_name := name.partition("/")[0]) not in classes:
            raise InputError(
                f"{path}, line {number}: {class_name!r} is not a class of classInd.txt. Download the lists again."
            )
        items.append(Item(path=name, label=classes.index(class_name), media=media.media(name)))
    own = [_words(name) for name in classes]
    return Manifest(name=_name(folder, list_name), labels=_renamed(own, labels, folder), items=tuple(items))


def read_hmdb51(
    folder: Path, list_name: str | None, labels: list[str] | None = None, media_root: Path | None = None
) -> Manifest:
    """HMDB-51's lists. Labels are all 51 built-in names, no matter which classes the folder has.

    Args:
        folder: with `<class>_test_split<n>.txt`, lines of `name.avi flag`: 1 train, 2 test, 0 unused.
        list_name: "train1" is what split 1 marks with 1, "test1" with 2.
        labels: other names of the classes, in the order of the built-in set hmdb51.
        media_root: folder or .tar with the class folders.
    """
    files = sorted(folder.glob("*_test_split[0-9].txt"))
    kind, split = _choose(folder, list_name, _hmdb51_lists(folder))
    own, media = built_in_labels("hmdb51"), find_media(folder, media_root)
    items = []
    for file in files:
        class_name = file.name.removesuffix(f"_test_split{split}.txt")
        if class_name == file.name:  # of another split
            continue
        if (label := class_name.replace("_", " ")) not in own:
            raise InputError(f"{file}: {label!r} is not a class of HMDB-51. Remove the file.")
        for name in _flagged(file, "1" if kind == "train" else "2"):
            path = f"{class_name}/{name}"
            items.append(Item(path=path, label=own.index(label), media=media.media(path)))
    return Manifest(name=_name(folder, list_name), labels=_renamed(own, labels, folder), items=tuple(items))


def read_kinetics(
    path: Path, list_name: str | None, labels: list[str] | None = None, media_root: Path | None = None
) -> Manifest:
    """A list of Kinetics-400, -600 or -700. Labels are the sorted class names of the whole file.

    Args:
        path: the .csv.
        list_name: a value of the column `split`; not needed if there is only one.
        labels: names in another order, or more of them, e.g. those of the full set for a part of its list.
        media_root: folder or .tar with the videos, in class folders or without.
    """
    rows = _kinetics_rows(path)
    splits = sorted({row["split"] for row in rows})
    if list_name is None and len(splits) != 1:
        raise InputError(f"Say which list of {path} to read: {', '.join(splits)}.")
    # The validation split was published under both names.
    wanted = {"val", "validate"} if list_name in ("val", "validate") else {list_name or splits[0]}
    if wanted.isdisjoint(splits):
        raise InputError(f"There is no list {list_name} in {path}. Its lists: {', '.join(splits)}.")
    names = labels or sorted({row["label"] for row in rows}, key=str.casefold)
    ids = {name.casefold(): i for i, name in enumerate(names)}
    if unknown := sorted({row["label"] for row in rows if row["label"].casefold() not in ids}):
        raise InputError(
            f"{path}: {len(unknown)} of its classes are not among the {len(ids)} labels, the first {unknown[0]!r}. "
            "Give labels that have them all."
        )
    media = find_media(path.parent, media_root)
    folders = media.folders()
    items = (
        _kinetics_item(row, ids[row["label"].casefold()], media, folders)
        for row in rows
        if row["split"] in wanted
    )
    name = f"{path.resolve().parent.name}/{path.name}"
    return Manifest(
        name=f"{name}, {list_name}" if list_name else name, labels=tuple(names), items=tuple(items)
    )


def read_zero_shot_labels(folder: Path) -> list[tuple[str, ...]]:
    """The class names of the three zero-shot splits of Kinetics-600: labels_split1.csv to labels_split3.csv."""
    return [tuple(read_label_file(folder / f"labels_split{n}.csv")) for n in (1, 2, 3)]


def _ucf101_lists(folder: Path) -> set[str]:
    files = [re.fullmatch(r"(train|test)list0([0-9])\.txt", file.name) for file in folder.iterdir()]
    return {match[1] + match[2] for match in files if match}


def _hmdb51_lists(folder: Path) -> set[str]:
    splits = {file.stem[-1] for file in folder.glob("*_test_split[0-9].txt")}
    return {kind + split for kind in ("train", "test") for split in splits}


def _choose(folder: Path, list_name: str | None, lists: set[str]) -> tuple[str, str]:
    """("train", "1") from "train1", if that is one of the lists."""
    if list_name is None or list_name not in lists:
        problem = "Say which list" if list_name is None else f"There is no list {list_name}"
        raise InputError(f"{problem} of {folder} to read. Its lists: {', '.join(sorted(lists)) or 'none'}.")
    return list_name[:-1], list_name[-1]


def _class_index(path: Path) -> list[str]:
    """Names from lines of `1 ApplyEyeMakeup`, counted from 1."""
    rows = [line.split() for line in read_lines(path) if line.strip()]
    if [row[0] for row in rows] != [str(i + 1) for i in range(len(rows))] or any(len(r) != 2 for r in rows):
        raise InputError(
            f"{path}: expected lines of `id name`, the ids 1 to {len(rows)} in order. Download it again."
        )
    return [name for _, name in rows]


def _flagged(path: Path, flag: str) -> list[str]:
    """Names from lines of `name.avi flag` that have this flag."""
    names = []
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.rsplit(maxsplit=1)
        if fields and (len(fields) != 2 or fields[1] not in ("0", "1", "2")):
            raise InputError(
                f"{path}, line {number}: expected `name.avi flag`, the flag 0, 1 or 2, got {line!r}."
            )
        if fields and fields[1] == flag:
            names.append(fields[0].strip())
    return names


def _kinetics_rows(path: Path) -> list[dict[str, str]]:
    reader = csv.DictReader(read_lines(path), skipinitialspace=True)
    if lacking := [column for column in KINETICS_COLUMNS if column not in (reader.fieldnames or ())]:
        raise InputError(
            f"{path} lacks the columns {', '.join(lacking)}; test lists were first published without labels. "
            "Download a list with all of them."
        )
    rows = []
    try:
        for row in reader:
            if (
                not all(row[c] for c in KINETICS_COLUMNS)
                or not (row["time_start"] + row["time_end"]).isdecimal()
            ):
                raise InputError(
                    f"{path}, line {reader.line_num}: expected values of {', '.join(KINETICS_COLUMNS)}, the times "
                    f"as whole seconds, got {row}."
                )
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"{path} is not valid CSV: {error}. Download the list again.") from error
    if not rows:
        raise InputError(f"{path} holds no videos. Download the list again.")
    return rows


def _kinetics_item(row: dict[str, str], label: int, media: MediaRoot, folders: set[str]) -> Item:
    """One video; its path always contains the class, so that a few-shot draw is the same for both layouts."""
    file = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4"
    path = f"{row['label']}/{file}"
    return Item(path=path, label=label, media=media.media(path if row["label"] in folders else file))


def _words(name: str) -> str:
    """ApplyEyeMakeup -> apply eye makeup; YoYo -> yo yo."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _renamed(own: list[str], labels: list[str] | None, folder: Path) -> tuple[str, ...]:
    if labels is not None and len(labels) != len(own):
        raise InputError(
            f"{folder} has {len(own)} classes, but {len(labels)} labels are given. Give as many."
        )
    return tuple(labels or own)


def _name(folder: Path, list_name: str | None) -> str:
    return f"{folder.resolve().name}/{list_name}"
