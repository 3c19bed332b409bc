"""The towers of published families of language-image models; sizes are set with `dataclasses.replace`."""

from openxclip.models.config import TextConfig, VisionConfig

CLIP_VISION = VisionConfig(message_tokens=False)
"""CLIP's image tower (Radford et al. 2021), without X-CLIP's message tokens."""

SIGLIP_VISION = VisionConfig(
    message_tokens=False,
    class_token=False,
    pooling="attention",
    patch_bias=True,
    pre_norm=False,
    projection=False,
    activation="gelu_tanh",
    norm_eps=1e-6,
)
"""SigLIP's image tower (Zhai et al. 2023): no class token, attention pooling, no projection."""

SIGLIP_TEXT = TextConfig(
    vocab_size=32000,
    context_length=64,
    width=768,
    num_heads=12,
    causal=False,
    activation="gelu_tanh",
    norm_eps=1e-6,
    projection_bias=True,
)
"""SigLIP's text tower: it attends in both directions, and the last token is the text's feature."""

PERCEPTION_ENCODER_VISION = VisionConfig(
    message_tokens=False,
    activation="gelu",
    pooling="attention",
    pooling_heads=8,
    rotary=True,
    projection_bias=True,
)
"""Perception Encoder's image tower (Bolya et al. 2025): rotary positions and attention pooling."""
