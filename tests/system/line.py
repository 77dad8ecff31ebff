"""What the system tests share: photos, processes that really die, and the oracle that says if anything was lost."""

from __future__ import annotations

import asyncio
import io
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from stream.messages import HEADER_FRAME, Alert, DeadFrame, Frame, Result, decode, encode, envelope
from stream.transport import open_transport
from stream.transport.local import LocalTransport
from stream.transport.protocol import Message
from tests.system.child import config_of

CHILD = Path(__file__).with_name("child.py")
GIVE_UP_S = 240.0
"""Long enough for a machine under load; a test that waits so long has failed."""


def photo(number: int, tiles: tuple[int, int] = (2, 3), colour: tuple[int, int, int] | None = None) -> bytes:
    """A JPEG of rows x cols tiles: noise, so that no two are alike, or one colour that the scripted engine knows."""
    rows, cols = tiles
    noise = np.random.default_rng(number).integers(0, 256, (rows * 64, cols * 64, 3), dtype=np.uint8)
    pixels = noise.repeat(4, axis=0).repeat(4, axis=1)
    if number % 3 == 0:
        pixels[: 256 if rows > 1 else None, :256] = (250, 5, 5)  # red: a crack in the first tile
    if colour is not None:
        pixels[:] = colour
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    if colour is not None:
        image.save(file, "PNG")  # the exact colour, which JPEG would not keep
    else:
        image.save(file, "JPEG", quality=95)
    return file.getvalue()


@asynccontextmanager
async def opened(log: Path) -> AsyncIterator[LocalTransport]:
    transport = await open_transport(config_of(log))
    assert isinstance(transport, LocalTransport)
    try:
        yield transport
    finally:
        await transport.close()


async def send(transport: LocalTransport, data: bytes, asset: str = "bridge", **changes: object) -> str:
    """Send one photo as a producer would; return its frame id."""
    blob = await transport.blobs.put(data)
    frame_id = sha256(data).hexdigest()
    fields: dict[str, object] = {"frame_id": frame_id, "asset": asset, "size_bytes": len(data), "blob": blob}
    return await send_frame(transport, Frame(**(fields | changes)))  # type: ignore[arg-type]


async def send_frame(transport: LocalTransport, frame: Frame, headers: dict[str, str] | None = None) -> str:
    """Send a record of any frame, true or not; return its frame id."""
    wrapped = envelope(Frame, frame.frame_id, "test", datetime.now(UTC)) | {HEADER_FRAME: encode(frame).decode()}
    await transport.send(Message(topic="frames", key=frame.frame_id, value=b"", headers=wrapped | (headers or {})))
    return frame.frame_id


@dataclass
class Role:
    """A child process of tests/system/child.py."""

    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, role: str, log: Path, *options: str) -> Role:
        return cls(subprocess.Popen([sys.executable, str(CHILD), role, str(log), *options]))

    def kill(self) -> None:
        """As a power cut would: no handler runs."""
        self.process.kill()
        self.process.wait(GIVE_UP_S)

    def stop(self) -> int:
        """As systemd would; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(GIVE_UP_S)

    def wait(self) -> int:
        """For a process that ends by itself; the exit code."""
        return self.process.wait(GIVE_UP_S)


@dataclass(frozen=True)
class Seen:
    """What the log holds, as the oracle counts it."""

    frames: frozenset[str]
    """Ids of the frames that went in."""
    results: Counter[str]
    """frame id -> results."""
    result_ids: dict[str, set[str]]
    """frame id -> different result ids among them."""
    dead: dict[str, DeadFrame]
    alerts: dict[str, bytes]
    """Compacted: alert id -> its latest record."""

    @property
    def answered(self) -> frozenset[str]:
        return frozenset(self.results) | frozenset(self.dead)

    @property
    def duplicates(self) -> int:
        return sum(self.results.values()) - len(self.results)

    def check(self) -> None:
        """Nothing lost, nothing invented, and a repeat says the same."""
        assert self.answered == self.frames
        assert all(len(ids) == 1 for ids in self.result_ids.values())


async def look(transport: LocalTransport) -> Seen:
    """Read the whole log."""
    frames = frozenset([record.key async for record in transport.read("frames")])
    results: Counter[str] = Counter()
    ids: dict[str, set[str]] = {}
    async for record in transport.read("results"):
        result = decode(record.value, Result)
        results[result.frame.frame_id] += 1
        ids.setdefault(result.frame.frame_id, set()).add(result.result_id)
    dead = {record.key: decode(record.value, DeadFrame) async for record in transport.read("dead-frames")}
    alerts = {record.key: record.value async for record in transport.read("alerts")}
    assert all(decode(value, Alert).alert_id == key for key, value in alerts.items())
    return Seen(frames, results, ids, dead, alerts)


async def check_commits(transport: LocalTransport) -> None:
    """No committed offset is past a frame without an answer: what lies below it has been answered."""
    answered = (await look(transport)).answered
    open_frames = await transport.lag("worker", "frames")
    for partition in range(await transport.partitions("frames")):
        keys = [record.key async for record in transport.read("frames", partition=partition)]
        committed = keys[: len(keys) - open_frames.get(partition, len(keys))]
        assert set(committed) <= answered, f"partition {partition} is committed past an open frame"


def open_attempts(log: Path) -> dict[str, int]:
    """Frames that a worker is working on, or was when it died, by the attempt journal; with the crashes of each."""
    path = log / "state" / "attempts.sqlite"
    if not path.exists():
        return {}
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as db:
        rows = db.execute("SELECT frame, crashes FROM attempts WHERE owner IS NOT NULL").fetchall()
    db.close()
    return {frame.partition("/")[0]: crashes for frame, crashes in rows}


async def all_answered(transport: LocalTransport) -> None:
    """Wait until every frame in the log is committed by the workers."""
    async with asyncio.timeout(GIVE_UP_S):
        while sum((await transport.lag("worker", "frames")).values()):
            await asyncio.sleep(0.05)


def run(test: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run an async test."""
    asyncio.run(test())
