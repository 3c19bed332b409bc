"""A timeline as a page with a player, lanes and a clickable list, and all files of a timeline by format."""

import os
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from openxclip.files import is_file
from openxclip.reports import page
from openxclip.reports.timeline_lanes import (
    Curve,
    Lane,
    Stretch,
    clock,
    lanes_of,
    thumbnail_cells,
    tick_clock,
    ticks_seconds,
    title_of,
)
from openxclip.timelines import formats
from openxclip.timelines.segments import Segment
from openxclip.timelines.timeline import Thumbnail, Timeline
from openxclip.video.jpeg import data_uri
from openxclip.video.playback import Break

FORMATS = (*formats.FORMATS, "html", "png")
"""Names of formats that `write` knows."""

NUM_CELLS = 12  # of the strip of thumbnails; a phone shows every third
MAX_ROWS = 5000  # of the list of segments
NUM_COLOURS = 6


def write(
    timeline: Timeline, folder: Path, wanted: Sequence[str] = FORMATS, name: str | None = None
) -> list[Path]:
    """Write a file for each format, atomically, as `NAME.timeline.FORMAT`; see `openxclip.timelines.formats`.

    Raises:
        InputError: a format is unknown; then nothing is written.
        MissingExtraError: a PNG without matplotlib; then nothing is written.
    """
    check_formats(wanted)
    name = name or formats.output_names([timeline.path], folder)[0]
    folder.mkdir(parents=True, exist_ok=True)
    return [_write_one(timeline, formats.output_path(folder, name, format), format) for format in wanted]


def check_formats(wanted: Sequence[str]) -> None:
    """Refuse formats that are unknown or lack a package, before a video is watched.

    Raises:
        InputError: one is unknown.
        MissingExtraError: a PNG without matplotlib.
    """
    formats.check_formats(wanted, FORMATS)
    if "png" in wanted:
        _png_writer()


def _png_writer() -> Callable[[Timeline, Path], None]:
    from openxclip.reports.timeline_picture import write_png

    return write_png


def _write_one(timeline: Timeline, path: Path, format: str) -> Path:
    if format == "html":
        write_html(timeline, path)
    elif format == "png":
        _png_writer()(timeline, path)
    else:
        formats.write_one(timeline, path, format)
    return path


# The page


def write_html(timeline: Timeline, path: Path) -> None:
    """Write the page. It plays the video from its location, and works without it."""
    lanes = lanes_of(timeline)
    body = "\n".join(
        [
            page.cards(_facts(timeline)),
            _player(timeline, path),
            _lanes(timeline, lanes),
            *_notes(timeline, lanes),
            _segments(timeline),
            _breaks(timeline),
        ]
    )
    code = files("openxclip.reports").joinpath("timeline.html").read_text(encoding="utf-8")
    subtitle = (
        f"{timeline.model}, windows of {timeline.window_seconds:g} s every {timeline.stride_seconds:g} s"
    )
    page.write_page(
        path, title_of(timeline), subtitle.removeprefix(", "), [page.section("What happens when", body), code]
    )


def _facts(timeline: Timeline) -> dict[str, str]:
    facts = {
        "length": clock(timeline.duration_seconds),
        "segments": f"{len(timeline.segments)}",
        "labels seen": f"{len({segment.label for segment in timeline.segments})} of {len(timeline.labels)}",
    }
    if timeline.num_unseen:
        facts["windows not seen"] = f"{timeline.num_unseen} of {len(timeline.scores)}"
    return facts


def _player(timeline: Timeline, path: Path) -> str:
    address = address_from(path, timeline.path)
    gone = (
        "The video cannot be shown: it is no longer where it was, or this browser does not play its format. "
        "Everything else works without it."
    )
    if address is None:
        return (
            f'<div class="missing" id="missing">Nothing to play: {escape(timeline.path)} is not a file.</div>'
        )
    return (
        f'<div class="stage" id="stage"><video id="player" controls preload="metadata" playsinline src="{address}">'
        f'</video></div><div class="missing" id="missing" hidden>{gone}</div>'
    )


