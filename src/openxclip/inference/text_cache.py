"""Disk cache of text features, one file for each (text tower, sentences)."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from openxclip.files import atomic_write
from openxclip.models import XCLIP

logger = logging.getLogger(__name__)

VERSION = b"1"  # version of the computation from weights and tokens


def cached(folder: Path, key: str, compute: Callable[[], Tensor]) -> Tensor:
    """The tensor cached under a key, computed and cached if missing; an unreadable file is rewritten."""
    path = folder / "text" / f"{key}.safetensors"
    try:
        return load_file(path)["features"]
    except (OSError, SafetensorError, KeyError):
        pass  # missing or damaged: written below
    features = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            save_file({"features": features.contiguous().cpu()}, temporary)
    except (OSError, SafetensorError) as error:
        logger.warning(
            "text features cannot be cached in %s (%s); give another folder",
            path.parent,
            error,
        )
    return features


def text_key(model: XCLIP, tokens: Tensor, num_sentences: tuple[int, ...]) -> str:
    """A cache key from everything that features depend on: weights, configuration, ids, dtype and device."""
    digest = hashlib.blake2b(VERSION, digest_size=16)
    digest.update(repr((model.config.text, model.logit_scale.dtype, model.logit_scale.device.type)).encode())
    digest.update(repr((tuple(tokens.shape), num_sentences)).encode())
    digest.update(tokens.cpu().numpy().tobytes())
    assert model.text is not None
    for name, tensor in model.text.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
