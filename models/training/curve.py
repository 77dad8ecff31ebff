"""The picture of a run: its losses, stage by stage, as they went down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

SMOOTHING = 0.95


def draw(losses: Mapping[str, Sequence[float]], path: Path) -> None:
    """Write a PNG with one panel a stage: each step's loss, and their moving average."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * max(1, len(losses)), 3.2), layout="constrained")
    for number, (stage, values) in enumerate(losses.items(), 1):
        panel = figure.add_subplot(1, len(losses), number)
        panel.plot(np.arange(1, len(values) + 1), values, color="0.8", linewidth=0.8)
        panel.plot(np.arange(1, len(values) + 1), smoothed(values), color="tab:blue")
        panel.set(title=stage, xlabel="step", ylabel="loss", ylim=(0, None))
    figure.savefig(path.with_suffix(".new.png"), dpi=110)
    path.with_suffix(".new.png").replace(path)


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential moving average, without the pull of its start."""
    mean, weight, found = 0.0, 0.0, []
    for value in values:
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1.0 - SMOOTHING)
        found.append(mean / weight)
    return found
