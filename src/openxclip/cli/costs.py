"""Counting what several models cost, with a progress bar."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openxclip.models.config import XCLIPConfig
    from openxclip.models.flops import Cost


def count_costs(configs: "Iterable[XCLIPConfig]") -> "dict[XCLIPConfig, Cost]":
    """What each configuration costs; one that comes several times is counted once."""
    from openxclip.models.flops import count_cost
    from openxclip.progress import progress_bar

    distinct = tuple(dict.fromkeys(configs))
    costs = {}
    with progress_bar() as bar:
        task = bar.add_task("counting", total=len(distinct), note="")
        for config in distinct:
            costs[config] = count_cost(config)
            bar.advance(task)
    return costs
