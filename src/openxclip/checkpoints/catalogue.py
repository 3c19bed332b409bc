"""Published models that `openxclip.load` takes by their name: what they are, and where they come from.

For tables, without a download: loading reads the configuration that comes with the weights, not this one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from openxclip.checkpoints.formats.native import read_native
from openxclip.checkpoints.shipped import SHIPPED, shipped_folder
from openxclip.models.config import PRESETS, Activation, TextConfig, VisionConfig, XCLIPConfig


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models that were published together."""

    name: str
    """What they are called."""
    licence: str
    """Of the weights, as their pages on the hub name it."""
    paper: str
    """Where they come from."""
    models: Mapping[str, XCLIPConfig]
    """Hub id -> configuration. An image model is looked at with 8 frames, as it has no frame count of its own."""


@dataclass(frozen=True, kw_only=True)
class _Size:
    """A CLIP by its image tower. The text tower is as wide as the joint embedding, in heads of 64."""

    embed_dim: int
    vision: VisionConfig
    num_text_layers: int = 12


def _vision(
    patch_size_px: int, width: int, num_layers: int, num_heads: int, mlp_width: int | None = None
) -> VisionConfig:
    return VisionConfig(
        patch_size_px=patch_size_px,
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        mlp_width=mlp_width,
        message_tokens=False,
    )


_LARGE = _Size(embed_dim=768, vision=_vision(14, 1024, 24, 16))

_SIZES = {
    "B/32": _Size(embed_dim=512, vision=_vision(32, 768, 12, 12)),
    "B/16": _Size(embed_dim=512, vision=_vision(16, 768, 12, 12)),
    "L/14": _LARGE,
    "L/14@336": replace(_LARGE, vision=replace(_LARGE.vision, image_size_px=336)),
    "H/14": _Size(embed_dim=1024, vision=_vision(14, 1280, 32, 16), num_text_layers=24),
    "g/14": _Size(embed_dim=1024, vision=_vision(14, 1408, 40, 16, 6144), num_text_layers=24),
    "bigG/14": _Size(embed_dim=1280, vision=_vision(14, 1664, 48, 16, 8192), num_text_layers=32),
}


def _clip(size_name: str, activation: Activation) -> XCLIPConfig:
    size = _SIZES[size_name]
    return XCLIPConfig(
        embed_dim=size.embed_dim,
        vision=replace(size.vision, activation=activation),
        text=TextConfig(
            width=size.embed_dim,
            num_layers=size.num_text_layers,
            num_heads=size.embed_dim // 64,
            activation=activation,
        ),
        integration=None,
        prompting=None,
    )


_SIGLIP_TOWERS: dict[str, tuple[int, int, int, int | None]] = {
    "base": (768, 12, 12, None),
    "large": (1024, 24, 16, None),
    "so400m": (1152, 27, 16, 4304),
}
"""Width, layers, heads and MLP width; image and text tower have the same."""


def _siglip(
    tower: str, patch_size_px: int, image_size_px: int, vocab_size: int = 32000, context_length: int = 64
) -> XCLIPConfig:
    width, num_layers, num_heads, mlp_width = _SIGLIP_TOWERS[tower]
    return XCLIPConfig(
        embed_dim=width,
        vision=replace(
            _vision(patch_size_px, width, num_layers, num_heads, mlp_width),
            image_size_px=image_size_px,
            activation="gelu_tanh",
            norm_eps=1e-6,
            class_token=False,
            pooling="attention",
            patch_bias=True,
            pre_norm=False,
            projection=False,
        ),
        text=TextConfig(
            vocab_size=vocab_size,
            context_length=context_length,
            width=width,
            num_layers=num_layers,
            num_heads=num_heads,
            causal=False,
            activation="gelu_tanh",
            mlp_width=mlp_width,
            norm_eps=1e-6,
            projection_bias=True,
        ),
        integration=None,
        prompting=None,
        logit_bias=True,
    )


def _siglip2(tower: str, patch_size_px: int, image_size_px: int) -> XCLIPConfig:
    return _siglip(tower, patch_size_px, image_size_px, vocab_size=256000)  # Gemma's words


def _perception_encoder(vision: VisionConfig) -> XCLIPConfig:
    return XCLIPConfig(
        embed_dim=1024,
        vision=replace(
            vision,
            activation="gelu",
            pooling="attention",
            pooling_heads=8,
            rotary=True,
            projection_bias=True,
        ),
        text=TextConfig(context_length=32, width=1024, num_layers=24, num_heads=16, activation="gelu"),
        integration=None,
        prompting=None,
    )


_XCLIP = "microsoft/xclip-base-patch"


