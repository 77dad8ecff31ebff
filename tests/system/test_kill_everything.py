"""Forty photos; workers, uploader and findings killed; one worker joins and leaves: nothing is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from stream.transport.local import LocalTransport
from stream.transport.protocol import Message
from tests.system import line

FLIGHT = Path(__file__).parents[1] / "data" / "flight"
PHOTOS = 40
WORKER_KILLS = FINDINGS_KILLS = 5
SIZE = (1536, 1280)
"""Thirty tiles: long enough in the engine to be caught there, short enough for forty of them."""


def make_photos(folder: Path) -> None:
    """Crops of real photos of a deck and a wall, so that there are real findings to lose."""
    folder.mkdir()
    sources = [Image.open(path).convert("RGB") for path in sorted(FLIGHT.glob("*.jpg"))]
    sources = [image for image in sources if image.width > 4000]
    assert sources, "the sample flight holds no photo large enough to crop from"
    chance = random.Random(4)
    for number in range(PHOTOS):
        image = sources[number % len(sources)]
        x, y = chance.randrange(image.width - SIZE[0]), chance.randrange(image.height - SIZE[1])
        image.crop((x, y, x + SIZE[0], y + SIZE[1])).save(folder / f"photo-{number:02}.jpg", quality=92)


STARTED: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def nothing_outlives_the_test() -> Iterator[None]:
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.wait(line.GIVE_UP_S)
    STARTED.clear()


def spanwatch(*arguments: object) -> subprocess.Popen[bytes]:
    """The real command in a process of its own."""
    environment = {**os.environ, "SPANWATCH_METRICS__WORKER_PORT": "-1", "SPANWATCH_METRICS__FINDINGS_PORT": "-1"}
    STARTED.append(subprocess.Popen([sys.executable, "-m", "stream", *map(str, arguments)], env=environment))
    return STARTED[-1]


class Killed:
    """A role that is killed when a condition holds, so many times, and then left to work."""

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]], times: int) -> None:
        self._start = start
        self._left = times
        self.process = start()

    @property
    def left(self) -> int:
        return self._left

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(line.GIVE_UP_S)
        self._left -= 1
        self.process = self._start()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(line.GIVE_UP_S)


async def results_count(transport: LocalTransport) -> int:
    return len([record async for record in transport.read("results")])


async def kill_workers(transport: LocalTransport, log: Path, worker: Killed) -> None:
    """Kill the worker five times, each time after five new results came and while frames are open.

    A frame that runs alone because it was open in two kills is let pass: a third kill with nothing else at work would
    make it poison, as it should (tests/system/test_crash.py).
    """
    before = await results_count(transport)
    while worker.left:
        async with asyncio.timeout(line.GIVE_UP_S):
            while await results_count(transport) < before + 5 or not (opened := caught(worker, log)):
                await asyncio.sleep(0.01)
        worker.kill()
        before = await results_count(transport)
        sys.stdout.write(f"worker killed with {len(opened)} frames open: {', '.join(f[:8] for f in opened)}\n")


def caught(worker: Killed, log: Path) -> list[str]:
    """Stop the worker dead and look: the frames it has open, or none and it goes on."""
    worker.process.send_signal(signal.SIGSTOP)
    opened = line.open_attempts(log)
    if not opened or max(opened.values()) > 1:
        worker.process.send_signal(signal.SIGCONT)
        return []
    return list(opened)


async def kill_findings(transport: LocalTransport, findings: Killed) -> None:
    """Kill the findings five times, each time after it has committed something new."""
    done = 0
    while findings.left:
        async with asyncio.timeout(line.GIVE_UP_S):
            while (now := await committed(transport)) <= done:
                await asyncio.sleep(0.01)
        findings.kill()
        sys.stdout.write(f"findings killed after {now} results\n")
        done = now


async def committed(transport: LocalTransport) -> int:
    return await results_count(transport) - sum((await transport.lag("findings", "results")).values())


async def alerts_of(transport: LocalTransport) -> dict[str, bytes]:
    return {record.key: record.value async for record in transport.read("alerts")}


async def undisturbed(recorded: LocalTransport, log: Path) -> dict[str, bytes]:
    """The alerts of one findings process, never killed, fed the same recorded results."""
    async with line.opened(log) as fresh:
        for partition in range(await recorded.partitions("results")):
            async for record in recorded.read("results", partition=partition):
                copy = Message(
                    topic="results", key=record.key, value=record.value, headers=record.headers, partition=partition
                )
                await fresh.send(copy)
        findings = spanwatch("findings", "--transport", fresh.url)
        async with asyncio.timeout(line.GIVE_UP_S):
            while sum((await fresh.lag("findings", "results")).values()):
                await asyncio.sleep(0.05)
        findings.terminate()
        assert findings.wait(line.GIVE_UP_S) == 0
        return await alerts_of(fresh)


@pytest.mark.slow
def test_every_frame_has_a_result_whatever_is_killed(tmp_path: Path) -> None:
    photos, log = tmp_path / "photos", tmp_path / "log"
    make_photos(photos)
    to_log = ("--transport", f"local:{log}")
    uploading = ("upload", photos, "--asset", "bridge-7", "--flight", "f1", "--outbox", tmp_path / "outbox", *to_log)

    async def test() -> None:
        async with line.opened(log) as transport:
            uploader = spanwatch(*uploading)
            async with asyncio.timeout(line.GIVE_UP_S):
                while len([record async for record in transport.read("frames")]) < PHOTOS // 4:
                    await asyncio.sleep(0.01)
            uploader.kill()
            uploader.wait(line.GIVE_UP_S)
            worker = Killed(lambda: spanwatch("worker", *to_log), WORKER_KILLS)
            findings = Killed(lambda: spanwatch("findings", *to_log), FINDINGS_KILLS)
            again = spanwatch(*uploading)
            async with asyncio.TaskGroup() as group:
                group.create_task(kill_workers(transport, log, worker))
                group.create_task(kill_findings(transport, findings))
            assert again.wait(line.GIVE_UP_S) == 0
            second = spanwatch("worker", *to_log)
            async with asyncio.timeout(line.GIVE_UP_S):
                while len(list((log / "state" / "owners").iterdir())) < 2:
                    await asyncio.sleep(0.05)
            second.terminate()
            assert second.wait(line.GIVE_UP_S) == 0  # it joined, and left in good order
            await line.all_answered(transport)
            await line.check_commits(transport)
            async with asyncio.timeout(line.GIVE_UP_S):
                while sum((await transport.lag("findings", "results")).values()):
                    await asyncio.sleep(0.05)
            assert worker.stop() == 0 and findings.stop() == 0
            seen = await line.look(transport)
            seen.check()
            assert len(seen.frames) == PHOTOS and not seen.dead
            sys.stdout.write(
                f"{len(seen.frames)} frames, {seen.duplicates} duplicate results, {len(seen.alerts)} alerts\n"
            )
            assert seen.alerts
            assert seen.alerts == await undisturbed(transport, tmp_path / "fresh")

    line.run(test)
