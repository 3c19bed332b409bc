"""Building blocks of a self-contained HTML page that fetches nothing; all given texts are escaped."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from openxclip.files import atomic_write


def write_page(path: Path, title: str, subtitle: str, sections: Sequence[str]) -> None:
    """Write one file: a heading and sections of HTML."""
    template = Template(files("openxclip.reports").joinpath("page.html").read_text(encoding="utf-8"))
    page = template.substitute(title=escape(title), subtitle=escape(subtitle), body="\n".join(sections))
    with atomic_write(path) as temporary:
        # File names may contain characters that no encoding can express.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def section(title: str, *parts: str) -> str:
    """Parts of HTML under a heading."""
    return "\n".join([f"<section>\n<h2>{escape(title)}</h2>", *parts, "</section>"])


def paragraph(text: str) -> str:
    """Quiet text."""
    return f'<p class="quiet">{escape(text)}</p>'


def cards(facts: Mapping[str, str]) -> str:
    """Headline numbers: name -> value."""
    items = [f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in facts.items()]
    return f'<div class="cards">{"".join(items)}</div>'


class Share(float):
    """A number in 0..1 that a table shows in percent, with a bar."""

    def __str__(self) -> str:
        return f"{float(self):.1%}"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table sortable by a click on a heading; columns of numbers (also shares such as 71.3%) are right-aligned."""
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    kinds = ['class="number"' if is_number else "" for is_number in numeric]
    head = "".join(f"<th {kind}>{escape(name)}</th>" for kind, name in zip(kinds, columns, strict=True))
    body = ["".join(map(_cell, row, kinds)) for row in rows]
    lines = "\n".join(f"<tr>{line}</tr>" for line in body)
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _is_number(value: object) -> bool:
    """Whether a cell is numeric: also text such as "71.3 ± 0.8", and the dash of an empty cell."""
    first = str(value).split(" ", maxsplit=1)[0].rstrip("%")
    try:
        float(first)
    except ValueError:
        return first == "-"
    return True


def _cell(value: object, kind: str) -> str:
    if isinstance(value, Share):
        return f'<td class="number share" style="--share:{float(value):.1%}">{value}</td>'
    return f"<td {kind}>{escape(str(value))}</td>"


def heat_table(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion matrix (row: true class, column: predicted): green on the diagonal, red elsewhere."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = []
    for y, (name, row) in enumerate(zip(names, counts, strict=True)):
        cells = "".join(_heat(count, sum(row), x == y) for x, count in enumerate(row))
        lines.append(f"<tr><th>{escape(name)}</th>{cells}</tr>\n")
    return (
        f'<div class="wide"><table class="confusion"><thead><tr><td></td>{head}</tr></thead>\n'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _heat(count: int, num_videos: int, is_right: bool) -> str:
    if count == 0:
        return "<td></td>"
    colour = "34,197,94" if is_right else "239,68,68"
    return f'<td style="background:rgba({colour},{0.15 + 0.6 * count / num_videos:.2f})">{count}</td>'


def picture(data: bytes, mime: str, caption: str) -> str:
    """An image embedded in the page, with its caption as HTML."""
    source = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return f'<figure><figcaption>{caption}</figcaption><img alt="" src="{source}"></figure>'


def placeholder(text: str, caption: str) -> str:
    """Text instead of an image, with its caption as HTML."""
    return f'<figure><figcaption>{caption}</figcaption><div class="missing">{escape(text)}</div></figure>'


def folded(title: str, *parts: str) -> str:
    """Parts of HTML that unfold on a click."""
    return "\n".join([f"<details><summary>{escape(title)}</summary>", *parts, "</details>"])
