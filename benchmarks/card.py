"""What is measured on a graphics card, of any engine: rates, whole frames, the pause at a swap; tested without one."""

from __future__ import annotations

import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import cv2
import msgspec
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from models.engines.protocol import Engine, Tile
from models.runner import AdmittedTile, Runner
from stream.worker.tiling import tile

PHOTO = Path(__file__).parents[1] / "tests/data/flight/deck-7036.jpg"
SWAPS = 20
AHEAD = 3
"""Calls on their way while a rate is measured."""

Pixels = NDArray[np.uint8]
T = TypeVar("T")


class GpuResult(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: `what` of `on` (engine and precision) in which `case`; `share` of what this card could do at most."""

    what: str
    on: str = ""
    case: str = ""
    value: float | None = None
    unit: str = ""
    share: float | None = None
    note: str = ""


def tiles_per_second(engine: Engine, count: int, seconds: float) -> float:
    """Of calls of so many tiles of one photo on the card, several on their way at once, after a round to warm up."""
    side = engine.tile_size
    pixels = np.random.default_rng(0).integers(0, 256, (side * 4, side * 4, 3), dtype=np.uint8)
    photo = engine.admit(pixels)
    places = np.random.default_rng(1).integers(0, side * 3, (count, 2))
    tiles = [Tile(photo, int(y), int(x)) for y, x in places]
    pending: deque[Any] = deque()
    done, began = 0, 0.0
    try:
        while True:
            pending.append(engine.start(tiles))
            if len(pending) == AHEAD:
                pending.popleft().wait()
                if not began:  # from the first answer on
                    began = time.perf_counter()
                    continue
                done += count
                if (spent := time.perf_counter() - began) >= seconds:
                    return done / spent
    finally:
        while pending:
            pending.popleft().wait()
        engine.evict(photo)


def grid(width: int, height: int, side: int) -> list[tuple[int, int]]:
    """Top left corners of a photo's tiles."""
    cut = tile(width, height, side)
    return [(int(y), int(x)) for y, x in itertools.product(cut.ys, cut.xs)]


def jpeg(size: tuple[int, int], photo: Path = PHOTO) -> bytes:
    """The photo at another size, as a camera would save it."""
    pixels = cv2.resize(cv2.imread(str(photo)), size, interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def frames_per_second(
    engine: Engine, photos: Sequence[bytes], threads: int, seconds: float
) -> tuple[float, float, float]:
    """Whole frames a second, from JPEG bytes to scores; decoding alone on as many threads; and the engine alone.

    The engine alone takes decoded photos: they go up, are scored, and come down.
    """
    decoded = simplejpeg.decode_jpeg(photos[0], "RGB")
    height, width, _ = decoded.shape
    places = grid(width, height, engine.tile_size)
    with ThreadPoolExecutor(threads) as pool, Runner(_Kept(engine), depth=0) as runner:
        one = _Decoder(photos, 2 * threads)
        decoding = rate(one.give_back(ahead(pool, one, threads)), seconds)
        same = ((decoded, None) for _ in itertools.count())
        alone = rate(answered(runner, same, places, lambda _: None), seconds)
        another = _Decoder(photos, 2 * threads + AHEAD)
        whole = rate(answered(runner, ahead(pool, another, threads), places, another.free.put), seconds)
    return whole, decoding, alone


class _Decoder:
    """Decodes into memory that is used again, as the worker does: to touch it anew costs more than to decode."""

    def __init__(self, photos: Sequence[bytes], buffers: int) -> None:
        self._photos = photos
        self.free: SimpleQueue[bytearray] = SimpleQueue()
        size = simplejpeg.decode_jpeg(photos[0], "RGB").nbytes
        for _ in range(buffers):
            self.free.put(bytearray(size))

    def __call__(self, number: int) -> tuple[Pixels, bytearray]:
        buffer = self.free.get()
        return simplejpeg.decode_jpeg(self._photos[number % len(self._photos)], "RGB", buffer=buffer), buffer

    def give_back(self, photos: Iterator[tuple[Pixels, bytearray]]) -> Generator[None, None, None]:
        """Nobody wants the pixels."""
        for _, buffer in photos:
            self.free.put(buffer)
            yield


class _Kept:
    """An engine that a runner does not close."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def close(self) -> None:
        """Not ours to close."""


def ahead(pool: ThreadPoolExecutor, work: Callable[[int], T], count: int) -> Generator[T, None, None]:
    """Results in order, with so many of them being worked on."""
    numbers = itertools.count()
    waiting = deque(pool.submit(work, next(numbers)) for _ in range(count))
    try:
        while True:
            yield waiting.popleft().result()
            waiting.append(pool.submit(work, next(numbers)))
    finally:
        for one in waiting:
            if not one.cancel():
                one.result()


def answered(
    runner: Runner, photos: Iterator[tuple[Pixels, T]], places: Sequence[tuple[int, int]], done: Callable[[T], None]
) -> Generator[None, None, None]:
    """Frames in order, with AHEAD of them at the engine; what came with a photo is given to `done` after its scores."""
    waiting: deque[Any] = deque()

    def take() -> None:
        photo, future, held = waiting.popleft()
        future.result()
        runner.evict(photo)
        done(held)

    try:
        for pixels, held in photos:
            photo = runner.admit(pixels)
            waiting.append((photo, runner.infer([AdmittedTile(photo, y, x) for y, x in places]), held))
            if len(waiting) == AHEAD:
                take()
                yield
    finally:
        while waiting:
            take()


def rate(events: Generator[Any, None, None], seconds: float) -> float:
    """Events a second over at least so many seconds, after three to warm up; closes where they come from."""
    try:
        for _ in range(3):
            next(events)
        began, done = time.perf_counter(), 0
        for _ in events:
            done += 1
            if (spent := time.perf_counter() - began) >= seconds:
                break
        return done / spent
    finally:
        events.close()


def swap_gaps(
    open_engine: Callable[[], Engine], free_memory: Callable[[], int], swaps: int = SWAPS
) -> Iterator[GpuResult]:
    """Under load: the longest pause between two answered batches around a swap, and what memory does over all."""
    engine = open_engine()
    count, side, name = engine.batch_sizes[-1], engine.tile_size, f"{type(engine).__name__} {engine.precision}"
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    gaps, usual, held = [], [], []
    with Runner(engine) as runner:
        for _ in range(swaps):
            after = open_engine()  # beside the load in a worker, before it here: what is measured is the swap
            times = []
            drained = None
            for number in range(20):
                photo = runner.admit(pixels)
                future = runner.infer([AdmittedTile(photo, 0, 0)] * count)
                if number == 9:
                    drained = runner.swap(after)
                future.result()
                times.append(time.perf_counter())
                runner.evict(photo)
            assert drained is not None
            drained.result()
            steps = np.diff(times)
            gaps.append(float(steps[8:12].max()))
            usual.append(float(np.median(steps)))
            held.append(free_memory())
    batch = statistics.median(usual)
    yield GpuResult(what="longest pause at a swap", on=name, value=1000 * max(gaps), unit="ms", share=max(gaps) / batch)
    yield GpuResult(what="memory kept by each swap", on=name, value=(held[0] - held[-1]) / 1e6 / swaps, unit="MB")
