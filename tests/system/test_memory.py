"""The worker's memory: flat over many frames, and bounded when the engine cannot keep up with the log."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from stream.config import MIB, Config
from tests.kafka.broker import Broker
from tests.system import kills, line
from tests.system.line import Role

WARM_UP, FRAMES = 100, 200
GROWTH_BYTES = 40 * MIB
"""An allocator takes some hundred frames to find its level. A leak of the photos alone would be 65 MiB."""
BUDGET_BYTES = 24 * MIB
FETCH_BYTES = 64 * MIB
"""What the client may hold ready on top."""
WAITING = 60
"""Frames of 4 MB in the log while the engine stands still: 240 MB."""


def rss_bytes(role: Role, what: str = "VmRSS") -> int:
    """Of a running process; `VmHWM` is the highest it has ever been."""
    status = Path(f"/proc/{role.process.pid}/status").read_text()
    found = re.search(rf"{what}:\s+(\d+) kB", status)
    assert found is not None
    return int(found.group(1)) * 1024


def with_budget(config: Config) -> Config:
    """The same site, with a worker that may hold little."""
    return msgspec.structs.replace(
        config, worker=msgspec.structs.replace(config.worker, max_inflight_bytes=BUDGET_BYTES)
    )


async def settled(role: Role) -> int:
    """The memory of a process once it has stopped changing by more than 1 MiB a second."""
    seen = [0]
    async with asyncio.timeout(line.GIVE_UP_S):
        while max(seen) - min(seen) > MIB or len(seen) < 10:
            await asyncio.sleep(0.1)
            seen = [*seen[-9:], rss_bytes(role)]
    return seen[-1]


@pytest.mark.slow
def test_memory_is_flat_over_many_frames(broker: Broker, tmp_path: Path) -> None:
    async def test() -> None:
        photo = line.photo(1)
        async with line.opened(config) as transport:
            worker = Role.start("worker", config)
            sizes = []
            for frames in (range(WARM_UP), range(WARM_UP, WARM_UP + FRAMES)):
                for number in frames:
                    await line.send_inline(transport, photo + f"{number}".encode())  # another frame each
                await line.all_answered(transport)
                sizes.append(await settled(worker))
            assert worker.stop() == 0
            assert len((await line.look(transport)).results) == WARM_UP + FRAMES
        sys.stdout.write(f"MiB warmed up and at the end: {[size // MIB for size in sizes]}\n")
        assert sizes[1] - sizes[0] < GROWTH_BYTES < FRAMES * len(photo)

    with line.on_kafka(broker.url, tmp_path) as kafka:
        config = with_budget(kafka)
        line.run(test)


@pytest.mark.slow
def test_a_worker_whose_engine_stands_still_stops_fetching(broker: Broker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    path = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=100, subsampling=0)

    async def test() -> None:
        photo = path.read_bytes()
        async with line.opened(config) as transport:
            worker = Role.start("worker", config, "--gate", str(gate))
            idle = await settled(worker)
            for number in range(WAITING):
                await line.send_inline(transport, photo + f"{number}".encode())
            await kills.until(lambda: bool(line.open_attempts(config)))
            waiting = await settled(worker)
            assert await kills.lag(transport, "worker", "frames") == WAITING
            gate.touch()
            await line.all_answered(transport)
            highest = rss_bytes(worker, "VmHWM")
            assert worker.stop() == 0
            (await line.look(transport)).check()
        sys.stdout.write(f"MiB idle {idle // MIB}, engine still {waiting // MIB}, highest {highest // MIB}\n")
        assert WAITING * len(photo) > 2 * (BUDGET_BYTES + FETCH_BYTES)
        assert highest - idle < 1.5 * (BUDGET_BYTES + FETCH_BYTES)

    with line.on_kafka(broker.url, tmp_path) as kafka:
        config = with_budget(kafka)
        line.run(test)
