"""The peak rate of a device, measured on a large matrix product, as the reference for training."""

import time

import torch

SIDE = {"cuda": 8192, "cpu": 2048}
NUM_PRODUCTS = 5


def product_flops(device: torch.device, precision: str) -> float:
    """FLOP/s of a square product on this device in this precision; takes a fraction of a second."""
    side = SIDE.get(device.type, SIDE["cpu"])
    x = torch.randn(
        side, side, device=device, dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32
    )
    best = float("inf")
    for _ in range(NUM_PRODUCTS):
        started = time.perf_counter()
        (x @ x)[0, 0].item()  # reading a value waits
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best
