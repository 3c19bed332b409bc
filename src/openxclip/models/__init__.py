"""The model, one paper concept a file."""

from openxclip.models.config import PRESETS, XCLIPConfig, preset
from openxclip.models.xclip import XCLIP, VideoFeatures

__all__ = ["PRESETS", "XCLIP", "VideoFeatures", "XCLIPConfig", "preset"]
