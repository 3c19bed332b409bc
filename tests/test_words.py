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

SOURCES = sorted((ROOT / "src" / "openxclip").rglob("*.py"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / ".github").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def words_of(path: Path) -> list[tuple[int, str]]:
    """Line number and text of every line of a page, and of every string and comment of a source."""
    if path.suffix == ".md":
        return list(enumerate(path.read_text(encoding="utf-8").splitlines(), start=1))
    with tokenize.open(path) as file:
        tokens = list(tokenize.generate_tokens(file.readline))
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return [(token.start[0], token.string) for token in tokens if token.type in kinds]


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_phrase_is_banned(path: Path) -> None:
    found = [
        f"line {line}: {match[0]!r}"
        for line, text in words_of(path)
        for pattern in BANNED
        for match in re.finditer(pattern, re.sub(r"\s+", " ", text))
    ]
    assert found == []


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
