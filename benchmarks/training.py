"""What a training step costs with its slow layers in bfloat16, and in float32: `python -m benchmarks.training`."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from models.architecture import PRESETS
from models.training.initial import fresh
from models.training.train import keep_in_float, masked_loss

BATCH, SIZE, ROUNDS, STEPS = 32, 224, 3, 3


def stepper(architecture: str, in_float: bool) -> Callable[[], float]:
    """What takes a step on the same tiles and says how many seconds it took."""
    network = fresh(PRESETS[architecture], 1).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    if in_float:
        keep_in_float(network)
    random = np.random.default_rng(0)
    tiles = torch.from_numpy(random.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8))
    labels = torch.from_numpy(random.integers(0, 2, (BATCH, PRESETS[architecture].classes)).astype(np.float32))

    def step() -> float:
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network.logits(network.embed(tiles)).float()
        loss = masked_loss(logits, labels, torch.ones_like(labels))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        optimizer.step()
        return time.perf_counter() - begun

    return step


def main(architecture: str) -> None:
    torch.set_num_threads(2)
    steppers = {name: stepper(architecture, name == "float32") for name in ("bfloat16", "float32")}
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    for number in range(ROUNDS + 1):
        for name, step in steppers.items():
            taken = [step() for _ in range(STEPS)]
            seconds[name] += taken if number else []  # the first round warms up
    ratios = [slow / fast for slow, fast in zip(seconds["bfloat16"], seconds["float32"], strict=True)]
    for name, taken in seconds.items():
        sys.stdout.write(f"{architecture}, slow layers in {name}: {statistics.median(taken):.2f} s a step\n")
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    sys.stdout.write(f"float32 is {middle:.2f} times as fast ({low:.2f} to {high:.2f})\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "lite0vit2")
