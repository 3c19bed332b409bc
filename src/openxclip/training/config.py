"""The configuration of a training run: one frozen object that is saved with the run and reproduces it."""

import math
from dataclasses import dataclass, field
from typing import Literal

from openxclip.configuration import require
from openxclip.models.config import FrameMean, IntegrationConfig, PromptingConfig, XCLIPConfig
from openxclip.text.templates import SLOT
from openxclip.training.options import Compile

MAX_SEED = 2**63 - 1  # what torch's generators take


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Training clips, their sampling and augmentation (defaults as published, section 4)."""

    train_list: str | None = None
    """Name of the list of training clips inside the data folder; None when the data is one list file."""
    val_list: str | None = None
    """Name of the list that picks the best checkpoint; None keeps only the last."""
    skip_missing: bool = False
    """Train on the existing videos; missing ones are counted in a warning and listed in the run's log."""
    samples_per_epoch: int | None = None
    """Clips per epoch, repeating the list as often as needed; None is each clip once."""
    max_seconds: float | None = None
    """Longer videos are refused; None is the default limit of 4 hours."""
    max_frame_px: int | None = None
    """Videos with larger frames are refused; None is the default limit of 8192 x 4320."""
    cached_frames: int | None = None
    """Decode each video once and keep up to this many evenly spaced frames of it; None decodes each time."""
    dense_stride: int | None = None
    """None takes a frame from each of T equal segments (sparse, as published); n every n-th frame of a window."""
    num_workers: int = 4
    """Number of processes that decode and augment; 0 uses the training process."""
    order: Literal["all", "shards"] = "all"
    """Order of an epoch: all clips shuffled; or, for packed folders on slow disks, the shards shuffled, and clips among
    those of a few shards."""
    augment: Literal["workers", "device"] = "workers"
    """Where clips are cropped and colour-jittered: in the decoding processes, or on the model's device. Pixels are the
    same on a CPU; on a GPU a level may differ by one from rounding."""
    crop_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Sides of the random crop as shares of the short side."""
    crop: Literal["grid", "uniform"] = "grid"
    """Crops of these sides in the corners and the centre; or squares anywhere, of any side between the least and the
    largest."""
    flip_probability: float = 0.5
    """Probability of a left-right flip."""
    jitter_probability: float = 0.8
    """Probability of colour jitter."""
    jitter_frames: bool = False
    """Draw the colour jitter for every frame, as released, so that a clip flickers; otherwise once per clip."""
    gray_probability: float = 0.2
    """Probability of converting the whole clip to greyscale."""

    def __post_init__(self) -> None:
        require(
            self.max_seconds is None or self.max_seconds > 0,
            f"data.max_seconds must be above 0, or null, got {self.max_seconds}",
        )
        for name in ("samples_per_epoch", "max_frame_px", "cached_frames", "dense_stride"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"data.{name} must be at least 1, or null, got {value}")
        require(self.num_workers >= 0, f"data.num_workers must be 0 or more, got {self.num_workers}")
        require(
            self.cached_frames is None or self.num_workers == 0,
            "data.cached_frames needs data.num_workers=0: worker processes and their caches end with each epoch",
        )


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """Mixing of clips and labels."""

    label_smoothing: float = 0.1
    """Share of the target spread over all classes."""
    mixup_alpha: float = 0.8
    """Beta parameter of mixup; 0 turns it off."""
    cutmix_alpha: float = 1.0
    """Beta parameter of cutmix; 0 turns it off."""
    switch_probability: float = 0.5
    """Probability of cutmix if both are on."""
    partners: Literal["mirror", "random"] = "mirror"
    """Clip i is mixed with clip B - 1 - i, or, as released, with a random one, which may be itself."""
    micro_batch: int | None = None
    """Number of clips mixed among themselves, with a separate draw: one GPU's batch in the published training. None
    mixes the whole batch with one draw."""

    def __post_init__(self) -> None:
        for name in ("label_smoothing", "switch_probability"):
            require(0 <= getattr(self, name) <= 1, f"mix.{name} must be in 0..1, got {getattr(self, name)}")
        for name in ("mixup_alpha", "cutmix_alpha"):
            require(
                0 <= getattr(self, name) < math.inf,
                f"mix.{name} must be 0 or more, got {getattr(self, name)}",
            )
        require(
            self.micro_batch is None or self.micro_batch >= 1,
            f"mix.micro_batch must be at least 1, or null, got {self.micro_batch}",
        )


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Factor on the learning rate of each part of the model; 0 freezes the part."""

    new: float = 10.0
    """The parts added to CLIP's towers: messages, integration, prompting, learnable context, discrete labels."""
    visual: float = 1.0
    """The image tower."""
    text: float = 0.0
    """The text tower; frozen and without learnable context, its features are computed once."""
    token_embedding: float | None = None
    """The text tower's first layer; None is the text tower's own factor."""
    logit_scale: float = 0.0
    """The temperature, and SigLIP's bias of all logits."""

    def __post_init__(self) -> None:
        for name, factor in vars(self).items():
            require(
                factor is None or 0 <= factor < math.inf,
                f"optim.factors.{name} must be 0 (frozen) or more, got {factor}",
            )

    def of(self, group: str) -> float:
        """The factor of a group of parameters (`models/parts.py`)."""
        factor = getattr(self, group)
        return self.text if factor is None else factor


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay."""

    epochs: int
    """Passes over the training clips."""
    learning_rate: float
    """Peak learning rate, before the factors."""
    factors: LearningRates = field(default_factory=LearningRates)
    """Factors on the learning rate."""
    batch_size: int = 256
    """Clips of one optimizer step, over all accumulation steps."""
    accumulation_steps: int = 1
    """Number of accumulation steps that a batch is split into; saves memory."""
    warmup_epochs: float = 5.0
    """Epochs of linear warm-up."""
    schedule: Literal["after_warmup", "as_released"] = "after_warmup"
    """The cosine starts at the peak, at the end of warm-up; or, as in X-CLIP's released code, at the first step, so
    that the rate drops at the end of warm-up (see `training/optim.py`)."""
    final_factor: float = 0.01
    """The final learning rate as a share of the peak, and also the initial one unless "as_released"."""
    weight_decay: float = 0.001
    """Decoupled decay of everything but biases, norms, 1-d parameters and position embeddings."""
    decay_everything: bool = False
    """Also decay these."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Adam's decay rates."""
    epsilon: float = 1e-8
    """Adam's epsilon."""
    clip_grad_norm: float | None = None
    """Maximum norm of the whole gradient."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation_steps"):
            require(getattr(self, name) >= 1, f"optim.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay", "epsilon"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"optim.{name} must be a number of 0 or more, got {value}")
        require(0 <= self.final_factor <= 1, f"optim.final_factor must be in 0..1, got {self.final_factor}")
        require(all(0 <= beta < 1 for beta in self.betas), f"optim.betas must be in [0, 1), got {self.betas}")
        require(
            self.clip_grad_norm is None or self.clip_grad_norm > 0,
            f"optim.clip_grad_norm must be above 0, or null, got {self.clip_grad_norm}",
        )
        require(
            0 <= self.warmup_epochs <= self.epochs,
            f"optim.warmup_epochs must be in 0..{self.epochs} (optim.epochs), got {self.warmup_epochs}",
        )
        require(
            self.batch_size % self.accumulation_steps == 0,
            f"optim.batch_size {self.batch_size} must be a multiple of optim.accumulation_steps "
            f"{self.accumulation_steps}",
        )


@dataclass(frozen=True, kw_only=True)
class ExpansionConfig:
    """The parts around the towers of `init`: missing parts are created, parts turned off here are dropped."""

    message_tokens: bool = True
    """Whether frames exchange messages (CCT)."""
    integration: IntegrationConfig | None = field(default_factory=IntegrationConfig)
    """The multi-frame integration transformer, or None for the mean over frames."""
    prompting: PromptingConfig | None = field(default_factory=PromptingConfig)
    """Video-specific prompting, or None for none."""
    frame_mean: FrameMean = "features"
    """Without integration: the mean over the frames' features, or over their logits."""
    drop_path: float = 0.0
    """Stochastic depth of the image tower's last block."""
    initialisation: Literal["small", "as_released"] = "small"
    """New parts start with a standard deviation of 0.02 everywhere, or part by part as in X-CLIP's released code."""
    new_parts_gain: float | None = None
    """None keeps that; a number replaces 0.02 by its share of 1 / sqrt(fan-in).

    With towers much narrower than CLIP's, 0.02 is so small that new parts have no effect in a short training."""
    num_context_vectors: int | None = None
    """Learnable vectors before each class name (CoOp), or None for none."""
    discrete_labels: bool = False
    """Whether a free vector for each training class replaces its text; needs prompting=None."""

    def __post_init__(self) -> None:
        require(
            not self.discrete_labels or (self.prompting is None and self.num_context_vectors is None),
            "expansion.discrete_labels leaves no texts to prompt: set expansion.prompting and "
            "expansion.num_context_vectors to null",
        )
        require(
            self.new_parts_gain is None or self.new_parts_gain > 0,
            f"expansion.new_parts_gain must be above 0, or null, got {self.new_parts_gain}",
        )
        require(
            self.new_parts_gain is None or self.initialisation == "small",
            "expansion.new_parts_gain enlarges small parts: set expansion.initialisation to small, or the gain to null",
        )


