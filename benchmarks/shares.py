"""What a card can do at most, measured on that card: the figures that others are a share of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SIDE = 8192
COPY_BYTES = 1 << 30
PRODUCT = "half-precision matrix product"


def ceilings() -> dict[str, float]:
    """TFLOP/s of a large matrix product in half precision, GB/s on the card (read and written) and up to it."""
    import torch

    first, second = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.float16) for _ in range(2))
    here, there = (torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda") for _ in range(2))
    host = torch.empty(COPY_BYTES, dtype=torch.uint8, pin_memory=True)
    return {
        PRODUCT: 2 * SIDE**3 / _seconds(lambda: first @ second) / 1e12,
        "memory on the card": 2 * COPY_BYTES / _seconds(lambda: there.copy_(here)) / 1e9,
        "host to card": COPY_BYTES / _seconds(lambda: here.copy_(host, non_blocking=True)) / 1e9,
    }


def flops_of(network: Any, side: int) -> float:
    """Floating-point operations of one tile, as PyTorch counts them."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # Attention as matrix products: of the CPU's fused kernel it counts nothing.
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros((1, side, side, 3), dtype=torch.uint8))
    return float(counter.get_total_flops())


def _seconds(work: Callable[[], object], times: int = 20) -> float:
    """Of one call, the mean of many between two synchronisations, after some to warm up."""
    import torch

    for _ in range(3):
        work()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / times
