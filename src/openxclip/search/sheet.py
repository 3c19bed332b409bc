"""Search results as a self-contained HTML page with a picture of each window."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from openxclip.errors import VideoError
from openxclip.reports.page import picture, placeholder, section, write_page
from openxclip.search.index import Hit
from openxclip.tagging.sources import source_at
from openxclip.video.convert import FrameSize
from openxclip.video.decode import VideoReader
from openxclip.video.jpeg import jpeg

SHORT_SIDE_PX = 160
NUM_FRAMES = 3  # of each window


def write_sheet(path: Path, query: str, hits: Sequence[Hit]) -> None:
    """Write the page. A video that can no longer be read is named instead of shown."""
    prompted_alike = len({hit.is_prompted for hit in hits}) < 2
    figures = [
        _figure(hit, "" if prompted_alike or hit.is_prompted else ", by the text alone") for hit in hits
    ]
    body = section(f"{len(hits)} results", f'<div class="examples">{"".join(figures)}</div>')
    write_page(path, query, "best first; scores are comparable within this search", [body])


def _figure(hit: Hit, stage: str) -> str:
    near = ", near duplicate" if hit.is_near_duplicate else ""
    place = f"{hit.start_seconds:.1f} to {hit.end_seconds:.1f} s · {escape(hit.path)}"
    caption = f"<b>{hit.score:.3f}</b>{near}{stage} · {place}"
    try:
        return picture(jpeg(_frames(hit)), "image/jpeg", caption)
    except VideoError as error:
        return placeholder(error.reason, caption)


def _frames(hit: Hit) -> np.ndarray:
    """Some frames of a window side by side, uint8 (H, W, 3)."""
    with source_at(hit.path).open() as file, VideoReader(file) as reader:
        moments = np.linspace(hit.start_seconds, hit.end_seconds, NUM_FRAMES + 2)[1:-1]
        indices = np.clip(
            moments / max(reader.duration_seconds, 1e-9) * reader.num_frames, 0, reader.num_frames - 1
        )
        frames = reader.read(indices.astype(int), FrameSize(short_side_px=SHORT_SIDE_PX)).data
    return np.concatenate(list(frames.transpose(0, 2, 3, 1)), axis=1)
