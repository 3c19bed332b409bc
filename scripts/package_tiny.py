"""Make a folder of a training run into a model folder that can be shipped: the weights and what they were trained on.

Beside the files of any model folder it holds the names of the training classes, so that `openxclip evaluate` can keep
them apart from new ones. A model card (README.md) that lies in the output folder stays.
"""

import argparse
from pathlib import Path

from openxclip.checkpoints.checkpoint import CONFIG_FILE
from openxclip.checkpoints.load import load
from openxclip.checkpoints.save import save_as
from openxclip.checkpoints.shipped import TRAINING_LABELS_FILE
from openxclip.files import read_json

CARD = "README.md"


def package(run: Path, output: Path) -> None:
    """Write the model of `run` into `output`, replacing one that is there."""
    labels = read_json(run / CONFIG_FILE)["labels"]
    card = (output / CARD).read_bytes() if (output / CARD).is_file() else None
    (output / CARD).unlink(missing_ok=True)  # a folder with nothing but a card is no model to replace
    try:
        save_as(output, *load(run, device="cpu", dtype="float32"))
        names = "".join(f"{label}\n" for label in labels)
        (output / TRAINING_LABELS_FILE).write_text(names, encoding="utf-8")
    finally:
        if card is not None:
            output.mkdir(parents=True, exist_ok=True)
            (output / CARD).write_bytes(card)


def main() -> None:
    """Read the two folders from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument(
        "output", type=Path, help="folder to write, e.g. src/openxclip/pretrained/openxclip-tiny"
    )
    arguments = parser.parse_args()
    package(arguments.run, arguments.output)


if __name__ == "__main__":
    main()
