"""Language-image models of every family: the same numbers as transformers and open_clip, and what video adds."""

import copy
import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import DATA, needs_data
from safetensors.torch import load_file, save_file
from tiny import TINY, tiny_model, tiny_tokenizer
from torch import Tensor
from torch.testing import assert_close
from transformers import (
    CLIPConfig,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedModel,
    Siglip2Config,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
)

from openxclip.checkpoints.load import Loaded, LoadReport, read_model
from openxclip.checkpoints.names import OPENAI_CLIP, open_clip_timm
from openxclip.checkpoints.save import save_as
from openxclip.checkpoints.source import ModelSource
from openxclip.checkpoints.tables import to_theirs
from openxclip.cli.main import run
from openxclip.errors import CheckpointError, InputError, TokenizerError
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.models.config import IntegrationConfig, PromptingConfig, TextConfig, VisionConfig, image_model
from openxclip.models.expand import clip_only, expand
from openxclip.models.initialisation import enlarge_new_parts
from openxclip.models.rotary import patch_angles, rotate
from openxclip.models.vision import FrameBlock
from openxclip.text.tokenizer import MissingTokenizer
from openxclip.video.transforms import Preprocessor

PERCEPTION_ENCODER = Path(__file__).parent / "goldens" / "perception_encoder"

TEXT = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 200,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    "bos_token_id": 598,
    "eos_token_id": 599,
}
VISION = {
    "hidden_size": 96,
    "intermediate_size": 300,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 36,  # half a patch too many, as SigLIP so400m has it
    "patch_size": 8,
}
NAFLEX = {key: value for key, value in VISION.items() if key != "image_size"} | {"num_patches": 16}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def read_float32(folder: Path) -> tuple[Loaded, LoadReport]:
    """The model of a folder, in full precision on the CPU."""
    return read_model(ModelSource(source=str(folder), device="cpu", dtype="float32"))


def clip(activation: str, text: dict[str, Any] = TEXT, vision: dict[str, Any] = VISION) -> CLIPModel:
    act = {"hidden_act": activation}
    return CLIPModel(CLIPConfig(text_config=text | act, vision_config=vision | act, projection_dim=48))