def address_from(page_path: Path, video: str) -> str | None:
    """The address of a video file for a page, relative where it can be, percent-encoded; None if there is no file."""
    if not is_file(video):
        return None
    target = Path(os.path.abspath(video))  # noqa: PTH100 like the browser, do not follow links
    try:
        relative = os.path.relpath(target, os.path.abspath(page_path.parent))  # noqa: PTH100
    except ValueError:  # on another drive
        return target.as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def _notes(timeline: Timeline, lanes: Sequence[Lane]) -> list[str]:
    notes = []
    if not timeline.segments:
        notes.append("There are no segments: no label scored high enough.")
    num_seen = len({segment.label for segment in timeline.segments})
    num_shown = sum(lane.kind == "label" for lane in lanes)
    if num_shown < num_seen:
        notes.append(f"{num_seen - num_shown} more labels have no lane; their segments are in the list.")
    return [page.paragraph(note) for note in notes]


def _duration(timeline: Timeline) -> float:
    return max(timeline.duration_seconds, 0.001)


# Lanes


def _lanes(timeline: Timeline, lanes: Sequence[Lane]) -> str:
    duration = _duration(timeline)
    hint = (
        "Click anywhere to go there. By keyboard: on the time axis, the left and right arrow keys move through the "
        "video; on a lane, they go from segment to segment, and up and down go to the next lane."
    )
    rows = [_thumbnail_row(timeline), _axis(timeline), *(_lane(lane, duration) for lane in lanes)]
    return (
        '<p class="now" id="now"><b></b><span></span></p>\n<div class="lanes" id="lanes" '
        f'data-duration="{duration:.3f}" data-step="{timeline.stride_seconds:.3f}">\n{"".join(rows)}'
        '<div class="over"></div></div>\n'
        f'<div id="preview" hidden><img alt=""><span></span></div>\n{page.paragraph(hint)}'
    )


def _thumbnail_row(timeline: Timeline) -> str:
    if not timeline.thumbnails:
        return ""
    cells, others = thumbnail_cells(timeline, NUM_CELLS)
    shown = "".join(f"<div>{_image(thumbnail) if thumbnail else ''}</div>" for thumbnail in cells)
    hidden = "".join(map(_image, others))
    return (
        f'<div class="row thumbs" aria-hidden="true"><div class="name"></div><div class="track">{shown}</div>'
        f"<div hidden>{hidden}</div></div>\n"
    )


def _image(thumbnail: Thumbnail) -> str:
    return f'<img alt="" data-seconds="{thumbnail.seconds:.3f}" src="{data_uri(thumbnail.jpeg)}">'


def _axis(timeline: Timeline) -> str:
    duration = _duration(timeline)
    ticks = ticks_seconds(duration)
    marks = "".join(
        f'<span style="left:{100 * tick / duration:.3f}%">{tick_clock(tick, ticks)}</span>'
        for tick in ticks
        if tick < 0.96 * duration  # there is no room for its text
    )
    return (
        '<div class="row axis"><div class="name">time</div><div class="track" id="axis" role="slider" tabindex="0" '
        f'aria-label="position" aria-valuemin="0" aria-valuemax="{duration:.3f}" aria-valuenow="0">{marks}</div>'
        "</div>\n"
    )


