"""The same numbers as the official code and as XCLIPModel in transformers, from weights on disk to logits."""

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import DATA, needs_data
from safetensors.torch import load_file
from tiny import TINY, tiny_model, tiny_pixels, tiny_tokenizer, tiny_tokens
from torch import Tensor
from transformers import AutoTokenizer, XCLIPModel
from transformers import XCLIPConfig as HFConfig

from openxclip.checkpoints.formats.huggingface import read_config, to_huggingface_config
from openxclip.checkpoints.load import load, read_model
from openxclip.checkpoints.names import HUGGINGFACE
from openxclip.checkpoints.save import save_as
from openxclip.checkpoints.source import ModelSource
from openxclip.checkpoints.tables import build
from openxclip.models import XCLIP, XCLIPConfig, preset
from openxclip.models.config import IntegrationConfig, PromptingConfig, TextConfig, VisionConfig
from openxclip.video.transforms import Preprocessor

OFFICIAL = DATA / "goldens" / "official_T8.pth"

SHAPES = {
    "tiny": TINY,
    "one frame": dataclasses.replace(TINY, num_frames=1),
    "seven frames, three layers": XCLIPConfig(
        embed_dim=64,
        num_frames=7,
        vision=VisionConfig(image_size_px=48, patch_size_px=16, width=128, num_layers=3, num_heads=4),
        text=TextConfig(vocab_size=300, context_length=9, width=96, num_layers=3, num_heads=2),
        integration=IntegrationConfig(num_layers=2, num_heads=4),
        prompting=PromptingConfig(num_layers=1, num_heads=2),
    ),
    "one layer, text wider than vision": XCLIPConfig(
        embed_dim=96,
        num_frames=3,
        vision=VisionConfig(image_size_px=32, patch_size_px=8, width=64, num_layers=1, num_heads=2),
        text=TextConfig(vocab_size=100, context_length=12, width=160, num_layers=1, num_heads=5),
        integration=IntegrationConfig(num_layers=1, num_heads=3),
        prompting=PromptingConfig(num_layers=3, num_heads=1),
    ),
}


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


@needs_data("goldens/official_T8.pth")
def test_official_checkpoint_gives_the_official_numbers():
    (model, _, preprocess), report = read_model(
        ModelSource(source=str(OFFICIAL), device="cpu", dtype="float32")
    )
    golden = load_file(DATA / "goldens" / "official_T8_golden.safetensors")
    with torch.no_grad():
        frames, patches = model.visual(golden["pixels"])
        video, context = model.encode_video(golden["pixels"])
        text = model.encode_text(golden["token_ids"])
        outputs = {
            "frame_class_features": frames.flatten(0, 1),
            "patch_tokens": patches.flatten(0, 1),
            "projected_patches": model.prompting.patch_proj(model.prompting.patch_norm(patches)),
            "video_features": video,
            "text_features": text,
            "prompt_residual": model.prompting(text, context) - text,
            "logits": model(golden["pixels"], golden["token_ids"]),
        }
    assert set(outputs) | {"pixels", "token_ids"} == set(golden)
    differences = {name: largest_difference(output, golden[name]) for name, output in outputs.items()}
    print(differences)
    assert max(differences.values()) <= 1e-4
    assert report.format == "official"
    assert preprocess == Preprocessor.official(64)


