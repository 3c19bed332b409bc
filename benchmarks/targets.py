"""What has to be shown: each figure and its bound."""

from collections.abc import Mapping
from dataclasses import dataclass

from openxclip.reports.table import Table


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure and how high (or low) it has to be."""

    what: str
    """The figure in words."""
    bound: float
    """The least it must be, or the most."""
    unit: str = "x"
    """Behind the number: x is a ratio."""
    at_most: bool = False
    """Whether `bound` is the most."""

    def met_by(self, measured: float) -> bool:
        """Whether the figure is good enough."""
        return measured <= self.bound if self.at_most else measured >= self.bound

    def row(self, measured: float | None) -> tuple[str, ...]:
        """Of the table: what, bound, measured, met."""
        bound = f"{'at most' if self.at_most else 'at least'} {self._text(self.bound)}"
        if measured is None:
            return self.what, bound, "not measured", "-"
        return self.what, bound, self._text(measured), "yes" if self.met_by(measured) else "no"

    def _text(self, value: float) -> str:
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        return f"{value:.3g}{self.unit}"


_FORWARD = "forward B/16-8, one video"

TARGETS = {
    "forward_eager": Target(what=f"{_FORWARD}, dtype auto, against transformers' float32", bound=3.5),
    "forward_compiled": Target(what=f"{_FORWARD}, the same, compiled", bound=5.0),
    "forward_top1": Target(what=f"{_FORWARD}, top-1 agreement of both", bound=0.99, unit="%"),
    "forward_difference": Target(
        what=f"{_FORWARD}, largest difference of probabilities", bound=0.02, unit="", at_most=True
    ),
    "forward_against_bfloat16": Target(
        what=f"{_FORWARD}, compiled, against transformers in bfloat16", bound=1.5
    ),
    "text_speed": Target(what="400 class names, against the 77-token way", bound=5.0),
    "text_difference": Target(
        what="400 class names, largest difference of directions", bound=1e-5, unit="", at_most=True
    ),
    "end_to_end": Target(
        what="64 real clips x 101 labels, files to ranked classes, against the documented loop", bound=10.0
    ),
    "end_to_end_int8": Target(what="the same by OpenVINO in int8, on a processor without AMX", bound=5.0),
    "auto_speed": Target(what=f"{_FORWARD}, --runtime auto, against transformers' float32", bound=4.5),
    "auto_top1": Target(
        what=f"{_FORWARD}, --runtime auto, top-1 agreement with float32", bound=0.99, unit="%"
    ),
    "auto_fastest": Target(
        what="--runtime auto against the fastest other way within the bound, worst of two batch sizes",
        bound=0.97,
    ),
    "int8_products": Target(
        what="share of the int8 product ceiling that the products of B/16-8 reach", bound=0.85, unit="%"
    ),
    "decoding_8": Target(what="decoding 8 frames, against the best peer, worst of four kinds", bound=1.1),
    "decoding_32": Target(what="decoding 32 frames, against the best peer, worst of four kinds", bound=1.1),
    "decoding_exact": Target(what="decoding, share of frames that are those asked for", bound=1.0, unit="%"),
    "packing_avi": Target(
        what="training clips a second, two workers, packed against .avi of UCF-101", bound=2.0
    ),
    "packing_720p": Target(what="training clips a second, two workers, packed against 1280x720", bound=4.0),
    "training_speed": Target(what="training step B/32-8, batch 8, against transformers' model", bound=1.5),
    "training_memory": Target(what="training step, peak memory as a share", bound=0.8, at_most=True),
    "help": Target(what="openxclip --help", bound=0.3, unit=" s", at_most=True),
    "ceiling": Target(
        what="share of the bfloat16 matmul ceiling that forward B/16-8 reaches", bound=0.55, unit="%"
    ),
}
"""Name of a figure -> its target; a suite gives the figures it measures under these names."""


def target_table(figures: Mapping[str, float], command: str) -> Table:
    """Every target beside what was measured."""
    return Table(
        title="What has to be shown",
        command=command,
        columns=("what", "target", "measured", "met"),
        rows=tuple(target.row(figures.get(name)) for name, target in TARGETS.items()),
    )