def metaclip_2(text: dict[str, Any] = TEXT, vision: dict[str, Any] = VISION) -> MetaClip2Model:
    """Texts end at id 2, as XLM-V's, the tokenizer of the worldwide models."""
    act = {"hidden_act": "quick_gelu"}
    text = text | act | {"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}
    return MetaClip2Model(MetaClip2Config(text_config=text, vision_config=vision | act, projection_dim=48))


def siglip(text: dict[str, Any] = TEXT, vision: dict[str, Any] = VISION) -> SiglipModel:
    wide = {"hidden_size": vision["hidden_size"]}
    return SiglipModel(SiglipConfig(text_config=text | wide, vision_config=vision))


def naflex() -> Siglip2Model:
    return Siglip2Model(Siglip2Config(text_config=TEXT | {"hidden_size": 96}, vision_config=NAFLEX))


ORACLES: dict[str, Callable[[], PreTrainedModel]] = {
    "CLIP, GELU (LAION, DFN, DataComp)": lambda: clip("gelu"),
    "CLIP, QuickGELU (OpenAI, MetaCLIP)": lambda: clip("quick_gelu"),
    "MetaCLIP 2": metaclip_2,
    "SigLIP": siglip,
    "SigLIP 2, NaFlex": naflex,
}

BASE_TEXT = TEXT | {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
}
BASE_TEXT |= {"num_attention_heads": 8, "max_position_embeddings": 77, "eos_token_id": 49407}
BASE_VISION = {"image_size": 224, "patch_size": 32}
SIGLIP_TEXT = TEXT | {"vocab_size": 32000, "intermediate_size": 3072, "num_hidden_layers": 12}
SIGLIP_TEXT |= {"num_attention_heads": 12, "max_position_embeddings": 64}
SIGLIP_VISION = {"hidden_size": 768, "image_size": 224, "patch_size": 16}

BASE_ORACLES: dict[str, Callable[[], PreTrainedModel]] = {
    "CLIP B/32, GELU": lambda: clip("gelu", BASE_TEXT, BASE_VISION),
    "CLIP B/32, QuickGELU": lambda: clip("quick_gelu", BASE_TEXT, BASE_VISION),
    "MetaCLIP 2 B/32": lambda: metaclip_2(BASE_TEXT, BASE_VISION),
    "SigLIP B/16": lambda: siglip(SIGLIP_TEXT, SIGLIP_VISION),
}


def randomised(oracle: PreTrainedModel, amount: float = 0.05) -> PreTrainedModel:
    """In eval mode, with noise on every parameter: a swapped norm or bias shows only where it is not 1 or 0.

    The logit scale is 100, as in trained models: no other magnifies differences more.
    """
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.add_(amount * torch.randn_like(parameter))
        oracle.logit_scale.fill_(math.log(100))
    return oracle.eval()


def texts(config: XCLIPConfig, num_texts: int = 5) -> Tensor:
    """Random texts (K, C) that fill the context, but for two ids behind the end where there is one."""
    vocab_size, context_length = config.text.vocab_size, config.text.context_length
    tokens = torch.randint(1, vocab_size - 2, (num_texts, context_length))
    if config.text.causal:
        end = vocab_size - 1 if config.text.end_id is None else config.text.end_id
        tokens[:, -3], tokens[:, -2:] = end, 0
    return tokens


def their_features(oracle: PreTrainedModel, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Image and text features of length 1, and logits, of images (B, 3, S, S) and texts (K, C)."""
    inputs = {"input_ids": tokens, "pixel_values": images}
    if isinstance(oracle, Siglip2Model):
        side = oracle.config.vision_config.patch_size
        grid = images.shape[-1] // side
        patches = images.unflatten(2, (grid, side)).unflatten(
            4, (grid, side)
        )  # (B, 3, grid, side, grid, side)
        inputs["pixel_values"] = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        inputs["pixel_attention_mask"] = torch.ones(len(images), grid * grid, dtype=torch.long)
        inputs["spatial_shapes"] = torch.full((len(images), 2), grid)
    with torch.no_grad():
        outputs = oracle(**inputs)
    return outputs.image_embeds, outputs.text_embeds, outputs.logits_per_image


def our_features(model: XCLIP, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same, of a video of one frame each."""
    model = model.with_num_frames(1)
    with torch.no_grad():
        image, text = model.encode_video(images[:, None]).video, model.encode_text(tokens)
        logits = model(images[:, None], tokens)
    return torch.nn.functional.normalize(image), torch.nn.functional.normalize(text), logits


def largest_differences(oracle: PreTrainedModel, folder: Path) -> list[float]:
    oracle.save_pretrained(folder)
    (model, tokenizer, _), report = read_float32(folder)
    assert isinstance(tokenizer, MissingTokenizer)
    assert (report.format, report.is_image_model) == ("huggingface", True)
    size = model.config.vision.image_size_px
    images, tokens = torch.randn(3, 3, size, size), texts(model.config)
    pairs = zip(our_features(model, images, tokens), their_features(oracle, images, tokens), strict=True)
    return [float((ours - theirs).abs().max()) for ours, theirs in pairs]


@pytest.mark.parametrize("family", ORACLES)
def test_the_same_numbers_as_transformers(family: str, tmp_path: Path) -> None:
    differences = largest_differences(randomised(ORACLES[family]()), tmp_path / "model")
    print(family, differences)
    assert max(differences) <= 1e-4


def test_a_tokenizer_whose_texts_end_elsewhere_is_refused(tmp_path: Path) -> None:
    """MetaCLIP 2 finds the end of a text by its id; CLIP's own tokenizer has another."""
    oracle = metaclip_2(TEXT | {"vocab_size": tiny_tokenizer().vocab_size})
    oracle.save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match="those of the model at 2: it belongs to other weights"):
        read_float32(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", BASE_ORACLES)
def test_the_same_numbers_at_base_size(family: str, tmp_path: Path) -> None:
    differences = largest_differences(randomised(BASE_ORACLES[family](), 0.01), tmp_path / "model")
    print(family, differences)
    assert max(differences) <= 1e-3


def test_perception_encoder_gives_the_numbers_of_open_clip() -> None:
    (model, _, preprocess), report = read_float32(PERCEPTION_ENCODER)
    golden = load_file(PERCEPTION_ENCODER / "golden.safetensors")
    with torch.no_grad():
        image = model.visual(golden["pixels"][:, None]).frames[:, 0]
        text = model.encode_text(golden["token_ids"])
        logits = model.with_num_frames(1)(golden["pixels"][:, None], golden["token_ids"])
    for name, ours in (("image_features", image), ("text_features", text), ("logits", logits)):
        assert_close(ours, golden[name], rtol=0, atol=1e-4)
    assert (report.format, report.is_image_model, report.notes) == ("open-clip", True, ())
    assert preprocess == Preprocessor(
        input_size_px=32, resize_short_side_px=32, mean=(0.5,) * 3, std=(0.5,) * 3, resize="squash"
    )
    vision = model.config.vision
    assert (vision.rotary, vision.class_token, vision.pooling, vision.pooling_heads) == (
        True,
        True,
        "attention",
        8,
    )


def test_perception_encoder_needs_its_rotations() -> None:
    (model, _, _), _ = read_float32(PERCEPTION_ENCODER)
    golden = load_file(PERCEPTION_ENCODER / "golden.safetensors")
    still = XCLIP(
        dataclasses.replace(model.config, vision=dataclasses.replace(model.config.vision, rotary=False))
    )
    still.load_state_dict(model.state_dict())
    difference = still.visual(golden["pixels"][:, None]).frames[:, 0] - golden["image_features"]
    assert difference.abs().max() > 1e-2


# open_clip's layouts, against the same weights in another one


def open_clip_folder(folder: Path, model_cfg: dict[str, Any], weights: dict[str, Tensor]) -> Path:
    folder.mkdir()
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash", "size": 32}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess})
    )
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


CLIP_TEXT_CFG = {"context_length": 16, "vocab_size": 600, "width": 64, "heads": 1, "layers": 2}
CLIP_CFG = {
    "embed_dim": 128,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 192, "patch_size": 16},
    "text_cfg": CLIP_TEXT_CFG,
}


