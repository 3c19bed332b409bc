"""Write the file map of CONTRIBUTING.md: one line a file, from the first lines of the docstrings."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "openxclip"
PAGE = ROOT / "docs" / "file-map.md"

HEAD = """# File map

What each file below `src/openxclip/` does. Written by `python scripts/file_map.py`; a test keeps it current.

| file | what it does |
|---|---|
"""


def file_map() -> str:
    """The whole page."""
    files = [path for path in SOURCE.rglob("*.py") if path.name != "__init__.py" or path.parent == SOURCE]
    rows = [
        f"| `{path.relative_to(SOURCE).as_posix()}` | {_first_line(path)} |\n"
        for path in sorted(files, key=_order)
    ]
    return HEAD + "".join(rows)


def _order(path: Path) -> tuple[bool, str]:
    """The files at the root first, then room by room."""
    return path.parent != SOURCE, path.relative_to(SOURCE).as_posix()


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].removesuffix(".")


if __name__ == "__main__":
    PAGE.write_text(file_map(), encoding="utf-8")
