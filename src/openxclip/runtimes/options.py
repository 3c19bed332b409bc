"""Settings of the image tower's runtime. Imports nothing heavy, so that a command can offer them as options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RuntimeName = Literal["torch", "openvino", "onnx"]


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """Settings of a runtime."""

    runtime: Literal["torch", "openvino", "onnx", "auto"] = "torch"
    """runtime of the image tower: torch; on CPUs also OpenVINO and ONNX Runtime (extras of the same names); auto uses
    the fastest on this machine (`openxclip benchmark`)"""
    compile: bool = False
    """torch: compile the image tower first; takes about a minute (less the next time) and pays off for many videos"""
    int8: bool = False
    """use 8-bit integer products: CPU only; pays off on processors without AMX, in torch together with compilation"""
    calibration: Path | None = None
    """list or folder of videos for calibrating int8 of openvino and onnx, instead of rendered ones"""
    merge_tokens: int = 0
    """patches of a frame that each block merges with the one most like it: faster, less exact"""
    num_threads: int | None = None
    """maximum number of threads for the image tower; by default one per core"""

    @property
    def may_compile(self) -> bool:
        """Whether torch may compile something."""
        return self.compile or self.runtime == "auto"
