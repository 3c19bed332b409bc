"""OpenAI CLIP's `.pt` files as the start of a training: CLIP's towers, and around them what X-CLIP adds, untrained."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from openxclip.checkpoints.checkpoint import Checkpoint
from openxclip.checkpoints.official import infer_towers
from openxclip.checkpoints.tables import OPENAI_CLIP, from_theirs, part_of
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.models.config import IntegrationConfig, PromptingConfig
from openxclip.video.transforms import Preprocessor


def read_openai_clip(state: Mapping[str, Tensor], path: Path, num_frames: int, seed: int = 0) -> Checkpoint:
    """X-CLIP for clips of `num_frames` around the CLIP of this state dict; the same seed gives the same weights.

    The preprocessor is X-CLIP's, not CLIP's: the model is to be fine-tuned as published, and X-CLIP was fine-tuned
    from CLIP on frames normalised with ImageNet's mean and deviation.

    Raises:
        CheckpointError: the tensors are not those of a CLIP with a vision transformer.
    """
    config = infer_towers(
        state,
        path,
        num_frames=num_frames,
        integration_layers=IntegrationConfig().num_layers,
        prompting_layers=PromptingConfig().num_layers,
    )
    towers = from_theirs(state, clip_only(config), OPENAI_CLIP, str(path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = XCLIP(config)
    # Not strict, as the new parts keep their initial values; `from_theirs` has checked all others.
    model.load_state_dict({name: tensor.float() for name, tensor in towers.items()}, strict=False)
    preprocess = Preprocessor.official(config.vision.image_size_px)
    return Checkpoint(model.eval(), preprocess, new_parts=_new_parts(model, towers))


def clip_only(config: XCLIPConfig) -> XCLIPConfig:
    """The same model without what X-CLIP adds to CLIP."""
    vision = dataclasses.replace(config.vision, message_tokens=False)
    return dataclasses.replace(config, vision=vision, integration=None, prompting=None)


def _new_parts(model: XCLIP, loaded: Mapping[str, Tensor]) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if name not in loaded:
            counts[part_of(name)] += parameter.numel()
    return tuple(f"{part} ({count:,} parameters)" for part, count in counts.items())
