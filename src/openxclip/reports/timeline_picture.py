"""A timeline as a PNG. Importing this needs matplotlib."""

import io
from pathlib import Path

from openxclip.reports.plots import (
    drawable_fonts,
    new_figure,
    save_png,
    short_name,
)  # first: reports a missing extra
from openxclip.reports.timeline_lanes import (
    Lane,
    lanes_of,
    thumbnail_cells,
    tick_clock,
    ticks_seconds,
    title_of,
)
from openxclip.timelines.timeline import Thumbnail, Timeline  # isort: split

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

NUM_CELLS = 10  # of the strip of thumbnails
MAX_TITLE_LETTERS = 110

# All lengths in inches.
WIDTH, NAMES_WIDTH, MARGIN = 13.0, 2.6, 0.3
LANES_WIDTH = WIDTH - NAMES_WIDTH - 2 * MARGIN
TITLE_HEIGHT, AXIS_HEIGHT, LANE_HEIGHT, MAX_STRIP_HEIGHT = 0.4, 0.3, 0.5, 2.0

INK, QUIET, LINE = "#0f172a", "#64748b", "#e2e8f0"


def write_png(timeline: Timeline, path: Path) -> None:
    """Write lanes with segments and scores over time, thumbnails above them and gaps hatched."""
    lanes = [lane for lane in lanes_of(timeline) if lane.kind != "gaps"]
    lanes_height = LANE_HEIGHT * max(1, len(lanes))
    cells = thumbnail_cells(timeline, NUM_CELLS)[0]
    strip_height = _strip_height(cells)
    figure = new_figure(
        WIDTH, 2 * MARGIN + TITLE_HEIGHT + strip_height + lanes_height + AXIS_HEIGHT, facecolor="white"
    )
    _draw_title(figure, timeline)
    bottom = MARGIN + AXIS_HEIGHT
    axes = _axes(figure, bottom, lanes_height)
    _draw_lanes(axes, timeline, lanes)
    if strip_height:
        _draw_strip(_axes(figure, bottom + lanes_height, strip_height), cells, strip_height)
    save_png(figure, path)


def _axes(figure: Figure, bottom: float, height: float) -> Axes:
    """Axes over the time axis' width, in inches from the lower edge."""
    whole = figure.get_size_inches()[1]
    return figure.add_axes(
        ((MARGIN + NAMES_WIDTH) / WIDTH, bottom / whole, LANES_WIDTH / WIDTH, height / whole)
    )


def _draw_title(figure: Figure, timeline: Timeline) -> None:
    fonts = drawable_fonts()
    name = " ".join(title_of(timeline).split())
    cut = name if len(name) <= MAX_TITLE_LETTERS else name[: MAX_TITLE_LETTERS - 1] + "…"
    drawable = "".join(
        sign if any(font.get_char_index(ord(sign)) for font in fonts.values()) else "?" for sign in cut
    )
    figure.text(
        MARGIN / WIDTH,
        1 - MARGIN / figure.get_size_inches()[1],
        drawable,
        va="top",
        fontsize=12,
        weight="bold",
        color=INK,
        parse_math=False,
        fontfamily=list(fonts),
    )


def _strip_height(cells: list[Thumbnail | None]) -> float:
    """Height of thumbnails that fill the width; 0 without any."""
    shown = next((cell for cell in cells if cell is not None), None)
    if shown is None:
        return 0.0
    height_px, width_px = imread(io.BytesIO(shown.jpeg), format="jpg").shape[:2]
    return min(MAX_STRIP_HEIGHT, LANES_WIDTH / len(cells) * height_px / width_px)


def _draw_strip(axes: Axes, cells: list[Thumbnail | None], height: float) -> None:
    """Draw each thumbnail in the middle of its cell, in inches."""
    cell_width = LANES_WIDTH / len(cells)
    for number, cell in enumerate(cells):
        if cell is not None:
            picture = imread(io.BytesIO(cell.jpeg), format="jpg")
            height_px, width_px = picture.shape[:2]
            scale = 0.98 * min(cell_width / width_px, height / height_px)
            left = (number + 0.5) * cell_width - scale * width_px / 2
            place = (left, left + scale * width_px, height - scale * height_px, height)
            axes.imshow(picture, extent=place, aspect="auto")
    axes.set(xlim=(0, LANES_WIDTH), ylim=(0, height))
    axes.axis("off")


def _draw_lanes(axes: Axes, timeline: Timeline, lanes: list[Lane]) -> None:
    fonts = drawable_fonts()
    duration = max(timeline.duration_seconds, 0.001)
    for row, lane in enumerate(lanes):
        _draw_lane(axes, row, lane)
    for gap in timeline.breaks:
        axes.axvspan(
            gap.start_seconds, gap.end_seconds, facecolor="none", edgecolor=QUIET, hatch="////", linewidth=0.5
        )
    names = [
        short_name(lane.name, lane.number, fonts) if lane.kind == "label" else lane.name for lane in lanes
    ]
    ticks = ticks_seconds(duration)
    axes.set_xlim(0, duration)
    axes.set_ylim(max(1, len(lanes)), 0)
    axes.set_xticks(ticks, [tick_clock(tick, ticks) for tick in ticks])
    axes.set_yticks(
        [row + 0.5 for row in range(len(lanes))], names, parse_math=False, fontfamily=list(fonts), color=INK
    )
    axes.tick_params(length=0, labelsize=9, colors=QUIET)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.tick_params(axis="x", length=3)
    axes.hlines(range(len(lanes) + 1), 0, duration, color=LINE, linewidth=0.8)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)


def _draw_lane(axes: Axes, row: int, lane: Lane) -> None:
    """Scores from 0 at the lower edge of the lane to 1 near the upper one."""
    if lane.kind == "cuts":
        cuts = [stretch.start_seconds for stretch in lane.stretches]
        axes.vlines(cuts, row + 0.25, row + 0.75, color=QUIET, linewidth=0.8)
        return
    colour = QUIET if lane.kind == "none" else colormaps["tab10"](lane.number % 10)
    bars = [
        (stretch.start_seconds, stretch.end_seconds - stretch.start_seconds) for stretch in lane.stretches
    ]
    axes.broken_barh(bars, (row + 0.06, 0.94), facecolor=colour, alpha=0.25, linewidth=0)
    axes.broken_barh(bars, (row + 0.92, 0.08), facecolor=colour, linewidth=0)
    for curve in lane.curves:
        xs, ys = zip(*curve, strict=True)
        heights = [row + 1 - 0.9 * min(1.0, max(0.0, y)) for y in ys]
        axes.plot(xs, heights, color=colour, linewidth=1.1)
        axes.fill_between(xs, heights, row + 1, color=colour, alpha=0.12, linewidth=0)
