"""Opens the fastest engine that this machine has and that agrees with the reference; says what it chose and why."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.engines.openvino import OpenVinoEngine, OpenVinoOptions, Precision
from models.engines.protocol import Engine, EngineError, Scores, Tile
from models.release import GOLDEN_FILE, Release

log = logging.getLogger(__name__)


class Tolerance(NamedTuple):
    """How far an engine may be from the float32 reference on the golden tiles, over the trained classes.

    `largest` and `mean` are differences of a probability; `same_calls` is the share of the yes-or-no calls at the
    `high` thresholds that must be the reference's.
    """

    largest: float
    mean: float
    same_calls: float


# f32 differs by the order of additions only. bfloat16 keeps 8 bits of each number, and the stem rounds 33 times in a
# row: a probability moves by a hundredth on average, one that stands in the middle by up to 0.3, both ways. On the test
# tiles of the shipped release 99 % of the calls or more stay the same for every class and no area under the ROC curve
# falls by more than 0.004 (models/README.md). A release that it hurts much more than this runs in float32.
TOLERANCE = {"f32": Tolerance(0.002, 0.0005, 0.97), "bf16": Tolerance(0.35, 0.015, 0.97)}

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True)
class Parity:
    """How close an engine comes to the reference on the golden tiles, over the trained classes."""

    tiles: int
    largest: float
    mean: float
    same_calls: float

    def fits(self, precision: str) -> bool:
        """Whether that is close enough for the precision; a difference that is not a number never is."""
        allowed = TOLERANCE[precision]
        close = self.largest <= allowed.largest and self.mean <= allowed.mean
        return close and self.same_calls >= allowed.same_calls


def open_engine(
    release: Release, precision: Literal["auto", "f32", "bf16"] = "auto", threads: int | None = None
) -> Engine:
    """Open a verified release; `threads` is the number of cores to use (None: all this process may use).

    `auto` is bf16 where the CPU multiplies bfloat16 and the golden tiles agree, else f32. Raises EngineError if the
    precision asked for (or f32) is not to be had, or does not agree with the reference.
    """
    if precision != "auto":
        return _opened(release, precision, threads, "it was asked for")
    if not BF16_FLAGS & cpu_flags():
        return _opened(release, "f32", threads, "the CPU has no bfloat16 arithmetic")
    try:
        return _opened(release, "bf16", threads, "the CPU has bfloat16 arithmetic")
    except EngineError as error:
        return _opened(release, "f32", threads, f"bf16 does not do: {error}")


def _opened(release: Release, precision: Precision, threads: int | None, why: str) -> Engine:
    engine = OpenVinoEngine(release, OpenVinoOptions(precision=precision, streams=threads))
    parity = compare_with_golden(engine, release)
    if not parity.fits(precision):
        engine.close()
        raise EngineError(
            f"{release.id} in {precision}: probabilities differ from the reference by {parity.mean:.4f} on average and "
            f"{parity.largest:.4f} at most, {parity.same_calls:.1%} of the calls are the same"
        )
    log.info(
        "engine open release=%s precision=%s largest_difference=%.4f mean_difference=%.4f same_calls=%.3f why=%r",
        release.id,
        precision,
        parity.largest,
        parity.mean,
        parity.same_calls,
        why,
    )
    return engine


def compare_with_golden(engine: Engine, release: Release) -> Parity:
    """Run the release's golden tiles and compare with the float32 probabilities stored beside them."""
    with np.load(release.path(GOLDEN_FILE)) as golden:
        pixels, expected = golden["tiles"], golden["probabilities"]
    found = score_tiles(engine, pixels).probabilities
    trained = np.asarray(release.trained)
    high = np.array([one.high if one.high is not None else 0.5 for one in release.classes])
    difference = np.abs(found - expected)[:, trained]
    same = ((found >= high) == (expected >= high))[:, trained]
    if difference.size == 0:
        return Parity(len(pixels), 0.0, 0.0, 1.0)
    return Parity(len(pixels), float(difference.max()), float(difference.mean()), float(same.mean()))


def score_tiles(engine: Engine, pixels: NDArray[np.uint8]) -> Scores:
    """Scores of loose tiles, uint8[n, size, size, 3]: each is admitted as a picture of its own."""
    images = [engine.admit(tile) for tile in pixels]
    scores = engine.infer([Tile(image, 0, 0) for image in images])
    for image in images:
        engine.evict(image)
    return scores


def measure(engine: Engine, seconds: float = 3.0, tiles: int = 64) -> float:
    """Tiles per second of calls of `tiles` tiles each, after one call to warm up; for at least that many seconds."""
    side = engine.tile_size
    pixels = np.random.default_rng(0).integers(0, 256, (side, side * 8, 3), dtype=np.uint8)
    image = engine.admit(pixels)
    batch = [Tile(image, 0, (number % 57) * (side // 8)) for number in range(tiles)]
    engine.infer(batch)
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds or done == 0:
        engine.infer(batch)
        done += tiles
    engine.evict(image)
    return done / spent


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What the first CPU of this machine can do, in Linux's words; empty where Linux does not say."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), frozenset())
