"""Native folders, name tables, configurations of other formats, CLIP as a start, and the door to them all."""

import dataclasses
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import DATA, needs_data
from safetensors.torch import load_file, save_file
from tiny import TINY, tiny_model, tiny_pixels, tiny_tokenizer, tiny_tokens
from torch import Tensor, nn

from openxclip.checkpoints import runs
from openxclip.checkpoints.device import resolve_device, resolve_dtype
from openxclip.checkpoints.formats import huggingface, native
from openxclip.checkpoints.formats.huggingface import read_config, to_huggingface_config
from openxclip.checkpoints.formats.official import infer_config
from openxclip.checkpoints.load import Loaded, load, read_model
from openxclip.checkpoints.names import HUGGINGFACE, NATIVE, OFFICIAL, OPENAI_CLIP
from openxclip.checkpoints.save import save_as
from openxclip.checkpoints.source import ModelSource
from openxclip.checkpoints.tables import Table, from_theirs, to_theirs
from openxclip.errors import CheckpointError, ConfigError, FrameCountError, InputError, TokenizerError
from openxclip.models import XCLIP, XCLIPConfig, preset
from openxclip.models.config import PRESETS
from openxclip.models.expand import clip_only
from openxclip.text.tokenizer import MissingTokenizer
from openxclip.video.transforms import Preprocessor

pytestmark = pytest.mark.on_cpu

TABLES = {"native": NATIVE, "official": OFFICIAL, "huggingface": HUGGINGFACE}
PREPROCESS = Preprocessor.official(32)


def each_switch(config: XCLIPConfig) -> dict[str, XCLIPConfig]:
    """What leaves a part out -> the configuration without it."""
    vision = dataclasses.replace(config.vision, message_tokens=False)
    return {
        "integration=None": dataclasses.replace(config, integration=None),
        "prompting=None": dataclasses.replace(config, prompting=None),
        "vision.message_tokens=False": dataclasses.replace(config, vision=vision),
    }


WITHOUT = each_switch(TINY)


