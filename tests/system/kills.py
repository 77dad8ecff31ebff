"""What the kill tests share: roles killed at a bad moment and started again, and the alerts they should give."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from stream.errors import Unavailable
from stream.patience import patiently
from stream.transport.protocol import Message, Transport
from tests.system import line
from tests.system.child import Home

NEW_RESULTS = 4
"""Between two kills of a worker, so that it gets on."""


class Killed:
    """A role that is killed so many times, and then left to work."""

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]], times: int) -> None:
        self._start = start
        self.left = times
        self.process = start()
        self._wanted = True

    def kill(self) -> None:
        self._wanted = False
        self.process.kill()
        self.process.wait(line.GIVE_UP_S)
        self.left -= 1

    def start(self) -> None:
        self.process = self._start()
        self._wanted = True

    async def supervise(self) -> None:
        """Start it again when it has ended by itself, as `spanwatch site` would."""
        while True:
            if self._wanted and self.process.poll() is not None:
                sys.stdout.write(f"a role ended with {self.process.returncode}, and is started again\n")
                self.start()
            await asyncio.sleep(1.0)

    def stop(self) -> int:
        self._wanted = False
        self.process.terminate()
        return self.process.wait(line.GIVE_UP_S)


async def until(holds: Callable[[], bool]) -> None:
    """Look until a condition holds."""
    async with asyncio.timeout(line.GIVE_UP_S):
        while not holds():
            await asyncio.sleep(0.01)


async def lag(transport: Transport, group: str, topic: str) -> int:
    """How many records a group has not committed; asked through any outage."""
    ask = partial(transport.lag, group, topic)
    return sum((await patiently(ask, deadline_s=line.GIVE_UP_S)).values())


async def drained(transport: Transport, group: str, topic: str) -> None:
    """Wait until a group has committed all there is."""
    async with asyncio.timeout(line.GIVE_UP_S):
        while await lag(transport, group, topic):
            await asyncio.sleep(0.05)


@asynccontextmanager
async def counted(transport: Transport, topic: str) -> AsyncIterator[set[tuple[int, int]]]:
    """Where the records of a topic lie, kept up to date while the block runs, through any outage."""
    seen: set[tuple[int, int]] = set()

    async def follow() -> None:
        while True:
            try:
                async for record in transport.read(topic, follow=True):
                    seen.add((record.partition, record.offset))
            except Unavailable:
                await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        following = group.create_task(follow())
        yield seen
        following.cancel()


async def kill_workers(
    worker: Killed, home: Home, results: set[tuple[int, int]], check: Callable[[], Awaitable[None]]
) -> None:
    """Kill the worker, each time after some new results came and while frames are open; `check` what the dead one left.

    A frame that runs alone because it was open in two kills is let pass: a third kill with nothing else at work would
    make it poison, as it should (tests/system/test_crash.py).
    """
    before = len(results)
    while worker.left:
        async with asyncio.timeout(line.GIVE_UP_S):
            while len(results) < before + NEW_RESULTS or not (opened := caught(worker, home)):
                await asyncio.sleep(0.01)
        worker.kill()
        before = len(results)
        sys.stdout.write(f"worker killed with {len(opened)} frames open: {', '.join(f[:8] for f in opened)}\n")
        await check()
        worker.start()


def caught(worker: Killed, home: Home) -> list[str]:
    """Stop the worker dead and look: the frames it has open, or none and it goes on."""
    worker.process.send_signal(signal.SIGSTOP)
    opened = line.open_attempts(home)
    if not opened or max(opened.values()) > 1:
        worker.process.send_signal(signal.SIGCONT)
        return []
    return list(opened)


async def kill_findings(transport: Transport, findings: Killed, results: set[tuple[int, int]]) -> None:
    """Kill the findings process, each time after it has committed something new."""
    done = 0
    while findings.left:
        async with asyncio.timeout(line.GIVE_UP_S):
            while (now := len(results) - await lag(transport, "findings", "results")) <= done:
                await asyncio.sleep(0.01)
        findings.kill()
        findings.start()
        sys.stdout.write(f"findings killed after {now} results\n")
        done = now


def outbox(path: Path) -> dict[str, tuple[int, int] | None]:
    """What an uploader remembers: frame id -> partition and offset, or None while it is on its way."""
    if not path.exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone():
            return {}
        rows = db.execute("SELECT frame_id, partition, offset FROM entries").fetchall()
    return {frame: None if offset is None else (partition, offset) for frame, partition, offset in rows}


async def undisturbed(recorded: Transport, log: Path, start: Callable[[], subprocess.Popen[bytes]]) -> dict[str, bytes]:
    """The alerts of one findings process on an embedded log, never killed, fed the same recorded results."""
    async with line.opened(log) as fresh:
        for partition in range(await recorded.partitions("results")):
            async for record in recorded.read("results", partition=partition):
                copy = Message(
                    topic="results", key=record.key, value=record.value, headers=record.headers, partition=partition
                )
                await fresh.send(copy)
        findings = start()
        await drained(fresh, "findings", "results")
        findings.terminate()
        assert findings.wait(line.GIVE_UP_S) == 0
        return {record.key: record.value async for record in fresh.read("alerts")}
