"""`openxclip convert --push`, with the real client and a small hub on this machine."""

import json
import os
import re
from pathlib import Path

import huggingface_hub.constants as hub_constants
import pytest
import torch
import yaml
from hub_server import Hub
from safetensors.torch import load_file
from tiny import tiny_model, tiny_tokenizer

from openxclip.checkpoints.card import Origin, known_licence, model_card
from openxclip.checkpoints.load import Loaded, load
from openxclip.checkpoints.save import save_as
from openxclip.checkpoints.shipped import TRAINING_LABELS_FILE, shipped_folder
from openxclip.cli.main import run
from openxclip.errors import HubError
from openxclip.video.transforms import Preprocessor

pytestmark = [
    pytest.mark.on_cpu,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # how the client itself uploads
]


@pytest.fixture
def hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub, with a token that may write; large files go there by the protocol of git-lfs."""
    hub.token = "hf_of_the_owner"
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr(hub_constants, "HF_HUB_DISABLE_XET", True)
    return hub


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder."""
    folder = tmp_path / "tiny"
    save_as(folder, tiny_model(), tiny_tokenizer(), Preprocessor.official(32))
    return folder


def head_of(card: str) -> dict:
    """The metadata of a model card."""
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1])


def loaded() -> Loaded:
    return Loaded(tiny_model(), tiny_tokenizer(), Preprocessor.official(32))


@pytest.mark.parametrize("format", ["openxclip", "huggingface"])
def test_what_is_pushed_loads_by_its_name(format: str, hub: Hub, model: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "out"
    arguments = [
        "convert",
        str(model),
        str(output),
        "--to",
        format,
        "--push",
        "owner/mine",
        "--licence",
        "MIT",
    ]
    assert run(arguments) == 0
    assert f"{output} -> {hub.url}/owner/mine" in capsys.readouterr().err
    pushed = hub.root / "owner" / "mine"
    assert {f.name: f.read_bytes() for f in pushed.iterdir()} == {
        f.name: f.read_bytes() for f in output.iterdir()
    }
    assert hub.commits == ["Model converted by OpenXCLIP"]
    again = load("owner/mine", device="cpu", dtype="float32")
    state = again.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in tiny_model().state_dict().items())
    assert "README.md" not in hub.downloaded


def test_a_pickled_source_is_pushed_as_safetensors(hub: Hub, tmp_path: Path) -> None:
    source = tmp_path / "pickled"
    save_as(source, *loaded(), format="huggingface")
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    assert run(["convert", str(source), str(tmp_path / "out"), "--push", "owner/mine"]) == 0
    names = {file.name for file in (hub.root / "owner" / "mine").iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "preprocessor.json", "tokenizer.json"}


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_hostile_pickle_runs_nothing_and_is_not_pushed(hub: Hub, tmp_path: Path, capsys) -> None:
    torch.save({"model": Hostile(tmp_path / "made")}, tmp_path / "weights.pth")
    arguments = ["convert", str(tmp_path / "weights.pth"), str(tmp_path / "out"), "--push", "owner/mine"]
    assert run(arguments) == 1
    assert "openxclip: " in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    assert (hub.created, hub.commits) == ([], [])


