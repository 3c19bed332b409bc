"""Record what the project computes, and compare two records: a change that should not move numbers proves it here.

    python scripts/same_numbers.py before.json --data ../shared/data
    ... the change ...
    python scripts/same_numbers.py after.json --data ../shared/data --against before.json

Uses only the command and the public names, so one copy of this script runs on any commit:

    PYTHONPATH=/path/to/another/checkout/src python scripts/same_numbers.py before.json --data ../shared/data
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

import openxclip

LABELS = "archery, bowling, playing guitar, surfing, juggling balls, brushing teeth, walking, diving"
NUM_STEPS = 20

Record = dict[str, list[float]]
"""Name of a computation -> its numbers."""


def goldens(data: Path) -> Record:
    """Logits of every golden model."""
    golden = load_file(data / "goldens" / "official_T8_golden.safetensors")
    official = openxclip.load(data / "goldens" / "official_T8.pth", device="cpu", dtype="float32").model
    folder = Path(__file__).parents[1] / "tests" / "goldens" / "perception_encoder"
    encoder = openxclip.load(folder, device="cpu", dtype="float32").model
    size, frames = encoder.config.vision.image_size_px, encoder.config.num_frames
    pixels = torch.rand(2, frames, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return {
            "logits, official": official(golden["pixels"], golden["token_ids"]).flatten().tolist(),
            "video features, perception encoder": encoder.encode_video(pixels).video.flatten().tolist(),
        }


def losses(data: Path, folder: Path) -> Record:
    """Losses of the first steps of two recipes and of a language-image pretraining."""
    few_shot = ["train", "--recipe", "ucf8_fewshot", "--data", str(data / "ucf8")]
    shapes = ["train", "--recipe", "shapes", "--data", "moving-shapes", "--set", "init=openxclip-tiny"]
    pretrain = ["pretrain", "--recipe", "shapes_clip_small", "--set", f"num_steps={NUM_STEPS}"]
    pretrain += ["--set", "warmup_steps=5"]
    one_epoch = ["--set", "optim.epochs=1", "--set", "optim.warmup_epochs=0.25"]
    few_shot += [*one_epoch, "--set", f"data.samples_per_epoch={16 * NUM_STEPS}"]
    shapes += [*one_epoch, "--set", f"data.samples_per_epoch={32 * NUM_STEPS}"]
    runs = {"ucf8_fewshot": few_shot, "shapes": shapes, "shapes_clip_small": pretrain}
    return {f"losses, {name}": _losses(arguments, folder / name) for name, arguments in runs.items()}


def _losses(arguments: Sequence[str], run: Path) -> list[float]:
    _command(*arguments, "--output", str(run), "--device", "cpu")
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def predictions(data: Path, folder: Path) -> Record:
    """Probabilities of every real clip, with the shipped model and with random weights of B/32-8."""
    models = {"openxclip-tiny": "openxclip-tiny", "B/32-8": str(_random_model(folder / "b32"))}
    return {f"predictions, {name}": _predictions(data, model) for name, model in models.items()}


def _random_model(folder: Path) -> Path:
    _, tokenizer, _ = openxclip.load("openxclip-tiny", device="cpu")
    torch.manual_seed(0)
    config = openxclip.XCLIPConfig()
    text = dataclasses.replace(config.text, vocab_size=tokenizer.vocab_size, context_length=32)
    model = openxclip.XCLIP(dataclasses.replace(config, text=text)).eval()
    _, _, preprocess = openxclip.load("openxclip-tiny", device="cpu")
    preprocess = dataclasses.replace(preprocess, input_size_px=224, resize_short_side_px=256)
    openxclip.save_as(folder, model, tokenizer, preprocess)
    return folder


def _predictions(data: Path, model: str) -> list[float]:
    """Probabilities of all labels, clip by clip, in the order of the labels."""
    clips = str(data / "ucf8" / "videos")
    options = ["--labels", LABELS, "--model", model, "--device", "cpu", "--dtype", "float32", "--json"]
    rows = [json.loads(line) for line in _command("predict", clips, *options, "--top-k", "8").splitlines()]
    return [score for row in rows for _, score in sorted(row["scores"])]


def _command(*arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "openxclip", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return run.stdout


def compare(before: Record, after: Record) -> int:
    """Print the largest difference of each computation -> exit status."""
    for name, old in before.items():
        new = after.get(name, [])
        if len(old) != len(new):
            print(f"{name}: {len(old)} numbers before, {len(new)} now")
            continue
        difference = max(abs(a - b) for a, b in zip(old, new, strict=True))
        verdict = "identical" if difference == 0 else f"differ by {difference:.2g}"
        print(f"{name}: {len(old)} numbers, {verdict}")
    return int(before != after)


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("--data", type=Path, required=True, help="folder with goldens/ and ucf8/")
    parser.add_argument("--against", type=Path, help="an earlier record to compare with")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = goldens(arguments.data) | losses(arguments.data, Path(folder))
        record |= predictions(arguments.data, Path(folder))
    arguments.output.write_text(json.dumps(record))
    if arguments.against is None:
        return 0
    return compare(json.loads(arguments.against.read_text()), record)


if __name__ == "__main__":
    sys.exit(main())
