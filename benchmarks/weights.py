"""Random weights of a published shape, as a folder that `openxclip.load` and transformers both read.

Speed does not ask what the weights have learned, and so anyone can measure without a download.
"""

import dataclasses
import math
from pathlib import Path

import torch

from openxclip import save_as
from openxclip.models import XCLIP, XCLIPConfig
from openxclip.text.labels import SPOKEN_LABEL_SETS, built_in_labels
from openxclip.text.tokenizer import Tokenizer, train_small_tokenizer
from openxclip.video.transforms import Preprocessor

SCALE = 100.0  # of the logits: where trained models stand; a smaller one would hide differences
SEED = 0


def write_model(folder: Path, config: XCLIPConfig) -> Path:
    """Write a model of this shape -> the folder. The tokenizer, and so the vocabulary, are learned from class names.

    Their texts come out about as long as with CLIP's own tokenizer: 10 tokens for the longest of Kinetics-400.
    """
    tokenizer = _tokenizer(config)
    text = dataclasses.replace(config.text, vocab_size=tokenizer.vocab_size)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = XCLIP(dataclasses.replace(config, text=text))
    model.logit_scale.data.fill_(math.log(SCALE))
    preprocess = Preprocessor.hugging_face(config.vision.image_size_px)
    save_as(folder, model, tokenizer, preprocess, format="huggingface")
    return folder


def _tokenizer(config: XCLIPConfig) -> Tokenizer:
    texts = [label for name in SPOKEN_LABEL_SETS for label in built_in_labels(name)]
    return train_small_tokenizer(texts, config.text.vocab_size, config.text.context_length)
