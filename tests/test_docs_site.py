"""The documentation site: what its pages show is run, in order, offline; and the built site is whole.

A page is run in a folder of its own with stand-ins: under the names of the published model and of the page's videos lie
the shipped model and rendered clips. `tests/test_docs.py` checks that every command is understood, also those that are
not run here.
"""

import io
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import draw_concepts
import draw_home
import numpy as np
import pytest
from PIL import Image
from screenshots import CHROMIUM, keep_screenshot
from test_docs import DEFAULT_MODEL, ROOT, arguments_of, blocks_of, lines_of

import openxclip
from openxclip.checkpoints.save import save_as
from openxclip.cli.main import COMMANDS, run
from openxclip.recipes import RECIPES
from openxclip.shapes.examples import example_clips

pytestmark = [pytest.mark.on_cpu, pytest.mark.filterwarnings("ignore")]  # those of other packages

DOCS = ROOT / "docs"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
STILL = """() => {
  const picture = document.querySelector("article img"), still = document.createElement("canvas");
  [still.width, still.height] = [picture.naturalWidth, picture.naturalHeight];
  still.style.maxWidth = "100%";
  still.getContext("2d").drawImage(picture, 0, 0);
  picture.replaceWith(still);
}"""
"""Replaces the moving picture by its first frame, so that screenshots are alike."""
QUICK = (
    "../README",
    "index",
    "install",
    "tour",
    "label-a-folder",
    "own-classes",
    "predicting",
    "explaining",
    "concepts",
    "migrating",
    "faq",
    "alternatives",
    "notebooks",
)
SLOW = (
    "scale",
    "searching",
    "models",
    "results",
    "fine-tune",
    "training",
    "packing",
    "evaluating",
    "timelines",
    "checkpoints",
    "moving-shapes",
)
"""serving.md and exporting.md are run by tests/test_serving.py and tests/test_export.py."""

NOT_RUN = {
    "openxclip serve": "runs until it is stopped",
    "--engine ray": "starts a cluster; tests/test_ray.py",
    "rtsp://": "needs a camera; tests/test_live.py",
    "--processes": "needs several devices; tests/test_distributed.py",
    "../shared/data": "needs real clips",
    "runs/ucf8": "the same",
    "runs/evidence": "takes hours; tests/test_evidence.py",
    "openxclip pretrain": "takes minutes; tests/test_contrastive.py",
    "--recipe shapes ": "takes 20 minutes; tests/test_training.py",
    "openxclip ablate": "takes an hour; tests/test_ablations.py",
    "openxclip benchmark": "takes minutes; tests/test_choice.py",
    "--runtime auto": "the same",
    "google/siglip": "needs a download; tests/test_image_models.py",
    "openai/clip": "needs a download; tests/test_image_models.py",
    "k400_32_8.pth": "needs a download; tests/test_official.py",
    "--hours": "takes minutes; tests/test_timeline_metrics.py",
    "annotations.json": "needs annotated videos; tests/test_annotations.py",
    "few_shot --data packed": "needs a download; tests/test_packing.py",
    "--data packed --list test.txt": "needs a data set with this list; tests/test_packing.py",
    "--push": "needs a log-in; tests/test_push.py",
}
"""Part of a command -> why it is not run here."""

CHANGED = {'device="cuda"': 'device="cpu"', "compile=True": "compile=False"}
"""What programs ask for -> what they get here."""

BEFORE = {
    "predicting": "paths = ['surf.mp4', 'other.mp4']",
    "scale": "import duckdb, lancedb, pandas, pyarrow.dataset",
    "explaining": """
import openxclip
recognizer = openxclip.Recognizer.from_pretrained("microsoft/xclip-base-patch32", ["surfing", "cooking"])
""",
}
"""What the programs of a page take for granted."""

VIDEOS = ("surf", "new", "a", "b", "clip", "other", "match", "gate", "tomorrow", "quiet")
FOLDERS = ("holiday", "videos", "my_clips/cartwheel", "my_clips/handstand", "my_test_clips/cartwheel")


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory) -> Path:
    """A folder as the pages assume it."""
    folder = tmp_path_factory.mktemp("stand-ins")
    save_as(folder / DEFAULT_MODEL, *openxclip.load("openxclip-tiny", dtype="float32"), format="huggingface")
    clips = [clip.encode() for clip in example_clips()]
    for number, name in enumerate(VIDEOS):
        (folder / f"{name}.mp4").write_bytes(clips[number % len(clips)])
    for name in (*FOLDERS, "my_test_clips/handstand"):
        (folder / name).mkdir(parents=True)
        for number, clip in enumerate(clips[:3]):
            (folder / name / f"{number}.mp4").write_bytes(clip)
    (folder / "labels.txt").write_text("surfing\nswimming\nsailing\n")
    return folder


def text_of(page: str) -> str:
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def why_not(line: str) -> str | None:
    """The reason why a command is not run, if there is one."""
    return next((reason for part, reason in NOT_RUN.items() if part in line), None)


def run_bash(block: str) -> None:
    """Run our commands of a block; each must end with status 0."""
    for line in lines_of(block):
        if why_not(line) or line.endswith("--version"):
            continue
        target = re.search(r" > (\S+)$", line)
        out = io.StringIO()
        with redirect_stdout(out):
            status = run(arguments_of(line))
        assert status == 0, line
        if target:
            Path(target[1]).write_text(out.getvalue(), encoding="utf-8")


def run_python(block: str, names: dict[str, Any]) -> None:
    """Run a program; one whose processes import it runs as a file."""
    for asked, given in CHANGED.items():
        block = block.replace(asked, given)
    if "__main__" not in block:
        exec(compile(block, "a program of the docs", "exec"), names)
        return
    Path("program.py").write_text(block)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "program.py"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [*QUICK, *(pytest.param(page, marks=pytest.mark.slow) for page in SLOW)])
