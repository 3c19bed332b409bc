"""Prompt templates."""

import hashlib
from pathlib import Path

import pytest

from openxclip.errors import InputError
from openxclip.text.templates import BUILT_IN_TEMPLATES, fill, parse_templates


def test_built_in_templates_fill() -> None:
    assert parse_templates(None) == parse_templates("name") == ("{}",)
    assert fill("{}", "surfing") == "surfing"
    video = [fill(template, "surfing") for template in parse_templates("video")]
    assert len(set(video)) == len(BUILT_IN_TEMPLATES["video"]) == 8
    assert all(text.count("surfing") == 1 for text in video)


@pytest.mark.parametrize(
    ("name", "num_templates", "digest"),
    [("clip-video", 28, "7ff4cc3590e06f15"), ("clip-80", 80, "a8a4822f2921936e")],
)
def test_clips_own_templates_are_those_that_openai_published(name, num_templates, digest) -> None:
    """The digests are of the published lists, sorted: of data/prompts.md, and of the notebook for ImageNet."""
    templates = parse_templates(name)
    assert len(set(templates)) == len(templates) == num_templates
    assert hashlib.sha256("\n".join(sorted(templates)).encode()).hexdigest()[:16] == digest
    assert [fill(template, "surfing").count("surfing") for template in templates] == [1] * num_templates


def test_clips_own_templates_read_as_published() -> None:
    assert parse_templates("clip-video")[:2] == ("a photo of {}.", "a photo of a person {}.")
    assert {"a example of a person doing {}.", "a demonstration of {}."} < set(parse_templates("clip-video"))
    assert {"a photo of a {}.", "itap of my {}.", "the {} in a video game."} < set(parse_templates("clip-80"))


def test_a_label_is_put_in_as_it_is() -> None:
    assert fill("a video of {}.", "{} {0} %s \\1") == "a video of {} {0} %s \\1."


def test_template_file(tmp_path: Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_bytes("\ufeff# mine\r\n\r\n  a film of {}. \r\n{}\r\n".encode())
    assert parse_templates(str(path)) == ("a film of {}.", "{}")


@pytest.mark.parametrize("line", ["a video", "{} and {}", "{0}", "{ }", "{label}"])
def test_a_template_has_one_slot(line: str, tmp_path: Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_text(f"# first\na film of {{}}\n{line}\n")
    with pytest.raises(InputError, match=r"templates\.txt, line 3: .*exactly once"):
        parse_templates(str(path))
    with pytest.raises(InputError, match="exactly once"):
        fill(line, "surfing")


def test_what_is_neither_name_nor_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="holds no template"):
        parse_templates(str(tmp_path / "empty.txt"))
    for text in ("vidio", "absent.txt", str(tmp_path), "a video of {}", "x" * 5000, ""):
        with pytest.raises(InputError, match="one of name, video, photo, clip-video, clip-80, or a file"):
            parse_templates(text)
