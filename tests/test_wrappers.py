"""Checkpoints of other trainers, pointers of git-lfs, and folders of the hub's cache."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY, tiny_model, tiny_tokenizer
from torch import Tensor

from openxclip.checkpoints.formats.registry import read_checkpoint
from openxclip.checkpoints.load import load
from openxclip.checkpoints.names import OFFICIAL, OPENAI_CLIP
from openxclip.checkpoints.resolve import locate
from openxclip.checkpoints.save import save_as
from openxclip.checkpoints.tables import to_theirs
from openxclip.checkpoints.wrappers import unwrapped
from openxclip.errors import CheckpointError
from openxclip.models import XCLIP
from openxclip.models.expand import clip_only
from openxclip.video.transforms import Preprocessor

pytestmark = pytest.mark.on_cpu

State = Mapping[str, Tensor]


def prefixed(state: State, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


LAYOUTS: dict[str, Callable[[State], Any]] = {
    "mmcv": lambda state: {"meta": {"epoch": 3}, "state_dict": dict(state)},
    "DDP": lambda state: {"model": prefixed(state, "module."), "epoch": 3},
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled DDP": lambda state: prefixed(state, "module._orig_mod."),
    "a compiled part": lambda state: {
        name.replace("visual.", "visual._orig_mod.", 1): tensor for name, tensor in state.items()
    },
    "Lightning": lambda state: {
        "pytorch-lightning_version": "2.5.0",
        "loops": {"fit_loop": {}},
        "state_dict": prefixed(state, "model."),
        "optimizer_states": [{"state": {0: {"step": torch.ones(1)}}}],
    },
    "Lightning, compiled": lambda state: {"state_dict": prefixed(state, "model._orig_mod.")},
    "Lightning around a larger module": lambda state: {"state_dict": prefixed(state, "model.clip_model.")},
    "DeepSpeed": lambda state: {"module": prefixed(state, "module."), "global_steps": 7, "dp_world_size": 2},
    "FSDP": lambda state: {"model_state_dict": prefixed(state, "_fsdp_wrapped_module.")},
    "nested": lambda state: {"model": {"state_dict": dict(state)}},
}


def same(model: XCLIP, other: XCLIP) -> bool:
    first, second = model.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpoints_of_other_trainers(layout: str, tmp_path: Path):
    model = tiny_model()
    torch.save(LAYOUTS[layout](to_theirs(model.state_dict(), OFFICIAL)), tmp_path / "run.pth")
    checkpoint, kind = read_checkpoint(tmp_path / "run.pth")
    assert kind == "official"
    assert same(checkpoint.model, model)


def test_safetensors_with_a_prefix(tmp_path: Path):
    model = tiny_model()
    preprocess = Preprocessor.official(TINY.vision.image_size_px)
    save_as(tmp_path / "hf", model, tiny_tokenizer(), preprocess, format="huggingface")
    state = read_weights_of(tmp_path / "hf")
    save_file(prefixed(state, "_orig_mod.module."), tmp_path / "hf" / "model.safetensors")
    assert same(load(tmp_path / "hf", device="cpu", dtype="float32").model, model)


def read_weights_of(folder: Path) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}


def test_a_weight_may_not_be_there_twice(tmp_path: Path):
    with pytest.raises(CheckpointError, match="the same weights twice"):
        unwrapped({"a.weight": 1, "module.a.weight": 2}, tmp_path)


def vifi_clip(clip: State) -> dict[str, Tensor]:
    """The names of ViFi-CLIP: trainers/vificlip.py of muzairkhattak/ViFi-CLIP."""
    text = ("transformer.", "positional_embedding", "ln_final.", "text_projection")
    renamed = {}
    for name, tensor in clip.items():
        if name.startswith("visual."):
            renamed["module.image_encoder." + name.removeprefix("visual.")] = tensor
        elif name.startswith(text):
            renamed[f"module.text_encoder.{name}"] = tensor
    classes = {"module.prompt_learner.complete_text_embeddings": torch.zeros(3, 77, 16)}
    return renamed | {"module.logit_scale": clip["logit_scale"]} | classes


def test_vifi_clip(tmp_path: Path):
    model = tiny_model(clip_only(TINY))
    clip = to_theirs(model.state_dict(), OPENAI_CLIP)
    file = tmp_path / "vifi.pth"
    torch.save({"model": vifi_clip(clip), "epoch": 9}, file)
    with pytest.raises(CheckpointError, match=r"ViFi-CLIP; such files lack the token embedding.*Add it"):
        read_checkpoint(file)
    name = "token_embedding.weight"
    torch.save({"model": vifi_clip(clip) | {name: clip[name]}}, file)
    checkpoint, kind = read_checkpoint(file)
    assert kind == "openai-clip"
    assert same(checkpoint.model, model)
    prompts = {
        "module.image_encoder.VPT": torch.zeros(8, 16),
        "module.prompt_learner.ctx": torch.zeros(4, 16),
    }
    torch.save({"model": vifi_clip(clip) | prompts}, file)
    with pytest.raises(CheckpointError, match="ViFi-CLIP with learned prompts"):
        read_checkpoint(file)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 605247071\n"


def test_pointers_of_git_lfs_are_named(tmp_path: Path):
    preprocess = Preprocessor.official(TINY.vision.image_size_px)
    save_as(tmp_path / "model", tiny_model(), tiny_tokenizer(), preprocess)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        whole = (tmp_path / "model" / name).read_bytes()
        (tmp_path / "model" / name).write_text(POINTER)
        with pytest.raises(Exception, match=rf"{name}.*git lfs pull"):
            load(tmp_path / "model", device="cpu")
        (tmp_path / "model" / name).write_bytes(whole)
    (tmp_path / "k400.pth").write_text(POINTER)
    with pytest.raises(CheckpointError, match=r"k400\.pth.*git lfs pull"):
        load(tmp_path / "k400.pth", device="cpu")


def test_folders_of_the_hub_s_cache(tmp_path: Path):
    repository = tmp_path / "models--me--mine"
    preprocess = Preprocessor.official(TINY.vision.image_size_px)
    first = repository / "snapshots" / "0a1b"
    first.parent.mkdir(parents=True)
    save_as(first, tiny_model(), tiny_tokenizer(), preprocess)
    assert locate(str(repository)) == first
    second = repository / "snapshots" / "9f8e"
    save_as(second, tiny_model(), tiny_tokenizer(), preprocess)
    with pytest.raises(CheckpointError, match="2 revisions of a model; give one"):
        locate(str(repository))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("9f8e")
    assert locate(str(repository)) == second