@pytest.mark.parametrize("quick", [True, False])
def test_open_clip_in_openais_layout(quick: bool, tmp_path: Path) -> None:
    activation = "quick_gelu" if quick else "gelu"
    config = dataclasses.replace(
        clip_only(TINY),
        num_frames=8,
        vision=dataclasses.replace(clip_only(TINY).vision, activation=activation, mlp_width=768),
        text=dataclasses.replace(TINY.text, activation=activation, mlp_width=256),
    )
    model = tiny_model(config)
    weights = to_theirs(model.state_dict(), OPENAI_CLIP)
    folder = open_clip_folder(tmp_path / "model", CLIP_CFG | {"quick_gelu": quick}, weights)
    loaded, report = read_float32(folder)
    assert report.format == "open-clip"
    assert loaded.model.config == config
    images, tokens = torch.randn(2, 3, 32, 32), texts(config)
    for ours, theirs in zip(
        our_features(loaded.model, images, tokens), our_features(model, images, tokens), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_metaclip_2_of_open_clip(tmp_path: Path) -> None:
    """The same model in both layouts, with texts that hold ids above that of their end, and padding behind it."""
    oracle = randomised(metaclip_2())
    oracle.save_pretrained(tmp_path / "transformers")
    ours = read_float32(tmp_path / "transformers")[0].model
    text, vision = ours.config.text, ours.config.vision
    layout = {
        "embed_dim": ours.config.embed_dim,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": vision.image_size_px,
            "patch_size": vision.patch_size_px,
            "width": vision.width,
            "layers": vision.num_layers,
            "head_width": vision.width // vision.num_heads,
            "mlp_ratio": (vision.mlp_width or 4 * vision.width) / vision.width,
        },
        "text_cfg": {
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "width": text.width,
            "heads": text.num_heads,
            "layers": text.num_layers,
            "mlp_ratio": (text.mlp_width or 4 * text.width) / text.width,
            "pool_type": "eos",
            "eos_id": 2,
        },
    }
    weights = to_theirs(ours.state_dict(), OPENAI_CLIP)
    again = read_float32(open_clip_folder(tmp_path / "open_clip", layout, weights))[0].model
    assert again.config.text.end_id == 2
    side = vision.image_size_px
    images, tokens = torch.randn(2, 3, side, side), texts(ours.config)
    for a, b in zip(our_features(again, images, tokens), our_features(ours, images, tokens), strict=True):
        assert torch.equal(a, b)


