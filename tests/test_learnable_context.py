"""Learnable context: exactly a template whose words are free vectors."""

import dataclasses

import pytest
import torch
from tiny import TINY, tiny_model, tiny_tokenizer, tiny_tokens
from torch import Tensor

from openxclip.checkpoints.load import load
from openxclip.checkpoints.save import save_as
from openxclip.errors import CheckpointError, ConfigError
from openxclip.models import XCLIP
from openxclip.models.config import TextConfig
from openxclip.models.learnable_context import shorten
from openxclip.video.transforms import Preprocessor

WORDS = torch.tensor([17, 42, 99])
CONTEXT = dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, num_context_vectors=len(WORDS)))
CONTEXT_LENGTH, END = TINY.text.context_length, TINY.text.vocab_size - 1


def with_words() -> tuple[XCLIP, XCLIP]:
    """A model whose vectors are the embeddings of WORDS, and the same one without vectors."""
    model, plain = tiny_model(CONTEXT), tiny_model()
    assert model.text is not None
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "text.context.vectors"}
    plain.load_state_dict(state)
    assert model.text.context is not None
    model.text.context.vectors.data = model.text.token_embedding.weight[WORDS].detach().clone()
    return model, plain


def written_out(tokens: Tensor) -> Tensor:
    """The words put behind the start token, cut to the context with the end token last: a naive loop."""
    rows = []
    for row in tokens.tolist():
        name = row[1 : row.index(END)]
        text = [*[row[0], *WORDS.tolist(), *name][: CONTEXT_LENGTH - 1], END]
        rows.append(text + [0] * (CONTEXT_LENGTH - len(text)))
    return torch.tensor(rows)


@pytest.mark.parametrize("num_texts", [1, 5, 14])
def test_vectors_that_are_words_give_what_the_words_give(num_texts: int) -> None:
    """With 14 texts some fill the context, so that their names are cut."""
    model, plain = with_words()
    tokens = tiny_tokens(num_texts=num_texts)
    assert torch.equal(model.encode_text(tokens), plain.encode_text(written_out(tokens)))


def test_a_name_is_cut_as_the_tokenizer_would() -> None:
    tokens = torch.tensor([[1, 2, 3, 4, 9], [1, 2, 9, 0, 0], [1, 2, 3, 9, 0]])
    assert shorten(tokens, 4).tolist() == [[1, 2, 3, 9], [1, 2, 9, 0], [1, 2, 3, 9]]
    assert shorten(tokens, 3).tolist() == [[1, 2, 9]] * 3
    assert shorten(tokens, 6).tolist() == tokens.tolist()
    assert tokens[0, -2] == 4  # not changed in place
    text = "ba de ki lo mu ne pi ro su ta ve zo ba de ki lo"
    assert torch.equal(shorten(tiny_tokenizer()([text]), 8), tiny_tokenizer(with_length(8))([text]))


def with_length(length: int):
    return dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, context_length=length))


def test_the_gradient_reaches_the_vectors_through_a_frozen_tower() -> None:
    model = tiny_model(CONTEXT)
    model.requires_grad_(False)
    assert model.text is not None
    assert model.text.context is not None
    model.text.context.vectors.requires_grad_(True)
    model.encode_text(tiny_tokens()).square().sum().backward()
    grad = model.text.context.vectors.grad
    assert grad is not None
    assert grad.shape == (3, 64)
    assert (grad.abs().sum(dim=1) > 0).all()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["text.context.vectors"]


def test_the_vectors_leave_all_other_initial_weights_alone() -> None:
    states = []
    for config in (TINY, CONTEXT):
        torch.manual_seed(0)
        states.append(XCLIP(config).state_dict())
    plain, model = states
    vectors = model.pop("text.context.vectors")
    assert all(torch.equal(plain[name], model[name]) for name in plain)
    assert plain.keys() == model.keys()
    assert float(vectors.std()) == pytest.approx(0.02, rel=0.25)


def test_the_context_has_room_for_a_name() -> None:
    assert TextConfig(context_length=16, num_context_vectors=13).num_context_vectors == 13
    with pytest.raises(
        ConfigError, match="num_context_vectors is 14, but a context_length of 16 leaves room for 13"
    ):
        TextConfig(context_length=16, num_context_vectors=14)
    with pytest.raises(ConfigError, match="num_context_vectors must be 1"):
        TextConfig(num_context_vectors=0)


def test_it_is_saved_and_loaded(tmp_path) -> None:
    model = tiny_model(CONTEXT)
    save_as(tmp_path / "model", model, tiny_tokenizer(), Preprocessor.official(32))
    loaded = load(tmp_path / "model", device="cpu", dtype="float32").model
    assert loaded.config == CONTEXT
    assert torch.equal(loaded.encode_text(tiny_tokens()), model.encode_text(tiny_tokens()))


def test_hugging_faces_format_cannot_hold_it(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no learnable context"):
        save_as(
            tmp_path / "model",
            tiny_model(CONTEXT),
            tiny_tokenizer(),
            Preprocessor.official(32),
            "huggingface",
        )
    assert list(tmp_path.iterdir()) == []
