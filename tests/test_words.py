"""Plain English: phrases to avoid, searched in docs, help, errors, comments and docstrings."""

import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BANNED = (
    r"what one would (take|use) otherwise",  # the alternatives
    r"so-manieth",  # every n-th
    r"cannot be had",  # unavailable
    r"goes before it\b",  # takes precedence
    r"for others' sake",  # needed as a reference
    r"the rest goes on",  # the others continue
    r"gets its error in its row",  # is reported as an error
    r"above all where",  # best with
    r"stand for the labels",  # used instead of label names
    r"[Mm]iss now what would be missing",  # fail early
    r"otherwise than (one|the|ours?)\b",  # deviates from
    r"\bwhoever\b",
    r"is nothing to\b",  # does not matter to
    r"speed does not ask",
    r", too\b",  # also
    r"\bthat lies? below\b",  # everything in
    r"\bat hand\b",  # in memory
    r"\bsays? nothing to\b",
    r"\bknows? no texts\b",
    r"\bneeds? no more\b",
    r"\bshall be\b",
    r"\bis told which\b",
    r"\bfares?\b",
    r"\bto bear both\b",
    r"\banyhow\b",
    r"\bmake[s]? up for\b",
    r"\bno word for\b",
    r"\bwithout a word\b",
    r"\blooked at with\b",
    r"\bsay(s)? otherwise\b",
    r"was predicted of\b",  # its prediction
    r"learns? the trained ones",
    r"\bin place of\b",  # instead of
    r"\bfor want of\b",  # without
    r"\bdearer\b",  # costs more
    r"\ball that lies\b",  # everything in
    r"\bby its values on\b",  # measured on
    r"\b(TODO|FIXME|TBD|SECONDS\d)",  # what is left to write
)
"""Patterns of sentences that a native engineer would not write."""

TERMS = {
    r"\bdata sets?\b": "dataset",
    r"\b[Ff]ine ?tun": "fine-tune",
    r"\b([Zz]ero|[Ff]ew) ?shot\b": "zero-shot, few-shot",
    r"\b[Tt]op ?[15]\b": "top-1, top-5",
    r"\bpre-train": "pretrain",
    r"\b[Cc]heck point": "checkpoint",
    r"\bhyper-parameter": "hyperparameter",
    r"\b(cls|class) embedding\b": "class token",
    r"\bimage tokens?\b": "patch token",
}
"""Patterns of spellings that the field does not use -> its own word. Prose only: code has names of others."""

SOURCES = [
    path
    for folder in ("src/openxclip", "scripts", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / ".github").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
OTHERS = [
    ROOT / "Makefile",
    ROOT / "mkdocs.yml",
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
    *sorted((ROOT / "src/openxclip").rglob("*.html")),
    *sorted((ROOT / "src/openxclip").rglob("*.js")),
]


def pieces_of(path: Path) -> list[tuple[int, str]]:
    """Line number and text of every paragraph of a page, and of every string and block of comments of a source.

    Strings that follow each other are one, and so are comments: a phrase may go over their ends.
    """
    if path.suffix != ".py":
        return paragraphs(path.read_text(encoding="utf-8"))
    with tokenize.open(path) as file:
        tokens = list(tokenize.generate_tokens(file.readline))
    strings = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    pieces: list[tuple[int, str]] = []
    last = None
    for token in tokens:
        kind = "string" if token.type in strings else "comment" if token.type == tokenize.COMMENT else None
        if kind is None:
            last = None if token.type not in (tokenize.NL, tokenize.NEWLINE) else last
            continue
        text = re.sub(r"^#+ ?|^[rbf]*[\"']+|[\"']+$", "", token.string)
        if kind == last:
            line, before = pieces.pop()
            pieces.append((line, f"{before} {text}"))
        else:
            pieces.append((token.start[0], text))
        last = kind
    return pieces


def paragraphs(text: str) -> list[tuple[int, str]]:
    """Line number and text of each run of lines that are not empty."""
    pieces: list[tuple[int, list[str]]] = []
    is_new = True
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            is_new = True
            continue
        if is_new:
            pieces.append((number, []))
        pieces[-1][1].append(line)
        is_new = False
    return [(number, " ".join(lines)) for number, lines in pieces]


@pytest.mark.parametrize(
    "path", [*PAGES, *SOURCES, *OTHERS], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_no_phrase_is_banned(path: Path) -> None:
    found = [
        f"line {line}: {match[0]!r}"
        for line, text in pieces_of(path)
        for pattern in BANNED
        for match in re.finditer(pattern, re.sub(r"\s+", " ", text))
    ]
    assert found == []


def test_a_phrase_over_the_end_of_a_line_is_found(tmp_path) -> None:
    page, source = tmp_path / "page.md", tmp_path / "source.py"
    page.write_text("It reads files in place\nof folders.\n\nNo more.")
    source.write_text('x = ("files in place "\n     "of folders")\n# in place\n# of\n')
    for path in (page, source):
        texts = [re.sub(r"\s+", " ", text) for _, text in pieces_of(path)]
        assert sum("in place of" in text for text in texts) == (1 if path == page else 2)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_field_would_use_these_words(path: Path) -> None:
    """In prose: blocks, inline code and targets of links are left out."""
    text = path.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```|`[^`\n]+`|\]\([^)]*\)|<[^>]+>", "", text, flags=re.MULTILINE | re.DOTALL)
    found = [f"{match[0]!r}: {word}" for wrong, word in TERMS.items() for match in re.finditer(wrong, prose)]
    assert found == []


def test_the_search_finds_what_it_should() -> None:
    text = "It reads them, too. A folder of that name goes before it, and takes every so-manieth frame."
    assert sum(bool(re.search(pattern, text)) for pattern in BANNED) == 3


def test_the_search_finds_other_words_too() -> None:
    text = "Finetuning on a data set, zero shot, top 1; not: fine-tuning, dataset, zero-shot, top-1."
    assert sum(len(re.findall(pattern, text)) for pattern in TERMS) == 4