def test_clipa_of_open_clip(tmp_path: Path) -> None:
    """Against its arithmetic written out: no norm before the blocks, mean of the patches, then the norm."""
    vision, text = clip_only(TINY).vision, TINY.text
    config = image_model(
        embed_dim=128,
        vision=dataclasses.replace(
            vision, activation="gelu_tanh", mlp_width=768, pre_norm=False, pooling="mean"
        ),
        text=dataclasses.replace(text, activation="gelu_tanh", mlp_width=256, causal=False),
    )
    model = tiny_model(config)
    tanh = {"act_kwargs": {"approximate": "tanh"}}
    patches = {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
    layout = {
        "embed_dim": 128,
        "vision_cfg": CLIP_CFG["vision_cfg"] | tanh | patches,
        "text_cfg": CLIP_TEXT_CFG | tanh | {"pool_type": "last", "no_causal_mask": True},
    }
    weights = to_theirs(model.state_dict(), OPENAI_CLIP)
    assert "visual.class_embedding" in weights
    assert "visual.ln_pre.weight" not in weights
    loaded, _ = read_float32(open_clip_folder(tmp_path / "model", layout, weights))
    assert dataclasses.replace(loaded.model.config, num_frames=config.num_frames) == config
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        visual = loaded.model.visual
        x = visual.embed(images[:, None])
        for block in visual.blocks:
            x = block(x)
        pooled = x[:, 0, 1:].mean(dim=1)
        pooled = (pooled - pooled.mean(-1, keepdim=True)) / (
            pooled.var(-1, False, keepdim=True) + 1e-5
        ).sqrt()
        expected = (pooled * weights["visual.ln_post.weight"] + weights["visual.ln_post.bias"]) @ weights[
            "visual.proj"
        ]
        found = loaded.model.with_num_frames(1).encode_video(images[:, None]).video
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    layout["vision_cfg"]["final_ln_after_pool"] = False
    with pytest.raises(CheckpointError, match="'avg' with final_ln_after_pool"):
        read_float32(open_clip_folder(tmp_path / "other", layout, weights))


def test_layer_scale_of_open_clip(tmp_path: Path) -> None:
    """The factors go into the weights: the same numbers as a model that multiplies each branch by them."""
    model = tiny_model(clip_only(TINY))
    weights = to_theirs(model.state_dict(), OPENAI_CLIP)
    scaled = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    for tower, theirs, attention in (
        ("visual", "visual.transformer", "intra_attn"),
        ("text", "transformer", "attn"),
    ):
        for i, block in enumerate(getattr(scaled, tower).blocks):
            for number, branch in ((1, getattr(block, attention)), (2, block.mlp)):
                factor = 3 * torch.rand(len(block.mlp_norm.weight), generator=generator)
                weights[f"{theirs}.resblocks.{i}.ls_{number}.gamma"] = factor
                branch.register_forward_hook(lambda _module, _inputs, out, factor=factor: factor * out)
    change = {
        "vision_cfg": CLIP_CFG["vision_cfg"] | {"ls_init_value": 1e-5},
        "text_cfg": CLIP_TEXT_CFG | {"ls_init_value": 1e-5},
    }
    loaded, _ = read_float32(open_clip_folder(tmp_path / "model", CLIP_CFG | change, weights))
    images, tokens = torch.randn(2, 3, 32, 32), texts(model.config)
    ours = our_features(loaded.model, images, tokens)
    for found, expected, without in zip(
        ours, our_features(scaled, images, tokens), our_features(model, images, tokens), strict=True
    ):
        torch.testing.assert_close(found, expected)
        assert (found - without).abs().max() > 0.01
    one = weights.pop("transformer.resblocks.1.ls_2.gamma")
    with pytest.raises(
        CheckpointError, match=r"text_cfg has layer scale in 2 layers, the weights 3 of its 4"
    ):
        read_float32(open_clip_folder(tmp_path / "lacking", CLIP_CFG | change, weights))
    weights["transformer.resblocks.7.ls_2.gamma"] = one
    with pytest.raises(CheckpointError, match=r"resblocks\.7\.ls_2\.gamma does not belong"):
        read_float32(open_clip_folder(tmp_path / "other", CLIP_CFG | change, weights))


SIGLIP_LIKE = image_model(
    embed_dim=64,
    vision=VisionConfig(
        image_size_px=32,
        patch_size_px=8,
        width=64,
        num_layers=2,
        num_heads=1,
        mlp_width=256,
        message_tokens=False,
        activation="gelu_tanh",
        norm_eps=1e-6,
        class_token=False,
        pooling="attention",
        pooling_heads=1,
        patch_bias=True,
        pre_norm=False,
        projection=False,
    ),
    text=TextConfig(
        vocab_size=300,
        context_length=8,
        width=32,
        num_layers=1,
        num_heads=2,
        mlp_width=128,
        activation="gelu_tanh",
        norm_eps=1e-6,
        causal=False,
        projection_bias=True,
    ),
    logit_bias=True,
)
SIGLIP_CFG = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 32,
        "timm_model_name": "vit_base_patch16_siglip_224",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 8,
        "vocab_size": 300,
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 32,
        "heads": 2,
        "layers": 1,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    },
}


