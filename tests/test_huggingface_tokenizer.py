"""Tokenizers of SigLIP's kind against transformers, on small vocabularies that are trained here."""

import json
import pickle
import struct
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from tokenizers import models, normalizers, pre_tokenizers, trainers

from openxclip.errors import InputError, TokenizerError
from openxclip.text.tokenizer import Tokenizer
from openxclip.text.tokenizer_folder import read_huggingface_tokenizer

CONTEXT_LENGTH = 16
CORPUS = [
    "playing the piano on a beach",
    "surfing a wave in the sea",
    "a video of a person who drinks tea",
    "archery and arm wrestling, 4x100 m relay",
    "a person plays the sea piano",
    "two persons on the line, playing with waves",
    "drinking tea and wrestling with two arms",
    "the video relay of archers on a sea line",
    "unk pad eos <>'s",  # SiglipTokenizer encodes "<unk>" to measure how long it is
] * 10
TEXTS = [
    "Playing the PIANO",
    "a video of a person surfing.",
    "  two   spaces\tand a\nline ",
    "it's (not) a_b-c/d!",
    "crème brûlée, Ⅷ ½ … naïve",
    "打篮球 tea 🏄",
    "the " * 40,
    "x" * 100,
    "<unk> or <pad>",
]
PRINTABLE = st.text(st.sampled_from("abc XYZ.,'_<>/é打 \t"), min_size=1, max_size=30)


def pad_to_context(theirs, texts: list[str]) -> torch.Tensor:
    rows = theirs(texts, padding="max_length", truncation=True, max_length=CONTEXT_LENGTH).input_ids
    return torch.tensor(rows)


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ------------------------------------------------------------------------------------------ SigLIP 2, Gemma


