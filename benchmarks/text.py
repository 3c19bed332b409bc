"""400 class names through the text tower: cut after the longest, against all 77 positions."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import interleave, speed_table
from benchmarks.options import Options
from benchmarks.report import Section
from benchmarks.transformers_way import load_theirs, their_tokens
from benchmarks.weights import write_model
from openxclip import load
from openxclip.models import preset
from openxclip.text.labels import built_in_labels

SUITE = "text"
MODEL = "B/16-8"
NUM_ROUNDS = 5  # the 77-token way takes seconds
OURS, FULL = "ours", "ours, 77 positions"

Encode = Callable[[int], Tensor]
"""Features (K, E); the argument is the round and means nothing."""


def run(options: Options) -> Section:
    """Time all ways in turns and compare their features."""
    with TemporaryDirectory() as folder:
        return measure(write_model(Path(folder) / "model", preset(MODEL)), options)


def measure(folder: Path, options: Options) -> Section:
    """The suite on any model."""
    rounds = range(min(options.num_rounds, NUM_ROUNDS))
    result = interleave(variants(folder), rounds, "text")
    features = {name: outputs[0] for name, outputs in result.outputs.items()}
    notes = (
        "Kinetics-400's names, float32. transformers pads to the longest text (padding=True), or to 77.",
        f"Largest difference of directions from {FULL}: {_differences(features)}.",
    )
    return Section(
        suite=SUITE,
        tables=(speed_table(f"400 class names, text tower of {MODEL}", SUITE, result.timings, FULL, notes),),
        figures={
            "text_speed": result.timings[OURS].speed_against(result.timings[FULL]),
            "text_difference": difference(features[OURS], features[FULL]),
        },
        timings=result.timings,
    )


def variants(folder: Path) -> dict[str, Encode]:
    """What is compared, by name."""
    model, tokenizer, _ = load(folder, device="cpu", dtype="float32")
    labels = built_in_labels("kinetics400")
    tokens = tokenizer(labels)
    # Nothing is cut where one text needs every position: one more among 400 makes ours the 77-token way.
    longest = torch.full_like(tokens[:1], 1)
    longest[0, -1] = tokenizer.end_id
    padded = torch.cat([tokens, longest])
    encoder = load_theirs(folder).get_text_features
    short = their_tokens(tokenizer, labels)
    ways: dict[str, Encode] = {
        OURS: lambda _: model.encode_text(tokens),
        FULL: lambda _: model.encode_text(padded)[:-1],
        "transformers, longest": lambda _: encoder(short).pooler_output,
        "transformers, 77 positions": lambda _: encoder(tokens).pooler_output,
    }
    return {name: torch.inference_mode()(way) for name, way in ways.items()}


def difference(features: Tensor, reference: Tensor) -> float:
    """The largest of any component of the normalised features (K, E)."""
    return (F.normalize(features, dim=-1) - F.normalize(reference, dim=-1)).abs().max().item()


def _differences(features: Mapping[str, Tensor]) -> str:
    others = (name for name in features if name != FULL)
    return ", ".join(f"{name} {difference(features[name], features[FULL]):.1e}" for name in others)
