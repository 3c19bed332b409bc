"""Curves of cost: laws are recovered, every point is measured, shortlists are compared as they say."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.curve import Curve, each_round, measure_series
from benchmarks.curves import (
    LOGITS,
    SHORTLIST,
    VIDEO,
    case_of,
    frames_curve,
    labels_curve,
    model_of,
    random_texts,
    resolution_curve,
    texts_curve,
    views_curve,
)
from benchmarks.harness import Timing
from benchmarks.laws import Law, fit_line, fit_power
from benchmarks.shortcuts import agreement_rows, same_best, same_top
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY, tiny_model, tiny_tokenizer

import openxclip
from openxclip.checkpoints.load import Loaded
from openxclip.data.moving_shapes import shapes_manifest
from openxclip.errors import InputError
from openxclip.inference.views import Views, read_views
from openxclip.video.transforms import Preprocessor

positive = st.floats(1e-6, 1e3)


# Laws


@given(offset=st.floats(0, 1), factor=positive)
def test_a_line_is_recovered(offset, factor):
    xs = (10, 100, 1_000, 10_000)
    law = fit_line(xs, [offset + factor * x for x in xs])
    assert law.exponent == 1
    assert [law.at(x) for x in xs] == pytest.approx([offset + factor * x for x in xs], rel=1e-6)
    assert law.largest_error(xs, [offset + factor * x for x in xs]) < 1e-6


@given(factor=positive, exponent=st.floats(0.5, 4))
def test_a_power_is_recovered(factor, exponent):
    xs = (160, 224, 288, 336)
    law = fit_power(xs, [factor * x**exponent for x in xs])
    assert law.offset_seconds == 0
    assert law.exponent == pytest.approx(exponent, rel=1e-6)
    assert law.factor_seconds == pytest.approx(factor, rel=1e-4)


def test_errors_count_relatively():
    """The same as weighted least squares, and far nearer to small measurements than an unweighted line."""
    xs, seconds = (10, 100, 1_000, 10_000), (0.011, 0.02, 0.12, 0.9)
    law = fit_line(xs, seconds)
    factor, offset = np.polyfit(xs, seconds, 1, w=1 / np.array(seconds))
    assert (law.offset_seconds, law.factor_seconds) == pytest.approx((offset, factor))
    unweighted = np.polyfit(xs, seconds, 1)
    assert law.largest_error(xs, seconds) < 0.2 < abs(np.polyval(unweighted, 10) / seconds[0] - 1)


def test_the_largest_error_is_that_of_the_worst_point():
    law = Law(offset_seconds=1, factor_seconds=2, exponent=1)
    assert law.largest_error((1, 2), (3, 4)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("xs", "seconds"), [((1,), (1.0,)), ((1, 1), (1.0, 2.0)), ((1, 2), (1.0,)), ((1, 2), (1.0, 0.0))]
)
@pytest.mark.parametrize("fit", [fit_line, fit_power])
def test_too_few_points_make_no_law(fit, xs, seconds):
    with pytest.raises(InputError, match="two or more x above 0"):
        fit(xs, seconds)


def test_formulas():
    assert (
        Law(offset_seconds=0.0021, factor_seconds=1.5e-5, exponent=1).formula("K") == "2.1 ms + 0.015 ms x K"
    )
    assert Law(offset_seconds=0, factor_seconds=2e-5, exponent=2.125).formula("S") == "0.02 ms x S^2.12"


# Curves


def points(**seconds: tuple[float, ...]) -> dict[int, Timing]:
    return {int(x[1:]): Timing(seconds=values) for x, values in seconds.items()}


def curve(**changes) -> Curve:
    series = {"a": points(x1=(1.0, 2.0, 9.0), x2=(4.0, 3.0, 5.0)), "b": points(x1=(0.5,), x2=(0.001,))}
    values = {"key": "k", "title": "A curve", "symbol": "X", "x_name": "things X", "series": series}
    return Curve(**values | {"fits": {"a": fit_line}} | changes)


def test_a_table_has_medians_and_laws():
    table = curve().table("curves")
    assert table.columns == ("things X", "a", "b")
    assert table.rows == ((1, "2 s", "500 ms"), (2, "4 s", "1 ms"))
    assert len(table.notes) == 1
    assert re.fullmatch(r"a: \S+ ms \+ 2e\+03 ms x X, at most 0% off\.", table.notes[0])
    assert table.title == "A curve: medians of 3 rounds"
    assert "python -m benchmarks curves" in table.markdown()


def test_every_measurement_is_kept_under_its_own_name():
    timings = curve().timings()
    assert set(timings) == {"k: a, X = 1", "k: a, X = 2", "k: b, X = 1", "k: b, X = 2"}
    assert timings["k: a, X = 2"].seconds == (4.0, 3.0, 5.0)


@pytest.mark.parametrize("is_logarithmic", [False, True])
def test_a_picture_is_a_png(tmp_path, is_logarithmic):
    curve(is_logarithmic=is_logarithmic).draw(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_lines_of_different_x_are_refused():
    with pytest.raises(InputError, match="at the same x"):
        curve(series={"a": points(x1=(1.0,)), "b": points(x2=(1.0,))})


def test_a_law_of_no_line_is_refused():
    with pytest.raises(InputError, match=r"no line \['c'\]"):
        curve(fits={"c": fit_line})


def test_points_are_measured_in_turns():
    calls = []
    tasks = {name: {x: each_round(calls.append, (name, x)) for x in (1, 2)} for name in ("a", "b")}
    series = measure_series(tasks, 3, "title")
    assert calls == [("a", 1), ("a", 2), ("b", 1), ("b", 2)] * 4  # one round warms up
    assert {name: list(own) for name, own in series.items()} == {"a": [1, 2], "b": [1, 2]}
    assert all(len(timing.seconds) == 3 for own in series.values() for timing in own.values())


# What is measured


def test_curves_of_a_tiny_model():
    frames = frames_curve(TINY, (2, 4), num_rounds=1)
    views = views_curve(TINY, (1, 2), num_rounds=1)
    sides = resolution_curve(TINY, (32, 48), num_rounds=1)
    assert [own.xs for own in (frames, views, sides)] == [(2, 4), (1, 2), (32, 48)]
    for own in (frames, views, sides):
        assert list(own.series) == [VIDEO, LOGITS]
        assert VIDEO in own.laws()


def test_labels_of_a_tiny_model():
    own = labels_curve(model_of(TINY), (2, 3), num_rounds=1)
    assert list(own.series) == ["prompts for all", f"shortlist of {SHORTLIST}", "no prompts"]
    assert own.xs == (2, 3)


def test_texts_of_a_tiny_model():
    loaded = Loaded(tiny_model(), tiny_tokenizer(), Preprocessor.official(32))
    own = texts_curve(loaded, (2, 300), num_rounds=1)
    assert own.xs == (2, 300)
    assert list(own.series) == ["encoded", "kept from an earlier run"]
    assert list(own.laws()) == ["encoded"]


def test_models_differ_only_in_what_is_asked():
    model, pixels = case_of(replace(TINY, num_frames=2))
    assert pixels.shape == (1, 2, 3, 32, 32)
    assert pixels.dtype == model.logit_scale.dtype
    assert model.config.vision == TINY.vision
    assert random_texts(model, 7).shape == (7, TINY.embed_dim)
    assert torch.equal(model.visual.patch_embedding.weight, model_of(TINY).visual.patch_embedding.weight)


# Shortcuts


def test_agreement_against_loops():
    generator = torch.Generator().manual_seed(0)
    found, expected = torch.rand(2, 40, 8, generator=generator)
    best = [max(range(8), key=row.__getitem__) for row in found.tolist()]
    expected_best = [max(range(8), key=row.__getitem__) for row in expected.tolist()]
    assert same_best(found, expected) == sum(map(int.__eq__, best, expected_best)) / 40

    def top(row: list[float]) -> set[int]:
        return set(sorted(range(8), key=row.__getitem__)[-3:])

    shared = [len(top(a) & top(b)) / 3 for a, b in zip(found.tolist(), expected.tolist(), strict=True)]
    assert same_top(found, expected, 3) == pytest.approx(sum(shared) / 40)


def test_shortcuts_of_the_shipped_model():
    loaded = openxclip.load("openxclip-tiny", device="cpu", dtype="float32")
    test = shapes_manifest("test-novel")
    items = test.items[:3]
    pixels = torch.stack([read_views(item.media.read, loaded.preprocess, 8, Views()) for item in items])
    rows = agreement_rows(loaded, test.labels[:12], pixels, torch.tensor([item.label for item in items]))
    names = ["none", "bfloat16", "int8", "bfloat16 and int8", "shortlist of 5", "shortlist of 10"]
    assert [row[:2] for row in rows] == [("12", name) for name in names]
    assert rows[0][2:4] == ("100.0%", "100.0%")
    assert rows[-1][2] == "100.0%"
