"""The tokenizer against a naive CLIP BPE, against transformers, and on files that are not what they claim."""

import csv
import gzip
import itertools
import json
import pickle
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DATA, needs_data

from openxclip.errors import InputError, TokenizerError
from openxclip.text.tokenizer import (
    BYTES,
    END,
    NUM_CLIP_MERGES,
    START,
    MissingTokenizer,
    Tokenizer,
    clip_tokenizer_from_merges,
    train_small_tokenizer,
)

MERGES_FILE = DATA / "tokenizer" / "bpe_simple_vocab_16e6.txt.gz"
LABEL_FILES = DATA / "splits" / "labels"
needs_merges = needs_data("tokenizer/bpe_simple_vocab_16e6.txt.gz")

ODD_TEXTS = [
    "a video of a person playing piano.",
    "It's what they'll do; I'd say we've won, y'all're LATE'S 'S",
    "4x100 m relay in 2024, 3.14159 and 1000000",
    "!!! ?!... (not baseball) [x] {y} #hash @home 50% a_b-c/d\\e",
    "Crème brûlée, naïve façade, Ångström, ÉCOLE, cafe\u0301",
    "surfing 🏄🏽‍♀️ with 👨‍👩‍👧 friends 🎉",
    "打篮球 サーフィン 서핑 серфинг सर्फिंग ركوب",
    "repeated    spaces\t\ttabs\nnew\r\nlines \u00a0 \u3000 end ",
    "  leading space",
    "½ ² Ⅷ ٣ \uff11\uff12",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "a\u200bb\ufeffc\u00add",
    "&amp; &lt;b&gt;",
    "word " * 200,
    "x" * 500,
]


