"""What a release is made of: the version, and the files beside the package that describe the project."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
FALLBACK = Version(PYPROJECT["tool"]["setuptools_scm"]["fallback_version"])


# The version


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source tree without git that has what the version is made from."""
    for name in ("pyproject.toml", ".git_archival.txt", ".gitattributes"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "a change")


def version_of(folder: Path) -> Version:
    command = [sys.executable, "-m", "setuptools_scm", "--root", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return Version(done.stdout.strip())


def test_a_source_tree_without_git_has_the_fallback_version(source: Path) -> None:
    assert version_of(source) == FALLBACK


def test_the_version_is_the_tag(source: Path) -> None:
    git(source, "init", "--quiet")
    commit(source)
    without_tags = version_of(source)
    assert (without_tags.base_version, without_tags.is_devrelease) == (FALLBACK.base_version, True)
    git(source, "tag", "v0.7.0")
    assert version_of(source) == Version("0.7.0")
    commit(source)
    assert Version("0.7.0") < version_of(source) < Version("0.7.1")


def test_an_archive_of_a_tag_knows_its_version(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Such as the one that a forge offers for download."""
    git(source, "init", "--quiet")
    commit(source)
    git(source, "tag", "v0.7.0")
    folder = tmp_path_factory.mktemp("archive")
    git(source, "archive", "--output", str(folder / "source.tar"), "HEAD")
    shutil.unpack_archive(folder / "source.tar", folder)
    assert not (folder / ".git").exists()
    assert version_of(folder) == Version("0.7.0")


def test_the_fallback_version_comes_after_the_last_release() -> None:
    releases = [Version(text) for text in re.findall(r"^## (\d\S*)", CHANGELOG, re.MULTILINE)]
    assert releases == sorted(releases, reverse=True)
    assert releases[0] < FALLBACK
