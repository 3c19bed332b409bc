"""How the image tower runs, as settings. Imports nothing heavy, so that a command can offer them as options."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """Settings of a runtime."""

    runtime: Literal["torch", "openvino", "onnx"] = "torch"
    """what computes the image tower: torch; on CPUs also OpenVINO and ONNX Runtime (extras of their names)"""
    compile: bool = False
    """compile the image tower first; takes about a minute (less the next time) and pays off for many videos"""
    int8: bool = False
    """multiply in 8-bit integers: CPU only; pays off on processors without AMX, together with compilation"""
