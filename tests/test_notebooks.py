"""The notebooks run from top to bottom, offline, against this package."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from openxclip.checkpoints.catalogue import known_families

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
CHECK = "assert _exit_code == 0, 'a command of this cell failed'"

pytestmark = [pytest.mark.on_cpu, pytest.mark.filterwarnings("ignore")]  # those of other packages


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    names = {path.stem for path in NOTEBOOKS}
    assert names == {"first_steps", "fine_tuning", "zero_shot_protocol", "search"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch) -> None:
    """In an empty folder; a shell command that fails ends the cell, as an exception would."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        if "!openxclip" in cell.source:
            cell.source += f"\n{CHECK}"
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()  # raises CellExecutionError


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
