"""The wheel as a user gets it: built, installed into a clean environment without the sources, and tried there.

What the wheel depends on is not downloaded again: the environment sees links to the packages of this one, those of its
requirements and no others. So an extra that is not asked for is really missing.
"""

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterable
from email import message_from_bytes
from email.message import Message
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "openxclip"

pytestmark = [pytest.mark.slow, pytest.mark.on_cpu]

USES = {
    "train": "import openxclip.reports.plots, torch.utils.tensorboard",
    "serve": "import openxclip.serving.server, fastapi_offline, prometheus_client, python_multipart, uvicorn",
    "client": "from openxclip import Client",
    "tag": "import openxclip.tagging.output, openxclip.tagging.sources",
    "search": "from openxclip import Index; import openxclip.search.table",
    "ray": "import openxclip.tagging.ray_engine",
    "onnx": "import onnxruntime, onnxscript",
    "openvino": "import openvino",
    "wandb": "import wandb",
}
"""What an extra is for. The last three are imported where they are used."""

CLIP = "clips/videos/white_bar_rising"
LABELS = ["--labels", "white bar rising, white bar falling, cyan ring growing, cyan ring shrinking"]
TINY = ["--model", "openxclip-tiny"]
WANTS = {
    "train": ["report", "clips"],
    "serve": ["serve", *TINY],
    "tag": ["tag", "clips", *LABELS, *TINY, "--output", "tags"],
    "search": ["index", "clips", *TINY, "--index", "found"],
    "onnx": ["predict", CLIP, *LABELS, *TINY, "--runtime", "onnx"],
    "openvino": ["predict", CLIP, *LABELS, *TINY, "--runtime", "openvino"],
}
"""A command that needs an extra."""


class Wheel(NamedTuple):
    """A built wheel and what it says about itself."""

    path: Path
    files: list[str]
    metadata: Message

    @property
    def extras(self) -> list[str]:
        """Those for users."""
        return [name for name in self.metadata.get_all("Provides-Extra") or [] if name in USES]

    def requires(self, extras: Iterable[str] = ()) -> set[str]:
        """Names of all distributions that it needs, and of those that these need.

        Raises:
            PackageNotFoundError: one is not installed here.
        """
        found: set[str] = set()
        _collect(self.metadata.get_all("Requires-Dist") or [], ["", *extras], found)
        return found


def _collect(requirements: Iterable[str], extras: Iterable[str], found: set[str]) -> None:
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        wanted = marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)
        if wanted and (name not in found or requirement.extras):
            found.add(name)
            _collect(distribution(name).requires or [], ["", *requirement.extras], found)


class Environment(NamedTuple):
    """A virtual environment with the wheel."""

    folder: Path
    work: Path
    extras: list[str]

    def run(self, *command: str, status: int = 0) -> tuple[str, str]:
        """stdout and stderr of one of its programs, run outside of the sources."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "COV_"))}
        path = self.folder / "bin" / command[0]
        done = subprocess.run(
            [str(path), *command[1:]], cwd=self.work, env=clean, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == status, done.stderr
        return done.stdout, done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source distribution, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Wheel:
    """The wheel."""
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        files = archive.namelist()
        metadata = next(name for name in files if name.endswith(".dist-info/METADATA"))
        return Wheel(path, files, message_from_bytes(archive.read(metadata)))


@pytest.fixture(scope="module")
def core(wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel without any extra, beside a rendered list of clips."""
    environment = _environment(wheel, [], tmp_path_factory.mktemp("core"))
    environment.run("openxclip", "render", "--list", "few-test", "--output", "clips")
    return environment


