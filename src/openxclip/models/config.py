"""Model configuration: frozen, keyword-only, validated; each default is written once, here."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from openxclip.configuration import check_types, from_dict, require

MLP_RATIO = 4  # default expansion of an MLP, as in CLIP and X-CLIP
HEAD_WIDTH = 64  # of every attention in X-CLIP and most language-image models as published

FrameMean = Literal["features", "logits"]

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
"""QuickGELU is OpenAI's, MetaCLIP's and X-CLIP's; GELU LAION's and Perception Encoder's; its tanh form SigLIP's."""

# Far above any model, and low enough that an untrusted config.json can neither keep the loader busy for long nor
# request tensors whose sizes overflow 64 bits.
MAX_SIZE = 2**20
LOWER_MAX_SIZES = {"num_layers": 1000, "image_size_px": 2**14, "patch_size_px": 2**14}


def _check_sizes(config: Any, where: str) -> None:
    """Check that every whole number of a config is at least 1 and not too large."""
    check_types(config, where)
    for name, value in vars(config).items():
        if isinstance(value, int) and not isinstance(value, bool):
            largest = LOWER_MAX_SIZES.get(name, MAX_SIZE)
            require(1 <= value <= largest, f"{where}: {name} must be 1 to {largest}, got {value}")


def _leave_out(config: Any, name: str, usual: int) -> None:
    """Replace a setting that equals its default by None: configurations of one model must be equal."""
    if getattr(config, name) == usual:
        object.__setattr__(config, name, None)


def heads(num_heads: int | None, width: int) -> int:
    """The given number of attention heads, or one for each 64 channels."""
    return num_heads or max(1, width // HEAD_WIDTH)


def _check_heads(width: int, num_heads: int, where: str) -> None:
    require(
        width % num_heads == 0,
        f"{where}: width {width} is not divisible by num_heads {num_heads}; choose num_heads = width / 64",
    )


def _check_norm(norm_eps: float, where: str) -> None:
    require(0 < norm_eps < 1, f"{where}: norm_eps must be above 0 and below 1, got {norm_eps}")


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The image tower, with or without cross-frame communication (section 3.2, CCT).

    The defaults are OpenAI CLIP's, from which X-CLIP starts; differences of other language-image models are
    settings.
    """

    image_size_px: int = 224
    """Side of the square input. Pixels at the right and bottom beyond a whole number of patches are ignored."""
    patch_size_px: int = 32
    """Side of one patch."""
    width: int = 768
    """Token width D."""
    num_layers: int = 12
    """Number of blocks."""
    num_heads: int = 12
    """Attention heads of every attention in the tower."""
    message_tokens: bool = True
    """Whether the blocks exchange message tokens between frames; off gives CLIP's plain image tower."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; grows linearly from 0 at the first (a lone block has none)."""
    activation: Activation = "quick_gelu"
    """Activation of the MLPs."""
    mlp_width: int | None = None
    """Hidden width of the MLPs, or None for four times the token width."""
    norm_eps: float = 1e-5
    """Epsilon of the layer norms."""
    class_token: bool = True
    """Whether there is a class token before the patches."""
    pooling: Literal["class", "attention", "mean"] = "class"
    """What a frame's feature is: the class token, what a learned probe finds by attention to all tokens, or the mean of
    the patches."""
    pooling_heads: int | None = None
    """Attention heads of the pooling, or None for the tower's number."""
    pooling_mlp_width: int | None = None
    """Hidden width of the pooling's MLP, or None for that of the tower's MLPs."""
    rotary: bool = False
    """Whether attention rotates queries and keys by their patch's position, in addition to the learned positions."""
    patch_bias: bool = False
    """Whether the patch projection adds a bias."""
    pre_norm: bool = True
    """Whether tokens are normalised before the first block."""
    projection: bool = True
    """Whether a frame's feature is projected into the joint embedding, or already has its width."""
    projection_bias: bool = False
    """Whether that projection adds a bias."""

    def __post_init__(self) -> None:
        _check_sizes(self, "vision")
        _leave_out(self, "pooling_heads", self.num_heads)
        _leave_out(self, "pooling_mlp_width", self.mlp_width or MLP_RATIO * self.width)
        _leave_out(self, "mlp_width", MLP_RATIO * self.width)
        _check_heads(self.width, self.num_heads, "vision")
        _check_norm(self.norm_eps, "vision")
        if self.pooling == "attention":
            _check_heads(self.width, self.pooling_heads or self.num_heads, "vision.pooling")
        require(
            self.class_token or self.pooling != "class",
            "vision: pooling by the class token needs class_token; set pooling to 'attention' or 'mean'",
        )
        require(
            not self.rotary or self.width // self.num_heads % 4 == 0,
            f"vision: rotary positions need heads of a multiple of 4, got {self.width} / {self.num_heads}",
        )
        require(
            self.image_size_px >= self.patch_size_px,
            f"image_size_px {self.image_size_px} must be at least patch_size_px {self.patch_size_px}",
        )
        require(0 <= self.drop_path < 1, f"vision: drop_path must be in [0, 1), got {self.drop_path}")

    @property
    def num_patches(self) -> int:
        """N, the patches of one frame."""
        return (self.image_size_px // self.patch_size_px) ** 2


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text tower; the defaults are OpenAI CLIP's."""

    vocab_size: int = 49408
    """Number of token ids."""
    context_length: int = 77
    """C, the maximum text length in tokens, including start and end."""
    width: int = 512
    """Token width."""
    num_layers: int = 12
    """Number of blocks."""
    num_heads: int = 8
    """Attention heads."""
    num_context_vectors: int | None = None
    """M learnable vectors between the start token and each class name (CoOp), or None."""
    causal: bool = True
    """True: a token sees those before it, and a text's feature is its end token.
    False: all tokens of a full context see each other, and the feature is the last (SigLIP)."""
    end_id: int | None = None
    """Id of the end token of a causal tower; None is the highest id, as CLIP's."""
    activation: Activation = "quick_gelu"
    """Activation of the MLPs."""
    mlp_width: int | None = None
    """Hidden width of the MLPs, or None for four times the token width."""
    norm_eps: float = 1e-5
    """Epsilon of the layer norms."""
    projection_bias: bool = False
    """Whether the projection into the joint embedding adds a bias."""

    def __post_init__(self) -> None:
        _check_sizes(self, "text")
        _leave_out(self, "mlp_width", MLP_RATIO * self.width)
        _check_heads(self.width, self.num_heads, "text")
        _check_norm(self.norm_eps, "text")
        require(
            self.causal or self.num_context_vectors is None,
            "text: learnable context (num_context_vectors) needs a causal text tower with a start token",
        )
        require(
            self.end_id is None
            or (self.causal and self.num_context_vectors is None and 0 <= self.end_id < self.vocab_size),
            f"text: end_id is {self.end_id}; it is an id below vocab_size = {self.vocab_size}, of a causal text tower "
            "without learnable context",
        )
        longest = self.context_length - 3
        require(
            self.num_context_vectors is None or self.num_context_vectors <= longest,
            f"text: num_context_vectors is {self.num_context_vectors}, but a context_length of "
            f"{self.context_length} leaves room for {longest} beside start, one token of the name, and end",
        )


@dataclass(frozen=True, kw_only=True)
class IntegrationConfig:
    """The multi-frame integration transformer (section 3.2, MIT); its width is the joint embedding's."""

    num_layers: int = 1
    """Number of blocks."""
    num_heads: int | None = None
    """Attention heads, or None for width / 64, as everywhere in X-CLIP."""

    def __post_init__(self) -> None:
        _check_sizes(self, "integration")


@dataclass(frozen=True, kw_only=True)
class PromptingConfig:
    """Video-specific prompting (section 3.3); its width is the joint embedding's."""

    num_layers: int = 2
    """Number of cross-attention layers."""
    num_heads: int | None = None
    """Attention heads, or None for width / 64, as everywhere in X-CLIP."""

    def __post_init__(self) -> None:
        _check_sizes(self, "prompting")


@dataclass(frozen=True, kw_only=True)
class XCLIPConfig:
    """A whole model. `integration=None` means the frame mean, `prompting=None` the bare class name."""

    embed_dim: int = 512
    """E, the width that video and text share."""
    num_frames: int = 8
    """T, the frames of a clip the model was trained with."""
    vision: VisionConfig = field(default_factory=VisionConfig)
    """The image tower."""
    text: TextConfig = field(default_factory=TextConfig)
    """The text tower."""
    integration: IntegrationConfig | None = field(default_factory=IntegrationConfig)
    """The multi-frame integration transformer, or None for the mean over frames."""
    prompting: PromptingConfig | None = field(default_factory=PromptingConfig)
    """Video-specific prompting, or None for none."""
    frame_mean: FrameMean = "features"
    """Without integration: a video is the mean of its frames' features, or its logits are the mean of its frames'
    logits (Open-VCLIP)."""
    num_discrete_labels: int | None = None
    """Free vectors instead of the text tower, one per class (the baseline "without text"), or None for texts."""
    logit_bias: bool = False
    """Whether a learned number is added to all logits (SigLIP); it changes sigmoids but no ranking."""

    def __post_init__(self) -> None:
        _check_sizes(self, "model")
        require(
            self.vision.projection or self.vision.width == self.embed_dim,
            f"vision: without projection its width {self.vision.width} must be embed_dim, {self.embed_dim}",
        )
        require(
            self.frame_mean == "features" or self.integration is None,
            "frame_mean only applies without an integration transformer: set integration to null",
        )
        for name in ("integration", "prompting"):
            part = getattr(self, name)
            if part is not None:
                # Resolved here, so that a saved configuration states the number of heads.
                part = dataclasses.replace(part, num_heads=heads(part.num_heads, self.embed_dim))
                object.__setattr__(self, name, part)
                _check_heads(self.embed_dim, part.num_heads, name)
        if self.num_discrete_labels is not None:
            require(
                self.prompting is None and self.text.num_context_vectors is None,
                "num_discrete_labels replaces texts by free vectors, which cannot be prompted: "
                "set prompting and text.num_context_vectors to null",
            )

    @property
    def is_image_model(self) -> bool:
        """Whether no part looks across frames: a language-image model that recognises by the frame mean."""
        return not self.vision.message_tokens and self.integration is None and self.prompting is None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "XCLIPConfig":
        """Inverse of `to_dict`.

        Raises:
            ConfigError: a key is unknown or a value is not allowed.
        """
        return from_dict(cls, values)


NUM_IMAGE_MODEL_FRAMES = 8  # per clip, for weights that were not trained on video


def image_model(
    *, embed_dim: int, vision: VisionConfig, text: TextConfig, logit_bias: bool = False
) -> XCLIPConfig:
    """A language-image model, with none of the parts that X-CLIP adds: a video is the mean of its frames."""
    return XCLIPConfig(
        embed_dim=embed_dim,
        num_frames=NUM_IMAGE_MODEL_FRAMES,
        vision=vision,
        text=text,
        integration=None,
        prompting=None,
        logit_bias=logit_bias,
    )


def preset(name: str) -> XCLIPConfig:
    """One of the paper's seven models (Table 1), e.g. `preset("B/16-8")`.

    Raises:
        ConfigError: no preset has that name.
    """
    require(name in PRESETS, f"no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _base(patch_size_px: int, num_frames: int) -> XCLIPConfig:
    return XCLIPConfig(num_frames=num_frames, vision=VisionConfig(patch_size_px=patch_size_px))


def _large(image_size_px: int, num_frames: int) -> XCLIPConfig:
    return XCLIPConfig(
        embed_dim=768,
        num_frames=num_frames,
        vision=VisionConfig(
            image_size_px=image_size_px, patch_size_px=14, width=1024, num_layers=24, num_heads=16
        ),
        text=TextConfig(width=768, num_heads=12),
    )


PRESETS: dict[str, XCLIPConfig] = {
    "B/32-8": _base(32, 8),
    "B/32-16": _base(32, 16),
    "B/16-8": _base(16, 8),
    "B/16-16": _base(16, 16),
    "B/16-32": _base(16, 32),
    "L/14-8": _large(224, 8),
    "L/14@336-16": _large(336, 16),
}
"""The paper's models: patch size, input size where not 224, and frames."""
