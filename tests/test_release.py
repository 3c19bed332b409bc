"""What a release is made of: the version, and the files beside the package that describe the project."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
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


# Files about the project


def yaml_file(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_citation_names_the_paper() -> None:
    """The keys that version 1.2.0 of the format wants."""
    citation = yaml_file("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["license"] == PYPROJECT["project"]["license"]
    (paper,) = citation["references"]
    assert {"type", "title", "authors", "conference", "year", "doi"} <= set(paper)
    assert paper["authors"][0] == {"given-names": "Bolin", "family-names": "Ni"}
    assert paper["url"].removeprefix("https://") in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["bug", "question"])
def test_issue_forms_ask_for_something(name: str) -> None:
    form = yaml_file(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    fields = [item for item in form["body"] if item["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_options_that_the_security_policy_names_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for option in re.findall(r"--([a-z-]+)", text):
        assert re.search(rf"\b{option.replace('-', '_')}\b", sources), option


# Workflows


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def workflow(name: str) -> dict:
    values = yaml_file(f".github/workflows/{name}.yml")
    return values | {"on": values[True]}  # YAML reads the key `on` as a truth value


def steps_of(path: Path) -> list[dict]:
    return [step for job in workflow(path.stem)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_and_say_their_version(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert len(used) == sum("uses" in step for step in steps_of(path)) > 0
    for line in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_may_do_no_more_than_they_must(path: Path) -> None:
    values = workflow(path.stem)
    assert values["permissions"] in ({}, {"contents": "read"})
    assert "pull_request_target" not in values["on"]
    for name, job in values["jobs"].items():
        allowed = {"id-token": "write"} if name == "publish" else {"contents": "read"}
        assert job.get("permissions", allowed) == allowed
        assert job["timeout-minutes"] <= 90
    for step in steps_of(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        assert "${{" not in step.get("run", ""), "text of others would become a part of the script"


def test_ci_runs_on_every_system_and_python() -> None:
    matrix = workflow("ci")["jobs"]["test"]["strategy"]["matrix"]
    assert [system.partition("-")[0] for system in matrix["os"]] == ["ubuntu", "macos", "windows"]
    stated = [
        text.rpartition(" ")[2] for text in PYPROJECT["project"]["classifiers"] if "Python :: 3." in text
    ]
    assert matrix["python"] == stated == ["3.11", "3.12", "3.13", "3.14"]
    assert PYPROJECT["project"]["requires-python"] == f">={stated[0]}"


def test_portable_tests_need_no_posix() -> None:
    files = workflow("ci")["jobs"]["test"]["env"]["PORTABLE"].split()
    assert len(files) > 20
    for file in files:
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not re.search(
            r"^import (pty|fcntl|resource)|mkfifo|SIGKILL|/proc/|geteuid", source, re.MULTILINE
        ), file


def test_a_tag_is_built_once_and_published_with_attestations() -> None:
    values = workflow("publish")
    assert values["on"] == {"push": {"tags": ["v[0-9]*"]}}
    build, publish = values["jobs"]["build"], values["jobs"]["publish"]
    assert (
        sum("python -m build" in step.get("run", "") for job in (build, publish) for step in job["steps"])
        == 1
    )
    assert publish["needs"] == "build"
    assert publish["environment"]["name"] == "pypi"
    assert publish["steps"][-1]["with"]["attestations"] is True
    assert "password" not in str(values)
