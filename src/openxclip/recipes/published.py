"""The published training runs (section 4), from OpenAI's CLIP weights: Kinetics, few-shot and zero-shot.

They follow X-CLIP's released code, also where the paper differs or does not say: docs/published.md has a table.
Each names its weights as OpenAI publishes them; other weights are `--set init=SOURCE`, lists of a data folder
`--set data.train_list=train.csv --set data.val_list=validate.csv`. Top-1 is the paper's, on Kinetics with 4x3
views. Commands: docs/published.md.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from openxclip.training.config import DataConfig, ExpansionConfig, MixConfig, OptimConfig, TrainConfig


def supervised() -> TrainConfig:
    """Full supervision, B/32 with 8 frames: 80.4 % on Kinetics-400."""
    return TrainConfig(
        recipe="supervised",
        init="ViT-B-32.pt",
        num_frames=8,
        expansion=ExpansionConfig(initialisation="as_released"),
        preprocessing="official",
        data=DataConfig(jitter_frames=True),
        mix=MixConfig(partners="random", micro_batch=8),
        optim=OptimConfig(epochs=30, learning_rate=8e-6, batch_size=256, schedule="as_released"),
    )


@dataclass(frozen=True)
class Published:
    """One model of the paper, trained on Kinetics."""

    name: str
    """Name of the model in the recipes' names."""
    init: str
    """OpenAI's weights that training starts from."""
    num_frames: int
    clips_per_gpu: int
    """Number of clips mixed among themselves; 1 means no mixing."""
    k400: float | None
    """Top-1 on Kinetics-400, or None if none was published."""
    k600: float | None
    """Top-1 on Kinetics-600, or None if none was published."""


MODELS = (
    Published("b32_8", "ViT-B-32.pt", 8, 8, 80.4, None),
    Published("b32_16", "ViT-B-32.pt", 16, 8, 81.1, None),
    Published("b16_8", "ViT-B-16.pt", 8, 8, 83.8, 85.3),
    Published("b16_16", "ViT-B-16.pt", 16, 4, 84.7, 85.8),
    Published("b16_32", "ViT-B-16.pt", 32, 4, None, None),  # the paper trains it for few-shot and zero-shot
    Published("l14_8", "ViT-L-14.pt", 8, 4, 87.1, 88.3),
    Published("l14_336_16", "ViT-L-14-336px.pt", 16, 1, 87.7, None),
)


def kinetics(data: str, name: str) -> TrainConfig:
    """Full supervision of one of `MODELS` on "k400" or "k600", with the same settings."""
    (model,) = (model for model in MODELS if model.name == name)
    base = supervised()
    return dataclasses.replace(
        base,
        recipe=f"{data}_{name}",
        init=model.init,
        num_frames=model.num_frames,
        mix=dataclasses.replace(base.mix, micro_batch=model.clips_per_gpu),
    )


KINETICS: dict[str, Callable[[], TrainConfig]] = {
    f"{data}_{model.name}": partial(kinetics, data, model.name)
    for data in ("k400", "k600")
    for model in MODELS
}
"""Name on the command line -> recipe."""


def few_shot() -> TrainConfig:
    """B/16 with 32 frames on K = 2, 4, 8, 16 clips per class, one view.

    HMDB-51: 53.0, 57.3, 62.8, 64.0 %. UCF-101: 76.4, 83.4, 88.3, 91.4 %. The first split of each.
    """
    base = kinetics("k400", "b16_32")
    return dataclasses.replace(
        base,
        recipe="few_shot",
        optim=dataclasses.replace(base.optim, epochs=50, learning_rate=2e-6, batch_size=64),
    )


def zero_shot() -> TrainConfig:
    """Kinetics-400, B/16 with 32 frames, then tested on other datasets (mean ± std of three splits).

    HMDB-51: 44.6 ± 5.2 %. UCF-101: 72.0 ± 2.3 %. 160 classes that Kinetics-600 adds: 65.2 ± 0.4 %.
    """
    base = kinetics("k400", "b16_32")
    return dataclasses.replace(base, recipe="zero_shot", optim=dataclasses.replace(base.optim, epochs=10))


REGIMES = (supervised, few_shot, zero_shot)
"""The paper's three regimes, each with one model."""
