"""Downloads with the real client from a small hub on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants as hub_constants
import huggingface_hub.utils._http as hub_http
import pytest
import torch
from hub_server import COMMIT, Hub
from safetensors.torch import load_file
from tiny import tiny_model, tiny_tokenizer

from openxclip.checkpoints.hub import download_model, download_tokenizer, is_hub_id
from openxclip.checkpoints.load import load
from openxclip.checkpoints.save import save_as
from openxclip.errors import HubError, TokenizerError
from openxclip.text.tokenizer_folder import FILES as TOKENIZER_FILES
from openxclip.text.tokenizer_folder import find_tokenizer
from openxclip.video.transforms import Preprocessor


@pytest.fixture
def hub(hub: Hub) -> Hub:
    """The hub with owner/tiny."""
    save_as(
        hub.root / "owner" / "tiny",
        tiny_model(),
        tiny_tokenizer(),
        Preprocessor.hugging_face(32),
        format="huggingface",
    )
    return hub


def is_tiny(source: str, **options: str) -> bool:
    loaded = load(source, device="cpu", dtype="float32", **options)
    assert loaded.tokenizer(["ba"]).equal(tiny_tokenizer()(["ba"]))
    state = loaded.model.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in tiny_model().state_dict().items())


def test_safetensors_are_preferred_and_nothing_else_is_downloaded(hub: Hub):
    repository = hub.root / "owner" / "tiny"
    for name in ("pytorch_model.bin", "tf_model.h5", "README.md", "vocab.json", "merges.txt"):
        (repository / name).write_bytes(b"not needed")
    assert is_tiny("owner/tiny")
    assert set(hub.downloaded) == {
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    }


def test_a_repository_with_only_a_pickle(hub: Hub):
    repository = hub.root / "owner" / "tiny"
    torch.save(load_file(repository / "model.safetensors"), repository / "pytorch_model.bin")
    (repository / "model.safetensors").unlink()
    assert is_tiny("owner/tiny")
    assert "pytorch_model.bin" in hub.downloaded


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_what_is_downloaded_of_an_open_clip_repository(weights: str, hub: Hub):
    repository = hub.root / "owner" / "open"
    repository.mkdir()
    needed = {"open_clip_config.json", "spiece.model", "tokenizer_config.json", weights}
    for name in (*needed, "README.md", "merges.txt", "vocab.json"):
        (repository / name).write_bytes(b"{}")
    download_model("owner/open")
    assert set(hub.downloaded) == needed


@pytest.mark.parametrize("first", range(len(TOKENIZER_FILES)))
def test_the_tokenizer_that_a_reader_prefers_is_downloaded(first: int, hub: Hub):
    repository = hub.root / "owner" / "words"
    repository.mkdir()
    for name in TOKENIZER_FILES[first:]:
        (repository / name).write_text(name)
    folder = download_tokenizer("owner/words")
    assert set(hub.downloaded) == {TOKENIZER_FILES[first]}
    assert find_tokenizer(folder) == folder / TOKENIZER_FILES[first]


def test_the_same_weights_for_transformers_are_preferred(hub: Hub):
    (hub.root / "owner" / "tiny" / "open_clip_model.safetensors").write_bytes(b"not needed")
    assert is_tiny("owner/tiny")
    assert "model.safetensors" in hub.downloaded
    assert "open_clip_model.safetensors" not in hub.downloaded


def test_a_native_folder_on_the_hub(hub: Hub):
    save_as(hub.root / "owner" / "native", tiny_model(), tiny_tokenizer(), Preprocessor.official(32))
    assert is_tiny("owner/native")


def test_a_revision(hub: Hub):
    assert is_tiny("owner/tiny", revision=COMMIT)
    with pytest.raises(HubError, match="owner/tiny has no revision 'v9'"):
        load("owner/tiny", revision="v9")


def test_the_second_time_comes_from_the_cache(hub: Hub):
    assert is_tiny("owner/tiny")
    first = len(hub.downloaded)
    assert is_tiny("owner/tiny")
    assert len(hub.downloaded) == first
    hub.stop()
    assert is_tiny("owner/tiny")


def forget_sessions() -> None:
    """Clients before 1.0 look at HF_HUB_OFFLINE when they open a session, later ones at each request."""
    getattr(hub_http, "reset_sessions", lambda: None)()


def test_offline_with_and_without_a_cached_copy(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as offline:
        offline.setattr(hub_constants, "HF_HUB_OFFLINE", True)
        forget_sessions()
        with pytest.raises(HubError, match="not in the cache, and HF_HUB_OFFLINE forbids asking the hub"):
            load("owner/tiny")
    forget_sessions()
    assert hub.downloaded == []
    assert is_tiny("owner/tiny")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    assert is_tiny("owner/tiny")


def test_no_network(hub: Hub):
    hub.stop()
    with pytest.raises(HubError, match="cannot be reached for owner/tiny, which is not in the cache"):
        load("owner/tiny")


def test_a_repository_without_weights(hub: Hub):
    (hub.root / "owner" / "tiny" / "model.safetensors").unlink()
    with pytest.raises(HubError, match="on the hub has no suitable file"):
        load("owner/tiny")


def test_a_download_that_broke_off_is_no_copy(hub: Hub):
    hub.failing.add("model.safetensors")
    with pytest.raises(HubError, match="the hub answered 403 for owner/tiny"):
        load("owner/tiny")
    assert "config.json" in hub.downloaded
    hub.stop()
    with pytest.raises(HubError, match="cannot be reached for owner/tiny, which is not in the cache"):
        load("owner/tiny")


def test_a_hub_that_is_down(hub: Hub):
    hub.broken = True
    with pytest.raises(HubError, match="the hub answered 500 for owner/tiny"):
        load("owner/tiny")


@pytest.mark.parametrize("source", ["owner/unknown", "nobody/tiny"])
def test_unknown_repositories(source: str, hub: Hub):
    with pytest.raises(
        HubError, match=rf"'{source}' is not a local file or folder, and the hub has no such model"
    ):
        load(source)


def test_gated_repositories(hub: Hub):
    hub.gated.add("owner/tiny")
    with pytest.raises(
        HubError, match=r"restricted: accept its conditions at https://huggingface\.co/owner/tiny"
    ):
        load("owner/tiny")


def test_a_tokenizer_from_the_hub(hub: Hub, tmp_path: Path):
    bare = hub.root / "owner" / "bare"
    save_as(bare, tiny_model(), tiny_tokenizer(), Preprocessor.official(32))
    (bare / "tokenizer.json").unlink()
    assert is_tiny(str(bare), tokenizer="owner/tiny")
    assert set(hub.downloaded) == {"tokenizer.json", "tokenizer_config.json"}
    with pytest.raises(HubError, match=r"no suitable file, such as tokenizer\.json"):
        load(bare, tokenizer="owner/bare")
    with pytest.raises(TokenizerError, match="no tokenizer at ///"):
        load(bare, tokenizer="///")


def test_errors_are_one_line(hub: Hub):
    hub.stop()
    with pytest.raises(HubError) as caught:
        load("owner/tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.on_cpu
def test_the_environment_is_followed_and_nothing_goes_to_stdout(hub: Hub, tmp_path: Path):
    script = "import sys; from openxclip.checkpoints.load import load; load(sys.argv[1])"
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", script, "owner/tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert list((tmp_path / "home" / "hub").rglob("model.safetensors"))


def test_what_a_hub_id_is():
    for good in ("gpt2", "microsoft/xclip-base-patch32", "a_b/c.d-e"):
        assert is_hub_id(good)
    for bad in (
        "",
        "/",
        "a/",
        "/a",
        "a/b/c",
        "../a",
        "a b",
        "a\n",
        "./model",
        "a..b",
        "C:\\model",
        "-a",
        "ä/b",
    ):
        assert not is_hub_id(bad)
