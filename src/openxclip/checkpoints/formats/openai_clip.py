"""OpenAI CLIP's `.pt` files: a language-image model, to recognise with at once or to expand to video by training"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from openxclip.checkpoints.checkpoint import Checkpoint
from openxclip.checkpoints.formats.official import infer_towers
from openxclip.checkpoints.names import OPENAI_CLIP
from openxclip.checkpoints.tables import build
from openxclip.video.transforms import Preprocessor

UNSAID = (
    "the file does not say which activation its towers have: OpenAI's, QuickGELU, is computed. Weights of others "
    "(LAION, DataComp) need it said: give the folder that holds them and their open_clip_config.json"
)


def read_openai_clip(state: Mapping[str, Tensor], path: Path) -> Checkpoint:
    """The CLIP of this state dict, with CLIP's own preprocessing; a video is the mean of its frames.

    Raises:
        CheckpointError: the tensors are not those of a CLIP with a vision transformer.
    """
    config = infer_towers(state, path)
    model = build(state, config, OPENAI_CLIP, str(path))
    notes = () if "input_resolution" in state else (UNSAID,)  # which only OpenAI's own files hold
    return Checkpoint(model, Preprocessor.clip(config.vision.image_size_px), notes=notes)
