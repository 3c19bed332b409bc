"""Texts to token ids: CLIP's byte-pair encoding, a small one for models trained from scratch, and other libraries'.

K texts, context of C ids. A row is: start token (if there is one), the text's tokens, end token, padding.

The first two vocabularies have CLIP's order: 256 bytes, the same 256 at the end of a word, one id for each merge,
start, end. The end token has the highest id. Id 0, an ordinary "!", is also the padding, since the model ignores
everything after the end token. SigLIP's vocabularies have no start token, and its text tower reads the padding.
"""

import gzip
import json
import logging
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn, Self

import tokenizers
import torch
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, processors, trainers

from openxclip.errors import InputError, TokenizerError
from openxclip.files import refuse_pointer

logger = logging.getLogger(__name__)

START = "<|startoftext|>"
END = "<|endoftext|>"
WORD_END = "</w>"
NUM_CLIP_MERGES = 48_894
MAX_MERGES_BYTES = 64 * 2**20  # CLIP's file unpacks to 3 MB; anything larger than this is an attack

# English clitics, words, single digits, runs of other characters except spaces. Applied to lower-cased text.
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"

# Code point order is OpenAI's order: the printable bytes first, then the substitutes for the others.
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
BYTES_AT_WORD_END = [byte + WORD_END for byte in BYTES]

Merge = tuple[str, str]


