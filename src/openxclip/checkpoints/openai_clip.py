"""OpenAI CLIP's `.pt` files as the start of a training: CLIP's towers, and around them what X-CLIP adds, untrained."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from openxclip.checkpoints.checkpoint import Checkpoint
from openxclip.checkpoints.expand import clip_only, expand
from openxclip.checkpoints.official import infer_towers
from openxclip.checkpoints.tables import OPENAI_CLIP, build
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
    towers = build(state, clip_only(config), OPENAI_CLIP, str(path))
    model, new_parts = expand(towers, config, seed)
    return Checkpoint(model, Preprocessor.official(config.vision.image_size_px), new_parts=new_parts)
