"""Calibrates int8 matrix products on clips, within a bound on the rounding noise.

1. Half of the clips are used to measure each layer's input. Of a few ways to round it, with and without smoothing, with
   the whole range or a part of it, the one that changes the layer's output least is chosen.
2. On the other half all layers are rounded at once. If that changes the video features by more than the bound, the
   layers that contribute most are left in float until it does not. A layer's contribution is estimated to first order:
   the change of its output times the derivatives of the features, in random directions.

The effect of rounding is measured as noise: the root mean square of the change of a feature's direction as a share of
that of the differences between clips. Features that hardly differ between clips tolerate less than those that do.

Shapes: B clips, T frames, S input side, M rows, D width, E joint embedding.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rich.progress import Progress, TaskID
from torch import Tensor, nn

from openxclip.errors import InputError
from openxclip.models import XCLIP
from openxclip.progress import progress_bar
from openxclip.runtimes.int8 import quantisable
from openxclip.runtimes.quantisation import LayerRange, QuantisedLinear, quantise
from openxclip.runtimes.torch_runtime import fold_normalisation
from openxclip.video.transforms import Preprocessor

BOUND = 0.05
MIN_CLIPS = 4
SMOOTHING = (0.0, 0.5, 0.75)
"""Share of the differences between channels that moves into the weights; 0 is none."""
SHARES = (1.0, 0.7, 0.5)
"""Shares of the range: values beyond are clipped."""
CLEARLY = 0.6
"""A more expensive way is chosen if it leaves at most this share of the error."""
NUM_ROWS = 64  # per clip, evenly spaced
NUM_LARGEST_ROWS = 8  # per clip: tokens with outliers are few, but matter
NUM_DIRECTIONS = 4


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """How one layer is computed, and the effect of rounding on it."""

    path: str
    """Its name in the model."""
    smoothing: float
    """Share of the differences between channels that moved into the weights."""
    share: float
    """Share of its input's range that is represented."""
    error: float
    """Root mean square of the change of its output, as a share of that of the output."""
    noise: float | None = None
    """Its contribution to the noise of the features, to first order; None if it was not needed."""
    in_float: bool = False
    """A layer left in float."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Ranges of the layers computed in integers, and statistics of all layers."""

    ranges: dict[str, LayerRange]
    layers: tuple[LayerReport, ...]
    noise: float
    """Noise of the video features, on clips not used for measuring ranges."""


@torch.no_grad()
def calibrate(
    model: XCLIP,
    preprocess: Preprocessor,
    clips: Tensor,
    bound: float = BOUND,
    smoothing: Sequence[float] = SMOOTHING,
    shares: Sequence[float] = SHARES,
) -> Calibration:
    """Choose ranges for a model.

    Args:
        model: on the CPU; it is not changed.
        preprocess: of the model.
        clips: uint8 (B, T, 3, S, S), at least 4 that differ.
        bound: the maximum noise.
        smoothing: values to try for each layer.
        shares: shares of the range to try for each layer.

    Raises:
        InputError: the clips are too few or all alike, or the bound is not above 0.
    """
    if len(clips) < MIN_CLIPS:
        raise InputError(f"calibration needs at least {MIN_CLIPS} clips that can be read, got {len(clips)}")
    if not bound > 0:
        raise InputError(f"the bound on noise must be above 0, got {bound}")
    tower = fold_normalisation(copy.deepcopy(model).float(), preprocess).eval()
    measured, checked = clips[0::2], clips[1::2]
    with progress_bar() as bar:
        task = bar.add_task("calibration", total=2 * len(clips) + len(quantisable(tower)), note="")
        inputs = _inputs(tower, _counting(measured, bar, task))
        chosen = {}
        for path, layer in quantisable(tower).items():
            chosen[path] = _choose(path, layer, inputs.pop(path), smoothing, shares)
            bar.advance(task)
        expected = features(tower, _counting(checked, bar, task))
        ranges = {path: input_range for path, (input_range, _) in chosen.items()}
        noise = _noise_of(tower, ranges, _counting(checked, bar, task), expected)
    reports = {path: report for path, (_, report) in chosen.items()}
    if not noise <= bound:
        ranges, reports, noise = _within(tower, checked, expected, ranges, reports, bound)
    return Calibration(ranges=ranges, layers=tuple(reports.values()), noise=noise)


