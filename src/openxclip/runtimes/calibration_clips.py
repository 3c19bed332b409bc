"""The clips for calibration: the user's own, or rendered ones.

Shapes: B clips, T frames, S input side.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from openxclip.data.manifest import VIDEO_SUFFIXES
from openxclip.data.media import FileMedia, Media, find_media
from openxclip.errors import InputError, VideoError
from openxclip.files import read_lines
from openxclip.progress import progress_bar
from openxclip.shapes.splits import shapes_list
from openxclip.video.sampling import multi_view
from openxclip.video.transforms import Preprocessor

logger = logging.getLogger(__name__)

NUM_CLIPS = 32


def calibration_clips(source: Path | None, preprocess: Preprocessor, num_frames: int) -> Tensor:
    """Clips of videos spread evenly over a list -> uint8 (B, T, 3, S, S), B at most 32.

    Args:
        source: a folder of videos, or a list with a path on each line (a label id after it is ignored); None renders
            moving shapes.
        preprocess: of the model.
        num_frames: T.

    Raises:
        InputError: there are no videos.
    """
    media = _rendered() if source is None else _listed(source)
    chosen = (
        [media[i * len(media) // NUM_CLIPS] for i in range(NUM_CLIPS)] if len(media) > NUM_CLIPS else media
    )
    return torch.stack(list(_read(chosen, preprocess, num_frames)))


def _rendered() -> list[Media]:
    return [row.clip for row in shapes_list("train").rows]


def _listed(source: Path) -> list[Media]:
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
        media: list[Media] = [FileMedia(path) for path in found]
    elif source.is_file():
        root = find_media(source.parent, None)
        media = [root.media(_name(line)) for line in read_lines(source) if line.strip()]
    else:
        raise InputError(f"there is no {source}; give a folder or a list of videos to calibrate on")
    if not media:
        raise InputError(f"{source} has no videos to calibrate on")
    return media


def _name(line: str) -> str:
    """The path of `relative/path label_id` or of `relative/path`."""
    name, _, last = line.strip().rpartition(" ")
    return name.strip() if name and last.isdecimal() else line.strip()


def _read(media: Sequence[Media], preprocess: Preprocessor, num_frames: int) -> Iterable[Tensor]:
    size, num_read = preprocess.frame_size(), 0
    with progress_bar() as bar:
        task = bar.add_task("clips for calibration", total=len(media), note="")
        for one in media:
            try:
                frames = one.read(lambda length: multi_view(length, num_frames, 1)[0], size)
                yield preprocess.crops(frames, 1)[0]
                num_read += 1
            except VideoError as error:
                logger.warning("left out of the calibration: %s", error)
            bar.advance(task)
    if not num_read:
        raise InputError("no video of the calibration list can be read; see the messages above")
