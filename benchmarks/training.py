"""What a training step gains from what made it faster: `python -m benchmarks.training [ARCHITECTURE] [PIXELS]`."""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from models.architecture import PRESETS
from models.training.initial import fresh
from models.training.memory import keep_freed_memory
from models.training.precision import keep_in_float
from models.training.train import masked_loss

BATCH, THREADS, ROUNDS, STEPS = 32, 2, 3, 3


@dataclass(frozen=True)
class Variant:
    """A step with or without each measure; every variant lives in a process of its own."""

    name: str
    bfloat16: bool
    in_float: bool
    kept: bool


VARIANTS = (
    Variant("bfloat16", True, False, False),
    Variant("slow layers in float32", True, True, False),
    Variant("freed memory kept too", True, True, True),
    Variant("all in float32, freed memory kept", False, False, True),
)
prepared: list[Callable[[], float]] = []  # in a variant's process: its step


def prepare(variant: Variant, architecture: str, size: int) -> None:
    """In the variant's process: a network, tiles of `size` px and a step that takes seconds."""
    torch.set_num_threads(THREADS)
    if variant.kept:
        keep_freed_memory()
    network = fresh(PRESETS[architecture], 1).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    if variant.in_float:
        keep_in_float(network)
    random = np.random.default_rng(0)
    tiles = torch.from_numpy(random.integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8))
    labels = torch.from_numpy(random.integers(0, 2, (BATCH, PRESETS[architecture].classes)).astype(np.float32))

    def step() -> float:
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.bfloat16):
            logits = network.logits(network.embed(tiles)).float()
        loss = masked_loss(logits, labels, torch.ones_like(labels))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        optimizer.step()
        return time.perf_counter() - begun

    prepared.append(step)


def take() -> list[float]:
    """In the variant's process: the seconds of some steps."""
    return [prepared[0]() for _ in range(STEPS)]


def main(architecture: str, size: int) -> None:
    context = multiprocessing.get_context("spawn")
    pools = {
        variant.name: ProcessPoolExecutor(1, context, prepare, (variant, architecture, size)) for variant in VARIANTS
    }
    seconds: dict[str, list[float]] = {name: [] for name in pools}
    for number in range(ROUNDS + 1):
        for name, pool in pools.items():
            taken = pool.submit(take).result()
            seconds[name] += taken if number else []  # the first round warms up
    slow = seconds[VARIANTS[0].name]
    for name, taken in seconds.items():
        ratios = [one / other for one, other in zip(slow, taken, strict=True)]
        sys.stdout.write(
            f"{architecture}, {size} px, {name}: {statistics.median(taken):.2f} s a step, "
            f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})\n"
        )
    for pool in pools.values():
        pool.shutdown()


if __name__ == "__main__":
    words = sys.argv[1:]
    main(words[0] if words else "lite0vit2", int(words[1]) if len(words) > 1 else 224)
