"""Compares ways to run a release on this machine: interleaved rounds, medians, tiles per second."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from importlib.util import find_spec

from models.engines.autopilot import measure
from models.engines.openvino import OpenVinoEngine, OpenVinoOptions
from models.engines.protocol import Engine
from models.release import CHAMPION, Release, default_store

TILES = 256  # per call: about a photo of 16 megapixels, and whole requests of every batch size


def contestants(release: Release, cores: int) -> dict[str, Callable[[], Engine]]:
    """Name of a setting -> how to open it; PyTorch takes part where it is installed."""
    named: dict[str, Callable[[], Engine]] = {}
    for precision in ("f32", "bf16"):
        for batch in (1, 4, 8, 16, 32):
            for streams in sorted({1, cores}):
                options = OpenVinoOptions(precision=precision, streams=streams, batch_sizes=tuple(sorted({1, batch})))
                named[f"openvino {precision} batch {batch} x {streams} streams"] = _openvino(release, options)
        pinned = OpenVinoOptions(precision=precision, streams=cores, batch_sizes=(1, 16), pin_threads=True)
        named[f"openvino {precision} batch 16 x {cores} streams, pinned"] = _openvino(release, pinned)
    if find_spec("torch") and find_spec("timm"):
        named[f"torch f32 batch 16, {cores} threads"] = lambda: _torch(release, cores)
    return named


def _openvino(release: Release, options: OpenVinoOptions) -> Callable[[], Engine]:
    return lambda: OpenVinoEngine(release, options)


def _torch(release: Release, cores: int) -> Engine:
    from models.engines.torch import TorchEngine

    return TorchEngine(release, cores)


def compare(release: Release, cores: int, seconds: float, rounds: int, words: str = "") -> dict[str, list[float]]:
    """Tiles per second of each setting whose name holds `words`, round by round.

    Every round measures every setting once, so that a neighbour's load falls on all of them.
    """
    chosen = {name: opened for name, opened in contestants(release, cores).items() if words in name}
    found: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, opened in chosen.items():
            engine = opened()
            found[name].append(measure(engine, seconds, TILES))
            engine.close()
    return found


def main() -> None:
    """Print tiles per second of every setting, the median of the rounds first."""
    parser = argparse.ArgumentParser(prog="python -m models.bench", description=main.__doc__)
    parser.add_argument("--release", default=CHAMPION)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="settings whose name holds these words")
    options = parser.parse_args()
    release = default_store().open(options.release)
    found = compare(release, options.cores, options.seconds, options.rounds, options.only)
    for name, rates in sorted(found.items(), key=lambda item: -statistics.median(item[1])):
        rounds = ", ".join(f"{rate:.0f}" for rate in rates)
        sys.stdout.write(f"{statistics.median(rates):7.1f}  {name}  ({rounds})\n")


if __name__ == "__main__":
    main()
