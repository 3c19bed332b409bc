"""Settings of an export. Imports nothing heavy, so that a command can offer them as options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openxclip.errors import InputError

Format = Literal["onnx", "openvino", "torch-export"]
Precision = Literal["float32", "float16"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Settings of an export."""

    format: Format = "onnx"
    """file format of the graphs"""
    precision: Precision = "float32"
    """precision of both encoders' weights; float16 halves the file size"""
    int8: bool = False
    """use 8-bit integer products in the image tower (onnx, openvino)"""
    calibration: Path | None = None
    """list or folder of videos for calibrating int8; by default, moving shapes are rendered"""
    opset: int | None = None
    """ONNX opset version; 18 if not given"""
    dynamic_frames: bool = False
    """allow any number of frames, for models without time positions"""
    merge_tokens: int = 0
    """patches of a frame that each block merges with the one most like it: faster, less exact"""

    def check(self) -> None:
        """Refuse conflicting settings. Not done on construction: a command line reports its own errors.

        Raises:
            InputError: settings conflict.
        """
        if self.int8 and self.format == "torch-export":
            raise InputError("int8 graphs are for onnx and openvino; for torch, use predict --int8")
        if self.int8 and self.precision != "float32":
            raise InputError(f"int8 and {self.precision} exclude each other; choose one")
        if self.calibration is not None and not self.int8:
            raise InputError("--calibration is for int8; add --int8, or leave it out")
        if self.opset is not None and self.format != "onnx":
            raise InputError(f"--opset is for ONNX; leave it out with --format {self.format}")
