"""`openxclip flops`: our count against the paper's, other models as published, and the picture."""

import contextlib
import io
import json
import sys
from pathlib import Path

import pytest

from openxclip.cli.main import run
from openxclip.errors import InputError
from openxclip.evaluation.published_costs import OTHER_COSTS, XCLIP_COSTS, PublishedCost
from openxclip.models.config import PRESETS

MODEL = {
    "name": "a model",
    "gflops_per_view": 10.5,
    "num_clips": 4,
    "num_crops": 3,
    "top1": 80.0,
    "pretraining": "none",
    "source": "a paper",
}


def test_every_preset_has_its_published_figures() -> None:
    assert [cost.name for cost in XCLIP_COSTS] == list(PRESETS)


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    """Where the command draws."""
    return tmp_path_factory.mktemp("plot") / "flops.png"


@pytest.fixture(scope="module")
def facts(picture) -> dict:
    """What one call prints as JSON."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run(["flops", "--json", "--plot", str(picture)]) == 0
    return json.loads(out.getvalue())


def test_every_preset_costs_what_the_paper_says_within_3_percent(facts) -> None:
    ratios = {
        row["preset"]: row["gmacs_per_view"] / row["published_gmacs_per_view"] for row in facts["counted"]
    }
    assert list(ratios) == list(PRESETS)
    assert {name: ratio for name, ratio in ratios.items() if abs(ratio - 1) >= 0.03} == {}


def test_the_command_gives_counted_and_published_numbers(facts) -> None:
    assert facts.keys() == {"counted", "published"}
    b16 = facts["counted"][2]
    assert b16["preset"] == "B/16-8"
    assert b16["gmacs_per_view"] == 144.2
    assert b16["published_gmacs_per_view"] == 145
    assert b16["difference_percent"] == -0.6
    assert b16["published_top1"] == 83.8
    assert facts["counted"][4]["published_top1"] is None  # B/16-32 was not tested on Kinetics-400
    swin = next(row for row in facts["published"] if row["name"] == "Video Swin-L@384")
    assert swin["gmacs_per_video"] == 105350  # 2107 x 10 x 5


def test_the_picture_is_a_png(facts, picture) -> None:
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_tables_say_what_was_counted_and_what_was_published(capsys) -> None:
    assert run(["flops"]) == 0
    ours, theirs = capsys.readouterr().out.split("\n\nOther models")
    assert ours.splitlines()[3].split() == ["B/32-8", "196.6", "38.2", "39", "-2.1", "%", "4x3", "80.4"]
    assert "as published, none counted or measured by us" in theirs
    assert all(model.name in theirs and model.source in theirs for model in OTHER_COSTS)


def test_every_published_figure_names_its_source() -> None:
    assert all("arXiv" in model.source for model in (*XCLIP_COSTS, *OTHER_COSTS))
    assert len({model.name for model in OTHER_COSTS}) == len(OTHER_COSTS)


def test_views_multiply_the_cost() -> None:
    model = PublishedCost(**MODEL)
    assert model.views == "4x3"
    assert model.gflops_per_video == 126


@pytest.mark.parametrize(
    "wrong", [{"gflops_per_view": 0}, {"num_clips": 0}, {"num_crops": -1}, {"top1": 100}]
)
def test_impossible_figures_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match="a model"):
        PublishedCost(**MODEL | wrong)


def test_a_picture_needs_a_png_name_and_matplotlib(tmp_path, capsys, monkeypatch) -> None:
    assert run(["flops", "--plot", str(tmp_path / "flops.pdf")]) == 2
    assert "ends in .png" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "openxclip.reports.cost_plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    assert run(["flops", "--plot", str(tmp_path / "flops.png")]) == 1
    error = capsys.readouterr().err
    assert "openxclip[train]" in error
    assert len(error.splitlines()) == 1  # said before anything is counted
