"""Puts engines to the test: the tiles to test them on, and tiles per second side by side."""

from __future__ import annotations

import io
import itertools
import statistics
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from models.engines.gate import Evidence
from models.engines.protocol import Engine, EngineError, Scores, Tile
from models.release import EVALUATION_FILE, GOLDEN_FILE, Release

CALL_TILES = 32
"""The fewest tiles per call of a measurement."""
SIDE_TILES = 8
"""The picture of a measurement is one tile high and so many wide."""


def golden(release: Release) -> Evidence:
    """The golden tiles of a release; nobody has labelled them."""
    with np.load(release.path(GOLDEN_FILE), allow_pickle=False) as file:
        tiles, expected = file["tiles"], file["probabilities"]
    return Evidence(tiles, expected, np.full(expected.shape, np.nan, dtype=np.float32))


def evidence(release: Release) -> Evidence:
    """The golden tiles, and the labelled tiles of other photos if the release has them.

    Raises EngineError for a file of labelled tiles that does not hold together.
    """
    first = golden(release)
    if EVALUATION_FILE not in release.files:
        return first
    path = release.path(EVALUATION_FILE)
    try:
        with np.load(path, allow_pickle=False) as file:
            packed, ends = file["jpeg"].tobytes(), [int(end) for end in file["ends"]]
            labels, expected = file["labels"], file["probabilities"]
        if len({len(ends), len(labels), len(expected)}) > 1:
            raise ValueError("it has more of one thing than of another")
        pieces = [packed[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        # The reference has seen what this decoder makes of them; another one may differ in the last bit.
        tiles = [np.asarray(Picture.open(io.BytesIO(piece)).convert("RGB")) for piece in pieces]
        return Evidence(
            np.concatenate([first.tiles, np.stack(tiles)]),
            np.concatenate([first.expected, expected]),
            np.concatenate([first.labels, labels]),
        )
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"{path}: no labelled tiles: {error}") from error


def score_tiles(engine: Engine, pixels: NDArray[np.uint8]) -> Scores:
    """Scores of loose tiles, uint8[n, size, size, 3]: each is admitted as a picture of its own."""
    images = [engine.admit(tile) for tile in pixels]
    try:
        return engine.infer([Tile(image, 0, 0) for image in images])
    finally:
        for image in images:
            engine.evict(image)


def rate(engine: Engine, tiles: Sequence[Tile], seconds: float) -> float:
    """Tiles per second of calls of `call_tiles` over at least so many seconds; warm the engine up before.

    The next call is begun before the last one is waited for, as the runner does it. Raises ValueError for fewer tiles
    than one call.
    """
    size = call_tiles(engine)
    calls = [tiles[start : start + size] for start in range(0, len(tiles) - size + 1, size)]
    if not calls:
        raise ValueError(f"{len(tiles)} tiles: at least {size} are needed")
    done, began, before = 0, time.perf_counter(), None
    for call in itertools.cycle(calls):
        pending = engine.start(call)
        if before is not None:
            before.wait()
        before, done = pending, done + size
        if time.perf_counter() - began >= seconds:
            break
    if before is not None:
        before.wait()
    return done / (time.perf_counter() - began)


def call_tiles(engine: Engine) -> int:
    """Tiles per call of a measurement: its largest request, or several of them on their way at once."""
    return max(CALL_TILES, engine.batch_sizes[-1])


def rates(engines: dict[str, Engine], seconds: float, rounds: int) -> dict[str, tuple[float, ...]]:
    """Tiles per second of each engine, round by round, on a picture of noise, after a round to warm up.

    Every round measures every engine once, every other round backwards: a neighbour's load falls on all alike.
    """
    found: dict[str, list[float]] = {name: [] for name in engines}
    for engine in engines.values():
        _rate_on_noise(engine, 0.0)
    for number in range(rounds):
        for name in engines if number % 2 == 0 else reversed(engines):
            found[name].append(_rate_on_noise(engines[name], seconds))
    return {name: tuple(values) for name, values in found.items()}


def median(values: Sequence[float], digits: int = 1) -> float:
    """Of at least one value, rounded to so many digits."""
    return round(statistics.median(values), digits)


def _rate_on_noise(engine: Engine, seconds: float) -> float:
    side = engine.tile_size
    pixels = np.random.default_rng(0).integers(0, 256, (side, side * SIDE_TILES, 3), dtype=np.uint8)
    image = engine.admit(pixels)
    places = side * (SIDE_TILES - 1)
    tiles = [Tile(image, 0, number * side // 8 % (places + 1)) for number in range(call_tiles(engine))]
    try:
        return rate(engine, tiles, seconds)
    finally:
        engine.evict(image)