def _lane(lane: Lane, duration: float) -> str:
    name = f'<span title="{escape(lane.name)}">{escape(lane.name)}</span>'
    if lane.stretches:
        what = {"label": "segment", "gaps": "place", "cuts": "cut"}[lane.kind]
        count = f"{len(lane.stretches)} {what}{'s' * (len(lane.stretches) != 1)}"
        head = f'<button type="button" class="name">{name}<small>{count}</small></button>'
    else:
        head = f'<div class="name">{name}</div>'
    colour = f" colour-{lane.number % NUM_COLOURS}" if lane.kind == "label" else ""
    stretches = "".join(_stretch(stretch, duration) for stretch in lane.stretches)
    lines = "".join(_curve(curve, duration) for curve in lane.curves)
    drawing = f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">{lines}</svg>'
    return (
        f'<div class="row lane {lane.kind}{colour}">{head}<div class="track">{stretches}{drawing if lines else ""}'
        "</div></div>\n"
    )


def _stretch(stretch: Stretch, duration: float) -> str:
    left, right = (min(100.0, 100 * t / duration) for t in (stretch.start_seconds, stretch.end_seconds))
    when = clock(stretch.start_seconds, 1)
    if stretch.end_seconds > stretch.start_seconds:
        when += f" to {clock(stretch.end_seconds, 1)}"
    return (
        f'<i style="left:{left:.3f}%;width:{right - left:.3f}%" data-start="{stretch.start_seconds:.3f}" '
        f'data-end="{stretch.end_seconds:.3f}" title="{escape(f"{stretch.note}, {when}")}"></i>'
    )


def _curve(curve: Curve, duration: float) -> str:
    places = [(min(1000.0, 1000 * x / duration), 100 - 98 * min(1.0, max(0.0, y))) for x, y in curve]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    area = f"{places[0][0]:.1f},100 {line} {places[-1][0]:.1f},100"
    return f'<polygon points="{area}"/><polyline points="{line}"/>'


# Tables


def _segments(timeline: Timeline) -> str:
    if not timeline.segments:
        return ""
    shown = timeline.segments[:MAX_ROWS]
    rows = [_row(timeline, segment, segment.label, _share(segment.score)) for segment in shown]
    more = len(timeline.segments) - len(shown)
    note = f"{more} more segments are not listed here; the other formats have all of them."
    return _table("Segments", ("label", "score"), rows) + (page.paragraph(note) if more else "")


def _breaks(timeline: Timeline) -> str:
    if not timeline.breaks:
        return ""
    rows = [
        _row(timeline, gap, gap.kind, f"<td>{escape(gap.reason)}</td>") for gap in timeline.breaks[:MAX_ROWS]
    ]
    return _table("Gaps and jumps", ("kind", "reason"), rows)


def _table(title: str, columns: Sequence[str], rows: Sequence[str]) -> str:
    heads = "".join(
        f'<th class="{"number" if name in ("seconds", "score") else ""}"><button type="button">{name}</button></th>'
        for name in ("start", "end", "seconds", *columns)
    )
    body = "\n".join(rows)
    return (
        f'<h3>{title}</h3><div class="wide"><table class="sortable seek"><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(timeline: Timeline, item: Segment | Break, name: str, last_cell: str) -> str:
    start, end = item.start_seconds, item.end_seconds
    first, second = (_sortable_clock(seconds, timeline.duration_seconds) for seconds in (start, end))
    return (
        f'<tr data-start="{start:.3f}" data-end="{end:.3f}"><td><button type="button">{first}</button></td>'
        f'<td>{second}</td><td class="number">{end - start:.1f}</td><td class="text">{escape(name)}</td>'
        f"{last_cell}</tr>"
    )


def _share(score: float) -> str:
    return f'<td class="number share" style="--share:{score:.1%}">{score:.1%}</td>'


def _sortable_clock(seconds: float, duration_seconds: float) -> str:
    """A time with as many digits as the longest needs, so that text order is time order."""
    whole, tenth = divmod(round(10 * seconds), 10)
    if duration_seconds < 3600:
        return f"{whole // 60:02}:{whole % 60:02}.{tenth}"
    num_digits = len(f"{int(duration_seconds // 3600)}")
    return f"{whole // 3600:0{num_digits}}:{whole // 60 % 60:02}:{whole % 60:02}.{tenth}"
