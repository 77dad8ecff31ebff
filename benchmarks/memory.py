"""How much memory does the worker take: with the largest photos in flight, and after a thousand frames?"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks import photos
from benchmarks.child import Order
from benchmarks.environment import describe
from benchmarks.figures import growth
from benchmarks.home import Travel, home
from benchmarks.processes import rss_bytes
from benchmarks.runner import Measured, Worker, measured, opened, worker
from stream.config import MIB, Config

INLINE_BYTES = 56 * MIB
"""So that photos of 48 MB can travel inline at all: with the default of 40 MiB they go by reference."""
LOOK_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure."""

    base: Config
    photos: Path
    only: str
    """Which of the photos the many frames are: small ones, since only their number counts."""
    travels: tuple[Travel, ...]
    large: int = 8
    """Frames of the largest photos."""
    large_px: tuple[int, int] = (8000, 6000)
    """Width and height."""
    large_bytes: int = 48_000_000
    many: int = 1000
    """Frames for the scripted engine."""


class MemoryResult(msgspec.Struct, frozen=True, kw_only=True):
    """One way for photos to travel."""

    transport: str
    travel: Travel
    precision: str
    large_frames: int
    large_megabytes: float
    """Of each."""
    large_peak_rss_bytes: int
    large_seconds: float
    many_frames: int
    many_seconds: float
    many_peak_rss_bytes: int
    many_growth: float
    """Memory over the last quarter of the time over that of the first, medians: 1.0 is flat."""
    many_rss_bytes: list[int]
    """Some 40 looks over that time."""


async def run(plan: Plan) -> Measured:
    """Measure; takes one to two minutes for each way to travel on two cores."""
    environment = describe(plan.base.transport)
    return measured("memory", environment, plan, [await _measure(plan, travel) for travel in plan.travels])


async def _measure(plan: Plan, travel: Travel) -> MemoryResult:
    picture = photos.large(*plan.large_px, plan.large_bytes)
    async with home(plan.base, travel, INLINE_BYTES) as config:
        async with opened(config) as transport:
            for number in range(plan.large):
                await photos.send(transport, photos.another(picture, number))
        async with worker(Order(config=config, frames=plan.large)) as child:
            large = await child.report()
    async with home(plan.base, travel) as config:
        async with opened(config) as transport:
            for data in photos.series(photos.find(plan.photos, plan.only), plan.many):
                await photos.send(transport, data)
        async with worker(Order(config=config, frames=plan.many, engine="scripted")) as child:
            looking = asyncio.create_task(_look(child))
            many = await child.report()
            looks = await looking
    working = [rss for at, rss in looks if many.began <= at <= many.ended]
    return MemoryResult(
        transport=plan.base.transport.partition(":")[0],
        travel=travel,
        precision=large.precision,
        large_frames=large.frames,
        large_megabytes=round((len(picture) + 8) / 1e6, 1),
        large_peak_rss_bytes=large.peak_rss_bytes,
        large_seconds=round(large.seconds, 1),
        many_frames=many.frames,
        many_seconds=round(many.seconds, 1),
        many_peak_rss_bytes=many.peak_rss_bytes,
        many_growth=round(growth(working), 3),
        many_rss_bytes=working[:: max(1, len(working) // 40)],
    )


async def _look(child: Worker) -> list[tuple[float, int]]:
    """Times by the monotonic clock, and memory, until it ends."""
    looks = []
    while (rss := rss_bytes(child.pid)) > 0:
        looks.append((time.monotonic(), rss))
        await asyncio.sleep(LOOK_S)
    return looks
