"""The worker under measurement, in a process of its own, so that its memory and processor time are its own."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks.processes import cpu_seconds, own_cpu_by_stage, peak_rss_bytes, spent_by_stage
from models.engines.scripted import ScriptedEngine
from stream.config import Config
from stream.errors import Misuse
from stream.transport import open_transport
from stream.worker.commit import Step
from stream.worker.judge import ClassRule, Judge
from stream.worker.regions import Threshold
from stream.worker.role import Loaded, run_worker, start_engine


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is to do. It stops after so many frames, and in any case when its standard input ends."""

    config: Config
    engine: Literal["release", "scripted"] = "release"
    frames: int | None = None


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What it says at its end: the last line of its standard output."""

    began: float
    """When it joined the group, by the monotonic clock, which is the same in all processes of a machine."""
    ended: float
    """When it had made its last commit."""
    frames: int
    precision: str
    cpu_seconds: dict[str, float]
    """By stage, over the same time: `loop` (receiving, the log's protocol, results), `decode` (digest and pixels),
    `engine`, `blobs`, `log`; `all` is the whole process's."""
    peak_rss_bytes: int

    @property
    def seconds(self) -> float:
        """From joining the group to the last commit."""
        return self.ended - self.began


class Meter:
    """Counts commits, and takes the readings at the last one, while every thread still lives."""

    def __init__(self, frames: int | None, stop: asyncio.Event) -> None:
        self._frames = frames
        self._stop = stop
        self._before = own_cpu_by_stage()
        self._cpu_before = cpu_seconds(os.getpid())
        self._began = self._ended = time.monotonic()
        self._spent: dict[str, float] = {}
        self.done = 0

    @property
    def step(self) -> Step:
        """For the committer."""
        return self._step

    def _step(self, number: int) -> None:
        if number != 3:
            return
        self.done += 1
        self._ended = time.monotonic()
        if self.done == self._frames:
            self._read()
            self._stop.set()

    def _read(self) -> None:
        self._spent = spent_by_stage(self._before, own_cpu_by_stage())
        self._spent["all"] = round(cpu_seconds(os.getpid()) - self._cpu_before, 3)

    def report(self, precision: str) -> WorkerReport:
        """After the worker's end."""
        return WorkerReport(
            began=self._began,
            ended=self._ended,
            frames=self.done,
            precision=precision,
            cpu_seconds=self._spent,
            peak_rss_bytes=peak_rss_bytes(os.getpid()),
        )


def _scripted() -> Loaded:
    engine = ScriptedEngine()
    rules = tuple(
        ClassRule(Threshold(name, 0.8, 0.5), trained=True, coarsest_mm_per_px=None) for name in engine.classes
    )
    return Loaded(engine, Judge(engine.release, engine.precision, rules))


async def work(order: Order) -> WorkerReport:
    """Be that worker."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ended() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, ended)
    engine = _scripted() if order.engine == "scripted" else start_engine(order.config.engine)
    if order.config.state is None:
        raise Misuse("an order needs a folder for the worker's state")
    transport = await open_transport(order.config, "worker")
    meter = Meter(order.frames, stop)
    try:
        state = Path(order.config.state)
        await run_worker(transport, order.config, stop, state=state, engine=engine, step=meter.step)
    finally:
        await transport.close()
    return meter.report(engine.engine.precision)


if __name__ == "__main__":
    # The order comes by standard input, not as an argument that everybody on the machine could read: it may hold a
    # password. Unbuffered: what follows on that input, its end, is for `work` to hear.
    with open(0, "rb", buffering=0, closefd=False) as orders:
        ordered = msgspec.json.decode(orders.readline(), type=Order)
    print(msgspec.json.encode(asyncio.run(work(ordered))).decode())
