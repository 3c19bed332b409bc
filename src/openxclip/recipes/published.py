"""The paper's three regimes (section 4): fully supervised, few-shot, zero-shot, from OpenAI's CLIP weights.

Each names ViT-B/32 or ViT-B/16 as OpenAI publishes it; other weights are `--set init=SOURCE`, lists of a data
folder `--set data.train_list=train.txt --set data.val_list=val.txt`.
"""

import dataclasses

from openxclip.training.config import OptimConfig, TrainConfig


def supervised() -> TrainConfig:
    """Kinetics-400, B/32 with 8 frames: 80.4 % top-1 with 4x3 views as published."""
    return TrainConfig(
        recipe="supervised",
        init="ViT-B-32.pt",
        num_frames=8,
        optim=OptimConfig(epochs=30, learning_rate=8e-6, batch_size=256),
    )


def few_shot() -> TrainConfig:
    """HMDB-51 or UCF-101, B/16 with 32 frames, K clips of each class: 64.0 % and 91.4 % at K = 16."""
    base = supervised()
    return dataclasses.replace(
        base,
        recipe="few_shot",
        init="ViT-B-16.pt",
        num_frames=32,
        optim=dataclasses.replace(base.optim, epochs=50, learning_rate=2e-6, batch_size=64),
    )


def zero_shot() -> TrainConfig:
    """Kinetics-400, B/16 with 32 frames, then tested on classes never seen: 72.0 % on UCF-101."""
    base = supervised()
    return dataclasses.replace(
        base,
        recipe="zero_shot",
        init="ViT-B-16.pt",
        num_frames=32,
        optim=dataclasses.replace(base.optim, epochs=10),
    )
