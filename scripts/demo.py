"""Recognise clips of classes that the shipped model has never seen, by names given on the command line.

Renders six clips of novel classes of moving shapes as video files, runs the command that a person would type, and
draws a contact sheet: the frames of each clip beside its ranking. Everything is written into demo/.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from openxclip import Recognizer
from openxclip.reports.contact_sheet import SheetRow, write_contact_sheet
from openxclip.shapes.examples import EXAMPLE_LABELS, example_clips
from openxclip.video.decode import read_frames
from openxclip.video.sampling import centred

NUM_FRAMES_SHOWN = 8
CLIPS, SHEET = Path("demo/clips"), Path("demo/contact_sheet.png")


def render_clips(folder: Path) -> dict[Path, str]:
    """Write the example clips -> their right names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    for clip in example_clips():
        path = folder / f"{clip.kind.name.replace(' ', '_')}.mp4"
        path.write_bytes(clip.encode())
        names[path] = clip.kind.name
    return names


def predict(model: str) -> None:
    """Show a command of ours, then run it."""
    arguments = [
        "predict",
        str(CLIPS),
        "--labels",
        ", ".join(EXAMPLE_LABELS),
        "--model",
        model,
        "--top-k",
        "3",
    ]
    print(f"$ openxclip {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "openxclip", *arguments], check=True)


def draw(names: Mapping[Path, str], model: str) -> None:
    """The same from Python, as a picture."""
    recognizer = Recognizer.from_pretrained(model, EXAMPLE_LABELS)
    rows = [
        SheetRow(
            title=path.name,
            frames=read_frames(path, lambda length: centred(length, NUM_FRAMES_SHOWN)).data.transpose(
                0, 2, 3, 1
            ),
            ranking=recognizer.predict(path).scores,
            true_label=name,
        )
        for path, name in names.items()
    ]
    write_contact_sheet(SHEET, rows)
    num_right = sum(row.ranking[0][0] == row.true_label for row in rows)
    print(f"\n{num_right} of {len(rows)} are right. Frames beside the rankings: {SHEET.resolve()}")


def main() -> None:
    """Render, predict, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="openxclip-tiny", help="as for openxclip predict")
    model = parser.parse_args().model
    names = render_clips(CLIPS)
    predict(model)
    draw(names, model)


if __name__ == "__main__":
    main()
