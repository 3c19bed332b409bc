"""OpenAI CLIP's `.pt` files."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from openxclip.checkpoints.checkpoint import Checkpoint, FileFormat
from openxclip.checkpoints.formats.official import infer_towers
from openxclip.checkpoints.names import OPENAI_CLIP
from openxclip.checkpoints.tables import build
from openxclip.video.transforms import Preprocessor

UNKNOWN_ACTIVATION = (
    "the file does not say which activation its towers have; OpenAI's QuickGELU is used. For other weights (LAION, "
    "DataComp) give the folder that holds them and their open_clip_config.json"
)


def read_openai_clip(state: Mapping[str, Tensor], path: Path) -> Checkpoint:
    """Read a CLIP from its state dict, with CLIP's own preprocessing; a video is the mean of its frames.

    Raises:
        CheckpointError: the tensors are not those of a CLIP with a vision transformer.
    """
    config = infer_towers(state, path)
    model = build(state, config, OPENAI_CLIP, str(path))
    notes = () if "input_resolution" in state else (UNKNOWN_ACTIVATION,)  # only OpenAI's files hold it
    return Checkpoint(model, Preprocessor.clip(config.vision.image_size_px), notes=notes)


FORMAT = FileFormat(name="openai-clip", recognises=lambda names: True, read=read_openai_clip)
