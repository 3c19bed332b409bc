"""Few-shot training of a small X-CLIP on real clips and a CPU: from scratch, or from stills of moving shapes."""

import dataclasses

from openxclip.models.config import IntegrationConfig, PromptingConfig, TextConfig, VisionConfig, XCLIPConfig
from openxclip.training.config import (
    DataConfig,
    ExpansionConfig,
    LearningRates,
    MixConfig,
    OptimConfig,
    TrainConfig,
)


def ucf8_fewshot() -> TrainConfig:
    """Eight classes of UCF-101 with 16 clips of each; other shots: `--set data.train_list=train_2shot.txt`.

    From scratch there are no pretrained weights to protect, so all parts learn at one rate. The text tower keeps
    its random initial weights: the targets are distinct from the first step, whereas two towers trained together
    tend to collapse onto one point first. Length, crops and colours were chosen on held-out training groups.
    """
    width, num_heads = 128, 4
    return TrainConfig(
        recipe="ucf8_fewshot",
        model=XCLIPConfig(
            embed_dim=width,
            num_frames=8,
            vision=VisionConfig(
                image_size_px=64, patch_size_px=16, width=width, num_layers=4, num_heads=num_heads
            ),
            text=TextConfig(vocab_size=1024, context_length=32, width=64, num_layers=1, num_heads=1),
            integration=IntegrationConfig(num_heads=num_heads),
            prompting=PromptingConfig(num_layers=1, num_heads=num_heads),
        ),
        num_frames=8,
        data=DataConfig(
            train_list="train_16shot.txt",
            samples_per_epoch=128,
            cached_frames=64,
            num_workers=0,
            crop_scales=(1.0, 0.8, 0.6, 0.45),
            jitter_probability=0.3,
            gray_probability=0.0,
        ),
        optim=OptimConfig(
            epochs=150,
            learning_rate=1e-3,
            factors=LearningRates(new=1.0, visual=1.0, text=0.0, logit_scale=0.0),
            batch_size=16,
            warmup_epochs=15,
            weight_decay=0.05,
            clip_grad_norm=1.0,
        ),
        mix=MixConfig(mixup_alpha=0.0, cutmix_alpha=0.0),
        precision="float32",
    )


def ucf8_from_shapes() -> TrainConfig:
    """The same clips from an image model trained only on moving shapes (`pretrain --recipe shapes_clip_large`).

    The image tower starts from that model; new parts start larger than published, as in `shapes`.
    """
    config = ucf8_fewshot()
    return dataclasses.replace(
        config,
        recipe="ucf8_from_shapes",
        init="./runs/clip-large",
        model=None,
        expansion=ExpansionConfig(
            integration=IntegrationConfig(num_heads=2),
            prompting=PromptingConfig(num_layers=1, num_heads=2),
            new_parts_gain=1.0,
        ),
    )
