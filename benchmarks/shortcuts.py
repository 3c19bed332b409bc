"""What shortcuts change, on a learned model: openxclip-tiny on clips of classes it never saw.

Shapes: B videos, T frames, S input side, K labels.
"""

import copy
from collections.abc import Iterator, Sequence

from torch import Tensor

from benchmarks.harness import command
from benchmarks.learned import SHIPPED, SHIPPED_LIST, shipped_model
from openxclip import Recognizer
from openxclip.checkpoints.load import Loaded
from openxclip.evaluation.metrics import top_k_accuracy
from openxclip.inference.engine import Engine
from openxclip.inference.options import InferenceOptions
from openxclip.reports.table import Table
from openxclip.runtimes.options import RuntimeOptions
from openxclip.shapes.splits import WORLDS

SIZES = (5, 10, 20, 50, 100)
TOP_K = 5


def shortcut_table(suite: str) -> Table:
    """Agreement with float32 and prompts for all labels, among few and many candidates."""
    shipped = shipped_model()
    everything = (*shipped.labels, *(kind.name for kind in WORLDS["full"].base))
    rows = [
        row
        for labels in (shipped.labels, everything)
        for row in agreement_rows(shipped.loaded, labels, shipped.pixels, shipped.truth)
    ]
    return Table(
        title=f"Shortcuts against float32 without any: {SHIPPED}, {len(shipped.truth)} clips of {SHIPPED_LIST}",
        command=command(suite),
        columns=("labels", "shortcut", "same best label", "same five best", "top-1", "top-5"),
        rows=tuple(rows),
        notes=(
            f"{len(shipped.labels)} labels are the clips' own classes, {len(everything)} also those of the training. "
            "Same five best: the mean share of the five that both have.",
        ),
    )


def agreement_rows(
    loaded: Loaded, labels: Sequence[str], pixels: Tensor, truth: Tensor
) -> list[tuple[str, ...]]:
    """A row without shortcut, then one for each; pixels (B, 1, T, 3, S, S), truth (B,)."""
    full = Recognizer(Engine(loaded), labels).probabilities_of(pixels)
    rows = [_row(len(labels), "none", full, full, truth)]
    for name, model, options in _shortcuts(loaded, len(labels)):
        found = Recognizer(Engine(model, options), labels).probabilities_of(pixels)
        rows.append(_row(len(labels), name, found, full, truth))
    return rows


def _shortcuts(loaded: Loaded, num_labels: int) -> Iterator[tuple[str, Loaded, InferenceOptions]]:
    """Name, model and settings of each: fewer bits, then the shortlists that are shorter than the labels."""
    integers = InferenceOptions(runtime=RuntimeOptions(int8=True))
    half = loaded._replace(model=copy.deepcopy(loaded.model).bfloat16())
    yield "bfloat16", half, InferenceOptions()
    yield "int8", loaded, integers
    yield "bfloat16 and int8", half, integers
    for size in SIZES:
        if size < num_labels:
            yield f"shortlist of {size}", loaded, InferenceOptions(shortlist=size)


def _row(num_labels: int, name: str, found: Tensor, full: Tensor, truth: Tensor) -> tuple[str, ...]:
    shares = (
        same_best(found, full),
        same_top(found, full, TOP_K),
        top_k_accuracy(found, truth, 1),
        top_k_accuracy(found, truth, TOP_K),
    )
    return str(num_labels), name, *(f"{share:.1%}" for share in shares)


def same_best(found: Tensor, expected: Tensor) -> float:
    """The share of videos with the same best label: probabilities (B, K)."""
    return (found.argmax(dim=1) == expected.argmax(dim=1)).double().mean().item()


def same_top(found: Tensor, expected: Tensor, k: int) -> float:
    """The mean share of the k best labels that both have: probabilities (B, K)."""
    pairs = found.topk(k, dim=1).indices[:, :, None] == expected.topk(k, dim=1).indices[:, None, :]
    return pairs.any(dim=2).double().mean().item()