def known_families() -> tuple[Family, ...]:
    """All families, those made for video first."""
    return (
        Family(
            name="OpenXCLIP",
            licence="MIT",
            paper="this project",
            models={name: read_native(shipped_folder(name)).model.config for name in SHIPPED},
        ),
        Family(
            name="X-CLIP",
            licence="MIT",
            paper="Ni et al. 2022, arXiv 2208.02816",
            models={
                f"{_XCLIP}32": PRESETS["B/32-8"],
                f"{_XCLIP}32-16-frames": PRESETS["B/32-16"],
                f"{_XCLIP}16": PRESETS["B/16-8"],
                f"{_XCLIP}16-16-frames": PRESETS["B/16-16"],
                "microsoft/xclip-large-patch14": PRESETS["L/14-8"],
                "microsoft/xclip-large-patch14-16-frames": PRESETS["L/14@336-16"],
                f"{_XCLIP}16-kinetics-600": PRESETS["B/16-8"],
                f"{_XCLIP}16-kinetics-600-16-frames": PRESETS["B/16-16"],
                "microsoft/xclip-large-patch14-kinetics-600": PRESETS["L/14-8"],
                f"{_XCLIP}16-zero-shot": PRESETS["B/16-32"],
                **{
                    f"{_XCLIP}16-{data}-{num_shots}-shot": PRESETS["B/16-32"]
                    for data in ("hmdb", "ucf")
                    for num_shots in (2, 4, 8, 16)
                },
            },
        ),
        *_clip_families(),
        *_other_families(),
    )


def _clip_families() -> tuple[Family, ...]:
    """Image models of CLIP's design."""
    return (
        Family(
            name="CLIP",
            licence="not named",
            paper="Radford et al. 2021, arXiv 2103.00020",
            models={
                "openai/clip-vit-base-patch32": _clip("B/32", "quick_gelu"),
                "openai/clip-vit-base-patch16": _clip("B/16", "quick_gelu"),
                "openai/clip-vit-large-patch14": _clip("L/14", "quick_gelu"),
                "openai/clip-vit-large-patch14-336": _clip("L/14@336", "quick_gelu"),
            },
        ),
        Family(
            name="OpenCLIP",
            licence="MIT",
            paper="Cherti et al. 2022, arXiv 2212.07143",
            models={
                "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": _clip("B/32", "gelu"),
                "laion/CLIP-ViT-B-16-laion2B-s34B-b88K": _clip("B/16", "gelu"),
                "laion/CLIP-ViT-L-14-laion2B-s32B-b82K": _clip("L/14", "gelu"),
                "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": _clip("H/14", "gelu"),
                "laion/CLIP-ViT-g-14-laion2B-s34B-b88K": _clip("g/14", "gelu"),
                "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": _clip("bigG/14", "gelu"),
            },
        ),
        Family(
            name="DataComp",
            licence="MIT",
            paper="Gadre et al. 2023, arXiv 2304.14108",
            models={
                "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K": _clip("B/32", "gelu"),
                "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K": _clip("B/16", "gelu"),
                "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K": _clip("L/14", "gelu"),
            },
        ),
        Family(
            name="MetaCLIP",
            licence="CC-BY-NC-4.0",
            paper="Xu et al. 2023, arXiv 2309.16671",
            models={
                "facebook/metaclip-b32-400m": _clip("B/32", "quick_gelu"),
                "facebook/metaclip-b16-400m": _clip("B/16", "quick_gelu"),
                "facebook/metaclip-l14-400m": _clip("L/14", "quick_gelu"),
                "facebook/metaclip-h14-fullcc2.5b": _clip("H/14", "quick_gelu"),
            },
        ),
        Family(
            name="DFN",
            licence="apple-amlr",
            paper="Fang et al. 2023, arXiv 2309.17425",
            models={
                "apple/DFN2B-CLIP-ViT-B-16": _clip("B/16", "quick_gelu"),
                "apple/DFN2B-CLIP-ViT-L-14": _clip("L/14", "quick_gelu"),
                "apple/DFN5B-CLIP-ViT-H-14": _clip("H/14", "quick_gelu"),
            },
        ),
    )


def _other_families() -> tuple[Family, ...]:
    """Image models with attention pooling."""
    return (
        Family(
            name="SigLIP",
            licence="Apache-2.0",
            paper="Zhai et al. 2023, arXiv 2303.15343",
            models={
                "google/siglip-base-patch16-224": _siglip("base", 16, 224),
                "google/siglip-base-patch16-256": _siglip("base", 16, 256),
                "google/siglip-large-patch16-256": _siglip("large", 16, 256),
                "google/siglip-large-patch16-384": _siglip("large", 16, 384),
                "google/siglip-so400m-patch14-384": _siglip("so400m", 14, 384),
            },
        ),
        Family(
            name="SigLIP 2",
            licence="Apache-2.0",
            paper="Tschannen et al. 2025, arXiv 2502.14786",
            models={
                "google/siglip2-base-patch16-224": _siglip2("base", 16, 224),
                "google/siglip2-large-patch16-256": _siglip2("large", 16, 256),
                "google/siglip2-so400m-patch14-224": _siglip2("so400m", 14, 224),
                "google/siglip2-so400m-patch14-384": _siglip2("so400m", 14, 384),
                "google/siglip2-so400m-patch16-384": _siglip2("so400m", 16, 384),
            },
        ),
        Family(
            name="Perception Encoder",
            licence="Apache-2.0",
            paper="Bolya et al. 2025, arXiv 2504.13181",
            models={
                "timm/PE-Core-B-16": _perception_encoder(_SIZES["B/16"].vision),
                "timm/PE-Core-L-14-336": _perception_encoder(_SIZES["L/14@336"].vision),
            },
        ),
    )