def features(tower: XCLIP, clips: Iterable[Tensor]) -> Tensor:
    """Directions of the video features of raw clips, one by one -> (B, E)."""
    return torch.cat([F.normalize(tower.encode_video(clip[None].float()).video, dim=-1) for clip in clips])


def noise_between(found: Tensor, expected: Tensor) -> float:
    """The difference of directions (B, E) from the expected ones, relative to the differences among these.

    Raises:
        InputError: the expected ones do not differ.
    """
    spread = (expected - expected.mean(dim=0)).double().square().sum()
    if spread <= torch.finfo(torch.float32).eps ** 2 * len(expected):
        raise InputError("the calibration clips all look alike to the model; give clips that differ")
    return math.sqrt((found - expected).double().square().sum() / spread)


def _counting(clips: Tensor, bar: Progress, task: TaskID) -> Iterator[Tensor]:
    for clip in clips:
        yield clip
        bar.advance(task)


class Inputs(NamedTuple):
    """Statistics of a layer's input."""

    rows: Tensor
    """(M, D), some rows of every clip."""
    lowest: Tensor
    """(D,) of all rows of all clips."""
    highest: Tensor
    """(D,)."""

    @property
    def largest(self) -> Tensor:
        """(D,), the largest absolute value of each channel."""
        return torch.maximum(-self.lowest, self.highest)


def _inputs(tower: XCLIP, clips: Iterator[Tensor]) -> dict[str, Inputs]:
    found: dict[str, list[Inputs]] = {path: [] for path in quantisable(tower)}

    def keep(path: str, x: Tensor) -> None:
        rows = x.flatten(0, -2)
        largest = rows.abs().amax(dim=1).topk(min(NUM_LARGEST_ROWS, len(rows))).indices
        even = torch.linspace(0, len(rows) - 1, min(NUM_ROWS, len(rows))).round().long()
        some = rows[torch.cat([even, largest])].clone()
        found[path].append(Inputs(some, rows.amin(dim=0), rows.amax(dim=0)))

    with _watched(tower, keep):
        features(tower, clips)
    return {path: _together(parts) for path, parts in found.items()}


def _together(parts: Sequence[Inputs]) -> Inputs:
    rows, lowest, highest = zip(*parts, strict=True)
    return Inputs(torch.cat(rows), torch.stack(lowest).amin(dim=0), torch.stack(highest).amax(dim=0))


