"""What makes recognition cheaper and must not change it: folded normalisation, kept text features, the shortlist."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY, tiny_model, tiny_tokenizer, tiny_tokens
from torch.testing import assert_close

from openxclip.errors import InputError
from openxclip.inference.folding import fold_normalisation
from openxclip.inference.labels import label_features
from openxclip.inference.recognizer import Recognizer
from openxclip.inference.shortcuts import Shortcuts, cache_folder
from openxclip.inference.shortlist import cosine, shortlist_logits
from openxclip.inference.text_cache import cached, text_key
from openxclip.models import XCLIP
from openxclip.models.xclip import VideoFeatures
from openxclip.video.transforms import Preprocessor

PREPROCESSORS = [
    Preprocessor.official(32),
    Preprocessor.siglip(32),
    Preprocessor(input_size_px=32, resize_short_side_px=32, mean=(0.1, 0.9, 0.0), std=(0.2, 1.0, 3.0)),
]


def raw_pixels() -> torch.Tensor:
    return torch.randint(0, 256, (2, TINY.num_frames, 3, 32, 32), dtype=torch.uint8)


@pytest.mark.parametrize("preprocess", PREPROCESSORS)
@pytest.mark.parametrize("patch_bias", [False, True])
def test_a_folded_model_reads_raw_pixels(preprocess: Preprocessor, patch_bias: bool) -> None:
    model = tiny_model(
        dataclasses.replace(TINY, vision=dataclasses.replace(TINY.vision, patch_bias=patch_bias))
    )
    folded = fold_normalisation(model, preprocess)
    pixels = raw_pixels()
    with torch.no_grad():
        expected = model.encode_video(preprocess.normalise(pixels))
        found = folded.encode_video(pixels.float())
    assert_close(found.video, expected.video, rtol=0, atol=2e-5)
    assert_close(found.patches, expected.patches, rtol=0, atol=2e-5)


def test_folding_copies_the_patch_projection_alone() -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_normalisation(model, PREPROCESSORS[0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    ours = {parameter.data_ptr() for parameter in model.parameters()}
    new = [name for name, parameter in folded.named_parameters() if parameter.data_ptr() not in ours]
    assert new == ["visual.patch_embedding.weight", "visual.patch_embedding.bias"]


def test_every_pixel_value_is_exact_in_bfloat16() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(values.to(torch.bfloat16).to(torch.uint8), values)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what its compiler still uses
def test_a_compiled_recognizer_says_the_same() -> None:
    labels = ["ba de", "ki", "lo mu"]
    loaded = tiny_model(), tiny_tokenizer(), PREPROCESSORS[0]
    plain = Recognizer(*loaded, labels)
    compiled = Recognizer(*loaded, labels, shortcuts=Shortcuts(compile=True))
    pixels = raw_pixels()
    assert_close(compiled.probabilities(pixels), plain.probabilities(pixels), rtol=0, atol=1e-5)


def test_a_recognizer_keeps_the_features_of_many_labels(tmp_path: Path) -> None:
    labels = [first + second for first in "abcdefghijklmnop" for second in "abcdefghijklmnop"]
    shortcuts = Shortcuts(text_cache=tmp_path, shortlist=3)
    loaded = tiny_model(), tiny_tokenizer(), PREPROCESSORS[0]
    first, second = (Recognizer(*loaded, labels, shortcuts=shortcuts) for _ in range(2))
    (file,) = tmp_path.rglob("*.safetensors")
    assert torch.equal(first.text, load_file(file)["features"])
    assert torch.equal(first.text, second.text)
    probabilities = first.probabilities(raw_pixels())
    assert 3 <= int((probabilities > 0).sum()) <= 6, "two views, three labels each"
    assert_close(probabilities.sum(), torch.tensor(1.0))
    Recognizer(*loaded, labels[:5], shortcuts=shortcuts)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1, "few labels are not worth a file"


def test_a_shortlist_holds_something() -> None:
    with pytest.raises(InputError, match="shortlist must be at least 1"):
        Shortcuts(shortlist=0)


def test_texts_come_back_in_their_order_whatever_their_length() -> None:
    model, tokens = tiny_model(), tiny_tokens(num_texts=12)
    shuffled = tokens[torch.randperm(12)]
    features = label_features(model, shuffled, [1] * 12, batch_size=5)
    alone = torch.cat([model.encode_text(text[None]) for text in shuffled])
    assert_close(features, alone, rtol=0, atol=1e-5)


# text features on disk


def test_features_are_computed_once_and_kept(tmp_path: Path) -> None:
    computed = []

    def compute() -> torch.Tensor:
        computed.append(1)
        return torch.arange(6.0).view(2, 3)

    first, second = (cached(tmp_path / "new", "key", compute) for _ in range(2))
    assert torch.equal(first, second)
    assert len(computed) == 1
    (file,) = (tmp_path / "new").rglob("*.safetensors")
    file.write_bytes(b"half a fi")
    assert torch.equal(cached(tmp_path / "new", "key", compute), first)
    assert len(computed) == 2
    assert torch.equal(cached(tmp_path / "new", "key", compute), first)
    assert len(computed) == 2


def key(model: XCLIP, tokens: torch.Tensor | None = None, num_sentences: tuple[int, ...] = (1,) * 5) -> str:
    return text_key(model, tiny_tokens() if tokens is None else tokens, num_sentences)


def test_whatever_features_depend_on_is_in_their_key() -> None:
    model = tiny_model()
    tokens = tiny_tokens()
    assert key(model) == key(tiny_model())
    changed = tokens.clone()
    changed[0, 0] += 1
    other_weights = tiny_model()
    with torch.no_grad():
        other_weights.text.blocks[1].attn.proj.bias[3] += 1e-6
    others = [
        key(model, changed),
        key(model, tokens[:4], (1,) * 4),
        key(model, num_sentences=(2, 3)),
        key(tiny_model().to(torch.bfloat16)),
        key(other_weights),
    ]
    assert len({key(model), *others}) == 6
    # What text features do not depend on is not.
    other_video = tiny_model()
    with torch.no_grad():
        other_video.visual.proj.weight += 1
    assert key(other_video) == key(model)


def test_where_features_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("OPENXCLIP_CACHE", raising=False)
    assert cache_folder() == tmp_path / "openxclip"
    monkeypatch.setenv("OPENXCLIP_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"


# the shortlist


def test_a_shortlist_has_the_models_own_logits_for_the_best_by_cosine() -> None:
    model = tiny_model()
    torch.manual_seed(0)
    text = torch.randn(9, TINY.embed_dim)
    with torch.no_grad():
        video = model.encode_video(torch.randn(3, TINY.num_frames, 3, 32, 32))
        whole, few = model.logits(video, text), shortlist_logits(model, video, text, num_prompted=4)
    for row, own, similar in zip(few, whole, cosine(video.video, text), strict=True):
        best = set(similar.topk(4).indices.tolist())
        assert {i for i in range(9) if row[i] > -torch.inf} == best
        for i in best:
            assert_close(row[i], own[i], rtol=0, atol=1e-5)


def test_a_shortlist_of_all_labels_is_no_shortlist() -> None:
    model = tiny_model()
    text = torch.randn(5, TINY.embed_dim)
    with torch.no_grad():
        video = model.encode_video(torch.randn(1, TINY.num_frames, 3, 32, 32))
        assert torch.equal(shortlist_logits(model, video, text, num_prompted=5), model.logits(video, text))
        plain = tiny_model(dataclasses.replace(TINY, prompting=None))
        bare = VideoFeatures(video.video, None)
        assert torch.equal(shortlist_logits(plain, bare, text, num_prompted=2), plain.logits(bare, text))
