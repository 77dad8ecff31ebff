"""What all scenarios share: interleaved rounds, the worker as a child process, and results as one file a run."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.child import Order, WorkerReport
from benchmarks.environment import hardware_name
from benchmarks.home import PARTITIONS
from stream.config import Config, EngineSection
from stream.errors import Broken
from stream.transport import open_transport
from stream.transport.protocol import Transport

ROOT = Path(__file__).parents[1]
GIVE_UP_S = 1800.0
"""No scenario waits so long for one worker; a run that hangs ends with an error instead."""


SET_BY_US = {"partitions", "blobs", "min_free_bytes", "max_inline_bytes"}
"""Settings of the log that `home` changes for each run."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a scenario: the JSON file."""

    scenario: str
    environment: dict[str, Any]
    results: list[dict[str, Any]]
    plan: dict[str, Any] = {}
    """What was asked for."""


def measured(scenario: str, environment: dict[str, Any], plan: object, results: Sequence[msgspec.Struct]) -> Measured:
    """Put a run together; of the plan everything but who logs in, which may hold secrets."""
    asked = msgspec.to_builtins(plan, enc_hook=str)
    settings = asked.pop("base")
    kafka = {key: value for key, value in settings["kafka"].items() if not isinstance(value, dict)}
    asked |= {"engine": settings["engine"], "worker": settings["worker"], "partitions": PARTITIONS}
    if environment["transport"] == "kafka":
        asked["kafka"] = {key: value for key, value in kafka.items() if key not in SET_BY_US}
    return Measured(
        scenario=scenario,
        environment=environment,
        plan=asked,
        results=[msgspec.to_builtins(result) for result in results],
    )


def with_engine(base: Config, release: str, precision: str) -> Config:
    """The settings with another release and precision."""
    engine = msgspec.structs.replace(base.engine, release=release, precision=precision)
    assert isinstance(engine, EngineSection)
    return msgspec.structs.replace(base, engine=engine)


async def interleave(rounds: int, contestants: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run everyone once a round, every other round backwards: a drift of the machine falls on all alike."""
    for number in range(rounds):
        for contestant in contestants if number % 2 == 0 else reversed(contestants):
            await contestant()


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Transport]:
    """The log of a run, for whoever fills or reads it."""
    transport = await open_transport(config)
    try:
        yield transport
    finally:
        await transport.close()


class Worker:
    """A worker in a child process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def end(self) -> None:
        """Wait for its end, whatever it is."""
        await self._process.wait()

    async def report(self) -> WorkerReport:
        """Wait until it has done its frames.

        Raises:
            Broken: it ended otherwise; its own words are on standard error.
        """
        assert self._process.stdout is not None
        async with asyncio.timeout(GIVE_UP_S):
            lines = (await self._process.stdout.read()).splitlines()
            code = await self._process.wait()
        if code or not lines:
            raise Broken(f"the worker under measurement ended with exit code {code}; its reason stands above")
        return msgspec.json.decode(lines[-1], type=WorkerReport)

    async def stop(self) -> WorkerReport:
        """Tell it to finish what is in flight, and hear its report."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await self.report()


@asynccontextmanager
async def worker(order: Order) -> AsyncIterator[Worker]:
    """Start a worker; it is gone when the block ends, and when this process dies, since its input ends with it."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.child",
        stdin=PIPE,
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        await process.stdin.drain()
        yield Worker(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def save(run: Measured, folder: Path) -> Path:
    """Write `scenario_hardware_transport_date.json`; a second run of one day gets a number, none is overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    where = run.environment
    day = datetime.fromisoformat(where["measured_at"]).date()
    stem = f"{run.scenario}_{hardware_name(where['processor'], where['cores'])}_{where['transport']}_{day}"
    number, path = 1, folder / f"{stem}.json"
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n")
    return path
