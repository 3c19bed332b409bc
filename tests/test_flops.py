"""The page of costs: our count against the paper's, other models as published, and the picture."""

import cost_page
import pytest
from published_costs import OTHER_COSTS, XCLIP_COSTS, PublishedCost

from openxclip.errors import InputError
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
def facts() -> dict:
    """The figures behind tables and picture."""
    return {"counted": cost_page.counted(), "published": cost_page.published()}


def test_every_preset_costs_what_the_paper_says_within_3_percent(facts) -> None:
    ratios = {
        row["preset"]: row["gmacs_per_view"] / row["published_gmacs_per_view"] for row in facts["counted"]
    }
    assert list(ratios) == list(PRESETS)
    assert {name: ratio for name, ratio in ratios.items() if abs(ratio - 1) >= 0.03} == {}


def test_it_has_counted_and_published_numbers(facts) -> None:
    b16 = facts["counted"][2]
    assert b16["preset"] == "B/16-8"
    assert b16["gmacs_per_view"] == 144.2
    assert b16["published_gmacs_per_view"] == 145
    assert b16["difference_percent"] == -0.6
    assert b16["published_top1"] == 83.8
    assert facts["counted"][4]["published_top1"] is None  # B/16-32 was not tested on Kinetics-400
    swin = next(row for row in facts["published"] if row["name"] == "Video Swin-L@384")
    assert swin["gmacs_per_video"] == 105350  # 2107 x 10 x 5


def test_the_picture_is_a_png(facts, tmp_path) -> None:
    cost_page.draw(tmp_path / "flops.png", facts)
    assert (tmp_path / "flops.png").read_bytes().startswith(b"\x89PNG")


def test_the_tables_say_what_was_counted_and_what_was_published(facts) -> None:
    ours = cost_page.table_of_ours(facts["counted"]).text()
    theirs = cost_page.table_of_others(facts["published"]).text()
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
