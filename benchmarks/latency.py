"""How long from handing a photo to the uploader until its result can be read, while photos keep coming?

The loop is open: photos are due at times that were fixed beforehand, whatever the system does, and a latency counts
from the time its photo was due. A sender that is held up is late, and that lateness is in the figure. One worker runs
throughout; the rate of 100 % is what it answers from a full log, measured at the start of the same run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks import photos
from benchmarks.child import Order
from benchmarks.environment import describe
from benchmarks.figures import Spread, Tail, arrivals, spread, tail
from benchmarks.home import Travel, home
from benchmarks.runner import GIVE_UP_S, Measured, Worker, interleave, measured, opened, worker
from stream.config import Config
from stream.errors import Broken
from stream.messages import Result, decode
from stream.transport import open_transport
from stream.transport.protocol import Transport
from stream.uploader import Flight, Outbox, Uploader

JITTER = 0.2
LEAD_S = 0.5
"""Between laying the photos down and the first that is due."""
WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure."""

    base: Config
    photos: Path
    only: str
    """Which of the photos: of one size, so that a slow one is slow because of the system and not of its pixels."""
    travels: tuple[Travel, ...]
    loads: tuple[float, ...]
    """Shares of the capacity."""
    seconds: float
    """Of each load in each round."""
    repeats: int
    unloaded: int = 8
    """Frames of each round that are sent one at a time, each after the answer to the one before."""
    burst: int = 24
    """Frames that the capacity is measured with."""
    seed: int = 1


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """One load."""

    load: float
    frames_per_second: float
    latency: Tail
    medians: Spread
    """Of the rounds."""
    p99_over_unloaded: float
    """p99 of all rounds, over the median of the unloaded frames."""
    late: Tail
    """How late the uploader began with a photo: what a sender waits for itself."""


class LatencyResult(msgspec.Struct, frozen=True, kw_only=True):
    """One way for photos to travel."""

    transport: str
    travel: Travel
    precision: str = ""
    capacity_frames_per_second: float
    unloaded: Tail
    loads: list[LoadResult]
    peak_rss_bytes: int = 0


@dataclass
class Samples:
    """What the rounds of one load gave."""

    latency: list[list[float]] = field(default_factory=list)
    late: list[float] = field(default_factory=list)


class Line:
    """An uploader at one end, a reader of the results at the other, and a clock that both are timed by."""

    def __init__(self, uploader: Uploader, folder: Path, sources: list[Path]) -> None:
        self._uploader = uploader
        self._folder = folder
        self._sources = sources
        self._laid = 0
        self._seen: dict[str, asyncio.Future[float]] = {}
        self._written: list[float] = []  # when the worker wrote each result, by the log's clock
        self.now = asyncio.get_running_loop().time

    async def lay(self, count: int) -> list[tuple[Path, asyncio.Future[float]]]:
        """Put photos on the disk that nobody has seen; each with the time at which its result will be seen."""
        laid = await asyncio.to_thread(photos.write, self._sources, count, self._folder, self._laid)
        self._laid += count
        awaited = [(path, asyncio.get_running_loop().create_future()) for path, _ in laid]
        self._seen.update({frame_id: future for (_, frame_id), (_, future) in zip(laid, awaited, strict=True)})
        return awaited

    async def follow(self, transport: Transport) -> None:
        """See results come, for ever."""
        async for record in transport.read("results", follow=True):
            future = self._seen.pop(decode(record.value, Result).frame.frame_id, None)
            if future is not None:
                self._written.append(record.timestamp)
                future.set_result(self.now())

    async def upload(self, path: Path) -> None:
        """Hand one photo over and wait for its acknowledgement, as `spanwatch upload` would."""
        report = await self._uploader.upload([path])
        if len(report.sent) != 1:
            raise Broken(f"{path.name} was not sent: {report.refused}")
        path.unlink()

    async def capacity(self, frames: int) -> float:
        """Frames per second of a worker that never waits for a photo.

        By when results were written: on a busy machine they are seen several at once, which would look fast.
        """
        before = len(self._written)
        laid = await self.lay(frames)
        for path, _ in laid:
            await self.upload(path)
        for _, future in laid:
            await future
        times = sorted(self._written[before:])
        return (frames - 1) / (times[-1] - times[0])

    async def one_at_a_time(self, frames: int) -> list[float]:
        """Latencies with nothing else in the line."""
        found = []
        for path, future in await self.lay(frames):
            began = self.now()
            await self.upload(path)
            found.append(await future - began)
        return found

    async def open_loop(self, rate: float, seconds: float, seed: int) -> tuple[list[float], list[float]]:
        """Latencies from when each photo was due, and how late each was begun."""
        times = arrivals(1 / rate, max(1, round(rate * seconds)), JITTER, seed)
        laid = await self.lay(len(times))
        begin = self.now() + LEAD_S
        late = []
        for (path, _), offset in zip(laid, times, strict=True):
            await asyncio.sleep(max(0.0, begin + offset - self.now()))
            late.append(self.now() - begin - offset)
            await self.upload(path)
        seen = [await future for _, future in laid]
        return [at - begin - offset for at, offset in zip(seen, times, strict=True)], late


