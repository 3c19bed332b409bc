"""Where the time of a forward pass goes: torch's profiler, its operators summed up by kinds."""

import re
from collections import Counter
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

from benchmarks.harness import command, duration
from openxclip.reports.table import Table

NUM_RUNS = 3
KINDS = (
    ("attention", r"scaled_dot_product|flash_attention|softmax"),
    ("matrix products", r"linear|addmm|\bmm|bmm|matmul|convolution|conv2d"),
    ("layer norms", r"layer_norm"),
    ("activation (sigmoid) and products", r"sigmoid|gelu|silu|::mul"),
    ("residual sums", r"::add"),
    ("copies", r"copy_|::cat|clone|contiguous|_to_copy"),
)
"""Name -> pattern of operators' names; the first that matches counts."""
REST = "everything else"


def kind_of(operator: str) -> str:
    """The kind an operator belongs to."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, operator)), REST)


def seconds_by_kind(forward: Callable[[], object]) -> Counter[str]:
    """Seconds of one run for each kind, and for each shape of a matrix product."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as profiler:
        for _ in range(NUM_RUNS):
            forward()
    seconds: Counter[str] = Counter()
    for event in profiler.key_averages(group_by_input_shape=True):
        kind = kind_of(event.key)
        if kind == "matrix products":
            shapes = [shape for shape in event.input_shapes if len(shape) >= 2][:2]
            kind += f" {' x '.join(str(tuple(shape)) for shape in shapes)}"
        seconds[kind] += event.self_cpu_time_total / 1e6 / NUM_RUNS
    return seconds


def breakdown_table(forward: Callable[[], object], suite: str, title: str, smallest: float = 0.01) -> Table:
    """Kinds by their share; those below `smallest` are one row."""
    seconds = seconds_by_kind(forward)
    total = seconds.total()
    large = {kind: part for kind, part in seconds.most_common() if part >= smallest * total}
    rows = [*large.items(), (f"parts below {smallest:.0%} each", total - sum(large.values()))]
    return Table(
        title=title,
        command=command(suite),
        columns=("kind", "time", "share"),
        rows=tuple((kind, duration(part), f"{part / total:.1%}") for kind, part in rows),
        notes=("As torch's profiler counts, which itself takes a little time for each operator.",),
    )
