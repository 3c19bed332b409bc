"""The cost model of docs/scale.md: what it says stands there, and a simulation of the stages agrees."""

from pathlib import Path

import pytest
from cost_of_scale import B32_CORE_SECONDS, DECODE_CORE_SECONDS, HARDWARE, bottleneck, simulated, table

PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")


def test_the_page_has_the_table() -> None:
    assert table() in PAGE, "run `python scripts/cost_of_scale.py` and put its table into docs/scale.md"


@pytest.mark.parametrize("hardware", [one for one in HARDWARE if one.gpus], ids=lambda one: one.name)
def test_a_simulation_agrees(hardware) -> None:
    """Cores as workers of their own, a GPU as one; long enough that beginning and end weigh nothing."""
    seconds = hardware.seconds()
    stages = [seconds["read"], seconds["decode"] * hardware.cores, seconds["model"]]
    total = simulated(stages, [1, hardware.cores, 1], 20_000, room=4 * hardware.cores)
    assert total / 20_000 == pytest.approx(bottleneck(hardware)[1], rel=0.01)


def test_a_small_measured_run_agrees() -> None:
    """280 real clips on two cores took 35.2 and 38.0 s, decoders started in the time (docs/scale.md)."""
    each = DECODE_CORE_SECONDS + B32_CORE_SECONDS
    predicted = simulated([each], [2], 280)
    assert predicted == pytest.approx(36.6, rel=0.05)


def test_full_stages_hold_up_those_before_them() -> None:
    assert simulated([1.0, 3.0], [1, 1], 10) == pytest.approx(31)
    assert simulated([1.0, 3.0], [1, 3], 30, room=3) == pytest.approx(33, abs=1.1)
