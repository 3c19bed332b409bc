"""The model card: a README.md that says what a model is, where it comes from, and how to load it."""

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from openxclip.checkpoints.catalogue import known_families
from openxclip.checkpoints.hub import is_hub_id
from openxclip.checkpoints.load import Loaded
from openxclip.checkpoints.shipped import SHIPPED
from openxclip.text.tokenizer import Tokenizer

CARD_FILE = "README.md"

CITATION = """\
@inproceedings{ni2022expanding,
  title = {Expanding Language-Image Pretrained Models for General Video Recognition},
  author = {Ni, Bolin and Peng, Houwen and Chen, Minghao and Zhang, Songyang and Meng, Gaofeng and Fu, Jianlong and
            Xiang, Shiming and Ling, Haibin},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year = {2022}
}
"""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Facts for a card that the model itself does not hold."""

    source: str
    """As given by the user; a local path is not written into the card."""
    format: str
    """The format that was written."""
    licence: str | None = None
    """Licence of the weights, or None if unknown."""
    labels: Sequence[str] | None = None
    """The class names that the model was trained on, or None if unknown."""


def known_licence(source: str) -> str | None:
    """The licence of a published model; None for other models, or if its page names no licence."""
    for family in known_families():
        if source in family.models and family.licence != "not named":
            return family.licence
    return None


def model_card(repo_id: str, loaded: Loaded, origin: Origin) -> str:
    """The text of a model's README.md on the hub."""
    parts = [
        f"# {repo_id.rpartition('/')[2]}\n\n{_what(loaded, origin)}\n",
        f"## Facts\n\n{_facts(loaded, origin)}",
        f"## How to load it\n\n{_loading(repo_id, origin.format)}",
        f"## Labels\n\n{_labels(loaded, origin)}",
        f"## Licence\n\n{_licence(origin)}\n",
        f"## Citation\n\n```bibtex\n{CITATION}```\n",
    ]
    return f"---\n{yaml.safe_dump(_metadata(origin), sort_keys=False)}---\n\n" + "\n".join(parts)


def _metadata(origin: Origin) -> dict[str, object]:
    """The head of a card, which the hub reads."""
    licence = {} if origin.licence is None else {"license": origin.licence.lower()}
    library = "transformers" if origin.format == "huggingface" else "openxclip"
    base = {"base_model": origin.source} if _is_published(origin.source) else {}
    tags = ["x-clip", "zero-shot", "video-classification"]
    return {**licence, "library_name": library, "pipeline_tag": "video-classification", "tags": tags, **base}


def _is_published(source: str) -> bool:
    return "/" in source and is_hub_id(source)


def _what(loaded: Loaded, origin: Origin) -> str:
    kind = (
        "A language-image model that recognises videos by the mean over their frames"
        if loaded.model.config.is_image_model
        else "An X-CLIP: it ranks labels in your own words for a video"
    )
    published = _is_published(origin.source) or origin.source in SHIPPED
    place = f"`{origin.source}`" if published else "a checkpoint"
    return f"{kind}. Converted from {place} by OpenXCLIP."


def _facts(loaded: Loaded, origin: Origin) -> str:
    config = loaded.model.config
    facts = {
        "format": origin.format,
        "parameters": f"{sum(parameter.numel() for parameter in loaded.model.parameters()):,}",
        "frames of a clip": config.num_frames,
        "input": f"{config.vision.image_size_px} x {config.vision.image_size_px} px, patches of "
        f"{config.vision.patch_size_px} px",
        "embedding": config.embed_dim,
        "cross-frame communication": _yes(config.vision.message_tokens),
        "multi-frame integration": _yes(config.integration is not None),
        "video-specific prompting": _yes(config.prompting is not None),
        "tokenizer": _yes(isinstance(loaded.tokenizer, Tokenizer)),
    }
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in facts.items())


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _loading(repo_id: str, format: str) -> str:
    text = (
        "```bash\npip install openxclip\n"
        f'openxclip predict video.mp4 --labels "surfing, playing piano" --model {repo_id}\n```\n\n'
        "```python\nimport openxclip\n\n"
        f'recognizer = openxclip.Recognizer.from_pretrained("{repo_id}", ["surfing", "playing piano"])\n'
        'recognizer.predict("video.mp4").scores\n```\n'
    )
    if format == "huggingface":
        text += f'\nWith transformers: `XCLIPModel.from_pretrained("{repo_id}")`.\n'
    return text


def _labels(loaded: Loaded, origin: Origin) -> str:
    discrete = loaded.model.discrete
    if discrete is not None:
        names: Sequence[str] = discrete.labels or ()
        text = "The model has fixed classes instead of a text tower"
    else:
        names = origin.labels or ()
        text = "Any labels. It was trained on" if names else "Any labels"
    if not names:
        return f"{text}{', whose names are unknown' if discrete is not None else ''}.\n"
    listed = "".join(
        f"    {' '.join(name.split())}\n" for name in names
    )  # indented: no name is read as markup
    return f"{text} ({len(names)}):\n\n{listed}"


def _licence(origin: Origin) -> str:
    if origin.licence is None:
        return "The licence of the weights is unknown. Ask their publisher before you use them."
    return f"The weights: {origin.licence}. OpenXCLIP itself: MIT."
