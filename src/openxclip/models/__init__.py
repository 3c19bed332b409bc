"""The model, one file per concept of the paper."""

from openxclip.models.config import PRESETS, XCLIPConfig, preset
from openxclip.models.xclip import XCLIP, VideoFeatures

__all__ = ["PRESETS", "XCLIP", "VideoFeatures", "XCLIPConfig", "preset"]
