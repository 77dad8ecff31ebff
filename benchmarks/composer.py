"""How many composed tiles a second: `python -m benchmarks.composer [DATA]`, one process a core."""

from __future__ import annotations

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2

from models.engines.processor import cores
from models.synthesis import Composer, Surfaces
from models.synthesis.composer import DEFECTS

TILES, ROUNDS = 300, 3
WARM = 100
"""Tiles painted before the clock starts: the first ones make the noise, the stones and the leaves, once (1 to 2 s)."""


def painted(process: int, data: Path | None) -> float:
    """Tiles a second of one process on one thread, once it has what it cuts from; each process paints its own."""
    cv2.setNumThreads(1)
    surfaces = Surfaces.from_folder(data) if data else Surfaces.procedural()
    composer = Composer(tuple(DEFECTS), surfaces, seed=1)
    for number in range(WARM):
        composer.compose(number)
    begun = time.perf_counter()
    for number in range(TILES):
        composer.compose((process + 1) * TILES + number)
    return TILES / (time.perf_counter() - begun)


def main(data: Path | None) -> None:
    count = cores()
    for name, folder in (("procedural", None), *([("with textures", data)] if data else [])):
        with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
            rates = [sum(pool.map(painted, range(count), [folder] * count)) for _ in range(ROUNDS)]
        words = ", ".join(f"{rate:.0f}" for rate in rates)
        sys.stdout.write(f"{name}: {words} tiles a second on {count} cores ({ROUNDS} rounds of {TILES} a core)\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