def test_open_clip_with_siglips_tower_of_timm(tmp_path: Path) -> None:
    model = tiny_model(SIGLIP_LIKE)
    weights = to_theirs(model.state_dict(), open_clip_timm(projection_bias=True))
    assert "visual.trunk.attn_pool.kv.weight" in weights
    folder = open_clip_folder(tmp_path / "model", SIGLIP_CFG, weights)
    loaded, _ = read_float32(folder)
    assert loaded.model.config == SIGLIP_LIKE
    assert all(torch.equal(loaded.model.state_dict()[name], t) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"vision_cfg": {"timm_model_name": "eva02_base_patch16_clip_224"}},
            "can be read are SigLIP, Perception",
        ),
        ({"text_cfg": CLIP_TEXT_CFG | {"hf_model_name": "roberta-base"}}, "only open_clip's own can be read"),
        ({"text_cfg": CLIP_TEXT_CFG | {"pool_type": "first"}}, "must be 'argmax' or 'eos' for a causal"),
        (
            {"vision_cfg": {"image_size": 32, "attentional_pool": True}},
            "asks for attentional_pool, which cannot",
        ),
        ({"vision_cfg": None}, "must be objects"),
        ({"embed_dim": 64}, "other shapes"),
        ({"embed_dim": 128.0}, r"model\.embed_dim must be int, got 128\.0"),
        ({"text_cfg": CLIP_TEXT_CFG | {"layers": "2"}}, r"text\.num_layers must be int, got '2'"),
        ({"text_cfg": CLIP_TEXT_CFG | {"act_kwargs": {"approximate": "tanh"}}}, "of quick_gelu cannot be"),
        ({"text_cfg": CLIP_TEXT_CFG | {"norm_kwargs": {"bias": False}}}, "norm_kwargs asks for bias, which"),
        (
            {"vision_cfg": {"timm_model_name": "vit_pe_core_base_patch16_224", "image_size": 384}},
            "image_size is 384, that of vit_pe_core_base_patch16_224 224: rotary positions of another size",
        ),
    ],
)
def test_what_open_clip_has_and_we_do_not(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    weights = to_theirs(tiny_model(clip_only(TINY)).state_dict(), OPENAI_CLIP)
    weights |= {
        f"visual.trunk.{name}": torch.ones(1, 1, 1, 1) for name in ("patch_embed.proj.weight", "pos_embed")
    }
    folder = open_clip_folder(tmp_path / "model", CLIP_CFG | change, weights)
    with pytest.raises(CheckpointError, match=message):
        read_float32(folder)


def test_act_kwargs_speak_of_the_text_tower_alone(tmp_path: Path) -> None:
    weights = to_theirs(tiny_model(clip_only(TINY)).state_dict(), OPENAI_CLIP)
    change = {"quick_gelu": False, "text_cfg": CLIP_TEXT_CFG | {"act_kwargs": {"approximate": "tanh"}}}
    folder = open_clip_folder(tmp_path / "model", CLIP_CFG | change, weights)
    config = read_float32(folder)[0].model.config
    assert (config.vision.activation, config.text.activation) == ("gelu", "gelu_tanh")


def test_quick_gelu_does_not_speak_of_towers_of_timm(tmp_path: Path) -> None:
    shutil.copytree(PERCEPTION_ENCODER, tmp_path / "model")
    file = tmp_path / "model" / "open_clip_config.json"
    values = json.loads(file.read_text())
    values["model_cfg"]["quick_gelu"] = True
    file.write_text(json.dumps(values))
    config = read_float32(tmp_path / "model")[0].model.config
    assert (config.vision.activation, config.text.activation) == ("gelu", "quick_gelu")


def test_the_largest_perception_encoder(tmp_path: Path) -> None:
    """It has no class token, and a pooling MLP of another width than its blocks'."""
    vision = dataclasses.replace(PE_LIKE.vision, class_token=False, mlp_width=320, pooling_mlp_width=256)
    vision = dataclasses.replace(vision, activation="gelu", pooling_heads=8, patch_bias=False, norm_eps=1e-5)
    text = dataclasses.replace(PE_LIKE.text, activation="gelu", norm_eps=1e-5)
    model = tiny_model(dataclasses.replace(PE_LIKE, vision=vision, text=text, logit_bias=False))
    name = "vit_pe_core_gigantic_patch8_32"
    text_cfg = {"context_length": 8, "vocab_size": 300, "width": 32, "heads": 2, "layers": 1}
    model_cfg = {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 32, "timm_model_name": name},
        "text_cfg": text_cfg,
    }
    weights = to_theirs(model.state_dict(), open_clip_timm(projection_bias=False))
    folder = open_clip_folder(tmp_path / "model", model_cfg, weights)
    loaded, _ = read_float32(folder)
    assert loaded.model.config == model.config
    assert all(torch.equal(loaded.model.state_dict()[name], t) for name, t in model.state_dict().items())