class Tokenizer:
    """A callable: texts -> ids (K, C).

    The layout of a row comes from `backend`, so its file describes everything: start and end token are those of its
    post-processor, padding is the id of its padding, or 0. Its own padding and truncation are switched off.
    """

    def __init__(self, backend: tokenizers.Tokenizer, context_length: int) -> None:
        backend.no_truncation()
        padding = backend.padding
        backend.no_padding()
        self.backend = backend
        self.start_id, self.end_id = _start_and_end(backend)
        self.pad_id = 0 if padding is None else padding["pad_id"]
        if padding is not None:  # kept for the file; without a length it does not affect a single text
            backend.enable_padding(pad_id=self.pad_id, pad_token=padding["pad_token"])
        self.context_length = context_length
        smallest = 2 if self.start_id is None else 3
        if context_length < smallest:
            raise InputError(
                f"context_length is {context_length}; it must fit one token plus start and end tokens: "
                f"at least {smallest}."
            )
        self._check_end()

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """int64 (K, C). A text too long for the context is cut; its last id remains the end token.

        Raises:
            InputError: a text is empty, or `texts` is not a list of texts.
        """
        if isinstance(texts, str) or not texts:
            raise InputError(
                f"Expected a list of at least one text, got {texts!r}. For one text pass [text]."
            )
        ids = torch.full((len(texts), self.context_length), self.pad_id, dtype=torch.int64)
        start = [] if self.start_id is None else [self.start_id]
        too_long = []
        for row, text in zip(ids, texts, strict=True):
            tokens = [*start, *self._encode(text)]
            if len(tokens) >= self.context_length:
                too_long.append(text)
                tokens = tokens[: self.context_length - 1]
            row[: len(tokens) + 1] = torch.tensor([*tokens, self.end_id])
        if too_long:
            logger.warning(
                "%d of %d texts are longer than the model's context of %d tokens and are cut; some may become equal. "
                "Write shorter texts. The first: %r",
                len(too_long), len(texts), self.context_length, too_long[0],
            )  # fmt: skip
        return ids

    def _check_end(self) -> None:
        end = self.backend.id_to_token(self.end_id)
        if end == END and self.end_id != self.vocab_size - 1:
            # CLIP's text tower finds the end of a text by the highest id; towers with other tokenizers know the id.
            raise TokenizerError(
                f"{end} has id {self.end_id}, but it must have the highest of the {self.vocab_size} ids. "
                "Use a tokenizer without tokens added after it."
            )
        if self.end_id in self._encode(str(end)):
            raise TokenizerError(
                f"a text that contains {end} would end there. Use a tokenizer that removes or splits it."
            )

    def _encode(self, text: str) -> list[int]:
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"A text to encode must be a string with at least one character, got {text!r}.")
        # "<|endoftext|>" in a text is ordinary text; as a token it would silently end the text there.
        # Set at each call because pickling the backend loses it.
        self.backend.encode_special_tokens = True
        try:
            # One text at a time: a batch starts threads, and each forked data loader worker then warns.
            # Without special tokens, because these would count in truncation.
            return self.backend.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError) as error:
            raise InputError(f"{text!r} cannot be encoded as UTF-8. Remove the broken characters.") from error

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`, which the tokenizers library and transformers read."""
        self.backend.save(str(path))

    @classmethod
    def from_file(cls, path: Path, context_length: int) -> Self:
        """Read a `tokenizer.json`, or CLIP's merges: bpe_simple_vocab_16e6.txt(.gz) or a `merges.txt`.

        Raises:
            TokenizerError: the file cannot be read or used.
        """
        path = Path(path)
        is_json = path.suffix.lower() == ".json"
        backend = read_tokenizer_json(path) if is_json else clip_tokenizer_from_merges(path)
        try:
            return cls(backend, context_length)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from error


class MissingTokenizer:
    """Placeholder for a missing tokenizer: any use raises an error that says where to get one."""

    def __init__(self, source: str) -> None:
        self._source = source

    def __call__(self, texts: Sequence[str]) -> NoReturn:
        self._refuse()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # copy and pickle expect an AttributeError
            raise AttributeError(name)
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TokenizerError(
            f"{self._source} came without a tokenizer, so no text can be encoded. Give one with --tokenizer "
            "(tokenizer= in Python): a tokenizer.json, a hub id such as openai/clip-vit-base-patch32, "
            "or CLIP's merges file bpe_simple_vocab_16e6.txt.gz."
        )


def clip_tokenizer_from_merges(merges_path: Path) -> tokenizers.Tokenizer:
    """CLIP's tokenizer (49,408 ids) from its merges file, plain or gzipped.

    The original also repairs broken Unicode (ftfy) and unescapes HTML, for captions from the web. Label names do not
    need this; as in the Hugging Face port, it is left out.

    Raises:
        TokenizerError: the file cannot be read, or is not CLIP's.
    """
    path = Path(merges_path)
    merges = [_parse_merge(path, line) for line in _merge_lines(path)]
    try:
        return _build(merges)
    except Exception as error:  # the library raises no narrower type
        raise TokenizerError(f"{path} holds no usable merges: {error}. Download the file again.") from error


def train_small_tokenizer(
    texts: Iterable[str], vocab_size: int = 1024, context_length: int = 32
) -> Tokenizer:
    """Learn a byte-level BPE from `texts`; it encodes any text. The same texts give the same ids.

    `vocab_size` is an upper limit: few texts have few pairs to merge.

    Raises:
        InputError: `vocab_size` is too small for the bytes and the special tokens.
    """
    smallest = 2 * len(BYTES) + 2
    if vocab_size < smallest:
        raise InputError(
            f"vocab_size is {vocab_size}; the bytes and the special tokens alone need {smallest}."
        )
    learner = _build([])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        # Fixes these ids: the trainer numbers them in hash order, and breaks ties by number.
        special_tokens=[AddedToken(token) for token in BYTES_AT_WORD_END],
        initial_alphabet=BYTES,
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return Tokenizer(_build([(first, second) for first, second in merges]), context_length)


def _build(merges: Sequence[Merge]) -> tokenizers.Tokenizer:
    """CLIP's pipeline with the given merges."""
    tokens = dict.fromkeys([*BYTES, *BYTES_AT_WORD_END, *(first + second for first, second in merges)])
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab, merges=list(merges), end_of_word_suffix=WORD_END, continuing_subword_prefix=""
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.add_special_tokens([START, END])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(token, backend.token_to_id(token)) for token in (START, END)],
    )
    return backend


def _start_and_end(backend: tokenizers.Tokenizer) -> tuple[int | None, int]:
    """The ids of the start token, if any, and of the end token, from the post-processor."""
    encoding = backend.encode("a")
    before, _, after = "".join(map(str, encoding.special_tokens_mask)).partition("0")
    after = after.lstrip("0")
    if len(before) > 1 or after != "1":
        raise TokenizerError(
            f"it turns the text 'a' into {encoding.tokens}, not into start (or nothing), the text, end. "
            "Use a tokenizer.json whose post-processor does so."
        )
    return (encoding.ids[0] if before else None), encoding.ids[-1]


def read_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    """Read a tokenizer of the tokenizers library.

    Raises:
        TokenizerError: the file cannot be read.
        CheckpointError: it has not been fetched by git-lfs.
    """
    refuse_pointer(path)
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises no narrower type
        raise TokenizerError(
            f"{path} is not a readable tokenizer.json: {error}. Download the file again."
        ) from error


def _merge_lines(path: Path) -> list[str]:
    """The merges that CLIP uses: the file without its header and its many rarer merges."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            raw = file.read(MAX_MERGES_BYTES + 1)
        lines = raw.decode("utf-8").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TokenizerError(
            f"{path} is not a readable merges file: {error}. Download the file again."
        ) from error
    if lines and "#version" in lines[0]:
        lines = lines[1:]
    if len(raw) > MAX_MERGES_BYTES or len(lines) < NUM_CLIP_MERGES:
        raise TokenizerError(
            f"{path} is not CLIP's merges file: it has {len(lines)} lines in {len(raw)} bytes; expected are "
            f"at least {NUM_CLIP_MERGES} in at most {MAX_MERGES_BYTES}. Use bpe_simple_vocab_16e6.txt.gz."
        )
    return lines[:NUM_CLIP_MERGES]


def _parse_merge(path: Path, line: str) -> Merge:
    parts = line.split(" ")
    if len(parts) != 2:
        raise TokenizerError(
            f"{path}: a merge is two tokens with a space between them, got {line!r}. Download the file again."
        )
    return parts[0], parts[1]
