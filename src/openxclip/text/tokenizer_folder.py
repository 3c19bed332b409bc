"""The tokenizer of a model folder, as in transformers or open_clip: CLIP's, MetaCLIP 2's, CLIPA's or SigLIP's."""

import string
from pathlib import Path
from typing import Any, Literal, get_args

import tokenizers
from tokenizers import AddedToken, Regex, normalizers, processors

from openxclip.errors import CheckpointError, TokenizerError
from openxclip.files import read_json
from openxclip.text.sentencepiece import read_sentencepiece
from openxclip.text.tokenizer import Tokenizer, read_tokenizer_json

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SENTENCEPIECE_FILE = "spiece.model"
MERGES_FILES = ("merges.txt", "bpe_simple_vocab_16e6.txt.gz")
FILES = (TOKENIZER_FILE, SENTENCEPIECE_FILE, *MERGES_FILES)
"""Files that hold a tokenizer; the first that exists is read."""

Cleaning = Literal["siglip", "siglip2", "canonicalize", "lower", "whitespace"]
"""How texts are cleaned first; the last three are open_clip's names."""

# SigLIP-style tokenizers write a text, the end token, then padding to the full context. Their tokenizer.json does
# not contain this layout, and some do not contain how texts were cleaned in training.
CLEANING_OF_CLASS: dict[str, Cleaning] = {
    "SiglipTokenizer": "siglip",  # transformers, SiglipTokenizer.canonicalize_text
    "T5Tokenizer": "canonicalize",  # open_clip's SigLIP: tokenizer_kwargs of its model configurations
    "GemmaTokenizer": "siglip2",  # SigLIP 2, section 2 of arXiv 2502.14786: texts are lower-cased
    "Siglip2Tokenizer": "siglip2",  # transformers, Siglip2Tokenizer
}


XLM = "XLMRobertaTokenizer"
"""The class of MetaCLIP 2's tokenizer: XLM-V's pieces between `<s>` and `</s>`."""


BERT = "BertTokenizer"
"""The class of CLIPA's tokenizer, which leaves BERT's end token out (open_clip's `strip_sep_token`)."""


def find_tokenizer(folder: Path) -> Path | None:
    """The tokenizer's file in a folder, if there is one."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def read_huggingface_tokenizer(
    folder: Path, context_length: int, cleaning: Cleaning | None = None
) -> Tokenizer:
    """Read the tokenizer in a folder of transformers, open_clip or ours.

    Args:
        folder: with a tokenizer.json, a spiece.model or CLIP's merges, and optionally a tokenizer_config.json.
        context_length: ids of a text.
        cleaning: how to clean texts; None follows transformers for this kind of tokenizer.

    Raises:
        TokenizerError: there is no tokenizer, or it cannot be read or used.
    """
    path = find_tokenizer(folder)
    if path is None:
        raise TokenizerError(f"{folder} has no tokenizer: none of {', '.join(FILES)}; give one separately")
    if cleaning is not None and cleaning not in get_args(Cleaning):
        raise TokenizerError(f"cleaning is {cleaning!r}; it must be one of {', '.join(get_args(Cleaning))}")
    config = _read_config(folder)
    kind = str(config.get("tokenizer_class", "")).removesuffix("Fast")
    if kind == XLM and path.name == TOKENIZER_FILE:
        return _read_xlm(path, config, context_length)
    if kind == BERT and path.name == TOKENIZER_FILE:
        return _read_bert(path, config, context_length)
    if kind not in CLEANING_OF_CLASS:
        tokenizer = Tokenizer.from_file(path, context_length)
        return (
            tokenizer if cleaning is None else Tokenizer(_clean(tokenizer.backend, cleaning), context_length)
        )
    backend = read_sentencepiece(path) if path.name == SENTENCEPIECE_FILE else read_tokenizer_json(path)
    try:
        _end_and_pad(backend, config)
        return Tokenizer(_clean(backend, cleaning or CLEANING_OF_CLASS[kind]), context_length)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from error


def _read_xlm(path: Path, config: dict[str, Any], context_length: int) -> Tokenizer:
    backend = read_tokenizer_json(path)
    try:
        end, pad = (_special_token(backend, config, name) for name in ("eos_token", "pad_token"))
        # Its vocabulary has the end token as an ordinary piece, which would end a text.
        own = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizers.Replace(end, " "), *own])
        backend.enable_padding(pad_id=backend.token_to_id(pad), pad_token=pad)
        return Tokenizer(backend, context_length)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from error


def _read_bert(path: Path, config: dict[str, Any], context_length: int) -> Tokenizer:
    backend = read_tokenizer_json(path)
    try:
        start, pad = (_special_token(backend, config, name) for name in ("cls_token", "pad_token"))
        # Padding instead of BERT's end token: the same ids as without that token.
        ids = [(token, backend.token_to_id(token)) for token in (start, pad)]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{start}:0 $A:0 {pad}:0", special_tokens=ids
        )
        backend.enable_padding(pad_id=backend.token_to_id(pad), pad_token=pad)
        return Tokenizer(_clean(backend, "whitespace"), context_length)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG_FILE).is_file():
        return {}
    try:
        return read_json(folder / CONFIG_FILE)
    except CheckpointError as error:
        raise TokenizerError(str(error)) from error


def _end_and_pad(backend: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """Give a tokenizer SigLIP's layout: end token and padding."""
    end, pad = (_special_token(backend, config, name) for name in ("eos_token", "pad_token"))
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in {end, pad}])
    end_id, pad_id = backend.token_to_id(end), backend.token_to_id(pad)
    backend.post_processor = processors.TemplateProcessing(single=["$A", end], special_tokens=[(end, end_id)])
    backend.enable_padding(pad_id=pad_id, pad_token=pad)


def _special_token(backend: tokenizers.Tokenizer, config: dict[str, Any], name: str) -> str:
    value = config.get(name)
    token = value.get("content") if isinstance(value, dict) else value
    if not isinstance(token, str) or backend.token_to_id(token) is None:
        raise TokenizerError(
            f"{CONFIG_FILE} says {name} {token!r}, which is not in the vocabulary. Download both files again."
        )
    return token


def _clean(backend: tokenizers.Tokenizer, cleaning: Cleaning) -> tokenizers.Tokenizer:
    """Add cleaning before the tokenizer's own normalisation."""
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([*_steps(cleaning), *own])
    return backend


def _steps(cleaning: Cleaning) -> list[normalizers.Normalizer]:
    """The steps of a cleaning, without open_clip's repair of Unicode (ftfy) and HTML, which label names do not need."""
    lower = normalizers.Lowercase()
    no_punctuation = normalizers.Replace(Regex(f"[{_escaped(string.punctuation)}]"), "")
    one_space = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    steps: dict[str, list[normalizers.Normalizer]] = {
        "siglip": [lower, no_punctuation, *one_space],
        "siglip2": [lower],
        "canonicalize": [normalizers.Replace("_", " "), no_punctuation, lower, *one_space],
        "lower": [*one_space, lower],
        "whitespace": one_space,
    }
    return steps[cleaning]


def _escaped(characters: str) -> str:
    return "".join(f"\\{character}" for character in characters)
