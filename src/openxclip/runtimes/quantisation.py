"""Int8 matrix products with calibrated ranges, in a form that runtimes convert into their own.

A layer's weights have a scale for each row; its input has one scale and offset for all. Input channels that are much
larger than the others would leave these few quantisation steps: each channel is first divided by a factor, and the
weights that read it are multiplied by it ("smoothing": SmoothQuant, Xiao et al. 2023, section 4).

Shapes: ... any leading dims, M rows, D input width (summed over), F output width.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.ao.quantization.fx._decomposed  # registers the operations that exporters know as quantisation
import torch.nn.functional as F
from torch import Tensor, nn

from openxclip.models import XCLIP
from openxclip.runtimes.int8 import LARGEST, to_int8

STEPS = 255  # of the unsigned integers 0 to 255 that an input is rounded to

CPU_INFO = Path("/proc/cpuinfo")
X86 = ("x86_64", "AMD64", "i386", "i686")


def largest_weight() -> int:
    """The largest integer that weights are rounded to on this machine.

    x86 processors without VNNI add two 8-bit products in 16 bits, and two of 255 x 127 overflow: there weights get 7
    bits. They also do if the processor's features are unknown.
    """
    if platform.machine() not in X86:
        return LARGEST
    has_vnni = CPU_INFO.is_file() and "vnni" in CPU_INFO.read_text()
    return LARGEST if has_vnni else LARGEST // 2


@dataclass(frozen=True, kw_only=True)
class LayerRange:
    """How the input of one layer becomes integers."""

    low: float
    """The smallest representable value, at most 0."""
    high: float
    """The largest, at least 0; both of the input after smoothing."""
    smoothing: Tensor | None = None
    """(D,): divisor of each channel; None leaves all as they are."""

    @property
    def scale(self) -> float:
        """The width of a step."""
        return max((self.high - self.low) / STEPS, torch.finfo(torch.float32).tiny)

    @property
    def zero(self) -> int:
        """The zero point: the integer that represents 0 exactly."""
        return round(-self.low / self.scale)


class QuantisedLinear(nn.Module):
    """A linear layer with integer products; torch itself emulates it slowly, in float32."""

    weight: Tensor
    weight_scale: Tensor
    weight_zero: Tensor
    factors: Tensor | None

    def __init__(self, linear: nn.Linear, input_range: LayerRange, marked: bool = False) -> None:
        """
        Args:
            linear: the layer.
            input_range: of its input.
            marked: write the weights' rounding as a named operation, which ONNX needs; otherwise as a plain product.
        """
        super().__init__()
        weight, smoothing = linear.weight.detach().float(), input_range.smoothing
        rounded, scale = to_int8(weight if smoothing is None else weight * smoothing, largest_weight())
        self.register_buffer("weight", rounded)  # (F, D)
        self.register_buffer("weight_scale", scale[:, 0])  # (F,)
        self.register_buffer("weight_zero", torch.zeros(len(rounded), dtype=torch.int64))
        self.register_buffer("factors", None if smoothing is None else 1 / smoothing)
        self.bias = linear.bias
        self.scale, self.zero = input_range.scale, input_range.zero
        self.marked = marked

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., F)."""
        ops = torch.ops.quantized_decomposed
        if self.factors is not None:
            x = x * self.factors
        steps = (self.scale, self.zero, 0, STEPS, torch.uint8)
        x = ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *steps), *steps)
        if self.marked:
            rows = (self.weight_scale, self.weight_zero, 0, -128, 127, torch.int8)
            weight = ops.dequantize_per_channel(self.weight, *rows)
        else:
            weight = self.weight.float() * self.weight_scale[:, None]
        return F.linear(x, weight, self.bias)


def quantise(tower: XCLIP, ranges: Mapping[str, LayerRange], marked: bool = False) -> None:
    """Quantise the layers that have a range, in place, for inference."""
    for path, input_range in ranges.items():
        layer = tower.get_submodule(path)
        assert isinstance(layer, nn.Linear)
        tower.set_submodule(path, QuantisedLinear(layer, input_range, marked))
