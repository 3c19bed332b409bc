"""The cost model of docs/scale.md: what it says stands there, and a simulation of the stages agrees."""

from pathlib import Path

import pytest
from cost_of_scale import (
    HARDWARE,
    NUM_FRAMES,
    NUM_LABELS,
    Measured,
    Pipeline,
    Stage,
    deviation,
    pipeline_of,
    simulated,
    tables,
)

PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
MEASURED = Measured.read()


def pipeline(*stages: tuple[str, float, int], **capacity: float) -> Pipeline:
    """Stages of a resource, seconds and workers."""
    made = (
        Stage(name=str(number), resource=resource, seconds=seconds, num_workers=workers)
        for number, (resource, seconds, workers) in enumerate(stages)
    )
    return Pipeline(stages=tuple(made), capacity=capacity)


@pytest.mark.parametrize("name", tables(MEASURED))
def test_the_page_has_the_tables(name) -> None:
    assert tables(MEASURED)[name] in PAGE, (
        "run `python scripts/cost_of_scale.py`; docs/scale.md has another table"
    )


@pytest.mark.parametrize("hardware", HARDWARE, ids=lambda one: one.name)
@pytest.mark.parametrize(("num_frames", "num_labels"), [(8, 10), (32, 10), (8, 10_000)])
def test_a_simulation_agrees(hardware, num_frames, num_labels) -> None:
    """Long enough that beginning and end weigh little."""
    made = hardware.pipeline(MEASURED, num_frames, num_labels)
    total = simulated(made, 4000, room=4 * hardware.cores) - made.once_seconds
    assert total / 4000 == pytest.approx(made.bottleneck()[1], rel=0.03)


def test_small_measured_runs_stand_beside_their_simulation() -> None:
    """Recorded, with the stages timed beside each run. How far they agree is for people: a time is no pass mark."""
    assert {run["decoders"] for run in MEASURED.runs} == {1, 2}
    assert any("windows" in run["name"] for run in MEASURED.runs)
    for run in MEASURED.runs:
        assert f"{100 * deviation(run):+.0f} %" in tables(MEASURED)["check"]


def test_a_deviation_is_that_of_the_simulation() -> None:
    run = {
        "cores": 2,
        "decoders": 1,
        "decode": 1.0,
        "model": 0.5,
        "write": 0.0,
        "once": 3.0,
        "num_videos": 10,
    }
    # While the model's two threads work, three want two cores: it takes 3/8 s; the decoder loses 1/8 s a video.
    assert simulated(pipeline_of(run), 10) == pytest.approx(3 + 1 + 9 * 1.125 + 0.25)
    assert deviation({**run, "seconds": 10.0}) == pytest.approx(0.4375)


def test_full_stages_hold_up_those_before_them() -> None:
    assert simulated(pipeline(("a", 1.0, 1), ("b", 3.0, 1), a=1, b=1), 10) == pytest.approx(31)
    behind = pipeline(("a", 1.0, 1), ("b", 3.0, 3), a=1, b=3)
    assert simulated(behind, 30, room=3) == pytest.approx(33)
    blocked = pipeline(("a", 1.0, 1), ("b", 3.0, 1), ("a", 1.0, 1), a=2, b=1)
    assert simulated(blocked, 10, room=1) == pytest.approx(1 + 30 + 1)


def test_stages_share_a_resource() -> None:
    shared = pipeline(("cores", 1.0, 2), ("cores", 1.0, 2), cores=2)
    assert simulated(shared, 100) == pytest.approx(100, rel=0.02)
    assert shared.bottleneck()[1] == 1.0
    wide = Pipeline(
        stages=(Stage(name="model", resource="cores", seconds=4.0, width=4),), capacity={"cores": 2}
    )
    assert simulated(wide, 3) == pytest.approx(6)
    assert wide.bottleneck() == ("model", 2.0)


def test_a_stage_of_few_workers_holds_up_others() -> None:
    assert pipeline(("cores", 1.0, 1), ("cores", 0.5, 1), cores=4).bottleneck() == ("0", 1.0)


def test_the_bottleneck_moves() -> None:
    """With more cores beside a GPU from decoding to the model, with slow storage to reading."""
    few, many = (next(one for one in HARDWARE if one.gpus and one.cores == cores) for cores in (16, 64))
    assert few.pipeline(MEASURED).bottleneck()[0] == "decode"
    assert many.pipeline(MEASURED).bottleneck()[0] == "model"
    slow = type(many)(name="slow", cores=64, gpus=1, megabytes_per_second=25.0)
    assert slow.pipeline(MEASURED).bottleneck()[0] == "read"
    for hardware in HARDWARE:
        paces = [[hardware.pipeline(MEASURED, t, k).bottleneck()[1] for k in NUM_LABELS] for t in NUM_FRAMES]
        assert paces == sorted(paces)
        assert all(of_labels == sorted(of_labels) for of_labels in paces)