def test_a_malformed_way_to_clean_texts_is_named(tmp_path: Path) -> None:
    weights = to_theirs(tiny_model(clip_only(TINY)).state_dict(), OPENAI_CLIP)
    change = {"text_cfg": CLIP_TEXT_CFG | {"tokenizer_kwargs": "canonicalize"}}
    folder = open_clip_folder(tmp_path / "model", CLIP_CFG | change, weights)
    tiny_tokenizer().save(folder / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"open_clip_config\.json: a value is missing or malformed"):
        read_float32(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "blip"}, "model_type is 'blip'"),
        ({"text_config": TEXT | {"eos_token_id": [7, 8]}}, r"eos_token_id is \[7, 8\]; it must be one id"),
        ({"text_config": TEXT | {"eos_token_id": 600}}, "end_id is 600; it is an id below vocab_size = 600"),
        ({"vision_config": VISION | {"hidden_act": "relu"}}, "vision_config.hidden_act is 'relu'"),
        ({"vision_config": VISION | {"num_channels": 4}}, "num_channels is 4; it must be 3"),
        ({"model_type": "siglip"}, "text features are 64 wide, image features 96"),
        ({"projection_dim": None}, r"model\.embed_dim must be int, got None"),
        ({"text_config": TEXT | {"num_hidden_layers": None}}, r"text\.num_layers must be int, got None"),
        ({"vision_config": VISION | {"hidden_size": 96.0}}, r"vision\.width must be int, got 96\.0"),
        ({"vision_config": VISION | {"patch_size": False}}, r"vision\.patch_size_px must be int, got False"),
        (
            {"vision_config": VISION | {"image_size": 2**24, "patch_size": 1}},
            "image_size_px must be 1 to 16384",
        ),
    ],
)
def test_what_transformers_has_and_we_do_not(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    clip("gelu").save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        read_float32(tmp_path / "model")


# An image model recognises a video by the mean of its frames


PE_LIKE = dataclasses.replace(
    SIGLIP_LIKE,
    embed_dim=48,
    vision=dataclasses.replace(
        SIGLIP_LIKE.vision,
        class_token=True,
        rotary=True,
        pre_norm=True,
        projection=True,
        projection_bias=True,
    ),
    text=dataclasses.replace(SIGLIP_LIKE.text, causal=True, projection_bias=False),
)
FAMILIES = {"CLIP": clip_only(TINY), "SigLIP": SIGLIP_LIKE, "Perception Encoder": PE_LIKE}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_video_is_the_mean_of_its_images(family: str) -> None:
    model = tiny_model(FAMILIES[family])
    num_frames, side = model.config.num_frames, model.config.vision.image_size_px
    assert model.config.is_image_model
    clips = torch.randn(2, num_frames, 3, side, side)
    with torch.no_grad():
        images = our_images(model, clips.flatten(0, 1)).unflatten(0, (2, num_frames))
        assert_close(model.encode_video(clips).video, images.mean(dim=1), rtol=0, atol=1e-5)
        together = model.with_num_frames(1).encode_video(clips.flatten(0, 1)[:, None]).video
        assert torch.equal(
            model.encode_video(clips).video, together.unflatten(0, (2, num_frames)).mean(dim=1)
        )
        backwards = model.encode_video(clips.flip(1)).video
        assert_close(model.encode_video(clips).video, backwards, rtol=0, atol=1e-5)


def our_images(model: XCLIP, images: Tensor) -> Tensor:
    """Images (B, 3, S, S), one by one -> features (B, E)."""
    alone = model.with_num_frames(1)
    return torch.cat([alone.encode_video(image[None, None]).video for image in images])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tower_can_be_expanded_to_video(family: str, tmp_path: Path) -> None:
    image = tiny_model(FAMILIES[family])
    config = dataclasses.replace(
        image.config,
        vision=dataclasses.replace(image.config.vision, message_tokens=True),
        integration=IntegrationConfig(),
        prompting=PromptingConfig(num_layers=1),
    )
    model, new_parts = expand(image, config, seed=0, redraw=partial(enlarge_new_parts, gain=1.0))
    assert len(new_parts) == 3
    num_frames, side = config.num_frames, config.vision.image_size_px
    clips, tokens = torch.randn(2, num_frames, 3, side, side), texts(config)
    before = model(clips, tokens)
    assert before.shape == (2, 5)
    assert not torch.allclose(before, model(clips.flip(1), tokens), atol=1e-4), (
        "the order of frames says nothing"
    )
    before.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    save_as(tmp_path / "model", model, MissingTokenizer("random"), Preprocessor.siglip(side))
    again, report = read_float32(tmp_path / "model")
    assert (again.model.config, report.is_image_model) == (config, False)
    assert_close(again.model(clips, tokens), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", [*FAMILIES, "CLIP, GELU"])
def test_towers_that_transformers_xclip_lacks_are_not_written_in_its_format(
    family: str, tmp_path: Path
) -> None:
    """Of a GELU tower all names and shapes fit, and the numbers would be others."""
    image = FAMILIES.get(family, clip_only(TINY))
    gelu = dataclasses.replace(image.vision, message_tokens=True, activation="gelu")
    vision = gelu if family == "CLIP, GELU" else dataclasses.replace(image.vision, message_tokens=True)
    parts = {"integration": IntegrationConfig(num_heads=1), "prompting": PromptingConfig(num_heads=1)}
    model = tiny_model(dataclasses.replace(image, vision=vision, **parts))
    arguments = (tmp_path / "model", model, MissingTokenizer("random"), Preprocessor.clip(32), "huggingface")
    if family == "CLIP":
        save_as(*arguments)
        return
    with pytest.raises(CheckpointError, match=rf"vision\.activation is '{vision.activation}'"):
        save_as(*arguments)


def test_x_clip_of_one_format_interpolates_with_clip_of_another(tmp_path: Path) -> None:
    """One file says how wide the MLPs are, the other leaves it out."""
    save_as(tmp_path / "x", tiny_model(), MissingTokenizer("x"), Preprocessor.official(32), "huggingface")
    text = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 1}
    vision = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3, "image_size": 32}
    act = {"hidden_act": "quick_gelu"}
    image = CLIPModel(
        CLIPConfig(
            text_config=TEXT | text | act,
            vision_config=VISION | vision | act | {"patch_size": 16},
            projection_dim=128,
        )
    )
    image.save_pretrained(tmp_path / "clip")
    (model, _, _), _ = read_model(
        ModelSource(
            source=str(tmp_path / "x"),
            device="cpu",
            dtype="float32",
            interpolate=0.0,
            image_model=str(tmp_path / "clip"),
        )
    )
    assert torch.equal(model.text.token_embedding.weight, image.text_model.embeddings.token_embedding.weight)


