"""How fast do photos get from a folder into the log, and which part of the uploader takes the time?"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import msgspec

from benchmarks import photos
from benchmarks.environment import broker_pid, describe
from benchmarks.figures import Spread, spread
from benchmarks.home import Travel, home
from benchmarks.processes import cpu_seconds
from benchmarks.runner import Measured, interleave, measured
from stream.config import Config
from stream.errors import Broken
from stream.messages import BlobRef, Frame, RecordPosition
from stream.testing import Faulty
from stream.transport import open_transport
from stream.transport.protocol import BlobStore, Message, TopicPartition, Transport
from stream.uploader import Flight, Outbox, Uploader

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure."""

    base: Config
    photos: Path
    travels: tuple[Travel, ...]
    frames: int
    repeats: int


class IngestResult(msgspec.Struct, frozen=True, kw_only=True):
    """One way for photos to travel."""

    transport: str
    travel: Travel
    frames: int
    megabytes: float
    megabytes_per_second: Spread
    photos_per_second: Spread
    stage_seconds: dict[str, float]
    """Of a photo, in the median run: `read` (look, digest, bytes), `outbox` (its fsyncs), `blob`, `send` (to the
    acknowledgement of the log)."""
    cpu_ms_per_mb: dict[str, float]
    """Of the uploader's process, and of the broker's if it runs here."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One upload."""

    seconds: float
    megabytes: float
    stages: Mapping[str, float]
    cpu: Mapping[str, float]


class Clock:
    """Adds up where the time goes."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {"outbox": 0.0, "blob": 0.0, "send": 0.0}

    async def awaiting(self, stage: str, call: Callable[[], Awaitable[T]]) -> T:
        """Time one asynchronous call."""
        began = time.perf_counter()
        try:
            return await call()
        finally:
            self.spent[stage] += time.perf_counter() - began

    def calling(self, stage: str, call: Callable[[], T]) -> T:
        """Time one call."""
        began = time.perf_counter()
        try:
            return call()
        finally:
            self.spent[stage] += time.perf_counter() - began


class TimedTransport(Faulty):
    """Passes everything through and times what the uploader uses."""

    def __init__(self, inner: Transport, clock: Clock) -> None:
        super().__init__(inner)
        self._clock = clock
        self._timed = TimedBlobs(inner.blobs, clock)

    @property
    def blobs(self) -> BlobStore:
        return self._timed

    async def send(self, message: Message) -> tuple[TopicPartition, int]:
        return await self._clock.awaiting("send", partial(super().send, message))


class TimedBlobs:
    """The blob store of a `TimedTransport`."""

    def __init__(self, inner: BlobStore, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    async def put(self, data: bytes | Path) -> BlobRef:
        return await self._clock.awaiting("blob", partial(self._inner.put, data))

    async def exists(self, sha256: str) -> bool:
        return await self._clock.awaiting("blob", partial(self._inner.exists, sha256))

    async def get(self, ref: BlobRef) -> bytes:
        return await self._inner.get(ref)

    async def delete(self, sha256: str) -> None:
        await self._inner.delete(sha256)


class TimedOutbox(Outbox):
    """An outbox whose two writes are timed."""

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(path)
        self._clock = clock

    def recorded(self, destination: str, frame: Frame, path: Path) -> Frame:
        return self._clock.calling("outbox", partial(super().recorded, destination, frame, path))

    def acknowledged(self, destination: str, frame: Frame, where: RecordPosition, now: datetime) -> None:
        self._clock.calling("outbox", partial(super().acknowledged, destination, frame, where, now))


async def run(plan: Plan) -> Measured:
    """Measure; five rounds of 60 photos (170 MB) take about a minute for each way to travel."""
    environment = describe(plan.base.transport)
    runs: dict[Travel, list[Run]] = {travel: [] for travel in plan.travels}

    def contestant(travel: Travel) -> Callable[[], Awaitable[None]]:
        async def go() -> None:
            runs[travel].append(await _upload(plan, travel))

        return go

    await interleave(plan.repeats, [contestant(travel) for travel in plan.travels])
    return measured("ingest", environment, plan, [_result(plan, travel, runs[travel]) for travel in plan.travels])


async def _upload(plan: Plan, travel: Travel) -> Run:
    """One flight from a folder to a fresh log, by an uploader with a fresh outbox."""
    clock, broker = Clock(), broker_pid(plan.base.transport)
    with TemporaryDirectory(prefix="spanwatch-bench-") as name:
        card = Path(name) / "card"
        laid = photos.write(photos.find(plan.photos), plan.frames, card)
        megabytes = sum(path.stat().st_size for path, _ in laid) / 1e6
        async with home(plan.base, travel) as config:
            transport = await open_transport(config, "uploader")
            try:
                with TimedOutbox(Path(name) / "outbox.sqlite", clock) as outbox:
                    uploader = Uploader(TimedTransport(transport, clock), outbox, Flight(asset="bench"))
                    before = _cpu(broker)
                    began = time.perf_counter()
                    report = await uploader.upload([card])
                    seconds = time.perf_counter() - began
                    after = _cpu(broker)
            finally:
                await transport.close()
    if len(report.sent) != plan.frames:
        raise Broken(f"{len(report.sent)} of {plan.frames} photos were sent; refused: {report.refused}")
    stages = {"read": seconds - sum(clock.spent.values()), **clock.spent}
    spent = {name: after[name] - before[name] for name in after}
    return Run(seconds=seconds, megabytes=megabytes, stages=stages, cpu=spent)


def _cpu(broker: int | None) -> dict[str, float]:
    looks = {"uploader": cpu_seconds(os.getpid())}
    return looks if broker is None else looks | {"broker": cpu_seconds(broker)}


def _result(plan: Plan, travel: Travel, runs: list[Run]) -> IngestResult:
    middle = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    return IngestResult(
        transport=plan.base.transport.partition(":")[0],
        travel=travel,
        frames=plan.frames,
        megabytes=round(middle.megabytes, 1),
        megabytes_per_second=spread([run.megabytes / run.seconds for run in runs], 1),
        photos_per_second=spread([plan.frames / run.seconds for run in runs], 2),
        stage_seconds={stage: round(seconds / plan.frames, 4) for stage, seconds in middle.stages.items()},
        cpu_ms_per_mb={name: round(seconds * 1000 / middle.megabytes, 2) for name, seconds in middle.cpu.items()},
    )
