"""The description of a model to load, as one value. Imports nothing heavy."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Everything that `openxclip.load` needs to know."""

    source: str
    """Hub id, folder, file, or the name of the shipped model."""
    device: str = "auto"
    """"auto", or the name of any torch device."""
    dtype: str = "auto"
    """"auto", or the name of a dtype."""
    num_frames: int | None = None
    """Frames of a clip, if different from training; time positions are then interpolated."""
    tokenizer: str | None = None
    """Tokenizer for a source that has none."""
    revision: str | None = None
    """Branch, tag or commit of a hub source."""
    interpolate: float | None = None
    """Share of the source's weights, 0 to 1; the rest is the image model's (WiSE-FT)."""
    image_model: str | None = None
    """The image model to interpolate with; None for the start of the source, if that is a run."""
