"""MkDocs hooks of the documentation site: the pages that come from the code, and links into the repository.

Pages of commands and recipes are written at each build, from `--help` and docstrings. A link that leads out of docs/,
such as ../deploy/compose.yaml, becomes a page that shows that file, so that the site is whole without a network.
A public name of the package that no page below docs/api/ describes, or that has no docstring, is a warning, and so
ends a strict build.
"""

import contextlib
import inspect
import io
import json
import logging
import os
import posixpath
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import openxclip
from openxclip.cli.main import COMMANDS
from openxclip.cli.main import run as run_command
from openxclip.recipes import PRETRAIN_RECIPES, RECIPES

ROOT = Path(__file__).parents[1]
HELP_COLUMNS = 80  # what a page shows without scrolling
PROTOCOLS = ("supervised", "few-shot", "zero-shot", "base-to-novel", "label-union", "static-bias", "timeline")
PUBLISHED_AS = {
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "index.md": "docs/index.md",
}
"""Pages of the site that are files of the repository under another name."""
LANGUAGES = {
    ".py": "python",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".service": "ini",
    ".sh": "bash",
}
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")

log = logging.getLogger("mkdocs.hooks.site_pages")  # a warning of mkdocs: fails a strict build


# --- generated pages --------------------------------------------------------------------------------------------


def command_help(arguments: list[str]) -> str:
    """What `openxclip ARGUMENTS --help` prints, at a fixed width and without colours."""
    out = io.StringIO()
    os.environ.update(COLUMNS=str(HELP_COLUMNS), NO_COLOR="1")
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        run_command([*arguments, "--help"])
    lines = (line.rstrip() for line in out.getvalue().splitlines())
    return "\n".join(textwrap.fill(line, HELP_COLUMNS) if line[:1].isalpha() else line for line in lines)


def command_file(name: str) -> str:
    """Path in the site of a command's page. (One of the commands is called index.)"""
    return f"commands/openxclip-{name}.md"


def command_page(name: str) -> str:
    """The page of a command; that of `evaluate` has a section for each protocol."""
    parts = [f"# openxclip {name}\n", f"```text\n{command_help([name])}\n```\n"]
    for protocol in PROTOCOLS if name == "evaluate" else ():
        parts += [f"## {protocol}\n", f"```text\n{command_help([name, protocol])}\n```\n"]
    return "\n".join(parts)


def commands_page() -> str:
    """The overview of all commands."""
    rows = [
        f"| [`openxclip {name}`](openxclip-{name}.md) | {(inspect.getdoc(command) or '').partition(chr(10))[0]} |"
        for name, command in COMMANDS.items()
    ]
    head = (
        "# Commands\n\nData goes to stdout, messages and progress to stderr. Exit status: 0 success, 1 some input "
        "failed, 2 usage error. `--debug` shows where an error came from. These pages are what `--help` prints.\n"
    )
    return "\n".join([head, "| command | what it does |", "|---|---|", *rows, ""])


def recipes_page() -> str:
    """All recipes with what their docstrings say, and the settings of each."""
    parts = [
        "# Recipes\n\nA recipe is a function that returns every setting of a training. `--set a.b=value` changes one "
        "([training](training.md)). The published trainings have their commands and numbers on "
        "[a page of their own](published.md).\n"
    ]
    for title, command, recipes in (
        ("Training", "train", RECIPES),
        ("Language-image pretraining", "pretrain", PRETRAIN_RECIPES),
    ):
        parts.append(f"## {title}\n")
        for name, function in recipes.items():
            says = "" if hasattr(function, "func") else (inspect.getdoc(function) or "")
            parts.append(f"### {name}\n\n`openxclip {command} --recipe {name}`\n\n{says}\n")
            settings = "\n".join(_settings(function()))
            parts.append(f'??? note "Settings"\n\n    ```text\n{_indented(settings)}\n    ```\n')
    return "\n".join(parts)


def _settings(config: object, prefix: str = "") -> Iterator[str]:
    """A line `a.b=value` for each setting, as `--set` takes it."""
    for name, value in vars(config).items():
        if hasattr(value, "__dataclass_fields__"):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={'null' if value is None else value}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def generated() -> dict[str, str]:
    """Path in the site -> Markdown of every page that is made from the code."""
    pages = {"commands/index.md": commands_page(), "recipes.md": recipes_page()}
    pages |= {command_file(name): command_page(name) for name in COMMANDS}
    return pages | {
        page: (ROOT / source).read_text(encoding="utf-8")
        for page, source in PUBLISHED_AS.items()
        if not source.startswith("docs/")
    }


# --- links into the repository ----------------------------------------------------------------------------------


def source_of(page: str) -> str:
    """The file of the repository that a page of the site is made from: where its links start."""
    if page in PUBLISHED_AS:
        return PUBLISHED_AS[page]
    if page.startswith("repository/"):
        return page.removeprefix("repository/").removesuffix("/index.md").removesuffix(".shown.md")
    return f"docs/{page}"


