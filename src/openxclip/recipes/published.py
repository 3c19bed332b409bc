"""The published trainings (section 4), from OpenAI's CLIP weights: Kinetics, few-shot and zero-shot.

Each names its weights as OpenAI publishes them; other weights are `--set init=SOURCE`, lists of a data folder
`--set data.train_list=train.csv --set data.val_list=validate.csv`. Top-1 stands as the paper gives it, on Kinetics
with 4x3 views. Commands: docs/published.md.
"""

import dataclasses

from openxclip.training.config import ExpansionConfig, OptimConfig, TrainConfig


def supervised() -> TrainConfig:
    """Full supervision, B/32 with 8 frames: 80.4 % on Kinetics-400."""
    return TrainConfig(
        recipe="supervised",
        init="ViT-B-32.pt",
        num_frames=8,
        expansion=ExpansionConfig(),
        preprocessing="official",
        optim=OptimConfig(epochs=30, learning_rate=8e-6, batch_size=256),
    )


def k400_b32_8() -> TrainConfig:
    """Kinetics-400, B/32 with 8 frames: 80.4 %."""
    return dataclasses.replace(supervised(), recipe="k400_b32_8")


def k400_b32_16() -> TrainConfig:
    """Kinetics-400, B/32 with 16 frames: 81.1 %."""
    return dataclasses.replace(supervised(), recipe="k400_b32_16", num_frames=16)


def k400_b16_8() -> TrainConfig:
    """Kinetics-400, B/16 with 8 frames: 83.8 %."""
    return dataclasses.replace(supervised(), recipe="k400_b16_8", init="ViT-B-16.pt")


def k400_b16_16() -> TrainConfig:
    """Kinetics-400, B/16 with 16 frames: 84.7 %."""
    return dataclasses.replace(k400_b16_8(), recipe="k400_b16_16", num_frames=16)


def k400_b16_32() -> TrainConfig:
    """Kinetics-400, B/16 with 32 frames: none published; the paper trains this model for few-shot and zero-shot."""
    return dataclasses.replace(k400_b16_8(), recipe="k400_b16_32", num_frames=32)


def k400_l14_8() -> TrainConfig:
    """Kinetics-400, L/14 with 8 frames: 87.1 %."""
    return dataclasses.replace(supervised(), recipe="k400_l14_8", init="ViT-L-14.pt")


def k400_l14_336_16() -> TrainConfig:
    """Kinetics-400, L/14 with 16 frames of 336 pixels: 87.7 %."""
    return dataclasses.replace(
        supervised(), recipe="k400_l14_336_16", init="ViT-L-14-336px.pt", num_frames=16
    )


def k600_b32_8() -> TrainConfig:
    """Kinetics-600, B/32 with 8 frames: none published."""
    return dataclasses.replace(k400_b32_8(), recipe="k600_b32_8")


def k600_b32_16() -> TrainConfig:
    """Kinetics-600, B/32 with 16 frames: none published."""
    return dataclasses.replace(k400_b32_16(), recipe="k600_b32_16")


def k600_b16_8() -> TrainConfig:
    """Kinetics-600, B/16 with 8 frames: 85.3 %."""
    return dataclasses.replace(k400_b16_8(), recipe="k600_b16_8")


def k600_b16_16() -> TrainConfig:
    """Kinetics-600, B/16 with 16 frames: 85.8 %."""
    return dataclasses.replace(k400_b16_16(), recipe="k600_b16_16")


def k600_b16_32() -> TrainConfig:
    """Kinetics-600, B/16 with 32 frames: none published."""
    return dataclasses.replace(k400_b16_32(), recipe="k600_b16_32")


def k600_l14_8() -> TrainConfig:
    """Kinetics-600, L/14 with 8 frames: 88.3 %."""
    return dataclasses.replace(k400_l14_8(), recipe="k600_l14_8")


def k600_l14_336_16() -> TrainConfig:
    """Kinetics-600, L/14 with 16 frames of 336 pixels: none published."""
    return dataclasses.replace(k400_l14_336_16(), recipe="k600_l14_336_16")


def few_shot() -> TrainConfig:
    """B/16 with 32 frames on K = 2, 4, 8, 16 clips of each class, one view.

    HMDB-51: 53.0, 57.3, 62.8, 64.0 %. UCF-101: 76.4, 83.4, 88.3, 91.4 %. The first split of each.
    """
    base = k400_b16_32()
    return dataclasses.replace(
        base,
        recipe="few_shot",
        optim=dataclasses.replace(base.optim, epochs=50, learning_rate=2e-6, batch_size=64),
    )


def zero_shot() -> TrainConfig:
    """Kinetics-400, B/16 with 32 frames, then tested on other data sets (mean ± std of three splits).

    HMDB-51: 44.6 ± 5.2 %. UCF-101: 72.0 ± 2.3 %. 160 classes that Kinetics-600 adds: 65.2 ± 0.4 %.
    """
    base = k400_b16_32()
    return dataclasses.replace(base, recipe="zero_shot", optim=dataclasses.replace(base.optim, epochs=10))


REGIMES = (supervised, few_shot, zero_shot)
"""The paper's three regimes, each with one model."""

KINETICS = (
    k400_b32_8,
    k400_b32_16,
    k400_b16_8,
    k400_b16_16,
    k400_b16_32,
    k400_l14_8,
    k400_l14_336_16,
    k600_b32_8,
    k600_b32_16,
    k600_b16_8,
    k600_b16_16,
    k600_b16_32,
    k600_l14_8,
    k600_l14_336_16,
)
"""Full supervision of every model."""
