"""What an export writes, as settings. Imports nothing heavy, so that a command can offer them as options."""

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
    """of the graphs"""
    precision: Precision = "float32"
    """of the weights of both encoders; float16 halves the files"""
    int8: bool = False
    """multiply 8-bit integers in the image tower (onnx, openvino)"""
    calibration: Path | None = None
    """list or folder of videos that int8 takes its ranges from; by default moving shapes are rendered"""
    opset: int | None = None
    """version of ONNX's operations; 18 if not given"""
    dynamic_frames: bool = False
    """any number of frames, for models without time positions"""
    merge_tokens: int = 0
    """patches of a frame that each block merges with the one most like it: faster, less exact"""

    def check(self) -> None:
        """Refuse what does not go together. Not on construction: a command line reports its own errors.

        Raises:
            InputError: something does not.
        """
        if self.int8 and self.format == "torch-export":
            raise InputError(
                "int8 graphs are for onnx and openvino; torch multiplies in int8 by predict --int8"
            )
        if self.int8 and self.precision != "float32":
            raise InputError(f"int8 and {self.precision} exclude each other; choose one")
        if self.calibration is not None and not self.int8:
            raise InputError("a calibration is for int8; give --int8, or leave --calibration out")
        if self.opset is not None and self.format != "onnx":
            raise InputError(f"an opset is of ONNX; leave it out with --format {self.format}")