def same_weights(a: XCLIP, b: XCLIP) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model in the native format."""
    path = tmp_path / "model"
    save_as(path, tiny_model(), tiny_tokenizer(), PREPROCESS)
    return path


def edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


# --- name tables


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize("config", [TINY, *WITHOUT.values()], ids=["whole", *WITHOUT])
def test_there_and_back_is_the_identity(table: Table, config: XCLIPConfig):
    state = tiny_model(config).state_dict()
    theirs = to_theirs(state, table)
    assert sum(tensor.numel() for tensor in theirs.values()) == sum(
        tensor.numel() for tensor in state.values()
    )
    back = from_theirs(theirs, config, table, "file")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_every_name_counts(table: Table):
    theirs = to_theirs(tiny_model().state_dict(), table)
    for name in theirs:
        fewer = {other: tensor for other, tensor in theirs.items() if other != name}
        with pytest.raises(CheckpointError, match="the file has no " + name.replace(".", r"\.")):
            from_theirs(fewer, TINY, table, "file")
    with pytest.raises(CheckpointError, match=r"^file: .* the model has no visual\.surplus$"):
        from_theirs(theirs | {"visual.surplus": torch.ones(1)}, TINY, table, "file")


def test_wrong_shapes_are_named():
    theirs = to_theirs(tiny_model().state_dict(), OFFICIAL)
    theirs["visual.proj"] = theirs["visual.proj"].T
    expected = r"visual\.proj is \(128, 192\), the model's is \(192, 128\)$"
    with pytest.raises(CheckpointError, match=expected):
        from_theirs(theirs, TINY, OFFICIAL, "file")


def test_long_lists_of_names_are_cut():
    with pytest.raises(CheckpointError) as caught:
        from_theirs({}, TINY, HUGGINGFACE, "file")
    assert "and 141 more" in str(caught.value)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize("switch", WITHOUT)
def test_switched_off_parts_neither_come_nor_go_unnoticed(switch: str, table: Table):
    without = WITHOUT[switch]
    whole, part = (to_theirs(tiny_model(config).state_dict(), table) for config in (TINY, without))
    with pytest.raises(CheckpointError, match=rf"trained with .*: do not use {switch}$"):
        from_theirs(whole, without, table, "file")
    with pytest.raises(CheckpointError, match=rf"trained without .*: use {switch}$"):
        from_theirs(part, TINY, table, "file")


def test_position_ids_are_the_only_names_ignored():
    theirs = to_theirs(tiny_model().state_dict(), HUGGINGFACE)
    old = {f"{tower}_model.embeddings.position_ids": torch.arange(5)[None] for tower in ("text", "vision")}
    assert from_theirs(theirs | old, TINY, HUGGINGFACE, "file").keys() == tiny_model().state_dict().keys()
    with pytest.raises(CheckpointError, match=r"model has no text_model\.embeddings\.position_idx"):
        from_theirs(theirs | {"text_model.embeddings.position_idx": torch.ones(1)}, TINY, HUGGINGFACE, "file")


# --- native folders


def test_native_folder_keeps_everything(folder: Path):
    loaded, report = read_model(ModelSource(source=str(folder), device="cpu", dtype="float32"))
    assert same_weights(loaded.model, tiny_model())
    assert loaded.model.config == TINY
    assert loaded.preprocess == PREPROCESS
    assert torch.equal(loaded.tokenizer(["ba de ki"]), tiny_tokenizer()(["ba de ki"]))
    assert (report.format, report.is_image_model, report.notes) == ("openxclip", False, ())
    assert not loaded.model.training
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor.json",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("switch", WITHOUT)
def test_native_folder_of_an_ablated_model(switch: str, tmp_path: Path):
    save_as(tmp_path / "model", tiny_model(WITHOUT[switch]), tiny_tokenizer(), PREPROCESS)
    loaded = load(tmp_path / "model", device="cpu", dtype="float32")
    assert loaded.model.config == WITHOUT[switch]
    assert same_weights(loaded.model, tiny_model(WITHOUT[switch]))


def test_native_folder_without_tokenizer(tmp_path: Path):
    save_as(tmp_path / "model", tiny_model(), MissingTokenizer("nothing"), PREPROCESS)
    loaded = load(tmp_path / "model")
    with pytest.raises(TokenizerError, match=f"{tmp_path / 'model'} came without a tokenizer"):
        loaded.tokenizer(["ba"])


def test_a_folder_is_replaced_whole(folder: Path):
    (folder / "stray.txt").write_text("old")
    save_as(folder, tiny_model(seed=1), tiny_tokenizer(), PREPROCESS)
    assert not (folder / "stray.txt").exists()
    assert same_weights(load(folder, dtype="float32").model, tiny_model(seed=1))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"version": 2}, "version 1 of the format 'openxclip' but 2"),
        ("config.json", {"format": "other"}, "version 1"),
        ("config.json", {"depth": 3}, "depth"),
        ("config.json", {"embed_dim": "128"}, "embed_dim must be int"),
        ("config.json", {"embed_dim": 96}, "other shapes"),
        ("config.json", {"integration": None}, "do not use integration=None"),
        ("preprocessor.json", {"mean": ...}, r"missing keys \['mean'\]"),
        ("preprocessor.json", {"input_size_px": "32"}, "preprocessor.json"),
        ("preprocessor.json", {"input_size_px": 31}, "input_size_px is 31, but the model's input is 32 px"),
    ],
)
def test_edited_files_are_refused(file: str, changes: dict[str, Any], message: str, folder: Path):
    edit(folder / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


@pytest.mark.parametrize("file", ["config.json", "preprocessor.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "a list"])
def test_damaged_files_are_named(file: str, damage: str, folder: Path):
    content = {"empty": b"", "garbage": b"\xff\xfe\x00garbage", "a list": b"[1, 2]"}
    (folder / file).unlink() if damage == "missing" else (folder / file).write_bytes(content[damage])
    with pytest.raises(CheckpointError, match=file):
        load(folder)


def test_a_tokenizer_of_other_weights_is_refused(folder: Path):
    other = dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, vocab_size=590))
    tiny_tokenizer(other).save(folder / "tokenizer.json")
    with pytest.raises(TokenizerError, match="has 590 ids, the model 600"):
        load(folder)


# --- the door


def test_dtype_and_device(folder: Path):
    assert {p.dtype for p in load(folder, dtype="bfloat16").model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in load(folder, dtype="float32").model.parameters()} == {torch.float32}
    assert {p.device.type for p in load(folder, device="cpu").model.parameters()} == {"cpu"}
    with pytest.raises(InputError, match="no dtype 'int8'"):
        load(folder, dtype="int8")
    with pytest.raises(InputError, match="device 'toaster'"):
        load(folder, device="toaster")
    if not torch.cuda.is_available():
        assert resolve_device("auto") == torch.device("cpu")
        with pytest.raises(InputError, match="device 'cuda'"):
            resolve_device("cuda")
    known = (
        torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    )  # newer than torch 2.7
    fast = {"AVX512_BF16", "AMX_BF16"} & {name.upper() for name, has in known.items() if has}
    assert resolve_dtype("auto", torch.device("cpu")) == (torch.bfloat16 if fast else torch.float32)


def test_the_environment_says_what_device_auto_is(folder: Path, monkeypatch: pytest.MonkeyPatch):
    for value in ("cpu", "", "auto"):
        monkeypatch.setenv("OPENXCLIP_DEVICE", value)
        usual = "cuda" if value != "cpu" and torch.cuda.is_available() else "cpu"
        assert resolve_device("auto").type == usual
    monkeypatch.setenv("OPENXCLIP_DEVICE", "toaster")
    with pytest.raises(InputError, match="OPENXCLIP_DEVICE: device 'toaster' cannot be used"):
        load(folder)
    assert load(folder, device="cpu").model.logit_scale.device == torch.device("cpu")
    with pytest.raises(InputError, match=r"^device 'oven' cannot be used"):
        load(folder, device="oven")


def test_a_source_with_its_options_as_one_value(folder: Path):
    source = ModelSource(source=str(folder), dtype="float32", num_frames=6)
    assert load(source).model.config.num_frames == 6
    assert same_weights(load(source).model, load(folder, dtype="float32", num_frames=6).model)
    with pytest.raises(InputError, match="a ModelSource holds all options"):
        load(source, num_frames=8)


def test_a_path_is_never_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"^\./owner/name does not exist"):
        load(Path("owner/name"))


def test_bfloat16_weights_are_read_as_what_is_asked_for(tmp_path: Path):
    model = tiny_model().to(torch.bfloat16)
    save_as(tmp_path / "model", model, tiny_tokenizer(), PREPROCESS)
    assert load_file(tmp_path / "model" / "model.safetensors")["logit_scale"].dtype == torch.bfloat16
    assert same_weights(load(tmp_path / "model", dtype="float32").model, model.float())


def test_another_frame_count_only_on_request(folder: Path):
    pixels = tiny_pixels(dataclasses.replace(TINY, num_frames=6))
    with pytest.raises(FrameCountError):
        load(folder).model.encode_video(pixels)
    loaded, report = read_model(ModelSource(source=str(folder), num_frames=6))
    assert loaded.model.encode_video(pixels).video.shape == (2, TINY.embed_dim)
    assert report.notes == ("time positions interpolated from 4 frames to 6",)
    assert read_model(ModelSource(source=str(folder), num_frames=4))[1].notes == ()
    with pytest.raises(InputError, match="at least 1, got 0"):
        load(folder, num_frames=0)


@pytest.mark.parametrize("format", ["openxclip", "huggingface"])
def test_convert_to_and_fro(format: Any, folder: Path, tmp_path: Path):
    save_as(tmp_path / "other", *load(folder, dtype="float32"), format=format)
    save_as(tmp_path / "back", *load(tmp_path / "other", dtype="float32"))
    for path in folder.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_what_is_no_model_is_not_overwritten(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    save_as(tmp_path / "folder", tiny_model(), tiny_tokenizer(), PREPROCESS)  # empty: nothing to lose
    (tmp_path / "folder" / "model.safetensors").unlink()
    for name in ("file", "folder"):
        with pytest.raises(InputError, match="exists and is not a model folder"):
            save_as(tmp_path / name, tiny_model(), tiny_tokenizer(), PREPROCESS)
    assert (tmp_path / "file").read_text() == "mine"


def test_unknown_format(tmp_path: Path):
    with pytest.raises(InputError, match="no format 'onnx'; choose one of openxclip, huggingface"):
        save_as(tmp_path / "model", tiny_model(), tiny_tokenizer(), PREPROCESS, format="onnx")  # type: ignore[arg-type]


def test_folder_of_a_training_run(folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    (run / "last").mkdir(parents=True)
    (run / "config.json").write_text('{"data": "x", "config": {}}')
    native.write_folder(run / "last", tiny_model(seed=1), tiny_tokenizer(), PREPROCESS)
    assert same_weights(load(run, dtype="float32").model, tiny_model(seed=1))
    shutil.copytree(folder, run / "best")
    assert same_weights(load(run, dtype="float32").model, tiny_model())


def test_a_checkpoint_between_two_renames_is_found(folder: Path, tmp_path: Path):
    """As a process leaves it that is killed while it puts a new checkpoint in the place of the old one."""
    shutil.copytree(folder, tmp_path / "run" / ".last.previous")
    for source in (tmp_path / "run", tmp_path / "run" / "last"):
        assert same_weights(load(source, dtype="float32").model, tiny_model())
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".last.previous"]


@pytest.mark.parametrize("num_frames", [0, -1, True, 2.5, "8"])
def test_numbers_of_frames_that_are_none(num_frames: Any, folder: Path):
    with pytest.raises(
        InputError, match=f"num_frames must be a whole number of at least 1, got {num_frames}"
    ):
        load(folder, num_frames=num_frames)


def test_sources_that_are_none(tmp_path: Path):
    for source in (
        "no/such/file.pth",
        "ViT-B-32.pt",
        "models/x.pth",
        "..",
        "~/model",
        "a//b",
        "has space",
        "-x/../y",
        tmp_path / "missing",
    ):
        if not Path(source).exists():
            with pytest.raises(CheckpointError, match="does not exist and is not a hub id"):
                load(source)
    with pytest.raises(CheckpointError, match="is not a model folder"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(
        CheckpointError, match="model_type is 'bert'; models that can be read are xclip, clip"
    ):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ["clip"]}')
    with pytest.raises(CheckpointError, match=r"model_type is \['clip'\]; models that can be read are"):
        load(tmp_path)


def test_a_single_safetensors_file_needs_its_folder(folder: Path):
    with pytest.raises(CheckpointError, match="give the folder"):
        load(folder / "model.safetensors")


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "pytorch_model.bin"])
def test_weights_alone_are_not_taken_for_openais(name: str, tmp_path: Path):
    """LAION's have OpenAI's names for everything, and another activation, which only their configuration says."""
    torch.save(clip_state(), tmp_path / name)
    with pytest.raises(CheckpointError, match=r"give the folder that holds it and .* open_clip_config\.json"):
        load(tmp_path / name)


@pytest.mark.parametrize("given", ["tokenizer.json", "."])
def test_a_tokenizer_from_elsewhere(given: str, folder: Path, tmp_path: Path):
    save_as(tmp_path / "bare", tiny_model(), MissingTokenizer("nothing"), PREPROCESS)
    loaded = load(tmp_path / "bare", tokenizer=folder / given)
    assert torch.equal(loaded.tokenizer(["ba de"]), tiny_tokenizer()(["ba de"]))


def test_a_tokenizer_that_is_none(folder: Path, tmp_path: Path):
    for given in (tmp_path / "missing.json", tmp_path, "no/such/place"):
        with pytest.raises(TokenizerError, match="no tokenizer at"):
            load(folder, tokenizer=given)


@needs_data("tokenizer")
def test_clip_s_merges_file_as_tokenizer(tmp_path: Path):
    text = dataclasses.replace(TINY.text, vocab_size=49408, context_length=77)
    model = tiny_model(dataclasses.replace(TINY, text=text))
    save_as(tmp_path / "model", model, MissingTokenizer("nothing"), PREPROCESS)
    loaded = load(tmp_path / "model", tokenizer=DATA / "tokenizer" / "bpe_simple_vocab_16e6.txt.gz")
    assert loaded.tokenizer(["playing piano"])[0, :4].tolist() == [49406, 1629, 7894, 49407]


# --- Hugging Face's format


@pytest.mark.parametrize("name", PRESETS)
def test_huggingface_config_there_and_back(name: str):
    assert read_config(json.loads(json.dumps(to_huggingface_config(preset(name))))) == preset(name)


def test_huggingface_defaults():
    assert read_config({"model_type": "xclip"}) == preset("B/32-8")
    assert read_config({"model_type": "xclip", "text_config": None, "vision_config_dict": None}) == preset(
        "B/32-8"
    )
    old = {
        "model_type": "xclip",
        "vision_config": {"patch_size": 32},
        "vision_config_dict": {"patch_size": 16},
    }
    assert read_config(old) == preset("B/16-8")


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("text_config", {"hidden_act": "gelu"}, "text_config.hidden_act is 'gelu', not 'quick_gelu'"),
        ("vision_config", {"hidden_act": "gelu"}, "vision_config.hidden_act"),
        ("vision_config", {"layer_norm_eps": 1e-6}, "vision_config.layer_norm_eps is 1e-06, not 1e-05"),
        ("text_config", {"intermediate_size": 37}, "text_config.intermediate_size is 37, not 2048"),
        ("vision_config", {"mit_intermediate_size": 37}, "mit_intermediate_size"),
        ("vision_config", {"mit_hidden_size": 256}, "mit_hidden_size is 256, not 512"),
        ("vision_config", {"num_channels": 1}, "num_channels"),
        ("vision_config", {"image_size": [224, 112]}, "not square"),
        ("vision_config", {"num_attention_heads": 7}, "not divisible by num_heads 7"),
        (None, {"prompt_hidden_act": "relu"}, "prompt_hidden_act"),
        (None, {"model_type": "clip"}, "model_type is 'clip'"),
    ],
)
def test_huggingface_models_that_ours_cannot_express(
    section: str | None, changes: dict[str, Any], message: str
):
    values = {"model_type": "xclip"} | ({section: changes} if section else changes)
    with pytest.raises(ConfigError, match=message):
        read_config(values)


@pytest.mark.parametrize("switch", WITHOUT)
def test_huggingface_cannot_hold_ablated_models(switch: str, tmp_path: Path):
    with pytest.raises(CheckpointError, match="always has message tokens"):
        save_as(
            tmp_path / "m", tiny_model(WITHOUT[switch]), tiny_tokenizer(), PREPROCESS, format="huggingface"
        )
    assert list(tmp_path.iterdir()) == []


def test_heads_that_differ_from_the_training_are_noted():
    values = to_huggingface_config(preset("L/14-8"))
    assert huggingface.head_notes(read_config(values)) == ()
    values["prompt_num_attention_heads"] = 8
    (note,) = huggingface.head_notes(read_config(values))
    assert note.startswith("config.json gives prompting 8 heads, X-CLIP's own code width / 64 = 12")


def test_preprocessor_within_the_processor_or_missing(tmp_path: Path):
    folder = tmp_path / "m"
    save_as(folder, tiny_model(), tiny_tokenizer(), PREPROCESS, format="huggingface")
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    loaded, report = read_model(ModelSource(source=str(folder)))
    assert loaded.preprocess == Preprocessor.hugging_face(32)
    assert "has no preprocessor_config.json" in report.notes[0]
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    assert load(folder).preprocess == PREPROCESS


def split(folder: Path, suffix: str) -> None:
    """Turn the folder's weights into two shards with an index."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, names = ("model" if suffix == "safetensors" else "pytorch_model"), sorted(state)
    weight_map = {}
    for number, part in enumerate((names[:70], names[70:]), start=1):
        shard = f"{stem}-0000{number}-of-00002.{suffix}"
        tensors = {name: state[name] for name in part}
        save_file(tensors, folder / shard) if suffix == "safetensors" else torch.save(tensors, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    (folder / f"{stem}.{suffix}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )


@pytest.mark.parametrize("kind", ["bin", "sharded safetensors", "sharded bin"])
def test_kinds_of_huggingface_weights(kind: str, tmp_path: Path):
    folder = tmp_path / "m"
    save_as(folder, tiny_model(), tiny_tokenizer(), PREPROCESS, format="huggingface")
    if kind == "bin":
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    else:
        split(folder, kind.removeprefix("sharded "))
    assert same_weights(load(folder, dtype="float32").model, tiny_model())


def test_broken_shards(tmp_path: Path):
    folder = tmp_path / "m"
    save_as(folder, tiny_model(), tiny_tokenizer(), PREPROCESS, format="huggingface")
    split(folder, "safetensors")
    index = folder / "model.safetensors.index.json"
    whole = index.read_text()
    (folder / "model-00002-of-00002.safetensors").rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors cannot be read"):
        load(folder)
    index.write_text(whole.replace("model-00002-of-00002.safetensors", "../elsewhere.safetensors"))
    with pytest.raises(CheckpointError, match="names files outside its folder"):
        load(folder)
    for content in (
        "{}",
        '{"weight_map": {"a": ["model.safetensors"]}}',
        '{"weight_map": {"a": 1, "b": "c"}}',
    ):
        index.write_text(content)
        with pytest.raises(CheckpointError, match="no weight_map"):
            load(folder)
    index.unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        load(folder)


# --- official files


def test_official_file(tmp_path: Path):
    content = {
        "model": to_theirs(tiny_model().state_dict(), OFFICIAL),
        "epoch": 3,
        "optimizer": {"state": {}},
    }
    torch.save(content, tmp_path / "a.pth")
    loaded, report = read_model(ModelSource(source=str(tmp_path / "a.pth"), dtype="float32"))
    assert loaded.model.config == TINY
    assert same_weights(loaded.model, tiny_model())
    assert loaded.preprocess == Preprocessor.official(32)
    assert isinstance(loaded.tokenizer, MissingTokenizer)
    assert report.format == "official"
    assert report.source == str(tmp_path / "a.pth")


@pytest.mark.parametrize("name", PRESETS)
def test_published_configs_are_inferred_from_shapes(name: str):
    with torch.device("meta"):
        state = to_theirs(XCLIP(preset(name)).state_dict(), OFFICIAL)
    assert infer_config(state, Path("a.pth")) == preset(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mit.positional_embedding": None}, "no mit.positional_embedding"),
        ({"visual.conv1.weight": None}, "no visual.conv1.weight with 4 dimensions"),
        ({"visual.conv1.weight": torch.ones(64)}, "no visual.conv1.weight with 4 dimensions"),
        ({"visual.conv1.weight": torch.ones(32, 3, 16, 16)}, "vision: num_heads must be 1 to .*, got 0"),
        ({"visual.positional_embedding": torch.ones(1, 192)}, "a.pth"),
        ({"visual.positional_embedding": torch.ones(0, 192)}, "a.pth"),
        ({"visual.conv1.weight": torch.ones(192, 3, 0, 0)}, "a.pth"),
        ({"logit_scale": None}, "the file has no logit_scale"),
        ({"prompts_generator.alpha": None}, "the file has no prompts_generator.alpha"),
    ],
)
def test_incomplete_official_files(changes: dict[str, Tensor | None], message: str, tmp_path: Path):
    state = to_theirs(tiny_model().state_dict(), OFFICIAL) | changes
    torch.save({"model": {k: v for k, v in state.items() if v is not None}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "a.pth")


# --- OpenAI CLIP files


def clip_state(dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """A tiny CLIP's weights under OpenAI's names, in half precision as published."""
    state = to_theirs(tiny_model(clip_only(TINY)).state_dict(), OPENAI_CLIP)
    return {name: tensor.to(dtype) for name, tensor in state.items()}


class Tree(nn.Module):
    """A module with the given parameters under their dotted names."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        children: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            if rest:
                children.setdefault(first, {})[rest] = tensor
            else:
                self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        for name, part in children.items():
            self.add_module(name, Tree(part))

    def forward(self, x: Tensor) -> Tensor:
        return x


def save_torchscript(state: dict[str, Tensor], path: Path) -> None:
    tree = Tree(state)
    tree.register_buffer("input_resolution", torch.tensor(32))
    tree.transformer.resblocks.get_submodule("0").attn_mask = torch.zeros(16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript itself
        torch.jit.script(tree).save(str(path))


def num_parameters(config: XCLIPConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in XCLIP(config).parameters())


@pytest.mark.parametrize("kind", ["state dict", "TorchScript"])
def test_clip_is_an_image_model(kind: str, tmp_path: Path):
    path, state = tmp_path / "clip.pt", clip_state()
    torch.save(state, path) if kind == "state dict" else save_torchscript(state, path)
    loaded, report = read_model(ModelSource(source=str(path), num_frames=6, dtype="float32"))
    assert loaded.model.config == dataclasses.replace(clip_only(TINY), num_frames=6)
    assert loaded.preprocess == Preprocessor.clip(32)
    assert (report.format, report.is_image_model) == ("openai-clip", True)
    # A bare state dict may be anybody's; only OpenAI's archives hold their sizes.
    assert ["does not say which activation" in note for note in report.notes] == [True] * (
        kind == "state dict"
    )
    ours = loaded.model.state_dict()
    expected = from_theirs(state, clip_only(TINY), OPENAI_CLIP, "clip")
    assert set(ours) == set(expected)
    assert all(torch.equal(ours[name], tensor.float()) for name, tensor in expected.items())
    assert loaded.model(tiny_pixels(loaded.model.config), tiny_tokens()).shape == (2, 5)


def test_clip_files_that_do_not_fit(tmp_path: Path):
    path = tmp_path / "clip.pt"
    torch.save(clip_state() | {"visual.layer1.0.conv1.weight": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match=r"the model has no visual\.layer1\.0\.conv1\.weight"):
        load(path)
    torch.save(
        {"visual.layer1.0.conv1.weight": torch.ones(1), "visual.attnpool.k_proj.bias": torch.ones(1)}, path
    )
    with pytest.raises(CheckpointError, match="not a CLIP vision transformer"):
        load(path)


def test_a_loaded_model_lets_go_of_its_file(folder: Path):
    """Tensors of a file are views into it: one of them would keep all of it in memory."""
    for name, tensor in load(folder, dtype="float32").model.state_dict().items():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), name


def test_loaded_unpacks_in_order(folder: Path):
    model, tokenizer, preprocess = load(folder)
    assert Loaded(model, tokenizer, preprocess).preprocess is preprocess


def test_the_shipped_model_may_be_named_by_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    by_path, by_name = load(Path("openxclip-tiny")).model, load("openxclip-tiny").model
    assert torch.equal(by_path.logit_scale, by_name.logit_scale)


def test_load_warns_of_what_is_changed_or_cannot_be_seen(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    load(folder)
    assert caplog.messages == []
    load(folder, num_frames=6)
    assert "positions interpolated from 4 frames to 6" in caplog.messages[0]
    torch.save(clip_state(), tmp_path / "clip.pt")
    load(tmp_path / "clip.pt")
    assert "is an image model: it looks at each frame alone and takes the mean" in caplog.messages[1]


def test_a_device_that_this_torch_lacks_is_one_clear_line():
    for name in ("hpu", "xla", "nonsense"):
        with pytest.raises(InputError, match=rf"device '{name}' cannot be used") as caught:
            resolve_device(name)
        assert len(str(caught.value)) < 300


def test_a_checkpoint_of_a_run_and_a_link_to_it_belong_to_the_run(tmp_path: Path):
    run = tmp_path / "run"
    (run / "average").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"config": {"init": "start"}, "labels": ["a", "b"]}))
    (tmp_path / "start").mkdir()
    (tmp_path / "latest").symlink_to(run / "average")
    for source in (run, run / "average", tmp_path / "latest"):
        assert runs.training_labels(str(source)) == ["a", "b"]
        assert runs.start_of(str(source)) == str(tmp_path / "start")
