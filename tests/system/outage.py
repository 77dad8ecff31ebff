"""A broker away for longer than every session: `python -m tests.system.outage --minutes 15` tells how it went."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stream.config import Config
from tests.kafka.broker import Broker, free_port
from tests.system import kills, line

PHOTOS = 4
"""Before the outage, and again during it."""
Tell = Callable[[str], object]


@dataclass
class Command:
    """A command of spanwatch that runs, and what it has said on standard error."""

    process: asyncio.subprocess.Process
    said: list[str] = field(default_factory=list)

    async def listen(self, name: str, tell: Tell) -> None:
        assert self.process.stderr is not None
        async for text in self.process.stderr:
            words = text.decode(errors="replace").rstrip()
            self.said.append(words)
            tell(f"{name}: {words}")

    async def stop(self) -> int:
        self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), line.GIVE_UP_S)


@asynccontextmanager
async def running(config: Config, name: str, tell: Tell, *arguments: object) -> AsyncIterator[Command]:
    """A command, for as long as the block runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "stream", *map(str, arguments)),
        env={**os.environ, **line.environment(config)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    command = Command(process)
    listening = asyncio.create_task(command.listen(name, tell))
    try:
        yield command
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


def fill(card: Path, first: int) -> None:
    """Photos as a camera would leave them, whole from the moment they can be seen."""
    card.mkdir(exist_ok=True)
    for number in range(first, first + PHOTOS):
        part = card / f".{number}"
        part.write_bytes(line.photo(number))
        part.rename(card / f"{number}.jpg")


@dataclass
class Told:
    """What the uploaders said, one that was at work when the broker went and one that began without it."""

    before: list[str]
    during: list[str]


async def outage(broker: Broker, config: Config, folder: Path, seconds: float, tell: Tell) -> Told:
    """A site and its uploaders through an outage; returns when everything has been answered, with no hand lent."""
    card, late = folder / "card", folder / "late"
    fill(card, 0)
    to = ("--asset", "bridge-7", "--outbox")
    async with line.opened(config) as transport:
        async with (
            running(config, "site", tell, "site") as site,
            running(config, "uploader 1", tell, "upload", "--watch", card, *to, folder / "1.sqlite") as first,
        ):
            await answered(transport, PHOTOS)
            tell(f"{PHOTOS} photos answered; the broker goes away for {seconds:.0f} s")
            broker.kill()
            fill(card, PHOTOS)
            fill(late, 2 * PHOTOS)
            async with running(config, "uploader 2", tell, "upload", late, *to, folder / "2.sqlite") as second:
                await asyncio.sleep(seconds)  # the outage itself: nothing is waited for
                tell("the broker comes back")
                await asyncio.to_thread(broker.start)
                await answered(transport, 3 * PHOTOS)
                await kills.drained(transport, "findings", "results")
                assert await asyncio.wait_for(second.process.wait(), line.GIVE_UP_S) == 0
            assert await first.stop() == 0
            assert await site.stop() == 0
        seen = await line.look(transport)
        seen.check()
        assert len(seen.results) == len(seen.frames) == 3 * PHOTOS and not seen.dead
        tell(f"{len(seen.results)} frames answered, {seen.duplicates} duplicate results, {len(seen.alerts)} alerts")
    return Told(first.said, second.said)


async def answered(transport: line.Transport, frames: int) -> None:
    """Wait until so many frames are in the log and all are committed."""
    async with asyncio.timeout(line.GIVE_UP_S), kills.counted(transport, "frames") as seen:
        while len(seen) < frames or await kills.lag(transport, "worker", "frames"):
            await asyncio.sleep(0.1)


def main() -> None:
    """The long one, run by hand."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    asked = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

    def tell(words: str) -> None:
        if " aiokafka" not in words:  # each of its tries in an outage is an error to it
            print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)  # noqa: T201 this is what it is for

    with tempfile.TemporaryDirectory() as name:
        broker = Broker(Path(name) / "broker", free_port())
        try:
            with line.on_kafka(broker.start().url, Path(name)) as config:
                asyncio.run(outage(broker, config, Path(name), asked.minutes * 60, tell), debug=False)
        finally:
            broker.kill()


if __name__ == "__main__":
    main()
