"""Later methods to fine-tune CLIP for videos without forgetting: ViFi-CLIP, Open-VCLIP, FROSTER.

All train OpenAI's B/16 on Kinetics-400 and recognise by the frame mean, with the settings of the authors' code. What
differs: Open-VCLIP and FROSTER let each patch also attend to the neighbouring frames; FROSTER trains on rephrased
class names. Top-1 on UCF-101 and HMDB-51 is the mean of three splits, on Kinetics-600 that of its 160 new classes.
Commands, and the settings side by side: docs/published.md.
"""

import dataclasses

from openxclip.recipes.published import zero_shot
from openxclip.text.templates import BUILT_IN_TEMPLATES
from openxclip.training.config import (
    AveragingConfig,
    DataConfig,
    DistillationConfig,
    ExpansionConfig,
    InterpolatedConfig,
    LearningRates,
    MixConfig,
    OptimConfig,
    TrainConfig,
)

FRAME_MEAN = ExpansionConfig(message_tokens=False, integration=None, prompting=None)
"""No parts are added to the image model."""

EVERYTHING = LearningRates(visual=1.0, text=1.0, logit_scale=1.0)
"""Both towers and the temperature train at the same rate."""

WITHOUT_TEXT = dataclasses.replace(EVERYTHING, text=0.0)
"""The image tower and the temperature are trained."""


def vifi_clip() -> TrainConfig:
    """ViFi-CLIP (Rasheed et al., CVPR 2023): fine-tune all of CLIP, 32 frames, X-CLIP's settings.

    UCF-101: 76.8 ± 0.7 %. HMDB-51: 51.3 ± 0.6 %. Kinetics-600: 71.2 ± 1.0 %. Its full supervision reaches 83.9 % on
    Kinetics-400 (16 frames, 30 epochs, batches of 512, a learning rate of 2.2e-5, 4x3 views).
    """
    base = zero_shot()
    return dataclasses.replace(
        base,
        recipe="vifi_clip",
        expansion=FRAME_MEAN,
        templates=BUILT_IN_TEMPLATES["photo"],
        optim=dataclasses.replace(
            base.optim, factors=dataclasses.replace(EVERYTHING, token_embedding=0.0), decay_everything=True
        ),
    )


def open_vclip() -> TrainConfig:
    """Open-VCLIP (Weng et al., ICML 2023): interpolated-weight regularisation and averaging, 8 frames.

    Tested halfway between CLIP and the average (`--interpolate 0.5`). UCF-101: 83.4 ± 1.2 %. HMDB-51: 53.9 ± 1.2 %.
    Kinetics-600: 73.0 ± 0.8 %.
    """
    base = _plain()
    return dataclasses.replace(
        base,
        recipe="open_vclip",
        expansion=dataclasses.replace(FRAME_MEAN, frame_mean="logits"),
        optim=dataclasses.replace(base.optim, factors=WITHOUT_TEXT),
        interpolated=InterpolatedConfig(max_share=0.6, weight=0.5),
    )


def froster() -> TrainConfig:
    """FROSTER (Huang et al., ICLR 2024): residual feature distillation from CLIP, and averaging, 8 frames.

    UCF-101: 84.8 ± 1.1 %. HMDB-51: 54.8 ± 1.3 %. Kinetics-600: 74.8 ± 0.9 %. Trained on half of Kinetics-400's
    classes it reaches 77.8 % on these and 64.3 % on the others.
    """
    return dataclasses.replace(
        _plain(),
        recipe="froster",
        template_draw="one",
        distillation=DistillationConfig(weight=2.0, residual_share=0.1),
    )


def _plain() -> TrainConfig:
    """The fine-tuning shared by Open-VCLIP and FROSTER."""
    return TrainConfig(
        recipe="",
        init="ViT-B-16.pt",
        num_frames=8,
        expansion=FRAME_MEAN,
        templates=BUILT_IN_TEMPLATES["clip-video"],
        data=DataConfig(
            dense_stride=16,
            crop="uniform",
            crop_scales=(1.0, 0.875),  # 224 pixels of a short side of 224 to 256
            jitter_probability=0.0,
            gray_probability=0.0,
        ),
        optim=OptimConfig(
            epochs=22,
            learning_rate=3.33e-6,
            factors=EVERYTHING,
            batch_size=64,
            warmup_epochs=2.0,
            weight_decay=0.01,
            betas=(0.9, 0.999),
            clip_grad_norm=1.0,
        ),
        mix=MixConfig(label_smoothing=0.0, mixup_alpha=0.0, cutmix_alpha=0.0),
        averaging=AveragingConfig(start=1 / 22),  # all but the first epoch
    )


FINE_TUNING = (vifi_clip, open_vclip, froster)
"""The methods of the papers, each with its own settings."""
