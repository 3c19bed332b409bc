"""Shared pytest set-up."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub

# Before torch is imported: threads that wait busily starve whatever shares the machine, the tests' own
# subprocesses and decoder threads included (a training step took 20 times as long beside a busy process).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Before the command is imported: what it keeps for the next time must not land in the home of whoever runs the tests.
os.environ["OPENXCLIP_CACHE"] = tempfile.mkdtemp(prefix="openxclip-tests-")

# What device="auto" means in the tests: the CPU, whatever the machine has, unless the caller says otherwise.
DEVICE = "OPENXCLIP_DEVICE"
os.environ.setdefault(DEVICE, "cpu")
if os.environ[DEVICE] == "fenced":
    import fenced_device

    fenced_device.install()


@pytest.fixture(scope="module", autouse=True)
def device_of_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """The CPU for the fixtures of a module that is marked `on_cpu`."""
    yield from _device(request)


@pytest.fixture(autouse=True)
def device(request: pytest.FixtureRequest) -> Iterator[None]:
    """Chooses the device of a test: the CPU for those marked `on_cpu`, else what $OPENXCLIP_DEVICE says."""
    yield from _device(request)


def _device(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("on_cpu") is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DEVICE, "cpu")
        yield


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub on this machine; the client uses it, and an empty cache."""
    import huggingface_hub.constants as hub_constants
    import huggingface_hub.file_download as file_download

    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(hub_constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (hub_constants, file_download):  # the second has a copy in the older clients
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield hub
    hub.stop()