@contextmanager
def _watched(tower: XCLIP, keep: Callable[[str, Tensor], None]) -> Iterator[None]:
    hooks = [
        layer.register_forward_pre_hook(lambda _, arguments, path=path: keep(path, arguments[0]))
        for path, layer in quantisable(tower).items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _choose(
    path: str, layer: nn.Linear, inputs: Inputs, strengths: Sequence[float], shares: Sequence[float]
) -> tuple[LayerRange, LayerReport]:
    """The way of rounding that changes the output least."""
    expected = layer(inputs.rows)
    size = expected.square().mean().clamp(min=torch.finfo(torch.float32).tiny)
    best: tuple[LayerRange, LayerReport] | None = None
    for strength in strengths:
        smoothing = _factors(inputs.largest, layer.weight, strength) if strength else None
        factors = 1 if smoothing is None else smoothing
        low = min((inputs.lowest / factors).min().item(), 0.0)
        high = max((inputs.highest / factors).max().item(), 0.0)
        for share in shares:
            input_range = LayerRange(low=share * low, high=share * high, smoothing=smoothing)
            change = (QuantisedLinear(layer, input_range)(inputs.rows) - expected).square().mean()
            error = (change / size).sqrt().item()
            if best is None or error < best[1].error * (CLEARLY if strength > best[1].smoothing else 1):
                best = (input_range, LayerReport(path=path, smoothing=strength, share=share, error=error))
    assert best is not None
    return best


def _factors(largest: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Divisor of each input channel (SmoothQuant, equation 4), with a geometric mean of 1 -> (D,).

    Args:
        largest: (D,) of each channel of the input.
        weight: (F, D).
        strength: 0 leaves the differences to the input, 1 moves them to the weights.
    """
    smallest = torch.finfo(torch.float32).tiny ** 0.25  # for dead channels; far from overflow when squared
    inputs, weights = largest.clamp(min=smallest), weight.abs().amax(dim=0).clamp(min=smallest)
    factors = inputs**strength / weights ** (1 - strength)
    return factors / factors.log().mean().exp()


def _noise_of(
    tower: XCLIP,
    ranges: Mapping[str, LayerRange],
    clips: Iterable[Tensor],
    expected: Tensor,
) -> float:
    rounded = copy.deepcopy(tower, memo={id(parameter): parameter for parameter in tower.parameters()})
    quantise(rounded, ranges)
    return noise_between(features(rounded, clips), expected)


def _within(
    tower: XCLIP,
    clips: Tensor,
    expected: Tensor,
    ranges: dict[str, LayerRange],
    reports: dict[str, LayerReport],
    bound: float,
) -> tuple[dict[str, LayerRange], dict[str, LayerReport], float]:
    """Leave the layers that contribute most of the noise in float, until it is within the bound."""
    shares = _contributions(tower, clips, ranges, expected)
    reports = {path: replace(report, noise=shares[path]) for path, report in reports.items()}
    order = sorted(shares, key=shares.__getitem__)
    allowed = bound**2
    while True:
        total, kept = 0.0, {}
        for path in order:
            total += shares[path] ** 2
            if total <= allowed:
                kept[path] = ranges[path]
        noise = _noise_of(tower, kept, clips, expected)
        if noise <= bound or not kept:
            break
        allowed /= 2  # the first-order estimate was too optimistic
    reports = {path: replace(report, in_float=path not in kept) for path, report in reports.items()}
    return {path: ranges[path] for path in ranges if path in kept}, reports, noise


def _contributions(
    tower: XCLIP, clips: Tensor, ranges: Mapping[str, LayerRange], expected: Tensor
) -> dict[str, float]:
    """The noise that rounding each layer alone would add, to first order."""
    layers = {path: layer for path, layer in quantisable(tower).items() if path in ranges}
    rounded = {path: QuantisedLinear(layer, ranges[path]) for path, layer in layers.items()}
    totals = dict.fromkeys(layers, 0.0)
    generator = torch.Generator().manual_seed(0)
    with progress_bar() as bar:
        task = bar.add_task("layers left in float", total=len(clips), note="")
        for clip in clips:
            changes: dict[str, Tensor] = {}
            shifts: dict[str, Tensor] = {}
            with torch.enable_grad(), _shifted(layers, rounded, changes, shifts):
                (direction,) = features(tower, [clip])
                for _ in range(NUM_DIRECTIONS):
                    random = torch.randn(direction.shape, generator=generator)
                    slopes = torch.autograd.grad(direction @ random, list(shifts.values()), retain_graph=True)
                    for path, slope in zip(shifts, slopes, strict=True):
                        totals[path] += (changes[path] * slope).sum().item() ** 2 / NUM_DIRECTIONS
            bar.advance(task)
    spread = (expected - expected.mean(dim=0)).square().sum().item()
    return {path: math.sqrt(total / spread) for path, total in totals.items()}


@contextmanager
def _shifted(
    layers: Mapping[str, nn.Linear],
    rounded: Mapping[str, QuantisedLinear],
    changes: dict[str, Tensor],
    shifts: dict[str, Tensor],
) -> Iterator[None]:
    """Add a zero to each layer's output, to get derivatives with respect to it, and record the effect of rounding."""

    def hook(path: str, x: Tensor, output: Tensor) -> Tensor:
        with torch.no_grad():
            changes[path] = rounded[path](x) - output
        shifts[path] = torch.zeros_like(output, requires_grad=True)
        return output.detach() + shifts[path] if not output.requires_grad else output + shifts[path]

    hooks = [
        layer.register_forward_hook(lambda _, arguments, output, path=path: hook(path, arguments[0], output))
        for path, layer in layers.items()
    ]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()
