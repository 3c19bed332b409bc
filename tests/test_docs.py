"""Commands of README.md and docs/moving-shapes.md: each is understood, and gets as far as what it lacks here."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from openxclip.cli.main import run
from openxclip.recipes import PRETRAIN_RECIPES, RECIPES

DEFAULT_MODEL = "microsoft/xclip-base-patch32"
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHAPES = (ROOT / "docs" / "moving-shapes.md").read_text(encoding="utf-8")


def commands_of(page: str) -> list[list[str]]:
    """Arguments of each `openxclip` command in a block, over continued lines, or inline; not of "openxclip X ..."."""
    blocks = "".join(re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    lines = blocks.replace("\\\n", " ").splitlines()
    texts = [line for line in lines if line.startswith("openxclip ")]
    texts += re.findall(r"`(openxclip \w+ [^`]*[^`.])`", page)
    return [shlex.split(text, comments=True)[1:] for text in texts]


COMMANDS = [*commands_of(README), *commands_of(SHAPES)]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_of_the_docs_is_understood(arguments, tmp_path, monkeypatch, capsys) -> None:
    """It ends with one line about what it names. A wrong option would end in the parser, with SystemExit."""
    monkeypatch.chdir(tmp_path)
    options = {"--model": DEFAULT_MODEL} | dict(pairwise(arguments))
    Path(options["--model"]).mkdir(parents=True)  # goes before the hub, and holds no model
    if "--output" in options:
        output = Path(options["--output"])
        output.parent.mkdir(exist_ok=True)
        output.touch()  # a file: nothing can be written below
    assert run(arguments) in (1, 2)
    error = capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert re.fullmatch(r"openxclip: .*\n", error)
    named = [word.rstrip("/") for word in (*arguments[1:], DEFAULT_MODEL) if not word.startswith("--")]
    assert any(word in error for word in named), error


def test_the_commands_are_found() -> None:
    assert len(commands_of(README)) >= 12
    assert len(commands_of(SHAPES)) >= 2
    assert {arguments[0] for arguments in COMMANDS} == {
        *("predict", "train", "evaluate", "ablate", "pretrain", "render", "report", "info", "convert")
    }


def test_every_recipe_is_named() -> None:
    """In the README, or the published ones on the page that it points to."""
    published = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    named = {*re.findall(r"`(\w+)`", README), *re.findall(r"--recipe (\w+)", published)}
    assert {*RECIPES, *PRETRAIN_RECIPES} - named == set()
