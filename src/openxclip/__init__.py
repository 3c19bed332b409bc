"""OpenXCLIP: recognise anything you can name, in any video.

    import openxclip

    recognizer = openxclip.Recognizer.from_pretrained("microsoft/xclip-base-patch32", ["surfing", "playing piano"])
    recognizer.predict("clip.mp4").scores       # [(label, probability), ...], best first

    model, tokenizer, preprocess = openxclip.load("microsoft/xclip-base-patch32")

Names are imported when they are first used, so that `import openxclip` and `openxclip --help` stay instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openxclip.checkpoints.load import load
    from openxclip.checkpoints.save import save_as
    from openxclip.checkpoints.source import ModelSource
    from openxclip.errors import OpenXCLIPError, VideoError
    from openxclip.inference.engine import Engine
    from openxclip.inference.options import InferenceOptions
    from openxclip.inference.recognizer import Prediction, Recognizer
    from openxclip.models import XCLIP, XCLIPConfig
    from openxclip.search.index import Index
    from openxclip.serving.client import Client
    from openxclip.tagging.tag import tag
    from openxclip.text.label_texts import LabelTexts
    from openxclip.timelines.watcher import Watcher, timeline

    __version__: str

_HOME = {
    "Client": "openxclip.serving.client",
    "Engine": "openxclip.inference.engine",
    "Index": "openxclip.search.index",
    "InferenceOptions": "openxclip.inference.options",
    "LabelTexts": "openxclip.text.label_texts",
    "ModelSource": "openxclip.checkpoints.source",
    "OpenXCLIPError": "openxclip.errors",
    "Prediction": "openxclip.inference.recognizer",
    "Recognizer": "openxclip.inference.recognizer",
    "VideoError": "openxclip.errors",
    "Watcher": "openxclip.timelines.watcher",
    "XCLIP": "openxclip.models",
    "XCLIPConfig": "openxclip.models",
    "load": "openxclip.checkpoints.load",
    "save_as": "openxclip.checkpoints.save",
    "tag": "openxclip.tagging.tag",
    "timeline": "openxclip.timelines.watcher",
}

__all__ = [
    "XCLIP",
    "Client",
    "Engine",
    "Index",
    "InferenceOptions",
    "LabelTexts",
    "ModelSource",
    "OpenXCLIPError",
    "Prediction",
    "Recognizer",
    "VideoError",
    "Watcher",
    "XCLIPConfig",
    "load",
    "save_as",
    "tag",
    "timeline",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'openxclip' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def _version() -> str:
    """The installed version; the build takes it from the git tag."""
    from importlib.metadata import PackageNotFoundError, version  # as slow as the rest of this file

    try:
        return version("openxclip")
    except PackageNotFoundError:  # run from source, not installed
        return "0.0.0+unknown"


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
