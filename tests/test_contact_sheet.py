"""Contact sheets: what is drawn where, for any label and any shape of video."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openxclip.errors import InputError
from openxclip.reports.contact_sheet import DPI, SheetRow, film_strip, write_contact_sheet

GREEN_FILL, GREY_FILL = (134, 239, 172), (203, 213, 225)


def flat_frames(num_frames: int, height: int = 30, width: int = 40, level: int = 9) -> np.ndarray:
    return np.full((num_frames, height, width, 3), level, dtype=np.uint8)


def row(**changes: object) -> SheetRow:
    values = {
        "title": "clip.mp4",
        "frames": flat_frames(4),
        "ranking": [("surfing", 0.5), ("cooking", 0.25), ("running", 0.125)],
        "true_label": "surfing",
    }
    return SheetRow(**(values | changes))


def drawn(tmp_path: Path, *rows: SheetRow) -> np.ndarray:
    """Pixels (H, W, 3) of the sheet."""
    write_contact_sheet(tmp_path / "sheet.png", rows)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((pixels == colour).all(axis=-1).sum())


def test_a_strip_has_every_frame_in_order_with_white_between():
    frames = np.stack([np.full((20, 100, 3), 10 * i, dtype=np.uint8) for i in range(5)])
    strip = film_strip(frames)
    assert strip.shape == (20, 5 * 100 + 4 * 3, 3)
    for i in range(5):
        assert (strip[:, i * 103 : i * 103 + 100] == 10 * i).all()
    assert all((strip[:, i * 103 + 100 : (i + 1) * 103] == 255).all() for i in range(4))


def test_of_many_frames_a_strip_shows_eight_evenly_spaced_ones():
    frames = np.stack([np.full((4, 10, 3), i, dtype=np.uint8) for i in range(32)])
    strip = film_strip(frames)
    assert strip[0, ::11, 0].tolist() == [2, 6, 10, 14, 18, 22, 26, 30]


def test_bars_are_as_long_as_the_probabilities_and_only_the_right_one_is_green(tmp_path):
    pixels = drawn(tmp_path, row(true_label="cooking"))
    green, grey = count(pixels, GREEN_FILL), count(pixels, GREY_FILL)
    # Letters cover a little of every bar: 0.25 of the width is green, 0.5 + 0.125 grey.
    assert grey / green == pytest.approx(2.5, rel=0.25)


def test_without_a_known_label_nothing_is_green(tmp_path):
    assert count(drawn(tmp_path, row(true_label=None)), GREEN_FILL) == 0
    assert count(drawn(tmp_path, row()), GREEN_FILL) > 1000


def test_the_frames_are_in_the_picture_and_each_video_has_a_row(tmp_path):
    levels = [60, 120, 180]
    shapes = [(1, 64, 64), (8, 30, 40), (32, 90, 50)]
    rows = [row(frames=flat_frames(*s, level=v)) for s, v in zip(shapes, levels, strict=True)]
    pixels = drawn(tmp_path, *rows)
    places = [np.flatnonzero((pixels == level).all(axis=-1).any(axis=1)) for level in levels]
    assert places[0].max() < places[1].min() < places[1].max() < places[2].min()
    single = drawn(tmp_path, rows[0])
    assert single.shape[1] == pixels.shape[1] == 14 * DPI
    assert single.shape[0] < pixels.shape[0] < 3 * single.shape[0]
    widths = [(pixels == level).all(axis=-1).sum(axis=1).max() for level in levels]
    assert widths[1] == pytest.approx(9.2 * DPI, rel=0.06)  # eight frames of 4:3 fill the strip
    assert widths[0] == pytest.approx(1.15 * DPI, rel=0.06)  # one square frame is as wide as it is high


def test_only_the_five_best_labels_are_shown(tmp_path):
    five = [(f"label {i}", 0.1) for i in range(5)]
    assert (drawn(tmp_path, row(ranking=five)) == drawn(tmp_path, row(ranking=[*five, ("sixth", 0.1)]))).all()


@pytest.mark.parametrize("text", ["win $100 or $2_", r"a\$x$^$", "{}", "%s", "two\nlines", "word " * 90, ""])
def test_any_label_and_title_can_be_drawn(tmp_path, text):
    drawn(tmp_path, row(title=text, ranking=[(text, 1.0)], true_label=text))


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((4, 8, 8, 3)),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((4, 3, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_frames_of_another_kind_are_refused(frames):
    with pytest.raises(InputError, match=r"clip\.mp4: frames must be uint8 \(T, H, W, 3\)"):
        row(frames=frames)


def test_nothing_to_show_is_refused(tmp_path):
    with pytest.raises(InputError, match="the ranking is empty"):
        row(ranking=[])
    with pytest.raises(InputError, match="at least one video"):
        write_contact_sheet(tmp_path / "sheet.png", [])
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from openxclip.errors import MissingExtraError\n"
        "for name in ('contact_sheet', 'report'):\n"
        "    try: __import__(f'openxclip.reports.{name}')\n"
        "    except MissingExtraError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.count("pip install 'openxclip[train]'") == 2