# What towers differ in


def test_without_a_class_token_a_message_is_drawn_from_the_mean_of_the_patches() -> None:
    config = dataclasses.replace(SIGLIP_LIKE.vision, message_tokens=True)
    torch.manual_seed(0)
    block = FrameBlock(config, drop_path=0.0)
    x = torch.randn(2, 3, 16, 64)  # (B, T, N, D)
    messages = block.messages(x)
    drawn = block.message_proj(
        torch.stack([frame.mean(dim=0) for frame in x.flatten(0, 1)]).unflatten(0, (2, 3))
    )
    assert_close(messages[:, :, 0], drawn + block.cross_attn(block.cross_norm(drawn)))
    shuffled = x[:, :, torch.randperm(16)]
    assert_close(block.messages(shuffled), messages)  # it has no order, as a class token has none
    with_class = FrameBlock(dataclasses.replace(config, class_token=True), drop_path=0.0)
    with_class.load_state_dict(block.state_dict())
    other = torch.cat([x[:, :, :1], torch.randn(2, 3, 15, 64)], dim=2)
    assert torch.equal(with_class.messages(x), with_class.messages(other))
    assert not torch.allclose(block.messages(x), block.messages(other))


def test_rotations_see_only_how_far_apart_patches_are() -> None:
    angles = patch_angles(grid=4, head_width=8, first=1, device=torch.device("cpu"))
    assert angles.shape == (16, 4)
    query, key = torch.randn(2, 1, 1, 16)  # two heads of eight channels
    q, k = (rotate(x.expand(1, 16, -1), angles, num_heads=2)[0].unflatten(-1, (2, 8)) for x in (query, key))
    scores = torch.einsum("ahd,bhd->hab", q, k)  # (H, N, N)
    patches = [(y, x) for y in range(4) for x in range(4)]
    by_offset: dict[tuple[int, int], Tensor] = {}
    for a, (ya, xa) in enumerate(patches):
        for b, (yb, xb) in enumerate(patches):
            first_seen = by_offset.setdefault((ya - yb, xa - xb), scores[:, a, b])
            assert_close(scores[:, a, b], first_seen)
    assert len({round(float(score[0]), 4) for score in by_offset.values()}) == len(by_offset)