async def run(plan: Plan) -> Measured:
    """Measure; takes `repeats` x `seconds` for each load, and half a minute on top, for each way to travel."""
    environment = describe(plan.base.transport)
    return measured("latency", environment, plan, [await _measure(plan, travel) for travel in plan.travels])


async def _measure(plan: Plan, travel: Travel) -> LatencyResult:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="spanwatch-bench-")))
        config = await stack.enter_async_context(home(plan.base, travel))
        reading = await stack.enter_async_context(opened(config))
        sending = await open_transport(config, "uploader")
        stack.push_async_callback(sending.close)
        child = await stack.enter_async_context(worker(Order(config=config)))
        outbox = stack.enter_context(Outbox(folder / "outbox.sqlite"))
        uploader = Uploader(sending, outbox, Flight(asset="bench", flight="bench"))
        line = Line(uploader, folder / "card", photos.find(plan.photos, plan.only))
        result = await _while_alive(child, partial(_rounds, plan, travel, line), line.follow(reading))
        report = await child.stop()
        return msgspec.structs.replace(result, precision=report.precision, peak_rss_bytes=report.peak_rss_bytes)


async def _while_alive(
    child: Worker, work: Callable[[], Awaitable[LatencyResult]], follow: Awaitable[None]
) -> LatencyResult:
    """Do the work with results being followed; a follower or a worker that ends early ends it with its error."""
    working, following = asyncio.ensure_future(work()), asyncio.ensure_future(follow)
    ending = asyncio.ensure_future(child.end())
    try:
        async with asyncio.timeout(GIVE_UP_S):
            await asyncio.wait({working, following, ending}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if following.done():
            following.result()
        raise Broken("the worker under measurement ended by itself; its reason stands above")
    finally:
        for task in (working, following, ending):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _rounds(plan: Plan, travel: Travel, line: Line) -> LatencyResult:
    await line.one_at_a_time(WARM_UP)
    capacity = await line.capacity(plan.burst)
    unloaded: list[float] = []
    samples = {load: Samples() for load in plan.loads}
    seeds = iter(range(plan.seed, plan.seed + plan.repeats * len(plan.loads)))

    async def alone() -> None:
        unloaded.extend(await line.one_at_a_time(plan.unloaded))

    def contestant(load: float) -> Callable[[], Awaitable[None]]:
        async def go() -> None:
            latency, late = await line.open_loop(load * capacity, plan.seconds, next(seeds))
            samples[load].latency.append(latency)
            samples[load].late += late

        return go

    await interleave(plan.repeats, [alone, *(contestant(load) for load in plan.loads)])
    reference = tail(unloaded)
    return LatencyResult(
        transport=plan.base.transport.partition(":")[0],
        travel=travel,
        capacity_frames_per_second=round(capacity, 3),
        unloaded=reference,
        loads=[_load(load, capacity, samples[load], reference) for load in plan.loads],
    )


def _load(load: float, capacity: float, samples: Samples, unloaded: Tail) -> LoadResult:
    latency = tail([one for round_ in samples.latency for one in round_])
    return LoadResult(
        load=load,
        frames_per_second=round(load * capacity, 3),
        latency=latency,
        medians=spread([tail(round_).p50 for round_ in samples.latency]),
        p99_over_unloaded=round(latency.p99 / unloaded.p50, 2),
        late=tail(samples.late),
    )