def page_of(source: str) -> str:
    """The page of the site that shows a file or folder of the repository."""
    for page, published in PUBLISHED_AS.items():
        if source == published:
            return page
    if source == "README.md":
        return "index.md"
    if source.startswith("docs/"):
        return source.removeprefix("docs/")
    if (ROOT / source).is_dir():
        return f"repository/{source}/index.md"
    return f"repository/{source}" if source.endswith(".md") else f"repository/{source}.shown.md"


def prose(markdown: str) -> Iterator[tuple[bool, str]]:
    """The text in pieces: (whether it is prose, text); code in fences and in backticks is not."""
    for i, piece in enumerate(
        re.split(r"(^```.*?^```[^\n]*$|`[^`\n]+`)", markdown, flags=re.MULTILINE | re.DOTALL)
    ):
        yield i % 2 == 0, piece


def links_out(markdown: str, source: str) -> Iterator[str]:
    """Files and folders of the repository outside of docs/ that a text links to."""
    for is_prose, piece in prose(markdown):
        for target in LINK.findall(piece) if is_prose else ():
            path = _target(target, source)
            if path is not None and not path.startswith("docs/"):
                yield path


def _target(link: str, source: str) -> str | None:
    """The path in the repository of a relative link, if there is such a file."""
    path = link.partition("#")[0]
    if not path or re.match(r"[a-z]+:", path):
        return None
    found = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    return found if (ROOT / found).exists() else None


def rewritten(markdown: str, page: str) -> str:
    """The text with links as they are in the site."""
    source = source_of(page)

    def replace(match: re.Match[str]) -> str:
        _, sign, anchor = match[0].partition("#")
        target = _target(match[0], source)
        if target is None:
            return match[0]
        return posixpath.relpath(page_of(target), posixpath.dirname(page) or ".") + sign + anchor

    return "".join(LINK.sub(replace, piece) if is_prose else piece for is_prose, piece in prose(markdown))


def shown(source: str) -> str:
    """A page that shows a file of the repository, or lists a folder."""
    path = ROOT / source
    if path.is_dir():
        names = sorted(p.name for p in path.iterdir() if p.is_file() and p.suffix in (".py", ".md"))
        return f"# {source}\n\n" + "".join(
            f"- [{name}]({posixpath.basename(source)}/{name})\n" for name in names
        )
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        return "\n\n".join(_cells(text))
    return f"# {source}\n\n``````{LANGUAGES.get(path.suffix, 'text')}\n{text}\n``````\n"


def _cells(notebook: str) -> Iterator[str]:
    """The cells of a notebook as Markdown."""
    for cell in json.loads(notebook)["cells"]:
        text = "".join(cell["source"])
        yield text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"


# --- public names -----------------------------------------------------------------------------------------------


def undocumented(described: set[str]) -> list[str]:
    """What is wrong with the reference of the public names, one line each."""
    package = griffe.load("openxclip", search_paths=[str(ROOT / "src")])
    problems = [
        f"{name} is public, and no page below docs/api/ describes it"
        for name in openxclip.__all__
        if name not in described
    ]
    for name in openxclip.__all__:
        item = package[name]
        problems += [] if item.docstring else [f"{name} has no docstring"]
        members = item.members.values() if item.is_class else ()
        problems += [
            f"{name}.{member.name} has no docstring"
            for member in members
            if member.is_public and not member.is_alias and not member.docstring
        ]
    return problems


def described_names(folder: Path) -> set[str]:
    """Public names with an entry on a page of the reference."""
    pages = [page.read_text(encoding="utf-8") for page in folder.glob("*.md")]
    return {name for page in pages for name in re.findall(r"^::: openxclip\.(\w+)$", page, re.MULTILINE)}


# --- the hooks --------------------------------------------------------------------------------------------------


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the commands in the navigation, in their own order."""
    pages = ["commands/index.md", *({name: command_file(name)} for name in COMMANDS)]
    config.nav = _filled(config.nav, "commands/", pages)
    return config


def _filled(nav: Any, place: str, pages: list[Any]) -> Any:
    """The navigation with a list of pages in the one place that says so."""
    if isinstance(nav, dict):
        return {title: _filled(item, place, pages) for title, item in nav.items()}
    if isinstance(nav, list):
        return [_filled(item, place, pages) for item in nav]
    return pages if nav == place else nav


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for page, text in generated().items():
        files.append(File.generated(config, page, content=text))
    waiting = [(source_of(file.src_uri), file.content_string) for file in files.documentation_pages()]
    while waiting:
        source, text = waiting.pop()
        for target in links_out(text, source):
            page = page_of(target)
            if files.get_file_from_path(page) is None:
                files.append(File.generated(config, page, content=shown(target)))
                # Links of a folder's list start at the folder's parent, as those of a file of its name would.
                waiting.append((target, shown(target)))
    for problem in undocumented(described_names(ROOT / "docs" / "api")):
        log.warning(problem)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where the site has what they name."""
    return rewritten(markdown, page.file.src_uri)
