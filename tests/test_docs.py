"""Commands of README.md and of the guides in docs/: each is understood, and gets as far as what it lacks here."""

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
GUIDES = (
    "index",
    "install",
    "tour",
    "faq",
    "migrating",
    "concepts",
    "label-a-folder",
    "own-classes",
    "fine-tune",
    "moving-shapes",
    "predicting",
    "explaining",
    "timelines",
    "serving",
    "scale",
    "searching",
    "training",
    "packing",
    "evaluating",
    "checkpoints",
    "exporting",
)
PAGES = [README, *((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in GUIDES)]


def commands_of(page: str) -> list[list[str]]:
    """Arguments of each `openxclip` command in a block, over continued lines, or inline; not of "openxclip X ..."."""
    texts = [line for kind, block in blocks_of(page) if kind == "bash" for line in lines_of(block)]
    texts += re.findall(r"`(openxclip \w+ [^`]*[^`.])`", page)
    return [arguments_of(text) for text in texts if not text.endswith(("--help", "--version"))]


def blocks_of(page: str) -> list[tuple[str, str]]:
    """Language and text of each code block."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def lines_of(block: str) -> list[str]:
    """Our commands in a block of bash, over continued lines."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line.startswith("openxclip ")]


def arguments_of(line: str) -> list[str]:
    """What a shell would pass to `openxclip`, without a redirection of its output."""
    return shlex.split(line.partition(" > ")[0], comments=True)[1:]


COMMANDS = list({" ".join(c): c for page in PAGES for c in commands_of(page)}.values())


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_of_the_docs_is_understood(arguments, tmp_path, monkeypatch, capfd) -> None:
    """It ends with one line about what it names. A wrong option would end in the parser, with SystemExit."""
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "serve" and "--model" not in arguments:
        arguments = [*arguments, "--model", DEFAULT_MODEL]  # that comes with the package, and would be served
    options = {"--model": DEFAULT_MODEL} | dict(pairwise(arguments))
    for model in (options["--model"], "openxclip-tiny"):
        Path(model).mkdir(parents=True, exist_ok=True)  # goes before the hub, and holds no model
    if "--output" in options:
        output = Path(options["--output"])
        output.parent.mkdir(exist_ok=True)
        output.touch()  # a file: nothing can be written below
    assert run(arguments) in (1, 2)
    error = capfd.readouterr().err.replace(f"{tmp_path}/", "")
    assert re.fullmatch(r"openxclip: .*\n", error)
    named = [word.rstrip("/") for word in (*arguments[1:], DEFAULT_MODEL) if not word.startswith("--")]
    assert any(word in error for word in named), error
    assert not re.search(r"[Tt]here is no (recipe|ablation)\b", error), error


def test_the_commands_are_found() -> None:
    assert len(commands_of(README)) >= 4
    assert len(COMMANDS) >= 16
    assert {arguments[0] for arguments in COMMANDS} == {
        *("predict", "train", "evaluate", "ablate", "pretrain", "render", "report", "info", "convert"),
        *("explain", "serve", "tag", "index", "search", "timeline", "pack", "export", "benchmark"),
    }


def test_every_recipe_is_named() -> None:
    """In the README, or the published ones on the page that it points to."""
    published = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    named = {*re.findall(r"`(\w+)`", "".join(PAGES)), *re.findall(r"--recipe (\w+)", published)}
    assert {*RECIPES, *PRETRAIN_RECIPES} - named == set()


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 100


@pytest.mark.parametrize(
    "page",
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ],
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
    anchors = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text)
    for target, anchor in anchors:
        other = (page.parent / target if target else page).read_text(encoding="utf-8")
        headings = [
            re.sub(r"[^\w -]", "", line.lstrip("# ")) for line in other.splitlines() if line.startswith("#")
        ]
        assert anchor in [heading.strip().lower().replace(" ", "-") for heading in headings], anchor
