"""Writes an HTML page from a folder of results: a training run, evaluations, ablation tables. Needs matplotlib."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from openxclip.checkpoints.checkpoint import CONFIG_FILE, parse
from openxclip.configuration import flatten
from openxclip.data.media import media_from
from openxclip.errors import InputError, VideoError
from openxclip.files import read_json
from openxclip.reports import page
from openxclip.reports.contact_sheet import MAX_FRAMES, film_strip
from openxclip.reports.plots import Curve, draw_curves, encode_jpeg
from openxclip.reports.table import Table
from openxclip.video.convert import FrameSize
from openxclip.video.sampling import centred

MAX_CLASSES_OF_MATRIX = 30  # with more classes, the page lists the most confused pairs
MAX_PAIRS = 20
NUM_EXAMPLES = 12
STRIP_SIDE_PX = 96

Json = dict[str, Any]


def write_report(folder: Path, output: Path) -> None:
    """Write a page with all results found in a folder.

    A run is identified by its log.jsonl. JSON files in the folder and in its `evaluation*` folders are identified by
    content: an evaluation, or a table, which may have a picture of the same name. Evaluations of the runs of an
    experiment (`text/2shot-seed1/evaluation.json`) are folded.

    Raises:
        InputError: the folder holds no results.
        CheckpointError: a file is damaged.
    """
    run = _run(folder) if (folder / "log.jsonl").is_file() else []
    shown = _json_files(folder)
    results = [_result(path, folder) for path in shown]
    sections = [*run, *filter(None, results), *_runs_below(folder, shown)]
    if not sections:
        raise InputError(
            f"{folder} holds no results. Give the folder of a training run (log.jsonl), or the --output folder of "
            "an evaluation (evaluation.json) or of an ablation (tables as .json)"
        )
    page.write_page(output, folder.resolve().name, "made by openxclip report", sections)


def _json_files(folder: Path) -> list[Path]:
    patterns = ("*.json", "evaluation*/*.json", "evaluation*/evaluation-*/*.json")
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return [path for path in paths if path.name != CONFIG_FILE]


def _runs_below(folder: Path, shown: Sequence[Path]) -> list[str]:
    """One section for the evaluations of an experiment's runs, if there are any."""
    others = [path for path in sorted(folder.glob("*/*/evaluation.json")) if path not in shown]
    parts = [(path.parent.relative_to(folder).as_posix(), _result(path, folder)) for path in others]
    folded = [page.folded(name, part) for name, part in parts if part]
    return [page.section("Runs", *folded)] if folded else []


