"""Draw the moving picture of docs/index.md: rendered clips that play beside their rankings by the shipped model.

The clips are of classes that openxclip-tiny never saw. The bars grow while a clip plays; where they end is what the
model says of the whole clip.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from openxclip import Recognizer
from openxclip.files import atomic_write
from openxclip.shapes.clip import ShapesClip
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips

PICTURE = Path(__file__).parents[1] / "docs" / "assets" / "home.webp"
NUM_CLIPS = 4
NUM_LABELS = 4
SIZE_PX = (720, 272)
SIDE_PX = 240  # of the clip
MARGIN_PX = 16
GROWING = 0.5  # share of a clip in which its bars grow
FRAME_MS = 125  # every second frame of 32 in two seconds
PAUSE_MS = 900  # on the last frame of a clip
PAPER, INK, GREY, TRACK, GREEN, BAR = "#ffffff", "#0f172a", "#64748b", "#f1f5f9", "#86efac", "#cbd5e1"


def font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: the same picture everywhere."""
    properties = font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(properties), size_px)


def draw_ranking(
    canvas: ImageDraw.ImageDraw, ranking: list[tuple[str, float]], truth: str, grown: float
) -> None:
    """Labels with bars, to the right of the clip; `grown`, 0 to 1, is how far the bars have come."""
    left, right = SIDE_PX + 2 * MARGIN_PX, SIZE_PX[0] - MARGIN_PX
    canvas.text((left, MARGIN_PX), "What happens in this video?", INK, font(17, bold=True))
    for row, (label, probability) in enumerate(ranking):
        top = MARGIN_PX + 40 + row * 50
        is_right = label == truth
        canvas.rounded_rectangle((left, top, right, top + 36), 6, TRACK)
        width = (right - left) * probability * grown
        if width > 12:
            canvas.rounded_rectangle((left, top, left + width, top + 36), 6, GREEN if is_right else BAR)
        face = font(15, bold=is_right and grown == 1)
        canvas.text((left + 10, top + 18), label, INK, face, anchor="lm")
        canvas.text((right - 10, top + 18), f"{probability * grown:.0%}", GREY, face, anchor="rm")


def recognised(clips: Sequence[ShapesClip]) -> list[tuple[ShapesClip, list[tuple[str, float]]]]:
    """Each clip with its ranking, as `openxclip predict` gives it for the clip's file."""
    recognizer = Recognizer.from_pretrained("openxclip-tiny", EXAMPLE_LABELS)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.mp4" for number in range(len(clips))]
        for path, clip in zip(paths, clips, strict=True):
            path.write_bytes(clip.encode())
        predictions = recognizer.predict(paths, top_k=NUM_LABELS)
    return [(clip, prediction.scores) for clip, prediction in zip(clips, predictions, strict=True)]


def frames_of(clip: ShapesClip, ranking: list[tuple[str, float]]) -> list[Image.Image]:
    """The clip and its ranking, a picture for each frame."""
    frames = clip.frames(lambda length: np.arange(0, length, 2), SIDE_PX)
    pictures = []
    for number, frame in enumerate(frames, start=1):
        picture = Image.new("RGB", SIZE_PX, PAPER)
        picture.paste(Image.fromarray(frame), (MARGIN_PX, MARGIN_PX))
        share = min(1.0, number / (GROWING * len(frames)))
        grown = 1 - (1 - share) ** 3  # slows down where it arrives
        draw_ranking(ImageDraw.Draw(picture), ranking, clip.kind.name, grown)
        pictures.append(picture)
    return pictures


def draw(output: Path) -> None:
    """Write the picture as an animated WebP."""
    pictures, durations = [], []
    for clip, ranking in recognised(example_clips()[:NUM_CLIPS]):
        of_clip = frames_of(clip, ranking)
        pictures += of_clip
        durations += [FRAME_MS] * (len(of_clip) - 1) + [PAUSE_MS]
    # The first picture is what stands where nothing moves: the end of the last clip.
    pictures, durations = [pictures[-1], *pictures[:-1]], [durations[-1], *durations[:-1]]
    with atomic_write(output) as temporary:
        pictures[0].save(
            temporary,
            format="WEBP",
            save_all=True,
            append_images=pictures[1:],
            duration=durations,
            loop=0,
            quality=60,
            method=6,
        )


def main() -> None:
    """Read from the command line where the picture goes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=PICTURE, help="the .webp to write")
    draw(parser.parse_args().output)


if __name__ == "__main__":
    main()