def huggingface_model(config: XCLIPConfig, seed: int = 0) -> XCLIPModel:
    """Random weights; noise on all of them, so that no norm, bias or alpha stands at a value that hides mistakes."""
    torch.manual_seed(seed)
    model = XCLIPModel(HFConfig(**to_huggingface_config(config))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        model.prompts_generator.alpha.normal_(0.1, 0.1)
        model.logit_scale.fill_(math.log(100))  # where CLIP's trained models stand; it magnifies differences
    return model


def differences(ours: XCLIP, theirs: XCLIPModel) -> dict[str, float]:
    """Largest absolute differences for 2 videos and 5 texts."""
    pixels, tokens = tiny_pixels(ours.config, 2), tiny_tokens(ours.config, 5)
    with torch.no_grad():
        expected = theirs(input_ids=tokens, pixel_values=pixels)
        expected_text = theirs.get_text_features(tokens).pooler_output
        video, text = ours.encode_video(pixels), ours.encode_text(tokens)
        return {
            "video": largest_difference(video.video, expected.mit_output.pooler_output),
            "text": largest_difference(text, expected_text),
            "logits": largest_difference(ours.logits(video, text), expected.logits_per_video),
        }


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_reads_what_transformers_writes(config: XCLIPConfig, tmp_path: Path):
    theirs = huggingface_model(config)
    theirs.save_pretrained(tmp_path)
    (ours, _, preprocess), report = read_model(
        ModelSource(source=str(tmp_path), device="cpu", dtype="float32")
    )
    assert ours.config == config
    assert report.format == "huggingface"
    assert preprocess == Preprocessor.hugging_face(config.vision.image_size_px)
    measured = differences(ours, theirs)
    print(measured)
    assert max(measured.values()) <= 1e-4


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_transformers_reads_what_we_write(config: XCLIPConfig, tmp_path: Path):
    ours = tiny_model(config)
    tokenizer = tiny_tokenizer()
    save_as(tmp_path / "model", ours, tokenizer, Preprocessor.hugging_face(32), format="huggingface")
    theirs, info = XCLIPModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    measured = differences(ours, theirs.eval())
    print(measured)
    assert max(measured.values()) <= 1e-4


def test_transformers_reads_our_tokenizer(tmp_path: Path):
    tokenizer = tiny_tokenizer()
    save_as(tmp_path / "model", tiny_model(), tokenizer, Preprocessor.hugging_face(32), format="huggingface")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")
    texts = ["playing piano", "Surfing, it's fun!", "ba"]
    ids = theirs(texts, padding="max_length", truncation=True)["input_ids"]
    for row, expected in zip(ids, tokenizer(texts), strict=True):
        end = row.index(tokenizer.end_id)
        assert row[: end + 1] == expected[: end + 1].tolist()
    assert theirs.model_max_length == TINY.text.context_length


@pytest.mark.parametrize("name", ["B/32-8", pytest.param("B/16-8", marks=pytest.mark.slow)])
def test_full_size(name: str):
    theirs = huggingface_model(preset(name))
    config = read_config(theirs.config.to_dict())
    assert config == preset(name)
    ours = build(theirs.state_dict(), config, HUGGINGFACE, name)
    measured = differences(ours, theirs)
    print(name, measured)
    assert max(measured.values()) <= 1e-3


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"text_config": {}, "vision_config": {"patch_size": 16}},
        {
            "projection_dim": 768,
            "prompt_layers": 3,
            "vision_config": {"mit_hidden_size": 768, "mit_intermediate_size": 3072},
        },
        {"vision_config_dict": {"patch_size": 16}, "vision_config": {"patch_size": 32, "num_frames": 16}},
        {"text_config_dict": None, "text_config": {"hidden_size": 768, "intermediate_size": 3072}},
    ],
)
def test_configs_mean_what_transformers_takes_them_for(values: dict[str, Any]):
    theirs = HFConfig(**copy.deepcopy(values)).to_dict()
    assert read_config({"model_type": "xclip"} | values) == read_config(theirs)


def test_there_and_back_through_huggingface_is_the_identity(tmp_path: Path):
    model, tokenizer, preprocess = tiny_model(), tiny_tokenizer(), Preprocessor.official(32)
    save_as(tmp_path / "a", model, tokenizer, preprocess, format="huggingface")
    again = load(tmp_path / "a", device="cpu", dtype="float32")
    save_as(tmp_path / "b", *again, format="huggingface")
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert again.preprocess == preprocess
    state = again.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
