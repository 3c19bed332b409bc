"""Content-based names of models and label sets: rows with the same names are comparable."""

import hashlib
import json

import torch

from openxclip.models import XCLIP
from openxclip.text.label_texts import LabelTexts


def model_id(name: str, model: XCLIP) -> str:
    """A model's name, and a digest of its configuration and weights."""
    digest = hashlib.blake2b(repr(model.config).encode(), digest_size=8)
    for key, tensor in model.state_dict().items():
        digest.update(f"{key} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"{name}@{digest.hexdigest()}"


def label_set_id(texts: LabelTexts) -> str:
    """A digest of the labels and of the sentences that represent them."""
    return hashlib.blake2b(
        json.dumps([list(texts.labels), texts.sentences()]).encode(), digest_size=8
    ).hexdigest()