@pytest.fixture(scope="module")
def full(wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel with all extras whose packages are installed here."""
    return _environment(
        wheel, [name for name in wheel.extras if _is_here(wheel, name)], tmp_path_factory.mktemp("full")
    )


def _is_here(wheel: Wheel, extra: str) -> bool:
    try:
        wheel.requires([extra])
    except PackageNotFoundError:
        return False
    return True


def _environment(wheel: Wheel, extras: list[str], folder: Path) -> Environment:
    """A virtual environment without pip; the parent's installs the wheel into it."""
    environment = Environment(folder / "venv", folder / "work", extras)
    environment.work.mkdir()
    venv.create(environment.folder, symlinks=os.name != "nt")
    python = environment.folder / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    done = subprocess.run([*pip, str(wheel.path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    packages = folder / "packages"
    packages.mkdir()
    for name in wheel.requires(extras):
        _link(name, packages)
    (site,) = environment.folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{packages}\n")
    return environment


def _link(name: str, folder: Path) -> None:
    """Links to the modules and the metadata of a distribution that is installed here."""
    found = distribution(name)
    tops = {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}
    for top in tops:
        target = Path(str(found.locate_file(top)))
        if not top.endswith(".pth") and not (folder / top).exists():
            (folder / top).symlink_to(target, target_is_directory=target.is_dir())


def tracked(folder: Path) -> set[str]:
    """Files below `src/`, as paths inside it; nothing that Python or a build left there."""
    return {
        path.relative_to(SOURCE.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".pyi") and "__pycache__" not in path.parts
    }


# What is inside


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Wheel) -> None:
    """All code and data of src/openxclip: the shipped model, the page, label sets, templates of reports."""
    inside = {name for name in wheel.files if ".dist-info/" not in name}
    assert inside == tracked(SOURCE)
    for name in (
        "openxclip/pretrained/openxclip-tiny/model.safetensors",
        "openxclip/serving/page/index.html",
        "openxclip/reports/page.html",
        "openxclip/text/label_sets/kinetics400.txt",
        "openxclip/py.typed",
    ):
        assert name in inside
    assert not [name for name in wheel.files if re.search(r"(^|/)(tests?|benchmarks|scripts|docs)/", name)]


def test_the_source_distribution_can_be_tested(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "tests/tiny.py",
        "tests/test_wheel.py",
    } <= names
    assert not [name for name in names if name.startswith((".venv", "runs/", "demo/", "dist/"))]


def test_every_extra_of_the_wheel_is_tried_here(wheel: Wheel) -> None:
    assert set(USES) <= set(wheel.metadata.get_all("Provides-Extra") or [])
    assert {*WANTS, "client", "ray", "wandb"} == set(USES)


# In a clean environment


def test_the_command_knows_its_version_and_its_help(core: Environment, wheel: Wheel) -> None:
    assert core.run("openxclip", "--version")[0] == f"openxclip {wheel.metadata['Version']}\n"
    assert "usage: openxclip" in core.run("openxclip", "--help")[0]
    where = core.run("python", "-c", "import openxclip; print(openxclip.__file__)")[0]
    assert Path(where.strip()).is_relative_to(core.folder)


def test_the_first_prediction_of_the_readme(core: Environment) -> None:
    out, err = core.run("openxclip", "predict", CLIP, *LABELS, *TINY, "--top-k", "1")
    path, ranked = out.splitlines()[:2]
    assert path.startswith(CLIP)
    assert re.fullmatch(r" +\d+\.\d%  white bar rising", ranked)
    assert "Warning" not in err


def test_built_in_labels_are_inside(core: Environment) -> None:
    out, _ = core.run("openxclip", "predict", CLIP, "--labels", "ucf101", *TINY, "--top-k", "1", "--json")
    assert '"error": null' in out


@pytest.mark.parametrize("extra", WANTS)
def test_a_missing_extra_is_named_in_one_line(core: Environment, extra: str) -> None:
    out, err = core.run("openxclip", *WANTS[extra], status=1)
    assert out == ""
    assert re.fullmatch(rf"openxclip: \S+ is needed .* pip install 'openxclip\[{extra}\]'\n", err), err


@pytest.mark.parametrize("extra", ["client", "ray", "wandb"])
def test_a_missing_extra_is_an_error_of_ours_in_python(core: Environment, wheel: Wheel, extra: str) -> None:
    if wheel.requires([extra]) <= wheel.requires():
        pytest.skip(f"what the extra {extra!r} needs comes with the core's own requirements")
    uses = {"wandb": "from openxclip.training.tracking import WeightsAndBiases as W; W(Path('.'), {})"}
    code = f"""
from pathlib import Path
from openxclip.errors import MissingExtraError
try:
    {uses.get(extra, USES[extra])}
except MissingExtraError as error:
    print(error)
"""
    out, _ = core.run("python", "-c", code)
    wanted = "(ray|tag)" if extra == "ray" else extra  # a table of Ray's job is one of a tagging job
    assert re.search(rf"pip install 'openxclip\[{wanted}\]'\n$", out), out


@pytest.mark.parametrize("extra", USES)
def test_an_extra_that_is_installed_is_found(full: Environment, extra: str) -> None:
    if extra not in full.extras:
        pytest.skip(f"a package of the extra {extra!r} is not installed here")
    full.run("python", "-W", "ignore", "-c", USES[extra])
