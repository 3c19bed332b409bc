"""What `import openxclip` promises: a change here is a change for everybody who uses it."""

import importlib.metadata
import inspect

import pytest
from packaging.version import Version

import openxclip

PUBLIC = {
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


def test_the_public_names_are_these():
    assert sorted(openxclip.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_what_it_says_and_has_a_docstring(name):
    found = getattr(openxclip, name)
    assert found is getattr(importlib.import_module(PUBLIC[name]), name)
    assert found.__name__ == name
    assert inspect.getdoc(found)


def test_a_star_import_gives_them_all():
    names: dict[str, object] = {}
    exec("from openxclip import *", names)
    assert set(names) - {"__builtins__"} == set(PUBLIC)


def test_dir_shows_them_and_the_version():
    assert set(dir(openxclip)) == set(PUBLIC) | {"__version__"}


def test_the_version_is_that_of_the_installation():
    assert openxclip.__version__ == importlib.metadata.version("openxclip")
    assert Version(openxclip.__version__) > Version("0")


def test_sources_that_are_not_installed_have_no_version(monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert openxclip.__version__ == "0.0.0+unknown"


@pytest.mark.parametrize("name", ["laod", "recognizer", "_HOMES", "torch"])
def test_another_name_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"module 'openxclip' has no attribute '{name}'"):
        getattr(openxclip, name)


def test_arguments_that_users_name():
    def arguments(function: object) -> list[str]:
        return [name for name in inspect.signature(function).parameters if name != "self"]

    loading = [
        "source", "device", "dtype", "num_frames", "tokenizer", "revision", "interpolate", "image_model",
    ]  # fmt: skip
    assert arguments(openxclip.load) == arguments(openxclip.ModelSource) == loading
    assert arguments(openxclip.save_as) == ["folder", "model", "tokenizer", "preprocess", "format"]
    assert arguments(openxclip.Recognizer.from_pretrained) == [
        "source", "labels", "templates", "descriptions", "options", "limits",
    ]  # fmt: skip
    assert arguments(openxclip.Recognizer) == ["engine", "labels", "limits"]
    assert arguments(openxclip.InferenceOptions) == ["runtime", "batch_size", "shortlist", "text_cache"]
    assert arguments(openxclip.Recognizer.explain) == ["video", "labels", "top_k"]
    assert arguments(openxclip.tag) == [
        "inputs", "labels", "output", "model", "rows", "run", "inference", "limits",
    ]  # fmt: skip
    assert arguments(openxclip.Client) == ["url", "api_key", "timeout_seconds"]
    assert arguments(openxclip.Recognizer.predict) == ["videos", "top_k", "views"]
    assert arguments(openxclip.Recognizer.predict_each) == ["videos", "top_k", "views", "ordered"]
    assert arguments(openxclip.Prediction) == ["path", "scores", "error"]
