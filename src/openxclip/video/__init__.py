"""Reads clips from videos: decoding by frame index, frame sampling, preprocessing."""

from openxclip.video.convert import FrameSize
from openxclip.video.decode import Frames, VideoReader, read_frames
from openxclip.video.source import VideoLimits, VideoSource
from openxclip.video.transforms import Preprocessor, TrainTransform

__all__ = [
    "FrameSize",
    "Frames",
    "Preprocessor",
    "TrainTransform",
    "VideoLimits",
    "VideoReader",
    "VideoSource",
    "read_frames",
]
