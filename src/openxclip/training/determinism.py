"""Deterministic training: a run is exactly reproducible on the same device."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def determinism(is_wanted: bool) -> Iterator[None]:
    """Context in which torch uses only deterministic kernels, and refuses operations without one."""
    if not is_wanted:
        yield
        return
    os.environ.setdefault(
        WORKSPACE, ":4096:8"
    )  # otherwise CUDA matrix products may split their work differently
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
