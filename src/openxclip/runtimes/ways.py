"""The ways to compute an image tower on this machine: runtimes x precisions."""

import copy
import importlib.util
from dataclasses import dataclass, replace
from typing import Literal

import torch

from openxclip.models import XCLIP
from openxclip.runtimes.on_cpu import PACKAGES
from openxclip.runtimes.options import RuntimeName, RuntimeOptions

TITLES: dict[RuntimeName, str] = {"torch": "torch", "openvino": "OpenVINO", "onnx": "ONNX Runtime"}


@dataclass(frozen=True, kw_only=True)
class Way:
    """A runtime with its precision."""

    runtime: RuntimeName
    dtype: Literal["float32", "bfloat16"]
    """Type of everything that is not in integers."""
    compile: bool = False
    int8: bool = False

    @property
    def name(self) -> str:
        """Name for tables."""
        words = [TITLES[self.runtime]]
        if self.int8:
            words.append("int8")
        if not self.int8 or self.dtype != "float32":
            words.append(self.dtype)
        if self.compile:
            words.append("compiled")
        return ", ".join(words)

    def model(self, model: XCLIP) -> XCLIP:
        """The model in this precision: itself, or a copy."""
        dtype = getattr(torch, self.dtype)
        return model if model.logit_scale.dtype == dtype else copy.deepcopy(model).to(dtype)

    def options(self, options: RuntimeOptions) -> RuntimeOptions:
        """Options that select this way, with the other settings unchanged."""
        calibrated = self.int8 and self.runtime != "torch"
        return replace(
            options,
            runtime=self.runtime,
            compile=self.compile,
            int8=self.int8,
            calibration=options.calibration if calibrated else None,
        )


def ways(model: XCLIP) -> tuple[Way, ...]:
    """The installed ways; bfloat16 only for a model loaded in it. Plain torch in float32 is first.

    Compiling takes a minute, so only the model's own precision is compiled.
    """
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32",)
    if model.logit_scale.dtype == torch.bfloat16:
        dtypes = ("float32", "bfloat16")
    found = [Way(runtime="torch", dtype=dtype) for dtype in dtypes]
    found += [Way(runtime="torch", dtype=dtypes[-1], compile=True, int8=on) for on in (False, True)]
    if _is_installed("openvino"):
        found += [Way(runtime="openvino", dtype=dtype, int8=on) for on in (False, True) for dtype in dtypes]
    if _is_installed("onnx"):
        found += [Way(runtime="onnx", dtype="float32", int8=on) for on in (False, True)]
    return tuple(found)


def _is_installed(runtime: RuntimeName) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in PACKAGES[runtime])
