"""The paper's story in miniature, on moving shapes: language-image pretraining, then a cheap expansion to video.

    openxclip pretrain --recipe shapes_clip --output runs/tiny-clip
    openxclip train --recipe shapes --data moving-shapes --output runs/tiny

All settings were chosen on the validation classes and on clips of their own (lists `val` and `few-val`), never on a
test list.
"""

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
from openxclip.training.contrastive import PretrainConfig


def shapes_clip() -> PretrainConfig:
    """The image model of `openxclip-tiny`."""
    return PretrainConfig(
        recipe="shapes_clip",
        model=_image_model(width=96, num_layers=4, num_heads=3),
        num_steps=1500,
        batch_size=128,
        learning_rate=1e-3,
        warmup_steps=100,
    )


def shapes_clip_small() -> PretrainConfig:
    """The image model that the ablations start from: fewer words, a smaller model."""
    return dataclasses.replace(
        shapes_clip(),
        recipe="shapes_clip_small",
        model=_image_model(width=64, num_layers=3, num_heads=2),
        world="small",
        num_steps=2400,
    )


def shapes_clip_large() -> PretrainConfig:
    """The recipe of `openxclip-tiny` scaled up to 64 px, for real clips (`ucf8_from_shapes`)."""
    return dataclasses.replace(
        shapes_clip(),
        recipe="shapes_clip_large",
        model=_image_model(width=128, num_layers=4, num_heads=4, image_size_px=64, patch_size_px=16),
        num_steps=800,
    )


def _image_model(
    width: int, num_layers: int, num_heads: int, image_size_px: int = 32, patch_size_px: int = 8
) -> XCLIPConfig:
    return XCLIPConfig(
        embed_dim=64,
        num_frames=1,
        vision=VisionConfig(
            image_size_px=image_size_px,
            patch_size_px=patch_size_px,
            width=width,
            num_layers=num_layers,
            num_heads=num_heads,
            message_tokens=False,
        ),
        text=TextConfig(vocab_size=1024, context_length=32, width=64, num_layers=2, num_heads=2),
        integration=None,
        prompting=None,
    )


def shapes() -> TrainConfig:
    """`openxclip-tiny`: all base classes, then tested on compositions it never saw."""
    return TrainConfig(
        recipe="shapes",
        init="./runs/tiny-clip",  # no hub id, as runs/tiny-clip could be
        num_frames=8,
        expansion=_expansion(),
        data=DataConfig(
            train_list="train",
            samples_per_epoch=3200,
            num_workers=0,
            crop_scales=(1.0,),
            flip_probability=0.0,  # a mirror image moves the other way
            jitter_probability=0.0,  # the class names name colours
            gray_probability=0.0,
        ),
        optim=OptimConfig(
            epochs=25,
            learning_rate=5e-4,
            factors=LearningRates(new=2.0, visual=1.0, text=0.0),
            batch_size=32,
            warmup_epochs=1.0,
            weight_decay=0.01,
            clip_grad_norm=1.0,
        ),
        mix=MixConfig(label_smoothing=0.0, mixup_alpha=0.0, cutmix_alpha=0.0),
        precision="float32",
    )


def shapes_small() -> TrainConfig:
    """The training that the ablations vary: smaller and shorter than `shapes`."""
    config = shapes()
    return dataclasses.replace(
        config,
        recipe="shapes_small",
        init="./runs/clip-small",
        data=dataclasses.replace(config.data, train_list="small-train", samples_per_epoch=2400),
        expansion=_expansion(),
        optim=dataclasses.replace(
            config.optim,
            epochs=10,
            factors=LearningRates(new=4.0, visual=1.0, text=0.0),
            batch_size=16,
            warmup_epochs=0.5,
        ),
    )


def shapes_small_few() -> TrainConfig:
    """The same for a few clips of each class."""
    config = shapes_small()
    return dataclasses.replace(
        config,
        recipe="shapes_small_few",
        data=dataclasses.replace(config.data, train_list="small-few-train", samples_per_epoch=528),
        optim=dataclasses.replace(config.optim, epochs=16, warmup_epochs=1.0),
    )


def _expansion() -> ExpansionConfig:
    return ExpansionConfig(
        integration=IntegrationConfig(num_heads=2),
        prompting=PromptingConfig(num_layers=1, num_heads=2),
        new_parts_gain=1.0,
    )
