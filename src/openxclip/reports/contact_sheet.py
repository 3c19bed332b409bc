"""Contact sheets: frames of videos next to their predicted labels. Importing this needs matplotlib.

Shapes: T frames, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openxclip.errors import InputError
from openxclip.reports.plots import new_figure, save_png  # first: reports a missing extra
from openxclip.video.sampling import centred  # isort: split

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

MAX_FRAMES = 8  # per strip; more would be too small to see
MAX_LABELS = 5
MAX_LABEL_LETTERS = 42
MAX_TITLE_LETTERS = 100
GAP_SHARE = 0.03  # white gap between two frames, as a share of their width

# All lengths in inches.
DPI = 150
MARGIN, STRIP_WIDTH, COLUMN_GAP, RANKING_WIDTH = 0.3, 9.2, 0.3, 3.9
TITLE_HEIGHT, BODY_HEIGHT, ROW_GAP = 0.28, 1.15, 0.24
SHEET_WIDTH = 2 * MARGIN + STRIP_WIDTH + COLUMN_GAP + RANKING_WIDTH

INK, GREY, GREEN, RED = "#0f172a", "#64748b", "#15803d", "#b91c1c"
TRACK, GREY_FILL, GREEN_FILL = "#f1f5f9", "#cbd5e1", "#86efac"


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """One video of a contact sheet."""

    title: str
    """File name, or another name of the video."""
    frames: np.ndarray
    """uint8 RGB (T, H, W, 3); of more than eight, eight evenly spaced ones are shown."""
    ranking: Sequence[tuple[str, float]]
    """(label, probability), best first; the first five are shown."""
    true_label: str | None = None
    """The correct label, if known."""

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
            raise InputError(
                f"{self.title}: frames must be uint8 (T, H, W, 3) with T, H, W of 1 or more, "
                f"got {self.frames.dtype} {shape}"
            )
        if not self.ranking:
            raise InputError(f"{self.title}: the ranking is empty; give at least the best label")


def film_strip(frames: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 side by side with a little white between them: (H, W', 3)."""
    if len(frames) > MAX_FRAMES:
        frames = frames[centred(len(frames), MAX_FRAMES)]
    gap_px = max(1, round(GAP_SHARE * frames.shape[2]))
    spaced = np.pad(frames, ((0, 0), (0, 0), (0, gap_px), (0, 0)), constant_values=255)
    return np.concatenate(list(spaced), axis=1)[:, :-gap_px]


def write_contact_sheet(path: Path, rows: Sequence[SheetRow]) -> None:
    """Write a PNG with a row for each video: its frames, and next to them its best labels with bars.

    The correct label, if known, is green and the others grey.
    """
    if not rows:
        raise InputError("a contact sheet needs at least one video")
    height = 2 * MARGIN + len(rows) * (TITLE_HEIGHT + BODY_HEIGHT) + (len(rows) - 1) * ROW_GAP
    figure = new_figure(SHEET_WIDTH, height, facecolor="white")
    for number, row in enumerate(rows):
        top = height - MARGIN - number * (TITLE_HEIGHT + BODY_HEIGHT + ROW_GAP)
        bottom = top - TITLE_HEIGHT - BODY_HEIGHT
        _draw_strip(_axes(figure, MARGIN, bottom, STRIP_WIDTH), row)
        _draw_ranking(_axes(figure, MARGIN + STRIP_WIDTH + COLUMN_GAP, bottom, RANKING_WIDTH), row)
    save_png(figure, path, DPI)


def _axes(figure: Figure, left: float, bottom: float, width: float) -> Axes:
    """Axes over one cell of the sheet, in inches from its lower left corner, origin at the upper left."""
    sheet_width, sheet_height = figure.get_size_inches()
    cell = (left / sheet_width, bottom / sheet_height)
    height = TITLE_HEIGHT + BODY_HEIGHT
    axes = figure.add_axes((*cell, width / sheet_width, height / sheet_height))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def _draw_strip(axes: Axes, row: SheetRow) -> None:
    _write(axes, 0, TITLE_HEIGHT / 2, _short(row.title, MAX_TITLE_LETTERS), INK, size=10.5, weight="bold")
    strip = film_strip(row.frames)
    height_px, width_px = strip.shape[:2]
    scale = min(STRIP_WIDTH / width_px, BODY_HEIGHT / height_px)
    right, bottom = width_px * scale, TITLE_HEIGHT + height_px * scale
    axes.imshow(strip, extent=(0, right, bottom, TITLE_HEIGHT), interpolation="hanning", aspect="auto")
    axes.set(xlim=(0, STRIP_WIDTH), ylim=(TITLE_HEIGHT + BODY_HEIGHT, 0))  # imshow has changed them


def _draw_ranking(axes: Axes, row: SheetRow) -> None:
    if row.true_label is not None:
        right = row.ranking[0][0] == row.true_label
        mark, colour = ("✓", GREEN) if right else ("✗", RED)
        _write(axes, 0, TITLE_HEIGHT / 2, mark, colour, size=10.5, weight="bold")
        truth = _short(f"it is {row.true_label}", MAX_LABEL_LETTERS)
        _write(axes, 0.22, TITLE_HEIGHT / 2, truth, GREY, size=9)
    line = BODY_HEIGHT / MAX_LABELS
    for rank, (label, probability) in enumerate(row.ranking[:MAX_LABELS]):
        top, is_right = TITLE_HEIGHT + rank * line, label == row.true_label
        fill = GREEN_FILL if is_right else GREY_FILL
        axes.add_patch(Rectangle((0, top), RANKING_WIDTH, 0.85 * line, color=TRACK, linewidth=0))
        axes.add_patch(Rectangle((0, top), probability * RANKING_WIDTH, 0.85 * line, color=fill, linewidth=0))
        colour, weight = (GREEN, "bold") if is_right else (GREY, "normal")
        middle = top + 0.425 * line
        _write(axes, 0.07, middle, _short(label, MAX_LABEL_LETTERS), colour, size=8.5, weight=weight)
        share = f"{probability:.1%}"
        _write(axes, RANKING_WIDTH - 0.07, middle, share, colour, size=8.5, weight=weight, align="right")


def _write(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    colour: str,
    *,
    size: float,
    weight: str = "normal",
    align: str = "left",
) -> None:
    axes.text(
        x,
        y,
        text,
        color=colour,
        fontsize=size,
        fontweight=weight,
        ha=align,
        va="center_baseline",
        family="DejaVu Sans",  # ships with matplotlib: the same sheet everywhere
        parse_math=False,
    )


def _short(text: str, max_letters: int) -> str:
    """The text on one line, cut to fit its column."""
    line = " ".join(text.split())
    return line if len(line) <= max_letters else line[: max_letters - 1] + "…"