def test_rotations_leave_lengths_and_what_has_no_place_alone() -> None:
    x = torch.randn(2, 5, 24)
    angles = torch.cat([torch.zeros(1, 4), torch.rand(4, 4)])
    turned = rotate(x, angles, num_heads=3)
    assert torch.equal(turned[:, 0], x[:, 0])
    assert_close(turned.unflatten(-1, (3, -1)).norm(dim=-1), x.unflatten(-1, (3, -1)).norm(dim=-1))


def test_a_bidirectional_text_tower_wants_the_whole_context() -> None:
    model = tiny_model(SIGLIP_LIKE)
    tokens = texts(SIGLIP_LIKE)
    with pytest.raises(InputError, match="8 <= C <= 8"):
        model.encode_text(tokens[:, :5])
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 300
    assert not torch.allclose(model.encode_text(tokens), model.encode_text(changed))


def test_the_logit_bias_moves_all_logits_alike() -> None:
    model = tiny_model(SIGLIP_LIKE)
    side = SIGLIP_LIKE.vision.image_size_px
    clips, tokens = torch.randn(2, 8, 3, side, side), texts(SIGLIP_LIKE)
    with torch.no_grad():
        before = model(clips, tokens)
        model.logit_bias.add_(3.0)
        assert_close(model(clips, tokens), before + 3.0)


# Real videos


def clip_folder(folder: Path) -> Path:
    randomised(clip("gelu")).save_pretrained(folder)
    tiny_tokenizer().save(folder / "tokenizer.json")
    return folder


def siglip_folder(folder: Path) -> Path:
    """With a byte-level vocabulary in Gemma's layout."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = Siglip2Tokenizer(
        vocab={token: i for i, token in enumerate(specials)},
        merges=[],
        add_bos_token=False,
        add_eos_token=True,
    )
    randomised(siglip(TEXT | {"max_position_embeddings": 64})).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def perception_encoder_folder(folder: Path) -> Path:
    shutil.copytree(PERCEPTION_ENCODER, folder)
    tiny_tokenizer().save(folder / "tokenizer.json")
    return folder


FOLDERS = {
    "CLIP": clip_folder,
    "SigLIP": siglip_folder,
    "Perception Encoder": perception_encoder_folder,
}


@needs_data("ucf8/test.txt")
@pytest.mark.parametrize("family", FOLDERS)
def test_real_videos_through_random_towers(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = FOLDERS[family](tmp_path / "model")
    videos = sorted((DATA / "ucf8" / "videos").glob("*.avi"))[::40]
    labels = ["archery", "playing piano", "push ups"]
    capsys.readouterr()
    arguments = ["--labels", ", ".join(labels), "--model", str(model), "--templates", "clip-video", "--json"]
    assert run(["predict", *map(str, videos), *arguments]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["path"] for row in rows] == [str(video) for video in videos]
    for row in rows:
        assert {label for label, _ in row["scores"]} == set(labels)
        assert math.isclose(sum(score for _, score in row["scores"]), 1, rel_tol=1e-5)
    assert len({str(row["scores"]) for row in rows}) == len(rows)
    assert "is an image model: it looks at each frame alone" in caplog.text


@needs_data("ucf8/test.txt")
@pytest.mark.parametrize("family", FOLDERS)
def test_a_run_expands_any_tower_to_video(family: str, tmp_path: Path) -> None:
    model = FOLDERS[family](tmp_path / "model")
    settings = [
        f"init={model}",
        "optim.epochs=1",
        "optim.warmup_epochs=0",
        "optim.batch_size=2",
        "data.samples_per_epoch=4",
        "num_frames=2",
        "expansion.integration.num_heads=2",
        "expansion.prompting.num_heads=2",
    ]
    arguments = [part for setting in settings for part in ("--set", setting)]
    output = tmp_path / "run"
    data = ["--data", str(DATA / "ucf8"), "--output", str(output)]
    assert run(["train", "--recipe", "ucf8_from_shapes", *data, *arguments]) == 0
    (trained, _, preprocess), report = read_float32(output)
    (start, _, _), _ = read_float32(model)
    assert clip_only(trained.config) == dataclasses.replace(start.config, num_frames=2)
    assert not report.is_image_model
    assert torch.equal(trained.text.token_embedding.weight, start.text.token_embedding.weight), (
        "the text tower is frozen"
    )
    assert not torch.equal(trained.visual.position_embedding, start.visual.position_embedding)
    assert preprocess == read_float32(model)[0].preprocess