def _result(path: Path, folder: Path) -> str | None:
    """The section of one JSON file; None if it does not hold results."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is damaged: {error}. Write it again, or remove it from the folder"
        ) from error
    if not isinstance(values, dict):
        return None
    if {"confusion", "videos"} <= values.keys():
        return parse(lambda result: _evaluation(result, path.relative_to(folder)), values, path)
    if {"columns", "rows"} <= values.keys():
        return parse(lambda result: _table(result, path), values, path)
    return None


# A run


def _run(folder: Path) -> list[str]:
    rows, num_broken = _log(folder / "log.jsonl")
    steps, epochs = ([row for row in rows if key in row] for key in ("loss", "mean_loss"))
    settings = read_json(folder / CONFIG_FILE)
    notes = [f"{num_broken} lines of the log cannot be read and are left out."] if num_broken else []
    unreadable = sorted({error for row in epochs for error in row["unreadable"]})
    notes += [f"A training clip could not be read: {error}" for error in unreadable]
    settings_table = page.table(["setting", "value"], _setting_rows(settings))
    return [
        page.section(
            "Training",
            page.cards(_training_facts(steps, epochs)),
            *map(page.paragraph, notes),
            f'<div class="charts">{"".join(_charts(steps, epochs))}</div>',
            page.folded("All settings", settings_table),
        )
    ]


def _log(path: Path) -> tuple[list[Json], int]:
    """Rows of a log, and the number of damaged lines (such as the last one of an interrupted run)."""
    rows, num_broken = [], 0
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            num_broken += 1
    return rows, num_broken


def _training_facts(steps: Sequence[Json], epochs: Sequence[Json]) -> dict[str, str]:
    facts = {"epochs": f"{len(epochs)}", "steps": f"{len(steps)}"}
    if epochs:
        facts["loss of the last epoch"] = f"{epochs[-1]['mean_loss']:.3f}"
    if scores := [row["val_top1"] for row in epochs if row["val_top1"] is not None]:
        facts["best validation top-1"] = f"{max(scores):.1%}"
    if all("seconds" in row for row in steps):
        facts["minutes in steps"] = f"{sum(row['seconds'] for row in steps) / 60:.1f}"
    if all("waited_seconds" in row for row in steps):
        facts["minutes waiting for clips"] = f"{sum(row['waited_seconds'] for row in steps) / 60:.1f}"
    return facts


def _charts(steps: Sequence[Json], epochs: Sequence[Json]) -> Iterator[str]:
    loss = Curve(name="step", points=_points(steps, "loss"), is_faint=True)
    mean_loss = Curve(name="mean of epoch", points=_points(epochs, "mean_loss"))
    charts = {
        "Loss": [loss, mean_loss],
        "Learning rate": [Curve(points=_points(steps, "learning_rate"))],
        "Validation top-1": [Curve(points=_points(epochs, "val_top1"))],
    }
    for title, curves in charts.items():
        if drawn := [curve for curve in curves if curve.points]:
            yield page.picture(draw_curves("step", drawn), "image/png", escape(title))


def _points(rows: Sequence[Json], key: str) -> list[tuple[float, float]]:
    return [(row["step"], row[key]) for row in rows if row[key] is not None]


def _setting_rows(settings: Json) -> list[tuple[str, str]]:
    """Settings as `--set` takes them: dotted name and JSON value."""
    return [
        (
            name.removeprefix("config."),
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
        )
        for name, value in flatten(settings).items()
    ]


# Evaluations


def _evaluation(result: Json, path: Path) -> str:
    facts = {"top-1": f"{result['top1']:.1%}", "top-5": f"{result['top5']:.1%}"}
    facts |= {"videos": f"{result['num_videos']}", "views": result["views"]}
    if result["num_unreadable"]:
        facts["not readable"] = f"{result['num_unreadable']}"
    altered = result.get("altered", "")
    examples = [_example(row, altered) for row in choose_examples(result["videos"])]
    return page.section(
        f"Evaluation on {result['data']}",
        page.paragraph(path.as_posix()),
        page.paragraph(f"Scored for each video: {altered}.") if altered else "",
        page.cards(facts),
        "<h3>Classes</h3>",
        page.table(["class", "videos", "top-1", "most often taken for"], list(_class_rows(result))),
        "<h3>Confusion</h3>",
        _confusion(result),
        "<h3>Examples</h3>",
        f'<div class="examples">{"".join(examples)}</div>',
    )


def _class_rows(result: Json) -> Iterator[Sequence[object]]:
    labels = [row["label"] for row in result["classes"]]
    for number, (row, counts) in enumerate(zip(result["classes"], result["confusion"], strict=True)):
        others = [0 if i == number else count for i, count in enumerate(counts)]
        most = max(range(len(others)), key=others.__getitem__)
        mistake = f"{labels[most]} ({others[most]})" if others[most] else ""
        accuracy = "-" if row["accuracy"] is None else page.Share(row["accuracy"])
        yield row["label"], row["num_videos"], accuracy, mistake


def _confusion(result: Json) -> str:
    """The matrix or, for many classes, the most confused pairs."""
    labels = [row["label"] for row in result["classes"]]
    if len(labels) <= MAX_CLASSES_OF_MATRIX:
        hint = page.paragraph("Row: the true class. Column: the predicted class.")
        return hint + page.heat_table(labels, result["confusion"])
    pairs = [
        (labels[true], labels[predicted], count)
        for true, row in enumerate(result["confusion"])
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    pairs.sort(key=lambda pair: -pair[2])  # stable: equal counts stay in the order of the classes
    return page.table(["class", "taken for", "videos"], pairs[:MAX_PAIRS])


def choose_examples(videos: Sequence[Json]) -> list[Json]:
    """Example rows: the most confident mistakes first, and hits evenly spaced over the list.

    Half of each, or more of one if there are not enough of the other.
    """
    scored = [row for row in videos if "predicted" in row]
    hits = [row for row in scored if row["predicted"] == row["label"]]
    mistakes = [row for row in scored if row["predicted"] != row["label"]]
    mistakes.sort(key=lambda row: -row["probability"])
    num_mistakes = min(len(mistakes), max(NUM_EXAMPLES // 2, NUM_EXAMPLES - len(hits)))
    num_hits = min(len(hits), NUM_EXAMPLES - num_mistakes)
    if num_hits:
        hits = [hits[place] for place in centred(len(hits), num_hits)]
    return mistakes[:num_mistakes] + hits


def _example(row: Json, altered: str) -> str:
    caption = f"<b>{escape(row['path'])}</b>: {_verdict(row)}"
    if altered:
        caption += f" (shown: the original video; scored: {escape(altered)})"
    try:
        frames = _frames(row)
    except VideoError as error:
        return page.placeholder(f"Not shown: {error.reason}", caption)
    return page.picture(encode_jpeg(film_strip(frames)), "image/jpeg", caption)


def _frames(row: Json) -> np.ndarray:
    """Some frames (T, H, W, 3) of a video of an evaluation."""
    media = media_from(row, row["path"])
    frames = media.read(lambda n: centred(n, MAX_FRAMES), FrameSize(short_side_px=STRIP_SIDE_PX))
    return frames.transpose(0, 2, 3, 1)


def _verdict(row: Json) -> str:
    predicted, share = escape(row["predicted"]), f"{row['probability']:.1%}"
    if row["predicted"] == row["label"]:
        return f'<span class="right">✓ {predicted}</span> {share}'
    return f'<span class="wrong">✗ {predicted}</span> {share}, it is {escape(row["label"])}'


# Tables


def _table(values: Json, path: Path) -> str:
    table = Table(
        title=values["title"],
        command=values["command"],
        columns=tuple(values["columns"]),
        rows=tuple(tuple(row) for row in values["rows"]),
        notes=tuple(values["notes"]),
    )
    image = path.with_suffix(".png")
    return page.section(
        table.title,
        page.table(table.columns, table.rows),
        *map(page.paragraph, table.notes),
        page.picture(image.read_bytes(), "image/png", "") if image.is_file() else "",
        f"<pre>{escape(table.command)}</pre>",
    )
