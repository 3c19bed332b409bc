"""Reads SentencePiece's unigram models (`spiece.model`) without that library."""

import struct
from collections.abc import Iterator
from pathlib import Path

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from openxclip.errors import TokenizerError

SPACE = "▁"  # a space in a piece

# Field numbers of sentencepiece_model.proto (https://github.com/google/sentencepiece, src/).
PIECES, TRAINER, NORMALIZER = 1, 2, 3
PIECE_TEXT, PIECE_SCORE, PIECE_KIND = 1, 2, 3
TRAINER_MODEL, NORMALIZER_CHARACTERS = 3, 2
UNIGRAM, UNKNOWN = 1, 2

MAX_VARINT_BYTES = 10
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # kinds of protobuf fields


def read_sentencepiece(path: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a `spiece.model`, without special tokens around a text.

    Raises:
        TokenizerError: the file cannot be read, or holds another kind of model.
    """
    try:
        return _build(path.read_bytes())
    except Exception as error:  # the library raises no narrower type
        raise TokenizerError(
            f"{path} is not a readable unigram model: {error}. Download the file again."
        ) from error


def _build(data: bytes) -> tokenizers.Tokenizer:
    pieces: list[tuple[str, float]] = []
    unknown_id, characters = None, b""
    for number, value in _fields(data):
        if number == PIECES:
            piece = dict(_fields(_bytes(value)))
            if piece.get(PIECE_KIND) == UNKNOWN:
                unknown_id = len(pieces)
            if PIECE_TEXT not in piece:
                raise ValueError("it has a piece without text")
            (score,) = struct.unpack("<f", _bytes(piece.get(PIECE_SCORE, bytes(4))))
            pieces.append((_bytes(piece[PIECE_TEXT]).decode("utf-8"), score))
        elif number == TRAINER and dict(_fields(_bytes(value))).get(TRAINER_MODEL, UNIGRAM) != UNIGRAM:
            raise ValueError("it was trained as another kind of model")
        elif number == NORMALIZER:
            characters = _bytes(dict(_fields(_bytes(value))).get(NORMALIZER_CHARACTERS, b""))
    if unknown_id is None:
        raise ValueError("it has no piece for unknown text")
    return _tokenizer(pieces, unknown_id, characters)


def _tokenizer(pieces: list[tuple[str, float]], unknown_id: int, characters: bytes) -> tokenizers.Tokenizer:
    """The normaliser; `characters` is the compiled table of characters that are replaced first."""
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unknown_id, byte_fallback=False))
    backend.normalizer = normalizers.Sequence(
        [
            *([normalizers.Precompiled(characters)] if characters else []),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True)
    return backend


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protobuf message; values are whole numbers or bytes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == BYTES:
            length, position = _varint(data, position)
        else:
            length = {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(kind, len(data))
        if position + length > len(data):
            raise ValueError("it is damaged or cut short")
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A varint: 7 bits per byte, lowest first -> the number, and the position after it."""
    value = 0
    for shift in range(0, 7 * MAX_VARINT_BYTES, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number in it does not end")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a field holds a number instead of bytes")
    return value
