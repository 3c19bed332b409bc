"""Published models that `openxclip.load` takes by name, for the table of `openxclip models`.

Nothing here is used for loading: a loaded model has the configuration that comes with its weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from openxclip.checkpoints.formats.native import read_native_config
from openxclip.checkpoints.shipped import SHIPPED, shipped_folder
from openxclip.checkpoints.towers import (
    CLIP_VISION,
    PERCEPTION_ENCODER_VISION,
    SIGLIP_TEXT,
    SIGLIP_VISION,
)
from openxclip.models.config import PRESETS, Activation, TextConfig, XCLIPConfig, image_model


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models that were published together."""

    name: str
    """The name of the family."""
    licence: str
    """Licence of the weights, as their pages on the hub name it."""
    paper: str
    """The publication."""
    models: Mapping[str, XCLIPConfig]
    """Hub id -> configuration. Image models have no frame count of their own; they get 8."""


@dataclass(frozen=True, kw_only=True)
class _Size:
    """Sizes of one tower, or of both towers of a SigLIP."""

    width: int
    num_layers: int
    num_heads: int
    mlp_width: int | None = None


_CLIP_SIZES = {
    "B": _Size(width=768, num_layers=12, num_heads=12),
    "L": _Size(width=1024, num_layers=24, num_heads=16),
    "H": _Size(width=1280, num_layers=32, num_heads=16),
    "g": _Size(width=1408, num_layers=40, num_heads=16, mlp_width=6144),
    "bigG": _Size(width=1664, num_layers=48, num_heads=16, mlp_width=8192),
}
"""CLIP's image towers."""

_CLIP_TEXT_SIZES = {
    "B": _Size(width=512, num_layers=12, num_heads=8),
    "L": _Size(width=768, num_layers=12, num_heads=12),
    "H": _Size(width=1024, num_layers=24, num_heads=16),
    "g": _Size(width=1024, num_layers=24, num_heads=16),
    "bigG": _Size(width=1280, num_layers=32, num_heads=20),
}
"""CLIP's text towers, by the size of the image tower; as wide as the joint embedding."""

_SIGLIP_SIZES = {
    "base": _Size(width=768, num_layers=12, num_heads=12),
    "large": _Size(width=1024, num_layers=24, num_heads=16),
    "so400m": _Size(width=1152, num_layers=27, num_heads=16, mlp_width=4304),
}
"""SigLIP's image and text towers."""


def _clip(name: str, activation: Activation, image_size_px: int = 224) -> XCLIPConfig:
    """A CLIP by its size and patch, e.g. "B/32"."""
    size, _, patch_size_px = name.partition("/")
    text = _CLIP_TEXT_SIZES[size]
    return image_model(
        embed_dim=text.width,
        vision=replace(
            CLIP_VISION,
            **vars(_CLIP_SIZES[size]),
            image_size_px=image_size_px,
            patch_size_px=int(patch_size_px),
            activation=activation,
        ),
        text=TextConfig(**vars(text), activation=activation),
    )


def _siglip(size_name: str, patch_size_px: int, image_size_px: int, vocab_size: int = 32000) -> XCLIPConfig:
    size = vars(_SIGLIP_SIZES[size_name])
    vision = replace(SIGLIP_VISION, **size, patch_size_px=patch_size_px, image_size_px=image_size_px)
    text = replace(SIGLIP_TEXT, **size, vocab_size=vocab_size)
    return image_model(embed_dim=vision.width, vision=vision, text=text, logit_bias=True)


def _siglip2(size_name: str, patch_size_px: int, image_size_px: int) -> XCLIPConfig:
    return _siglip(size_name, patch_size_px, image_size_px, vocab_size=256000)  # Gemma's


def _perception_encoder(size_name: str, patch_size_px: int, image_size_px: int) -> XCLIPConfig:
    vision = replace(
        PERCEPTION_ENCODER_VISION,
        **vars(_CLIP_SIZES[size_name]),
        patch_size_px=patch_size_px,
        image_size_px=image_size_px,
    )
    text = TextConfig(context_length=32, width=1024, num_layers=24, num_heads=16, activation="gelu")
    return image_model(embed_dim=1024, vision=vision, text=text)


_XCLIP = "microsoft/xclip-base-patch"


def known_families() -> tuple[Family, ...]:
    """All families; video models come first."""
    return (
        Family(
            name="OpenXCLIP",
            licence="MIT",
            paper="this project",
            models={name: read_native_config(shipped_folder(name))[0] for name in SHIPPED},
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
                "openai/clip-vit-large-patch14-336": _clip("L/14", "quick_gelu", image_size_px=336),
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
                "timm/PE-Core-B-16": _perception_encoder("B", 16, 224),
                "timm/PE-Core-L-14-336": _perception_encoder("L", 14, 336),
            },
        ),
    )


def licence_of(source: str) -> str | None:
    """Licence of the weights of a published model, by its hub id; None for any other source."""
    return next((family.licence for family in known_families() if source in family.models), None)
