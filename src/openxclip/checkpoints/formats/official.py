"""The official code's `.pth` files; the configuration is inferred from the shapes of the tensors."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from openxclip.checkpoints.checkpoint import Checkpoint, FileFormat
from openxclip.checkpoints.names import OFFICIAL
from openxclip.checkpoints.tables import build
from openxclip.checkpoints.towers import CLIP_VISION
from openxclip.errors import CheckpointError, ConfigError
from openxclip.models import XCLIPConfig
from openxclip.models.config import (
    HEAD_WIDTH,
    IntegrationConfig,
    PromptingConfig,
    TextConfig,
    image_model,
)
from openxclip.models.parts import is_added
from openxclip.video.transforms import Preprocessor

TOWER_SHAPES = {
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "visual.proj": 2,
    "token_embedding.weight": 2,
    "positional_embedding": 2,
}
"""Names of the tensors whose shapes give the towers' sizes -> number of dimensions."""


def is_official(names: Iterable[str]) -> bool:
    """Whether these names are those of an X-CLIP, not a plain CLIP: one belongs to a part that X-CLIP adds."""
    return any(map(is_added, names))


def read_official(state: Mapping[str, Tensor], path: Path) -> Checkpoint:
    """Read a model from the official code's state dict.

    Raises:
        CheckpointError: the tensors are not those of an official model.
    """
    config = infer_config(state, path)
    model = build(state, config, OFFICIAL, str(path))
    return Checkpoint(model, Preprocessor.official(config.vision.image_size_px))


def infer_config(state: Mapping[str, Tensor], path: Path) -> XCLIPConfig:
    """The configuration that fits the tensors; heads are width / 64, as everywhere in X-CLIP."""
    positions = state.get("mit.positional_embedding")
    if positions is None or positions.ndim != 3:
        raise CheckpointError(
            f"{path}: no mit.positional_embedding (1, T, E), which gives the number of frames"
        )
    towers = infer_towers(state, path)
    with _shapes_of(path):
        return replace(
            towers,
            num_frames=positions.shape[1],
            vision=replace(towers.vision, message_tokens=True),
            integration=IntegrationConfig(num_layers=num_blocks(state, "mit.resblocks")),
            prompting=PromptingConfig(num_layers=num_blocks(state, "prompts_generator.decoder")),
        )


def infer_towers(state: Mapping[str, Tensor], path: Path) -> XCLIPConfig:
    """The configuration of the CLIP in these tensors; heads are width / 64."""
    for name, num_dims in TOWER_SHAPES.items():
        if name not in state or state[name].ndim != num_dims or 0 in state[name].shape:
            raise CheckpointError(
                f"{path}: no {name} with {num_dims} dimensions, so it is not a CLIP vision transformer"
            )
    width, _, _, patch_size_px = state["visual.conv1.weight"].shape
    grid = math.isqrt(len(state["visual.positional_embedding"]) - 1)
    vocab_size, text_width = state["token_embedding.weight"].shape
    with _shapes_of(path):
        return image_model(
            embed_dim=state["visual.proj"].shape[1],
            vision=replace(
                CLIP_VISION,
                image_size_px=grid * patch_size_px,
                patch_size_px=patch_size_px,
                width=width,
                num_layers=num_blocks(state, "visual.transformer.resblocks"),
                num_heads=width // HEAD_WIDTH,
            ),
            text=TextConfig(
                vocab_size=vocab_size,
                context_length=len(state["positional_embedding"]),
                width=text_width,
                num_layers=num_blocks(state, "transformer.resblocks"),
                num_heads=text_width // HEAD_WIDTH,
            ),
        )


@contextmanager
def _shapes_of(path: Path) -> Iterator[None]:
    """Name the file in errors about a configuration inferred from its tensors."""
    try:
        yield
    except ConfigError as error:
        raise CheckpointError(f"{path}: its shapes do not fit any model: {error}") from error


def num_blocks(names: Iterable[str], prefix: str) -> int:
    """How many distinct numbers follow the prefix."""
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    return len({match[1] for name in names if (match := pattern.match(name))})


FORMAT = FileFormat(name="official", recognises=is_official, read=read_official)