@pytest.fixture(scope="module")
def gemma_parts() -> dict:
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    model = json.loads(backend.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


@pytest.fixture(scope="module")
def siglip2(gemma_parts: dict):
    transformers = pytest.importorskip("transformers")
    return transformers.Siglip2Tokenizer(
        **gemma_parts, padding_side="right", add_bos_token=False, add_eos_token=True
    )


@pytest.fixture(scope="module")
def siglip2_ours(siglip2, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("siglip2")
    siglip2.save_pretrained(folder)
    return read_huggingface_tokenizer(folder, CONTEXT_LENGTH)


def test_siglip2_equals_transformers(siglip2, siglip2_ours: Tokenizer) -> None:
    assert (siglip2_ours.start_id, siglip2_ours.end_id, siglip2_ours.pad_id) == (None, 1, 0)
    assert siglip2_ours.vocab_size == len(siglip2)
    texts = TEXTS[:-1]  # in the last one transformers finds its special tokens
    assert torch.equal(siglip2_ours(texts), pad_to_context(siglip2, texts))


@settings(max_examples=100, deadline=None)
@given(text=PRINTABLE)
def test_siglip2_equals_transformers_on_any_text(text: str, siglip2, siglip2_ours: Tokenizer) -> None:
    if text.strip():
        assert torch.equal(siglip2_ours([text]), pad_to_context(siglip2, [text]))


def test_a_gemma_tokenizer_gets_siglip2s_layout_and_lower_case(
    gemma_parts: dict, siglip2_ours: Tokenizer, tmp_path: Path
) -> None:
    """The published files of SigLIP 2 name Gemma's class, whose own texts start with a token and keep their case."""
    transformers = pytest.importorskip("transformers")
    transformers.GemmaTokenizer(**gemma_parts, add_bos_token=True).save_pretrained(tmp_path)
    edit_config(
        tmp_path, tokenizer_class="GemmaTokenizerFast", eos_token={"content": "<eos>", "special": True}
    )
    assert torch.equal(read_huggingface_tokenizer(tmp_path, CONTEXT_LENGTH)(TEXTS), siglip2_ours(TEXTS))


# ------------------------------------------------------------------------------------------ SigLIP, T5


@pytest.fixture(scope="module")
def unigram() -> tokenizers.Tokenizer:
    """Ids as in SigLIP's vocabulary: the end token is 1, what is unknown 2."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True)]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def write_t5(folder: Path, backend: tokenizers.Tokenizer, **changes: object) -> Path:
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "T5TokenizerFast", "eos_token": "</s>", "pad_token": "</s>"} | changes
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("kind", "text", "cleaned"),
    [
        ("SiglipTokenizer", " It's  a_b, C! ", "its ab c"),
        ("T5TokenizerFast", " It's  a_b, C! ", "its a b c"),
    ],
)
def test_texts_are_cleaned_as_their_kind_is(
    kind: str, text: str, cleaned: str, unigram: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    ours = read_huggingface_tokenizer(write_t5(tmp_path, unigram, tokenizer_class=kind), CONTEXT_LENGTH)
    plain = unigram.encode(cleaned).ids
    assert ours([text])[0].tolist() == plain + [1] * (CONTEXT_LENGTH - len(plain))


def test_open_clips_configuration_may_say_how_to_clean(unigram: tokenizers.Tokenizer, tmp_path: Path) -> None:
    write_t5(tmp_path, unigram, tokenizer_class="SiglipTokenizer")
    ours = read_huggingface_tokenizer(tmp_path, CONTEXT_LENGTH, "canonicalize")
    assert torch.equal(ours(["A_b!"]), ours(["a b"]))
    with pytest.raises(TokenizerError, match="cleaning is 'upper'; it must be one of siglip, "):
        read_huggingface_tokenizer(tmp_path, CONTEXT_LENGTH, "upper")


def test_t5_equals_transformers_on_clean_texts(unigram: tokenizers.Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    vocab = [tuple(piece) for piece in json.loads(unigram.to_str())["model"]["vocab"]]
    theirs = transformers.T5Tokenizer(vocab=vocab, pad_token="</s>", extra_ids=0)
    theirs.save_pretrained(tmp_path)
    ours = read_huggingface_tokenizer(tmp_path, CONTEXT_LENGTH)
    assert (ours.start_id, ours.end_id, ours.pad_id) == (None, 1, 1)
    texts = ["playing the piano", "a video of a person surfing", "打篮球 tea 🏄", "the " * 40]
    assert torch.equal(ours(texts), pad_to_context(theirs, texts))


@pytest.fixture(scope="module")
def spiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the spiece.model of a small SigLIP tokenizer, and nothing but its settings."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="the oracle of SiglipTokenizer needs it")
    folder = tmp_path_factory.mktemp("siglip")
    (folder / "corpus.txt").write_text("\n".join(CORPUS), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(folder / "spiece"),
        vocab_size=200,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    config = {"tokenizer_class": "SiglipTokenizer", "eos_token": "</s>", "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def siglip(spiece: Path):
    transformers = pytest.importorskip("transformers")
    return transformers.SiglipTokenizer(str(spiece / "spiece.model"))


@pytest.fixture(scope="module")
def siglip_ours(spiece: Path) -> Tokenizer:
    return read_huggingface_tokenizer(spiece, CONTEXT_LENGTH)


def test_siglip_equals_transformers(siglip, siglip_ours: Tokenizer) -> None:
    assert (siglip_ours.start_id, siglip_ours.end_id, siglip_ours.pad_id) == (None, 1, 1)
    assert siglip_ours.vocab_size == len(siglip) > 60
    texts = TEXTS[:-1]  # in the last one transformers finds its special tokens
    for text, row, expected in zip(texts, siglip_ours(texts), pad_to_context(siglip, texts), strict=True):
        assert torch.equal(row, expected), text


@settings(max_examples=100, deadline=None)
@given(text=PRINTABLE)
def test_siglip_equals_transformers_on_any_text(text: str, siglip, siglip_ours: Tokenizer) -> None:
    if text.strip() and "<" not in text:
        assert torch.equal(siglip_ours([text]), pad_to_context(siglip, [text])), text


# ------------------------------------------------------------------------------------------ spiece.model


def field(number: int, kind: int, payload: bytes) -> bytes:
    """A protobuf field of less than 128 bytes."""
    return bytes([number << 3 | kind]) + (bytes([len(payload)]) if kind == 2 else b"") + payload


def piece(text: str, score: float, kind: int = 1) -> bytes:
    values = field(1, 2, text.encode()) + field(2, 5, struct.pack("<f", score)) + field(3, 0, bytes([kind]))
    return field(1, 2, values)


PIECES = [
    ("<pad>", 0.0, 3),
    ("</s>", 0.0, 3),
    ("<unk>", 0.0, 2),
    ("▁", -3.0, 1),
    ("a", -2.0, 1),
    ("▁tea", -1.0, 1),
]
SPIECE = b"".join(piece(*values) for values in PIECES)


def write_spiece(folder: Path, data: bytes) -> Path:
    (folder / "spiece.model").write_bytes(data)
    config = {"tokenizer_class": "SiglipTokenizer", "eos_token": "</s>", "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_a_spiece_model_written_byte_by_byte(tmp_path: Path) -> None:
    ours = read_huggingface_tokenizer(write_spiece(tmp_path, SPIECE), 6)
    rows = ours(["Tea", "a a", "tea, zzz", "tea tea tea tea tea tea"]).tolist()
    assert rows == [
        [5, 1, 1, 1, 1, 1],
        [3, 4, 3, 4, 1, 1],
        [5, 3, 2, 1, 1, 1],
        [5, 5, 5, 5, 5, 1],
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no piece for unknown text"),
        (SPIECE[:-3], "cut short"),
        (b"\xff" * 40, "not a readable unigram model"),
        (b"\x80", "not a readable unigram model"),
        (SPIECE + field(2, 2, field(3, 0, b"\x02")), "another kind of model"),
        (field(1, 0, b"\x01"), "a field holds a number instead of bytes"),
        (field(1, 2, field(1, 2, b"\xff")), "utf-8"),
        (
            b"\xff" * 1_000_000,
            "a number in it does not end",
        ),  # which a number without end would read for minutes
        (field(1, 2, field(3, 0, b"\x02")), "a piece without text"),
        (SPIECE + field(3, 2, field(2, 2, b"no table")), "cannot be read|Precompiled"),
    ],
)
def test_broken_spiece_models_are_named(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=rf"spiece\.model .*{message}"):
        read_huggingface_tokenizer(write_spiece(tmp_path, data), CONTEXT_LENGTH)


# ------------------------------------------------------------------------------------------ for all kinds


def test_our_own_file_says_everything(unigram: tokenizers.Tokenizer, tmp_path: Path) -> None:
    ours = read_huggingface_tokenizer(write_t5(tmp_path, unigram), CONTEXT_LENGTH)
    saved = tmp_path / "ours"
    saved.mkdir()
    ours.save(saved / "tokenizer.json")
    reread = Tokenizer.from_file(saved / "tokenizer.json", CONTEXT_LENGTH)
    assert (reread.start_id, reread.end_id, reread.pad_id) == (ours.start_id, ours.end_id, ours.pad_id)
    assert torch.equal(reread(TEXTS), ours(TEXTS))
    assert torch.equal(read_huggingface_tokenizer(saved, CONTEXT_LENGTH)(TEXTS), ours(TEXTS))
    assert torch.equal(pickle.loads(pickle.dumps(ours))(TEXTS), ours(TEXTS))


@pytest.mark.parametrize("text", ["tea </s> tea", "tea <eos> tea", "</s>", "<pad> tea"])
def test_special_tokens_in_a_text_are_text(
    text: str, siglip2_ours: Tokenizer, unigram: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    for tokenizer in (siglip2_ours, read_huggingface_tokenizer(write_t5(tmp_path, unigram), CONTEXT_LENGTH)):
        row = tokenizer([text])[0].tolist()
        tokens = row[: row.index(tokenizer.end_id)]
        assert len(tokens) > len(text.split()) - 1
        assert set(row[len(tokens) + 1 :]) == {tokenizer.pad_id}
        assert not {tokenizer.end_id, tokenizer.pad_id} & set(tokens)


def test_a_tokenizer_whose_end_can_be_typed_is_refused(unigram: tokenizers.Tokenizer, tmp_path: Path) -> None:
    """A unigram model finds "</s>" in a text unless cleaning has removed its punctuation."""
    write_t5(tmp_path, unigram)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: a text that contains </s> would end there"):
        read_huggingface_tokenizer(tmp_path, CONTEXT_LENGTH, "whitespace")


def test_long_texts_keep_their_end(siglip2_ours: Tokenizer) -> None:
    (row,) = siglip2_ours(["tea " * 100]).tolist()
    assert row.index(siglip2_ours.end_id) == CONTEXT_LENGTH - 1


def test_without_a_start_two_ids_are_enough(siglip2_ours: Tokenizer) -> None:
    assert (
        Tokenizer(pickle.loads(pickle.dumps(siglip2_ours.backend)), 2)(["tea"])[0, 1] == siglip2_ours.end_id
    )
    with pytest.raises(InputError, match=r"context_length is 1.*at least 2"):
        Tokenizer(pickle.loads(pickle.dumps(siglip2_ours.backend)), 1)


@pytest.mark.parametrize(
    "config", [None, {"tokenizer_class": "CLIPTokenizerFast"}, {"tokenizer_class": None}]
)
def test_clips_kind_is_read_as_it_stands(config: dict | None, tmp_path: Path) -> None:
    tiny_tokenizer().save(tmp_path / "tokenizer.json")
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = read_huggingface_tokenizer(tmp_path, CONTEXT_LENGTH)
    expected = Tokenizer(tiny_tokenizer().backend, CONTEXT_LENGTH)
    assert torch.equal(ours(["ba, BA"]), expected(["ba, BA"]))
    cleaned = read_huggingface_tokenizer(tmp_path, CONTEXT_LENGTH, "canonicalize")
    assert torch.equal(cleaned(["b_a, BA"]), expected(["b a ba"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"eos_token": "<end>"},
            "tokenizer.json: tokenizer_config.json says eos_token '<end>', which is not in the vocabulary",
        ),
        ({"pad_token": None}, "says pad_token None"),
        ({"tokenizer_class": "BertTokenizer"}, "tokenizer.json: tokenizer_config.json says cls_token None"),
        ({"tokenizer_class": "MPNetTokenizer"}, "it turns the text 'a' into .* not into start"),
    ],
)
def test_folders_that_do_not_fit_together(
    changes: dict, message: str, unigram: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(TokenizerError, match=message):
        read_huggingface_tokenizer(write_t5(tmp_path, unigram, **changes), CONTEXT_LENGTH)


def test_folders_without_a_readable_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"has no tokenizer: none of tokenizer\.json, spiece\.model"):
        read_huggingface_tokenizer(tmp_path, CONTEXT_LENGTH)
    tiny_tokenizer().save(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json cannot be read"):
        read_huggingface_tokenizer(tmp_path, CONTEXT_LENGTH)


XLM_PIECES = ("surf", "ing", "▁surf", "▁", "▁做", "面包", "a", "b", "▁パン", ",", "▁a", "<", "/s", ">")


@pytest.fixture(scope="module")
def xlm(tmp_path_factory: pytest.TempPathFactory):
    """XLM-V's tokenizer in small, MetaCLIP 2's: that of transformers, and ours of the folder that it writes."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("xlm")
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [(piece, -1.0 - i) for i, piece in enumerate(XLM_PIECES)]
    theirs = transformers.XLMRobertaTokenizer(vocab=[*special, *pieces, ("<mask>", 0.0)])
    theirs.save_pretrained(folder)
    return theirs, read_huggingface_tokenizer(folder, 12)


def test_metaclip2_equals_transformers(xlm) -> None:
    oracle, ours = xlm
    texts = ["surfing", "a, b 做面包", "  surf   a ", "パン surfing", "unknown ü"]
    theirs = oracle(texts, padding="max_length", max_length=12, return_tensors="pt")["input_ids"]
    assert torch.equal(ours(texts), theirs)
    assert (ours.start_id, ours.end_id, ours.pad_id) == (0, 2, 1)
    long = ours(["surfing " * 9])[0]
    assert (int(long[-1]), int((long == 2).sum())) == (2, 1)


@given(text=st.text(alphabet="ab surf</>做面包ü,", min_size=1, max_size=20).filter(str.strip))
@settings(max_examples=60, deadline=None)
def test_metaclip2_texts_end_once(text: str, xlm) -> None:
    (row,) = xlm[1]([f"a {text}"])
    assert int((row == 2).sum()) == 1


def test_metaclip2_in_our_own_folder(xlm, tmp_path: Path) -> None:
    _, ours = xlm
    ours.save(tmp_path / "tokenizer.json")
    again = Tokenizer.from_file(tmp_path / "tokenizer.json", 12)
    texts = ["surfing", "a </s> b", "做面包"]
    assert torch.equal(again(texts), ours(texts))


def test_clipa_equals_open_clips_use_of_berts_tokenizer(tmp_path: Path) -> None:
    """open_clip cuts and pads with BERT's tokenizer, then replaces its end token by 0 (`strip_sep_token`)."""
    transformers = pytest.importorskip("transformers")
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "surf", "##ing", "a", "big", "wave", "!")
    oracle = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    oracle.save_pretrained(tmp_path)
    ours = read_huggingface_tokenizer(tmp_path, 8)
    texts = ["Surfing a  BIG wave", "surf!", "a " * 20, "surfing surfing surfing surf wave"]
    theirs = oracle(texts, padding="max_length", truncation=True, max_length=8, return_tensors="pt")[
        "input_ids"
    ]
    assert (theirs == oracle.sep_token_id).any()
    assert torch.equal(ours(texts), torch.where(theirs == oracle.sep_token_id, 0, theirs))
