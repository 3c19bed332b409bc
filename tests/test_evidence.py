"""`make evidence`: its commands are understood and do not get in each other's way, and the page shows its tables."""

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import combinations, pairwise
from pathlib import Path

import evidence
import pytest
from evidence import Command, Places

from openxclip.cli.main import run
from openxclip.experiments.ablations import ABLATIONS, Variant
from openxclip.experiments.bench import shapes_recipes
from openxclip.reports.table import Table

WRONG_NAME = r"[Tt]here is no (recipe|ablation|list|protocol)\b"
"""What an argument that names nothing is told."""
PLACES = Places(Path("runs/evidence"), Path("ucf8"))
COMMANDS = [command for stage in evidence.stages(PLACES) for command in stage]


@pytest.mark.parametrize(
    "command",
    [command for command in COMMANDS if not re.search("seed [23]$", command.name)],
    ids=lambda c: c.name,
)
def test_a_command_is_understood(command, tmp_path, monkeypatch, capfd) -> None:
    """It ends with one line about what is missing here. A wrong option would end in the parser, with SystemExit."""
    monkeypatch.chdir(tmp_path)
    output = Path(dict(pairwise(command.arguments))["--output"])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.touch()  # a file: nothing can be written below
    assert run([*command.arguments]) in (1, 2)
    (error,) = capfd.readouterr().err.splitlines()
    assert error.startswith("openxclip: ")
    assert not re.search(WRONG_NAME, error), error


def test_no_command_is_given_twice() -> None:
    names = [command.name for command in COMMANDS]
    assert len({*names}) == len(names)
    assert len({command.arguments for command in COMMANDS}) == len(names)


def trainings(variants: list[Variant]) -> set[str]:
    """What the variants of an ablation train, in every regime."""
    recipes = shapes_recipes(Path("runs"), ())
    configs = [
        (variant.change(recipe(1)), variant.described) for variant in variants for recipe in recipes.values()
    ]
    return {json.dumps([asdict(config), described], sort_keys=True) for config, described in configs}


def test_ablations_at_once_share_no_training() -> None:
    """But those that come first."""
    shared = trainings([variant for variant, _ in ABLATIONS[evidence.SHARED].rows])
    own = {
        name: trainings([variant for variant, _ in ablation.rows]) - shared
        for name, ablation in ABLATIONS.items()
        if name != evidence.SHARED
    }
    assert len(own["frames"]) == 2 * 3
    assert [(a, b) for a, b in combinations(own, 2) if own[a] & own[b]] == []


def test_without_real_clips_nothing_asks_for_them() -> None:
    commands = [command for stage in evidence.stages(Places(Path("runs"))) for command in stage]
    assert 0 < len(commands) < len(COMMANDS)
    assert not any(
        "ucf8" in " ".join(command.arguments) or "None" in command.arguments for command in commands
    )


def test_a_failure_ends_its_stage_and_is_named(tmp_path) -> None:
    fine, broken = Command("fine", ("info", "openxclip-tiny")), Command("broken one", ("info", "no/such"))
    later = Command("later", ("info", "openxclip-tiny"))
    assert evidence.run_all([[fine, broken], [later]], tmp_path, num_processes=2) == ["broken one"]
    assert "no/such" in evidence.log_of(broken, tmp_path).read_text()
    assert "openxclip-tiny" in evidence.log_of(fine, tmp_path).read_text()
    assert not evidence.log_of(later, tmp_path).exists()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_what_runs_and_says_how_to_resume(by, tmp_path) -> None:
    arguments = ["--output", str(tmp_path), "--ucf8", "none", "--num-processes", "1"]
    process = subprocess.Popen([sys.executable, evidence.__file__, *arguments], stderr=subprocess.PIPE)
    first = evidence.log_of(COMMANDS[0], tmp_path / "logs")
    while not any(tmp_path.glob("ablations/*/log.jsonl")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(by)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.decode().endswith("evidence: interrupted; the same command resumes\n")
    assert re.search(r"openxclip: stopped after step \d+", first.read_text())
    assert len(list((tmp_path / "logs").iterdir())) == 1


def test_protocols_become_one_table(tmp_path, monkeypatch, capsys) -> None:
    model = ("--model", "openxclip-tiny", "--data", "moving-shapes")
    commands = {
        "supervised": ["supervised", "--list", "small-val"],
        "paraphrased": ["supervised", "--list", "small-val"],
        "zero-shot": ["zero-shot", "--lists", "small-val", "small-test-novel-1"],
        "base-to-novel": ["base-to-novel", "--base-list", "small-val", "--novel-list", "small-test-novel-1"],
        "label-union": ["label-union", "--list", "small-val"],
        "static-bias": ["static-bias", "--list", "small-val", "--swapped-list", "small-val"],
    }
    overlap = ["--train-labels", "a b, c d"]
    for name, arguments in commands.items():
        overlap_here = overlap if name in ("zero-shot", "base-to-novel", "label-union") else []
        arguments = [*arguments, *model, *overlap_here, "--output", str(tmp_path / name)]
        assert run(["evaluate", *arguments]) == 0
    table = evidence.protocol_table(tmp_path)
    top1 = json.loads(next(tmp_path.glob("supervised/*/evaluation.json")).read_text())["top1"]
    assert table.rows[0] == ("supervised", "top-1", f"{top1:.1%}"[:-1])
    shown = [(name, figure) for name, figures in evidence.ROWS.items() for figure in figures]
    assert [row[:2] for row in table.rows] == [row for row in shown if row[0] != evidence.AS_FILES]


def test_a_page_shows_the_kept_tables(tmp_path) -> None:
    Table(title="t", command="c", columns=("K", "top-1"), rows=((2, "1.0"), (4, "2.0"))).save(
        tmp_path / "few.json"
    )
    page = "before\n<!-- table: few -->\n| old |\n<!-- end -->\nafter"
    shown = evidence.shown(page, tmp_path)
    assert (
        shown
        == "before\n<!-- table: few -->\n| K | top-1 |\n|---|---|\n| 2 | 1.0 |\n| 4 | 2.0 |\n<!-- end -->\nafter"
    )
    assert evidence.shown(shown, tmp_path) == shown


def test_the_results_page_shows_what_was_measured() -> None:
    page = evidence.PAGE.read_text(encoding="utf-8")
    shown = sorted(match[1] for match in evidence.MARKED.finditer(page))
    others = ["few-shot", "protocols-tiny", "protocols-small", "ucf8", "ucf8-shapes", "ucf8-scratch"]
    assert shown == sorted([*ABLATIONS, *others])
    assert shown == sorted(path.stem for path in evidence.TABLES.glob("*.json"))
    assert evidence.shown(page, evidence.TABLES) == page