def test_a_private_repository(hub: Hub, model: Path, tmp_path: Path) -> None:
    assert run(["convert", str(model), str(tmp_path / "out"), "--push", "owner/mine", "--private"]) == 0
    (wanted,) = hub.created
    assert (wanted["organization"], wanted["name"]) == ("owner", "mine")
    assert wanted.get("private") is True or wanted.get("visibility") == "private"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--push", "mine"], "'mine' is not a repository of the hub; give it as owner/name"),
        (["--push", "../mine"], "is not a repository of the hub"),
        (["--private"], "--private and --licence need --push"),
        (["--licence", "mit"], "--private and --licence need --push"),
    ],
)
def test_wrong_use_is_found_before_anything_is_read(
    options: list[str], message: str, hub: Hub, tmp_path: Path, capsys
) -> None:
    assert run(["convert", "./nowhere", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert hub.created == []


def test_without_a_token_nothing_is_read(hub: Hub, model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(hub_constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert run(["convert", str(model), str(tmp_path / "out"), "--push", "owner/mine"]) == 1
    assert "cannot be pushed without a log-in: log in with `hf auth login`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_offline_nothing_is_read(hub: Hub, model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    assert run(["convert", str(model), str(tmp_path / "out"), "--push", "owner/mine"]) == 1
    assert "HF_HUB_OFFLINE forbids" in capsys.readouterr().err


def test_a_refused_push_leaves_the_folder(hub: Hub, model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    output = tmp_path / "out"
    assert run(["convert", str(model), str(output), "--push", "owner/mine"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"openxclip: the hub answered 401 to the upload of owner/mine: log in .* `hf upload .*`", error
    )
    assert "hf_of" not in error
    assert (output / "model.safetensors").exists()


def test_a_hub_that_cannot_be_reached(hub: Hub, model: Path, tmp_path: Path, capsys) -> None:
    hub.stop()
    assert run(["convert", str(model), str(tmp_path / "out"), "--push", "owner/mine"]) == 1
    assert "owner/mine cannot be uploaded" in capsys.readouterr().err
    assert issubclass(HubError, OSError)


# The card


def test_a_card_says_what_the_model_is(hub: Hub, tmp_path: Path) -> None:
    """Of the shipped model, whose licence and classes are known."""
    assert run(["convert", "openxclip-tiny", str(tmp_path / "out"), "--push", "owner/mine"]) == 0
    card = (hub.root / "owner" / "mine" / "README.md").read_text(encoding="utf-8")
    assert head_of(card) == {
        "license": "mit",
        "library_name": "openxclip",
        "pipeline_tag": "video-classification",
        "tags": ["x-clip", "zero-shot", "video-classification"],
    }
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert f"| frames of a clip | {config['num_frames']} |" in card
    assert f"| input | {config['vision']['image_size_px']} x " in card
    assert "Converted from `openxclip-tiny`" in card
    assert "trained on (396):" in card
    labels = (
        (shipped_folder("openxclip-tiny") / TRAINING_LABELS_FILE).read_text(encoding="utf-8").splitlines()
    )
    assert all(f"    {label}\n" in card for label in labels)
    assert "--model owner/mine" in card
    assert 'from_pretrained("owner/mine"' in card
    assert "Ni, Bolin" in card


def test_a_card_names_no_path_and_no_licence_that_nobody_gave() -> None:
    card = model_card(
        "owner/mine", loaded(), Origin(source="/home/me/secret project/x.pth", format="openxclip")
    )
    assert "secret" not in card
    assert "license" not in head_of(card)
    assert "The licence of the weights is unknown." in card
    assert "Any labels.\n" in card


def test_a_card_of_a_published_model_names_it() -> None:
    origin = Origin(source="microsoft/xclip-base-patch32", format="huggingface", licence="MIT")
    card = model_card("owner/mine", loaded(), origin)
    assert head_of(card)["base_model"] == "microsoft/xclip-base-patch32"
    assert head_of(card)["library_name"] == "transformers"
    assert 'XCLIPModel.from_pretrained("owner/mine")' in card


def test_labels_cannot_write_into_the_card() -> None:
    labels = ("# heading", "a | b", "<script>", "one\n\ntwo")
    card = model_card("owner/mine", loaded(), Origin(source="x.pth", format="openxclip", labels=labels))
    assert "    # heading\n    a | b\n    <script>\n    one two\n" in card


def test_licences_of_published_models() -> None:
    assert known_licence("microsoft/xclip-base-patch32") == "MIT"
    assert known_licence("facebook/metaclip-b32-400m") == "CC-BY-NC-4.0"
    assert known_licence("openai/clip-vit-base-patch32") is None
    assert known_licence("owner/mine") is None