def test_what_a_page_shows_runs(page, stand_ins, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(stand_ins, folder)
    monkeypatch.chdir(folder)
    text = text_of(page)
    for block in re.findall(r"`texts\.json`\n\n```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        Path("texts.json").write_text(block)
    names: dict[str, Any] = {"__name__": "docs"}
    exec(BEFORE.get(page, ""), names)
    for kind, block in blocks_of(text):
        if kind == "bash":
            run_bash(block)
        elif kind == "python" and not any(part in block for part in NOT_RUN):
            run_python(block, names)
    if page == "migrating":
        check_migration(names)


def check_migration(names: dict[str, Any]) -> None:
    """Both columns of the page give the same."""
    theirs = names["output"].logits_per_video.numpy()
    assert np.allclose(names["logits"].numpy(), theirs, atol=1e-4)
    assert np.allclose(names["our_video"].video.numpy(), names["video"].numpy(), atol=1e-4)
    assert np.allclose(names["our_text"].numpy(), names["text"].numpy(), atol=1e-4)
    scores = dict(names["prediction"].scores)
    expected = names["probabilities"][0].tolist()
    assert np.allclose([scores[label] for label in names["labels"]], expected, atol=1e-3)


def test_every_page_with_a_program_is_run() -> None:
    others = {"serving", "exporting", "performance", "published", "citation", "file-map"}
    assert {*QUICK, *SLOW} - {"../README"} == {path.stem for path in DOCS.glob("*.md")} - others


def test_what_is_not_run_is_there() -> None:
    """No reason outlives its command."""
    text = "".join(map(text_of, (*QUICK, *SLOW)))
    programs = "".join(block for kind, block in blocks_of(text) if kind in ("bash", "python"))
    assert [part for part in NOT_RUN if part not in programs.replace("\\\n", " ")] == []


# --- the built site ---------------------------------------------------------------------------------------------


def build(folder: Path, site: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site as `make docs` builds it."""
    pytest.importorskip("mkdocstrings", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_has_the_pages_of_the_code(site) -> None:
    for name in COMMANDS:
        text = (site / "commands" / f"openxclip-{name}.html").read_text(encoding="utf-8")
        assert f"usage: openxclip {name}" in text
    recipes = (site / "recipes.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in recipes for name in RECIPES)
    reference = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    assert all(f'id="openxclip.{name}"' in reference for name in openxclip.__all__)


def test_the_site_fetches_nothing(site) -> None:
    """Links may lead out; scripts, styles, fonts and pictures may not."""
    fetched = re.compile(
        r"""<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//|<link\b[^>]*href="(?:https?:)?//"""
    )
    assert [
        page.name for page in site.rglob("*.html") if fetched.search(page.read_text(encoding="utf-8"))
    ] == []
    assert [page.name for page in site.rglob("*.css") if re.search(r"url\(.?https?:", page.read_text())] == []


def test_a_broken_link_and_an_undocumented_name_fail_the_build(tmp_path) -> None:
    pytest.importorskip("mkdocstrings", reason="needs the extra docs")
    for path in ROOT.iterdir():
        if path.name in (
            "src",
            "scripts",
            "benchmarks",
            "deploy",
            "README.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
        ):
            (tmp_path / path.name).symlink_to(path)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs")
    with (tmp_path / "docs" / "faq.md").open("a") as page:
        page.write(
            "\n[gone](nowhere.md), [no such place](tour.md#nowhere), [no such file](../src/nothing.py)\n"
        )
    many = tmp_path / "docs" / "api" / "many.md"
    many.write_text(many.read_text().replace("::: openxclip.tag\n", ""))
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert "tag is public, and no page below docs/api/ describes it" in done.stderr
    for broken in ("nowhere.md", "tour.md#nowhere", "../src/nothing.py"):
        assert broken in done.stderr


def test_the_pictures_of_the_pages_are_drawn(tmp_path, monkeypatch) -> None:
    draw_concepts.draw(tmp_path)
    for name in draw_concepts.FIGURES:
        drawn = ElementTree.parse(tmp_path / name).getroot()
        kept = ElementTree.parse(DOCS / "assets" / name).getroot()
        assert drawn.get("viewBox") == kept.get("viewBox")
        assert len(list(drawn.iter())) == len(list(kept.iter()))
    monkeypatch.setattr(draw_home, "NUM_CLIPS", 1)
    draw_home.draw(tmp_path / "home.webp")
    for path, num_clips in ((tmp_path / "home.webp", 1), (DOCS / "assets" / "home.webp", 4)):
        assert path.stat().st_size < 300_000
        with Image.open(path) as picture:
            assert (picture.size, picture.n_frames) == (draw_home.SIZE_PX, 16 * num_clips)


def test_the_search_works_from_a_file_without_a_network(site) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium from the system's packages (scripts/browser.sh)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
            context = browser.new_context(viewport=viewport, offline=True)
            page = context.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.goto((site / "index.html").as_uri())
            page.wait_for_function("document.querySelector('article img').complete")
            page.evaluate(STILL)
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            keep_screenshot(page, f"site-{name}.png")
            if name == "phone":
                page.locator("label[for=__search]").first.click()
            page.locator("input[name=query]").press_sequentially("learning rate")
            found = page.locator(".md-search-result__link").first
            found.wait_for(timeout=30_000)
            found.click()
            page.wait_for_selector("article mark, article h1")
            assert errors == []
            context.close()
        browser.close()
