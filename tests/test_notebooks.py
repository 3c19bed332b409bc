"""The notebooks run from top to bottom, offline, against this package."""

import os
import re
import shlex
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import openxclip
from openxclip.checkpoints.catalogue import known_families
from openxclip.checkpoints.save import save_as
from openxclip.cli.main import run
from openxclip.shapes.examples import example_clips

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
TINY_LINE, PUBLISHED = 'MODEL = "openxclip-tiny"  #', "microsoft/xclip-base-patch32"
CHECK = "assert _exit_code == 0, 'the command failed'"

pytestmark = [pytest.mark.on_cpu, pytest.mark.filterwarnings("ignore")]  # those of other packages


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    names = {path.stem for path in NOTEBOOKS}
    assert names == {"first_steps", "fine_tuning", "zero_shot_protocol", "search"}


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run it in a folder; a shell command that fails ends its cell, as an exception would."""
    for cell in code_cells(notebook):
        cell.source = re.sub(r"^( *)(!openxclip .*)$", rf"\1\2\n\1{CHECK}", cell.source, flags=re.MULTILINE)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute()  # raises CellExecutionError


@pytest.fixture(autouse=True)
def _command_on_the_path(monkeypatch) -> None:
    """A kernel finds `openxclip` where a shell would, in the environment of this Python."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path) -> None:
    execute(nbformat.read(path, as_version=4), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first_steps", "fine_tuning", "search"])
def test_it_runs_with_published_weights_and_own_videos(name, tmp_path) -> None:
    """The shipped model under the published name, and clips where the notebook expects the user's."""
    (path,) = (path for path in NOTEBOOKS if path.stem == name)
    notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        cell.source = cell.source.replace(TINY_LINE, f'MODEL = "{PUBLISHED}"  #')
    assert any(f'MODEL = "{PUBLISHED}"' in cell.source for cell in code_cells(notebook))
    save_as(tmp_path / PUBLISHED, *openxclip.load("openxclip-tiny", dtype="float32"), format="huggingface")
    clips = [clip.encode() for clip in example_clips()]
    for folder in (
        "my_videos",
        "my_clips/rising",
        "my_clips/falling",
        "my_test_clips/rising",
        "my_test_clips/falling",
    ):
        (tmp_path / folder).mkdir(parents=True)
        for number, clip in enumerate(clips[:4]):
            (tmp_path / folder / f"{number}.mp4").write_bytes(clip)
    execute(notebook, tmp_path)


def test_the_published_protocol_is_understood(tmp_path, monkeypatch, capsys) -> None:
    """With a published model, the notebook's command gets as far as UCF-101, which is not there."""
    monkeypatch.chdir(tmp_path)
    (path,) = (path for path in NOTEBOOKS if path.stem == "zero_shot_protocol")
    cells = [cell.source for cell in code_cells(nbformat.read(path, as_version=4))]
    names: dict[str, str] = {}
    for cell in cells[1:3]:
        source = cell.replace(TINY_LINE, 'MODEL = "microsoft/xclip-base-patch16-zero-shot"  #')
        exec("\n".join(line for line in source.splitlines() if "!openxclip" not in line), names)
    (command,) = re.findall(r"^!openxclip (.*)$", cells[2], re.MULTILINE)
    assert run(shlex.split(command.format(**names))) == 2
    assert "There is no ucf101_lists" in capsys.readouterr().err


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path) -> None:
    for cell in code_cells(nbformat.read(path, as_version=4)):
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_one_variable_switches_to_published_weights(path) -> None:
    sources = "\n".join(cell.source for cell in code_cells(nbformat.read(path, as_version=4)))
    line = next(line for line in sources.splitlines() if line.startswith("MODEL = "))
    assert line.startswith('MODEL = "openxclip-tiny"')
    published = line.split('"')[3]
    assert any(published in family.models for family in known_families())
    assert sources.count("\nMODEL =") + sources.startswith("MODEL =") == 1
