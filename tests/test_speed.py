"""What makes recognition cheaper and must not change it: folding, integers, kept text features, the shortlist."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY, recognizer_of, runtime_options, tiny_model, tiny_tokenizer, tiny_tokens
from torch.testing import assert_close

from openxclip.caches import cache_folder, keep_compiled_code
from openxclip.checkpoints.load import load
from openxclip.data.moving_shapes import shapes_manifest
from openxclip.errors import InputError
from openxclip.inference.label_set import label_features
from openxclip.inference.options import InferenceOptions
from openxclip.inference.scoring import cosine, shortlist_logits
from openxclip.inference.text_cache import cached, text_key
from openxclip.inference.views import Views
from openxclip.models import XCLIP
from openxclip.models.xclip import VideoFeatures
from openxclip.runtimes.int8 import Int8Linear, to_int8, use_int8
from openxclip.runtimes.torch_runtime import fold_normalisation
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
    pixels = raw_pixels()
    for int8 in (False, True):
        plain, compiled = (
            recognizer_of(*loaded, labels, options=runtime_options(compile=compile, int8=int8))
            for compile in (False, True)
        )
        # A number that lies between two integers may be rounded to the other one.
        tolerance = 2e-3 if int8 else 1e-5
        assert_close(compiled.probabilities(pixels), plain.probabilities(pixels), rtol=0, atol=tolerance)


def test_a_recognizer_keeps_the_features_of_many_labels(tmp_path: Path) -> None:
    labels = [first + second for first in "abcdefghijklmnop" for second in "abcdefghijklmnop"]
    options = InferenceOptions(text_cache=tmp_path, shortlist=3)
    loaded = tiny_model(), tiny_tokenizer(), PREPROCESSORS[0]
    first, second = (recognizer_of(*loaded, labels, options=options) for _ in range(2))
    (file,) = tmp_path.rglob("*.safetensors")
    assert torch.equal(first.label_set.features, load_file(file)["features"])
    assert torch.equal(first.label_set.features, second.label_set.features)
    probabilities = first.probabilities(raw_pixels())
    assert 3 <= int((probabilities > 0).sum()) <= 6, "two views, three labels each"
    assert_close(probabilities.sum(), torch.tensor(1.0))
    recognizer_of(*loaded, labels[:5], options=options)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1, "few labels are not worth a file"


def test_a_shortlist_holds_something() -> None:
    with pytest.raises(InputError, match="shortlist must be at least 1"):
        InferenceOptions(shortlist=0).check()


def test_texts_come_back_in_their_order_whatever_their_length() -> None:
    model, tokens = tiny_model(), tiny_tokens(num_texts=12)
    shuffled = tokens[torch.randperm(12)]
    features = label_features(model, shuffled, [1] * 12, batch_size=5)
    alone = torch.cat([model.encode_text(text[None]) for text in shuffled])
    assert_close(features, alone, rtol=0, atol=1e-5)


# 8-bit integers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_an_integer_layer_multiplies_its_rounded_numbers_exactly(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(48, 20, bias=bias).to(dtype)
    layer = Int8Linear(linear)
    x = (torch.randn(2, 3, 5, 48) * torch.logspace(-3, 3, 5)[:, None]).to(dtype)  # tokens of all sizes
    x[0, 0, 0] = 0
    rows, row_scale = to_int8(x.flatten(0, -2))
    columns, column_scale = to_int8(linear.weight.detach())
    expected = (rows.double() * row_scale) @ (columns.double() * column_scale).T
    if bias:
        expected = expected + linear.bias.double()
    with torch.no_grad():
        found = layer(x)
    assert found.dtype == dtype
    assert found.shape == (2, 3, 5, 20)
    assert_close(
        found.double().flatten(0, -2), expected, rtol=1e-6 if dtype == torch.float32 else 2**-8, atol=1e-6
    )


def test_rounding_moves_a_number_by_half_a_step_at_most() -> None:
    x = torch.cat([torch.randn(50, 64) * torch.logspace(-6, 6, 50)[:, None], torch.zeros(1, 64)])
    whole, scale = to_int8(x)
    assert whole.dtype == torch.int8
    assert whole.abs().amax(dim=1).tolist() == [127] * 50 + [0]
    assert ((whole * scale - x).abs() <= scale * 0.5001).all()


def test_integers_change_the_recognisers_copy_alone() -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    labels = ["ba de", "ki", "lo mu"]
    loaded = model, tiny_tokenizer(), PREPROCESSORS[0]
    plain = recognizer_of(*loaded, labels)
    integers = recognizer_of(*loaded, labels, options=runtime_options(int8=True))
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    pixels = raw_pixels()
    difference = (integers.probabilities(pixels) - plain.probabilities(pixels)).abs().max().item()
    assert 0 < difference <= 0.02


def test_nearly_all_of_the_towers_arithmetic_is_in_integers() -> None:
    model = tiny_model()
    use_int8(model)
    changed = {name for name, module in model.named_modules() if isinstance(module, Int8Linear)}
    names = ("intra_attn.qkv", "intra_attn.proj", "mlp.fc1", "mlp.fc2")
    assert changed == {f"visual.blocks.{i}.{name}" for i in range(2) for name in names}


def test_integers_are_for_processors() -> None:
    with pytest.raises(InputError, match="int8 is for CPUs, but the model runs on meta"):
        use_int8(tiny_model().to("meta"))


def test_integers_find_the_same_on_a_learned_model() -> None:
    loaded = load("openxclip-tiny", device="cpu", dtype="float32")
    manifest = shapes_manifest("test-novel")
    plain, integers = (
        recognizer_of(*loaded, manifest.labels, options=runtime_options(int8=int8)) for int8 in (False, True)
    )
    same = []
    for item in manifest.items[::24]:
        pixels = plain.engine.read_views(item.media.read, Views())
        same.append(plain.probabilities(pixels).argmax() == integers.probabilities(pixels).argmax())
    assert len(same) == 22
    assert sum(same) >= 21


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


def test_a_folder_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    features = cached(tmp_path / "file", "key", lambda: torch.ones(2))
    assert torch.equal(features, torch.ones(2))
    assert "text features cannot be cached" in caplog.text


def test_compiled_code_is_kept_where_it_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variable = "TORCHINDUCTOR_CACHE_DIR"
    monkeypatch.setenv(variable, "")
    monkeypatch.delenv(variable)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("OPENXCLIP_CACHE", str(tmp_path / "file"))
    keep_compiled_code()
    assert variable not in os.environ
    monkeypatch.setenv("OPENXCLIP_CACHE", str(tmp_path / "new"))
    keep_compiled_code()
    assert os.environ[variable] == str(tmp_path / "new" / "compiled")
    monkeypatch.setenv(variable, "chosen")
    keep_compiled_code()
    assert os.environ[variable] == "chosen"


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENXCLIP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")  # what pathlib says

    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder() is None
    keep_compiled_code()


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
