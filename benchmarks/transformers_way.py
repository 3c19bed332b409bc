"""The peer: X-CLIP in transformers, used as its documentation shows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from transformers import AutoProcessor, XCLIPModel
from transformers.utils import logging as transformers_logging

from openxclip.models.text import trim
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer

COMPILE_NOTE = "compiled as its documentation recommends, with torch.compile(model)"


def load_theirs(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """XCLIPModel in eval mode, with scaled_dot_product_attention, its default."""
    transformers_logging.disable_progress_bar()
    return XCLIPModel.from_pretrained(folder, dtype=dtype).eval()


def their_tokens(tokenizer: Tokenizer | MissingTokenizer, labels: Sequence[str]) -> torch.Tensor:
    """Tokens (K, C), padded to the longest text as its processor does with padding=True."""
    return trim(tokenizer(labels))


def read_video(path: Path, choose: Callable[[int], np.ndarray]) -> np.ndarray:
    """The documented reading loop: decode from the start, keep the chosen frames -> (T, H, W, 3) uint8.

    The page samples a random stretch; here frames are spread over the clip, so that both sides see the same ones.
    """
    with av.open(str(path)) as container:
        indices = choose(container.streams.video[0].frames)
        frames = []
        for i, frame in enumerate(container.decode(video=0)):
            if i > indices[-1]:
                break
            if i in indices:
                frames.append(frame)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def documented_loop(
    folder: Path, labels: Sequence[str], choose: Callable[[int], np.ndarray], top_k: int
) -> tuple[Callable[[Path], list[str]], str]:
    """What the model's page tells one to write, from a file to its best labels -> it, and its image processor's name.

    Every call passes all labels through the text tower, as there.
    """
    model, processor = load_theirs(folder), AutoProcessor.from_pretrained(folder)

    def recognise(path: Path) -> list[str]:
        video = read_video(path, choose)
        inputs = processor(text=list(labels), videos=list(video), return_tensors="pt", padding=True)
        with torch.no_grad():
            outputs = model(**inputs)
        probabilities = outputs.logits_per_video.softmax(dim=1)[0]
        return [labels[i] for i in probabilities.topk(top_k).indices.tolist()]

    return recognise, type(processor.image_processor).__name__