class NaiveClip:
    """CLIP's BPE written as its paper tells it: merge the best-ranked pair of a word until none is left."""

    def __init__(self, merges: list[tuple[str, str]]) -> None:
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        self.stand_in = {byte: chr(byte) for byte in printable}
        self.stand_in |= {byte: chr(256 + i) for i, byte in enumerate(others)}
        alphabet = [self.stand_in[byte] for byte in printable + others]
        tokens = alphabet + [char + "</w>" for char in alphabet] + [a + b for a, b in merges]
        self.ids = {token: i for i, token in enumerate([*tokens, START, END])}
        self.rank = {pair: i for i, pair in enumerate(merges)}

    def words(self, text: str) -> list[str]:
        text = unicodedata.normalize("NFC", text).lower()
        words = []
        while text:
            clitic = re.match(r"'(s|t|re|ve|m|ll|d)", text)
            kinds = [self.kind(char) for char in text]
            if clitic:
                length = clitic.end()
            elif kinds[0] in ("number", "space"):
                length = 1
            else:
                length = next((i for i, kind in enumerate(kinds) if kind != kinds[0]), len(kinds))
            if kinds[0] != "space":
                words.append(text[:length])
            text = text[length:]
        return words

    @staticmethod
    def kind(char: str) -> str:
        category = unicodedata.category(char)
        names = {"L": "letter", "N": "number"}
        return (
            "space" if char.isspace() and char not in "\x1c\x1d\x1e\x1f" else names.get(category[0], "other")
        )

    def merge(self, word: str) -> list[str]:
        parts = [self.stand_in[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while True:
            pairs = [pair for pair in itertools.pairwise(parts) if pair in self.rank]
            if not pairs:
                return parts
            best = min(pairs, key=self.rank.__getitem__)
            merged: list[str] = []
            i = 0
            while i < len(parts):
                take = 2 if tuple(parts[i : i + 2]) == best else 1
                merged.append("".join(parts[i : i + take]))
                i += take
            parts = merged

    def row(self, text: str, context_length: int) -> list[int]:
        tokens = [self.ids[token] for word in self.words(text) for token in self.merge(word)]
        row = [self.ids[START], *tokens[: context_length - 2], self.ids[END]]
        return row + [0] * (context_length - len(row))


def read_merges() -> list[tuple[str, str]]:
    lines = gzip.decompress(MERGES_FILE.read_bytes()).decode().split("\n")
    return [tuple(line.split()) for line in lines[1 : 1 + 49408 - 512 - 2]]


def all_texts() -> list[str]:
    """Every class name of the four data sets, some in a template, and the odd ones."""
    names = []
    for path in sorted(LABEL_FILES.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            names += [row["name"] for row in csv.DictReader(file)]
    assert len(names) == 400 + 600 + 101 + 51
    return names + [f"A video of a person {name}." for name in names[::10]] + ODD_TEXTS


@pytest.fixture(scope="module")
def clip() -> Tokenizer:
    return Tokenizer.from_file(MERGES_FILE, context_length=77)


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return train_small_tokenizer(["playing piano", "playing guitar", "surfing the wave"] * 3, vocab_size=560)


@needs_merges
def test_clip_has_the_published_ids(clip: Tokenizer) -> None:
    assert (clip.vocab_size, clip.start_id, clip.end_id, clip.pad_id) == (49408, 49406, 49407, 0)
    ids = clip(["a diagram", "a dog", "a cat"])
    assert ids.shape == (3, 77)
    assert ids.dtype == torch.int64
    assert ids[:, :5].tolist() == [
        [49406, 320, 22697, 49407, 0],
        [49406, 320, 1929, 49407, 0],
        [49406, 320, 2368, 49407, 0],
    ]
    assert not ids[:, 4:].any()


@needs_merges
@needs_data("splits/labels")
@pytest.mark.parametrize("context_length", [8, 77])
def test_clip_equals_the_naive_version(context_length: int) -> None:
    texts = all_texts()
    naive = NaiveClip(read_merges())
    ids = Tokenizer.from_file(MERGES_FILE, context_length)(texts).tolist()
    for text, row in zip(texts, ids, strict=True):
        assert row == naive.row(text, context_length), text


@needs_merges
@settings(max_examples=200, deadline=None)
@given(
    text=st.text(
        st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="Σ"), min_size=1, max_size=40
    )
)
def test_clip_equals_the_naive_version_on_any_text(
    text: str, naive_and_ours: tuple[NaiveClip, Tokenizer]
) -> None:
    naive, ours = naive_and_ours
    if text.strip():
        assert ours([text])[0].tolist() == naive.row(text, 77)


@pytest.fixture(scope="module")
def naive_and_ours(clip: Tokenizer) -> tuple[NaiveClip, Tokenizer]:
    return NaiveClip(read_merges()), clip


@needs_merges
@needs_data("splits/labels")
def test_clip_equals_transformers(clip: Tokenizer, tmp_path: Path) -> None:
    """Ids up to the end token; behind it transformers repeats the end token where we write zeros."""
    transformers = pytest.importorskip("transformers")
    merges = read_merges()
    (tmp_path / "vocab.json").write_text(json.dumps(NaiveClip(merges).ids), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in merges)]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    texts = all_texts()
    expected = theirs(texts, padding="max_length", truncation=True, max_length=77)
    ids, mask = torch.tensor(expected["input_ids"]), torch.tensor(expected["attention_mask"])
    assert torch.equal(clip(texts), ids * mask)

    # Their saved tokenizer.json pads and truncates by itself: only with which id reaches our rows.
    theirs.backend_tokenizer.enable_padding(pad_id=49407, pad_token="<|endoftext|>", length=20)
    theirs.backend_tokenizer.enable_truncation(5)
    theirs.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert torch.equal(Tokenizer.from_file(tmp_path / "tokenizer.json", 77)(texts), ids)
    assert torch.equal(Tokenizer.from_file(tmp_path / "merges.txt", 77)(texts), clip(texts))

    # And the other way: our saved file, read by the library that others use, has start and end.
    clip.save(tmp_path / "ours.json")
    reread = tokenizers.Tokenizer.from_file(str(tmp_path / "ours.json"))
    assert reread.encode("a dog").ids == [49406, 320, 1929, 49407]


@needs_merges
def test_save_and_load_is_the_identity(clip: Tokenizer, tmp_path: Path) -> None:
    clip.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.from_file(tmp_path / "tokenizer.json", 77)
    assert loaded.backend.to_str() == clip.backend.to_str()
    assert torch.equal(loaded(ODD_TEXTS), clip(ODD_TEXTS))


def test_small_save_and_load_is_the_identity(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.from_file(tmp_path / "tokenizer.json", 32)
    assert loaded.backend.to_str() == small.backend.to_str()
    assert torch.equal(loaded(ODD_TEXTS), small(ODD_TEXTS))


def test_small_learns_its_words_and_lower_cases(small: Tokenizer) -> None:
    assert (small.start_id, small.end_id) == (small.vocab_size - 2, small.vocab_size - 1)
    assert small.vocab_size <= 560
    playing = small.backend.token_to_id("playing</w>")
    assert playing is not None
    assert small(["Playing\t PLAYING"])[0, :4].tolist() == [small.start_id, playing, playing, small.end_id]


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_small_encodes_any_text_without_loss(text: str, small: Tokenizer) -> None:
    """The bytes of the tokens are the bytes of the normalised text without its spaces."""
    if not text.strip():
        return
    row = Tokenizer(small.backend, context_length=400)([text])[0].tolist()
    tokens = [small.backend.id_to_token(i) for i in row[1 : row.index(small.end_id)]]
    normal = small.backend.normalizer.normalize_str(text)
    words = small.backend.pre_tokenizer.pre_tokenize_str(normal)
    assert "".join(tokens).replace("</w>", "") == "".join(word for word, _ in words)
    assert set("".join(word for word, _ in words)) <= set(BYTES)


def test_small_is_the_same_in_every_process(small: Tokenizer) -> None:
    program = (
        "from openxclip.text.tokenizer import train_small_tokenizer as t;"
        "x=t(['playing piano','playing guitar','surfing the wave']*3, vocab_size=560);"
        "import sys; sys.stdout.buffer.write(x.backend.to_str().encode())"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        assert done.stdout.decode() == small.backend.to_str()


def test_small_vocabulary_is_no_larger_than_its_texts_need() -> None:
    assert train_small_tokenizer(["ab"], vocab_size=1024).vocab_size == 2 * 256 + 1 + 2
    with pytest.raises(InputError, match="vocab_size is 500"):
        train_small_tokenizer(["ab"], vocab_size=500)


def test_long_texts_are_cut_with_a_warning_and_still_end(
    small: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    ids = small(["a", "piano"])
    longest = int((ids[1] != small.pad_id).sum())
    assert caplog.text == ""
    fitting = Tokenizer(small.backend, context_length=longest)
    assert fitting(["piano"])[0, -1] == small.end_id
    assert caplog.text == "", "it fits to the last position"
    ids = small(["piano " * 100, "a"])
    assert "1 of 2 texts are longer than the model's context of 32 tokens and are cut" in caplog.text
    assert "The first: 'piano piano" in caplog.text
    assert ids[0, -1] == small.end_id
    assert (ids[0] == small.end_id).sum() == 1
    assert ids[1].tolist() == [small.start_id, ids[1, 1].item(), small.end_id] + [0] * 29


def test_special_tokens_in_a_text_are_text_also_after_pickling(small: Tokenizer) -> None:
    expected = small(["a <|endoftext|> b"])
    assert (expected == small.end_id).sum() == 1
    assert (expected == small.start_id).sum() == 1
    assert torch.equal(pickle.loads(pickle.dumps(small))(["a <|endoftext|> b"]), expected)


@pytest.mark.parametrize("texts", ["surfing", [], [""], ["ok", " \n"], [None], [3], ["\ud800"]])
def test_what_is_no_list_of_texts_is_refused(small: Tokenizer, texts: object) -> None:
    with pytest.raises(InputError):
        small(texts)


def test_context_must_hold_a_token(small: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"context_length is 2.*at least 3"):
        Tokenizer(small.backend, context_length=2)


def test_missing_tokenizer_says_what_to_do() -> None:
    missing = MissingTokenizer("weights/k400.pth")
    for use in (lambda: missing(["a"]), lambda: missing.vocab_size, lambda: missing.save(Path("x"))):
        with pytest.raises(TokenizerError, match=r"weights/k400\.pth.*--tokenizer.*bpe_simple_vocab_16e6"):
            use()
    assert isinstance(pickle.loads(pickle.dumps(missing)), MissingTokenizer)


def write_gz(path: Path, raw: bytes) -> None:
    path.write_bytes(gzip.compress(raw))


BROKEN = {
    "absent.json": None,
    "absent.txt.gz": None,
    "broken.json": b"{",
    "list.json": b"[1, 2]",
    "other.json": b'{"name": "someone"}',
    "binary.json": bytes(range(256)),
    "not_gzip.txt.gz": b"i n\nt h\n",
    "cut.txt.gz": gzip.compress(b"i n\n" * 10_000)[:40],
    "damaged.txt.gz": gzip.compress(b"")[:10] + b"\xff" * 50,
    "short.txt": b"#version: 0.2\ni n\nt h\n",
    "empty.txt": b"",
    "binary.txt": bytes(range(256)),
    "one_column.txt": b"abc\n" * NUM_CLIP_MERGES,
    "unknown_tokens.txt": b"hello world\n" * NUM_CLIP_MERGES,
    "bomb.txt.gz": gzip.compress(b"\n" * (65 * 2**20), compresslevel=1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(name: str, tmp_path: Path) -> None:
    raw = BROKEN[name]
    if raw is not None:
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(TokenizerError, match=re.escape(name)):
        Tokenizer.from_file(tmp_path / name, 77)


def test_a_tokenizer_without_special_tokens_is_refused(tmp_path: Path) -> None:
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: it turns the text 'a' into \[\], not into"):
        Tokenizer.from_file(tmp_path / "tokenizer.json", 77)


def test_the_end_token_must_have_the_highest_id(small: Tokenizer, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(small.backend.to_str())
    backend.add_tokens(["surfboard"])
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: <\|endoftext\|> has id"):
        Tokenizer.from_file(tmp_path / "tokenizer.json", 77)


def test_any_merges_file_of_clips_size_gives_clips_ids(tmp_path: Path) -> None:
    """Needs no real file: merges of every two bytes, until there are as many as CLIP has."""
    pairs = itertools.islice(itertools.product(BYTES, BYTES), NUM_CLIP_MERGES)
    lines = "#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in pairs)
    write_gz(tmp_path / "merges.txt.gz", lines.encode())
    backend = clip_tokenizer_from_merges(tmp_path / "merges.txt.gz")
    assert backend.get_vocab_size() == 49408
    assert backend.token_to_id("!") == 0
    assert backend.token_to_id("!</w>") == 256
    assert backend.token_to_id("!!") == 512
