"""The tokenizer of a model: the given one, or its own."""

from pathlib import Path

from openxclip.checkpoints.formats.open_clip import cleaning_of
from openxclip.checkpoints.hub import download_tokenizer, is_hub_id
from openxclip.checkpoints.source import ModelSource
from openxclip.errors import TokenizerError
from openxclip.models.config import TextConfig
from openxclip.text.tokenizer import MissingTokenizer, Tokenizer
from openxclip.text.tokenizer_folder import CONFIG_FILE, find_tokenizer, read_huggingface_tokenizer


def tokenizer_of(source: ModelSource, model: Path, config: TextConfig) -> Tokenizer | MissingTokenizer:
    """The tokenizer that the source names, or the one in its model folder.

    Raises:
        TokenizerError: it cannot be read, or belongs to another model.
    """
    given = source.tokenizer
    if given is None and find_tokenizer(model) is None:
        return MissingTokenizer(source.source)
    path = model if given is None else _locate(given)
    if path.is_dir():
        cleaning = cleaning_of(path) if given is None else None
        tokenizer = read_huggingface_tokenizer(path, config.context_length, cleaning)
    else:
        tokenizer = Tokenizer.from_file(path, config.context_length)
    _check_vocabulary(tokenizer, path, config)
    return tokenizer


def _locate(given: str) -> Path:
    """The file or folder of a given tokenizer, downloaded if necessary."""
    path = Path(given)
    if path.is_file():  # also reads a tokenizer_config.json beside it
        return path.parent if (path.parent / CONFIG_FILE).is_file() else path
    if not path.is_dir() and is_hub_id(given):
        path = download_tokenizer(given)
    if find_tokenizer(path) is None:
        raise TokenizerError(
            f"no tokenizer at {given}: give a tokenizer.json, CLIP's merges file, a folder with one, or a hub id"
        )
    return path


def _check_vocabulary(tokenizer: Tokenizer, path: Path, config: TextConfig) -> None:
    """Refuse a tokenizer with too many ids or, for a causal tower, another end token than the model's."""
    size = tokenizer.vocab_size
    ends_highest = config.causal and config.end_id is None
    if size > config.vocab_size or (ends_highest and size != config.vocab_size):
        raise TokenizerError(
            f"{path} has {size} ids, the model {config.vocab_size}: it belongs to other weights; give the model's own"
        )
    end_id = config.vocab_size - 1 if config.end_id is None else config.end_id
    if config.causal and tokenizer.end_id != end_id:
        raise TokenizerError(
            f"texts of {path} end at id {tokenizer.end_id}, those of the model at {end_id}: it belongs to other "
            "weights; give the model's own"
        )