@dataclass(frozen=True, kw_only=True)
class AveragingConfig:
    """Stochastic weight averaging: the mean of the weights at the ends of epochs becomes checkpoint `average`."""

    start: float = 0.0
    """Share of the epochs before the first that counts: 0.5 averages the second half."""

    def __post_init__(self) -> None:
        require(0 <= self.start < 1, f"averaging.start must be in [0, 1), got {self.start}")


@dataclass(frozen=True, kw_only=True)
class InterpolatedConfig:
    """Interpolated-weight regularisation (Open-VCLIP): the loss between the image model and the trained weights."""

    max_share: float = 0.6
    """Lambda, the maximum share of the image model's weights; each step draws a share below it."""
    weight: float = 0.5
    """C, the weight of the gradient at the interpolated weights."""

    def __post_init__(self) -> None:
        require(0 < self.max_share <= 1, f"interpolated.max_share must be in (0, 1], got {self.max_share}")
        require(0 < self.weight < math.inf, f"interpolated.weight must be above 0, got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Residual feature distillation (FROSTER): features stay near those of the frozen image model."""

    weight: float = 2.0
    """Beta, the weight of the distance."""
    residual_share: float = 0.1
    """Alpha, how much of the residual network's output is added to the features."""

    def __post_init__(self) -> None:
        require(0 < self.weight < math.inf, f"distillation.weight must be above 0, got {self.weight}")
        require(
            0 <= self.residual_share < math.inf,
            f"distillation.residual_share must be 0 or more, got {self.residual_share}",
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The configuration of a run. Exactly one of `init` and `model` is given."""

    recipe: str
    """Name of the recipe it comes from."""
    init: str | None = None
    """Source of the initial weights: anything `openxclip.load` takes."""
    model: XCLIPConfig | None = None
    """The model to build from scratch."""
    expansion: ExpansionConfig | None = None
    """The parts around the towers of `init`, e.g. of an image model; None uses the weights unchanged."""
    tokenizer: str | None = None
    """Tokenizer for an `init` without one, such as OpenAI's files: a tokenizer.json, CLIP's merges, a hub id."""
    preprocessing: Literal["init", "official"] = "init"
    """Preprocessing: that of `init`, or that of X-CLIP's training, with ImageNet's mean and standard deviation,
    regardless of the towers' pretraining."""
    num_frames: int = 8
    """Frames of a training clip."""
    templates: tuple[str, ...] = (SLOT,)
    """Sentences with {} for the class name; several make an ensemble, as in CLIP."""
    template_draw: Literal["all", "one"] = "all"
    """Each step uses the mean over the templates, or draws one of them."""
    descriptions: str | None = None
    """Texts instead of the class names: a JSON file of label -> texts, or "moving-shapes"; None uses the names."""
    data: DataConfig = field(default_factory=DataConfig)
    """The clips."""
    optim: OptimConfig
    """The optimizer."""
    mix: MixConfig = field(default_factory=MixConfig)
    """Mixing of clips and labels."""
    averaging: AveragingConfig | None = None
    """Stochastic weight averaging, or None for none."""
    interpolated: InterpolatedConfig | None = None
    """Interpolated-weight regularisation, or None for none; needs an `init`."""
    distillation: DistillationConfig | None = None
    """Residual feature distillation, or None for none; needs an `init`."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the forward pass; weights stay in float32."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, more time."""
    compile: Compile = "auto"
    """Compile the image tower: steps are faster, but the first takes a minute or more. "auto" compiles on CUDA."""
    deterministic: bool = False
    """On a GPU, use only deterministic kernels, some of them slower; on a CPU all are deterministic."""
    seed: int = 1024
    """Seed of weights, sampling, augmentation and mixing."""

    def __post_init__(self) -> None:
        require(
            (self.init is None) != (self.model is None),
            "give exactly one of init (a source of weights) and model (a configuration, from scratch)",
        )
        require(
            self.tokenizer is None or self.init is not None,
            "tokenizer is for an init; a model from scratch trains its own on the class names",
        )
        require(
            self.expansion is None or self.init is not None,
            "expansion is for an init; a model from scratch defines its parts itself",
        )
        require(
            bool(self.templates) and all(template.count(SLOT) == 1 for template in self.templates),
            f"templates must be at least one text, each with {SLOT} once for the class name, got {self.templates}",
        )
        require(self.num_frames >= 1, f"num_frames must be at least 1, got {self.num_frames}")
        require(0 <= self.seed <= MAX_SEED, f"seed must be 0 to {MAX_SEED}, got {self.seed}")
        require(
            self.model is None or self.model.num_frames == self.num_frames,
            "num_frames and model.num_frames differ; set both",
        )
        self._check_image_model()

    @property
    def needs_image_model(self) -> bool:
        """Whether each step uses the image model that the training starts from."""
        return self.interpolated is not None or self.distillation is not None

    def _check_image_model(self) -> None:
        if not self.needs_image_model:
            return
        discrete = self.expansion is not None and self.expansion.discrete_labels
        require(
            self.init is not None and not discrete,
            "interpolated and distillation compare with the image model that the training starts from, and its "
            "texts: give init, and no expansion.discrete_labels, or set both to null",
        )
        factors = self.optim.factors
        require(
            self.interpolated is None or bool(factors.visual or factors.text),
            "interpolated needs a tower that is trained; set optim.factors.visual or optim.factors.text above 0",
        )
