"""Train a small X-CLIP on labelled video files, measure it, and recognise videos it has not seen.

Runs the same commands a person would type, and prints each before it runs. The clips are those of `--data`, a
folder with `labels.csv`, `train_16shot.txt`, `test.txt` and `videos/` (eight classes of UCF-101, say). Without
such a folder, small clips of moving shapes are rendered, so the demo runs anywhere.
"""

import argparse
import csv
import shlex
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np

MOTIONS = {
    "moving left": (-1, 0, 0),
    "moving right": (1, 0, 0),
    "growing": (0, 0, 1),
    "shrinking": (0, 0, -1),
}
"""Class name -> change of x position, y position and size over a clip; no single frame shows which it is."""


def render_clips(folder: Path, num_train: int = 16, num_test: int = 8) -> None:
    """Write `num_train + num_test` clips of each motion, with their lists, into a folder."""
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lists: dict[str, list[str]] = {"train_16shot.txt": [], "test.txt": []}
    for label, motion in enumerate(MOTIONS.values()):
        for i in range(num_train + num_test):
            name = f"{label}_{i}.mp4"
            write_clip(folder / "videos" / name, motion, rng)
            lists["train_16shot.txt" if i < num_train else "test.txt"].append(f"{name} {label}")
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    rows = "".join(f"{i},{name}\n" for i, name in enumerate(MOTIONS))
    (folder / "labels.csv").write_text("id,name\n" + rows)


def write_clip(path: Path, motion: tuple[int, int, int], rng: np.random.Generator, side: int = 96) -> None:
    """One second of a coloured disc on a noisy ground."""
    y, x = np.mgrid[:side, :side]
    ground = rng.integers(30, 90, size=(1, 1, 3)) + rng.integers(-20, 20, size=(side, side, 3))
    colour = rng.integers(120, 255, size=3)
    centre = rng.uniform(0.4, 0.6, size=2) * side
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "20"})
        stream.width = stream.height = side
        for time_share in np.linspace(-0.5, 0.5, 16):
            shift_x, shift_y, growth = (time_share * m for m in motion)
            inside = np.hypot(x - centre[0] - shift_x * side * 0.6, y - centre[1] - shift_y * side * 0.6)
            frame = np.where((inside < side * (0.15 + 0.16 * growth))[..., None], colour, ground)
            picture = av.VideoFrame.from_ndarray(frame.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def run(*arguments: str) -> None:
    """Show a command of ours, then run it."""
    print(f"\n$ openxclip {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "openxclip", *arguments], check=True)


def main() -> None:
    """Render if needed, train, evaluate, predict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/ucf8"), help="folder of labelled clips"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("demo"), help="folder for everything the demo writes"
    )
    parser.add_argument("--epochs", type=int, default=60, help="length of the training")
    arguments = parser.parse_args()
    data = arguments.data
    if not data.is_dir():
        data = arguments.output / "clips"
        print(f"no clips in {arguments.data}: rendering moving shapes into {data}", flush=True)
        render_clips(data)
    started = time.time()
    model = str(arguments.output / f"run-{data.name}")
    train = ["train", "--recipe", "ucf8_fewshot", "--data", str(data), "--output", model]
    run(
        *train,
        "--set",
        f"optim.epochs={arguments.epochs}",
        "--set",
        f"optim.warmup_epochs={arguments.epochs // 10}",
    )
    run(
        "evaluate",
        "supervised",
        "--model",
        model,
        "--data",
        str(data),
        "--output",
        str(arguments.output / "evaluation"),
    )
    with (data / "labels.csv").open() as file:
        labels = ", ".join(row["name"] for row in csv.DictReader(file))
    tests = [line.split()[0] for line in (data / "test.txt").read_text().splitlines()]
    videos = [str(data / "videos" / name) for name in tests[:: len(tests) // 4]]
    run("predict", *videos, "--labels", labels, "--model", model, "--top-k", "3")
    print(f"\nThe main job took {time.time() - started:.0f} seconds. Its files are in {arguments.output}/.")


if __name__ == "__main__":
    main()
