"""Preprocessors as other libraries write them down, against what those libraries do to an image."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from videos import moving_frames

from openxclip.checkpoints.formats.preprocessors import (
    read_huggingface_preprocessor,
    read_open_clip_preprocessor,
    read_preprocessor,
    to_huggingface_preprocessor,
)
from openxclip.errors import CheckpointError, ConfigError
from openxclip.video.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessor

XCLIP = {
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "VideoMAEFeatureExtractor",
    "image_mean": list(IMAGENET_MEAN),
    "image_std": list(IMAGENET_STD),
    "resample": 2,
    "size": 224,
}
CLIP = XCLIP | {
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": list(Preprocessor.clip(224).mean),
    "image_std": list(Preprocessor.clip(224).std),
    "resample": 3,
    "crop_size": 224,
}
SIGLIP = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (XCLIP, Preprocessor.hugging_face(224)),
        (CLIP, Preprocessor.clip(224)),
        (SIGLIP, Preprocessor.siglip(224)),
        (SIGLIP | {"do_center_crop": None}, Preprocessor.siglip(224)),
        (SIGLIP | {"do_center_crop": False, "crop_size": None}, Preprocessor.siglip(224)),
        (
            SIGLIP | {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            Preprocessor.siglip(224),
        ),
        (CLIP | {"size": {"shortest_edge": 224}, "do_center_crop": None}, Preprocessor.clip(224)),
    ],
)
def test_published_preprocessors(values: dict[str, Any], expected: Preprocessor) -> None:
    assert read_preprocessor(values, 224) == (expected, ())


def test_newer_preprocessor() -> None:
    values = XCLIP | {
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.5, 0.5, 0.5],
        "resample": 3,
    }
    expected = dataclasses.replace(
        Preprocessor.official(224), mean=(0.5, 0.5, 0.5), filter="bicubic", long_side="truncate"
    )
    assert read_preprocessor(values, 224) == (expected, ())


@pytest.mark.parametrize(
    ("files", "filter"),
    [
        ({"processor_config.json": {"image_processor": CLIP}, "preprocessor_config.json": SIGLIP}, "bicubic"),
        ({"processor_config.json": {"video_processor": XCLIP}}, "bilinear"),
        ({"processor_config.json": {"image_processor": CLIP, "video_processor": XCLIP}}, "bicubic"),
        (
            {
                "processor_config.json": {"processor_class": "XCLIPProcessor"},
                "preprocessor_config.json": XCLIP,
            },
            "bilinear",
        ),
        ({"preprocessor_config.json": CLIP, "video_preprocessor_config.json": XCLIP}, "bicubic"),
        ({"video_preprocessor_config.json": XCLIP}, "bilinear"),
    ],
)
def test_the_files_of_every_version_of_transformers(
    files: dict[str, Any], filter: str, tmp_path: Path
) -> None:
    for name, values in files.items():
        (tmp_path / name).write_text(json.dumps(values))
    preprocess, notes = read_huggingface_preprocessor(tmp_path, 224, Preprocessor.siglip(224))
    assert notes == ()
    assert (preprocess.resize, preprocess.filter) == ("short_side", filter)


@pytest.mark.parametrize(("width", "height"), [(340, 256), (256, 340), (320, 240), (1281, 720), (171, 128)])
def test_the_long_side_becomes_that_of_transformers(width: int, height: int) -> None:
    """transformers and torchvision truncate it, mmcv rounds: 340 x 256 becomes 297 or 298 pixels wide."""
    transforms = pytest.importorskip("transformers.image_transforms")
    image = np.zeros((height, width, 3), dtype=np.uint8)
    theirs = transforms.get_resize_output_image_size(
        image, 224, default_to_square=False, input_data_format="channels_last"
    )
    for preprocess in (Preprocessor.hugging_face(224), Preprocessor.clip(224)):
        assert preprocess.frame_size().of(width, height) == theirs[::-1]


def test_the_long_side_of_340_pixels() -> None:
    assert Preprocessor.hugging_face(224).frame_size().of(340, 256) == (297, 224)
    assert Preprocessor.official(224).frame_size(3).of(340, 256) == (298, 224)


@pytest.mark.parametrize(("values", "filter"), [(XCLIP, "bilinear"), (CLIP, "bicubic"), (SIGLIP, "bicubic")])
def test_a_file_without_a_filter_means_that_of_its_class(values: dict[str, Any], filter: str) -> None:
    values = {key: value for key, value in values.items() if key != "resample"}
    assert read_preprocessor(values, 224)[0].filter == filter


def test_other_filters_are_noted() -> None:
    preprocess, notes = read_preprocessor(XCLIP | {"resample": 1}, 224)
    assert preprocess.filter == "bilinear"
    assert notes == ("the file asks for Pillow's filter 1; frames are resized bilinearly",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (XCLIP | {"do_center_crop": False}, "do_center_crop is off"),
        (XCLIP | {"do_normalize": False}, "do_normalize is off"),
        (XCLIP | {"do_rescale": False}, "do_rescale is off"),
        (XCLIP | {"do_resize": False}, "do_resize is off"),
        (XCLIP | {"rescale_factor": 1.0}, r"rescale_factor is 1\.0"),
        (XCLIP | {"crop_size": 200}, "crop_size is 200 px, but the model's input is 224 px"),
        (XCLIP | {"crop_size": {"height": 224, "width": 200}}, "not square"),
        (XCLIP | {"size": 200, "crop_size": 224}, "less than input_size_px"),
        (XCLIP | {"image_mean": [0.5]}, "mean takes 3 values, got 1"),
        (XCLIP | {"image_mean": ["a", "b", "c"]}, "mean must be float, got 'a'"),
        (XCLIP | {"image_mean": [0.5, 0.5, float("nan")]}, "must be finite"),
        (XCLIP | {"image_std": [0.5, 0.5, float("nan")]}, "must be finite"),
        (XCLIP | {"image_std": [0.5, 0.5, float("inf")]}, "must be finite"),
        (XCLIP | {"size": 224.5}, "resize_short_side_px must be int, got 224.5|crop_size is 224.5"),
        (SIGLIP | {"size": {"height": 224, "width": 256}}, "not square"),
        (
            SIGLIP | {"size": {"height": 256, "width": 256}},
            "crop_size is 256 px, but the model's input is 224",
        ),
        (
            SIGLIP | {"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": 224},
            "with resize 'squash' nothing is cropped",
        ),
    ],
)
def test_preprocessors_that_ours_cannot_be(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_preprocessor(values, 224)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: .*{message}"):
        read_huggingface_preprocessor(tmp_path, 224, Preprocessor.clip(224))


def test_naflex_becomes_a_square_with_the_rest_as_its_file_says() -> None:
    values = {key: value for key, value in SIGLIP.items() if key not in ("size", "resample")}
    values |= {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 256, "image_mean": 0.25}
    preprocess, notes = read_preprocessor(values, 224)
    expected = dataclasses.replace(Preprocessor.siglip(224), mean=(0.25,) * 3, filter="bilinear")
    assert preprocess == expected
    assert notes == ("frames are squashed to 224 x 224 px; NaFlex would keep their shape",)


def test_a_missing_value_is_named(tmp_path: Path) -> None:
    values = {key: value for key, value in XCLIP.items() if key != "image_mean"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="image_mean"):
        read_huggingface_preprocessor(tmp_path, 224, Preprocessor.clip(224))


def test_the_file_of_a_folder(tmp_path: Path) -> None:
    preprocess, notes = read_huggingface_preprocessor(tmp_path, 32, Preprocessor.siglip(32))
    assert preprocess == Preprocessor.siglip(32)
    assert notes == (
        f"{tmp_path} has no preprocessor_config.json: the usual preprocessing of its kind is used",
    )
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": SIGLIP}))
    assert read_huggingface_preprocessor(tmp_path, 224, Preprocessor.clip(224)) == (
        Preprocessor.siglip(224),
        (),
    )


@pytest.mark.parametrize(
    "preprocess", [Preprocessor.official(32), Preprocessor.clip(32), Preprocessor.siglip(32)]
)
def test_writing_is_the_inverse(preprocess: Preprocessor) -> None:
    values = json.loads(json.dumps(to_huggingface_preprocessor(preprocess)))
    assert read_preprocessor(values, 32) == (preprocess, ())


@pytest.mark.parametrize("name", ["CLIPImageProcessor", "SiglipImageProcessor"])
def test_pixels_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    """One frame through both; the sides are chosen so that rounding the resized shape leaves no choice."""
    transformers = pytest.importorskip("transformers")
    frame = moving_frames(1, 96, 64)[0]
    size = {"height": 32, "width": 32} if name.startswith("Siglip") else {"shortest_edge": 32}
    theirs = getattr(transformers, f"{name}Pil", getattr(transformers, name))(size=size, crop_size=32)
    theirs.save_pretrained(tmp_path)
    preprocess, notes = read_huggingface_preprocessor(tmp_path, 32, Preprocessor.hugging_face(32))
    assert (notes, preprocess.filter) == ((), "bicubic")
    expected = torch.as_tensor(np.array(theirs(frame)["pixel_values"][0]))
    one_step = 1.01 / 255 / min(preprocess.std)  # of a uint8
    torch.testing.assert_close(
        preprocess(frame.transpose(2, 0, 1)[None])[0, 0], expected.float(), atol=one_step, rtol=0
    )


# ------------------------------------------------------------------------------------------ open_clip

HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Preprocessor.clip(224)),
        ({"size": 224, "mode": "RGB", "interpolation": None, "fill_color": 0}, Preprocessor.clip(224)),
        ({"interpolation": "random", "resize_mode": "shortest", "size": [224, 224]}, Preprocessor.clip(224)),
        (
            {"interpolation": "bilinear", "resize_mode": "shortest"},
            dataclasses.replace(Preprocessor.clip(224), filter="bilinear"),
        ),
        (HALF | {"interpolation": "bicubic", "resize_mode": "squash"}, Preprocessor.siglip(224)),
        ({"mean": 0.5, "std": 0.5, "resize_mode": "squash"}, Preprocessor.siglip(224)),
    ],
)
def test_open_clips_preprocessors(values: dict[str, Any], expected: Preprocessor) -> None:
    assert read_open_clip_preprocessor(values, 224) == (expected, ())


def test_open_clips_size_is_that_of_the_model() -> None:
    preprocess, notes = read_open_clip_preprocessor({"size": 224}, 336)
    assert preprocess == Preprocessor.clip(336)
    assert notes == ("preprocess_cfg says 224 px; frames get the model's input size, 336 px",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resize_mode": "longest"}, "resize_mode is 'longest', which would pad frames; only 'shortest'"),
        (
            {"interpolation": "lanczos"},
            "interpolation is 'lanczos'; it must be one of bilinear, bicubic, random",
        ),
        ({"mode": "L"}, "mode is 'L'; only 'RGB'"),
        ({"size": [224, 336]}, "not square"),
    ],
)
def test_open_clips_preprocessors_that_ours_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_open_clip_preprocessor(values, 224)
