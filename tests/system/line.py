"""What the system tests share: photos, processes that really die, and the oracle that says if anything was lost."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
from PIL import Image

from stream.cli.common import state_folder
from stream.config import Config
from stream.messages import HEADER_FRAME, Alert, DeadFrame, Frame, Result, decode, encode, envelope
from stream.patience import patiently
from stream.transport import open_transport
from stream.transport.kafka_topics import create_topics, delete_topics
from stream.transport.protocol import Message, Transport
from tests.system.child import Home, config_of, kafka_config

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


@contextmanager
def on_kafka(url: str, folder: Path, **kafka: Any) -> Iterator[Config]:
    """A site on a broker: topics of its own for as long as the block runs, state and blobs in a folder.

    Settings are of `[kafka]`. With a `member` a killed role that comes again is the same one to the group, as under
    `spanwatch site`; without, its partitions wait until its session has ended.
    """
    config = kafka_config(url, folder, f"test-{uuid4().hex[:8]}.", **kafka)
    asyncio.run(create_topics(config))
    try:
        yield config
    finally:
        asyncio.run(delete_topics(config))


def environment(config: Config) -> dict[str, str]:
    """The settings that are not the defaults, as the variables that a command of spanwatch reads."""

    def variables(changed: dict[str, Any], usual: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
        for key, value in changed.items():
            name = path + key.upper()
            if isinstance(value, dict):
                yield from variables(value, usual[key], f"{name}__")
            elif value != usual[key]:
                yield name, str(value)

    return dict(variables(msgspec.to_builtins(config), msgspec.to_builtins(Config()), "SPANWATCH_"))


@asynccontextmanager
async def opened(home: Home) -> AsyncIterator[Transport]:
    transport = await open_transport(config_of(home))
    try:
        yield transport
    finally:
        await transport.close()


async def send(transport: Transport, data: bytes, asset: str = "bridge", **changes: object) -> str:
    """Send one photo by reference, as a producer would; return its frame id."""
    blob = await transport.blobs.put(data)
    frame_id = sha256(data).hexdigest()
    fields: dict[str, object] = {"frame_id": frame_id, "asset": asset, "size_bytes": len(data), "blob": blob}
    return await send_frame(transport, Frame(**(fields | changes)))  # type: ignore[arg-type]


async def send_inline(transport: Transport, data: bytes, asset: str = "bridge") -> str:
    """Send one photo inside its record; return its frame id."""
    return await send_frame(transport, Frame(frame_id=sha256(data).hexdigest(), asset=asset), value=data)


async def send_frame(
    transport: Transport, frame: Frame, headers: dict[str, str] | None = None, value: bytes = b""
) -> str:
    """Send a record of any frame, true or not; return its frame id."""
    wrapped = envelope(Frame, frame.frame_id, "test", datetime.now(UTC)) | {HEADER_FRAME: encode(frame).decode()}
    await transport.send(Message(topic="frames", key=frame.frame_id, value=value, headers=wrapped | (headers or {})))
    return frame.frame_id


_started: list[subprocess.Popen[bytes]] = []


def start(command: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
    """Start a process that does not outlive the test that `run` runs."""
    _started.append(subprocess.Popen([sys.executable, *command], **how))
    return _started[-1]


def spanwatch(home: Home, *arguments: object, **how: Any) -> subprocess.Popen[bytes]:
    """Start the real command, with the settings of a test's line."""
    variables = {**os.environ, **environment(config_of(home))}
    return start(["-m", "stream", *map(str, arguments)], env=variables, **how)


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process, while other things go on; the exit code."""
    return await asyncio.to_thread(process.wait, GIVE_UP_S)


@dataclass
class Role:
    """A child process of tests/system/child.py."""

    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, role: str, home: Home, *options: str) -> Role:
        config = msgspec.json.encode(config_of(home)).decode()
        return cls(start([str(CHILD), role, config, *options]))

    def kill(self) -> None:
        """As a power cut would: no handler runs."""
        self.process.kill()
        self.process.wait(GIVE_UP_S)

    def stop(self) -> int:
        """As systemd would; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(GIVE_UP_S)

    def stands_still(self) -> bool:
        """Whether it has been stopped with SIGSTOP, by itself or by another."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

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


async def look(transport: Transport) -> Seen:
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


async def check_commits(transport: Transport) -> None:
    """No committed offset is past a frame without an answer: what lies below it has been answered.

    Workers may be at work meanwhile: the offsets are read first, since what is committed after the answers were read
    may not be among these; the frames before, since what is sent after the offsets were read would count as committed.
    """
    sent = {partition: await _keys(transport, partition) for partition in range(await transport.partitions("frames"))}
    open_frames = await transport.lag("worker", "frames")
    answered = (await look(transport)).answered
    for partition, keys in sent.items():
        committed = keys[: max(0, len(keys) - open_frames.get(partition, len(keys)))]
        assert set(committed) <= answered, f"partition {partition} is committed past an open frame"


async def _keys(transport: Transport, partition: int) -> list[str]:
    return [record.key async for record in transport.read("frames", partition=partition)]


def open_attempts(home: Home) -> dict[str, int]:
    """Frames that a worker is working on, or was when it died, by the attempt journal; with the crashes of each."""
    path = state_folder(config_of(home)) / "attempts.sqlite"
    if not path.exists():
        return {}
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as db:
        rows = db.execute("SELECT frame, crashes FROM attempts WHERE owner IS NOT NULL").fetchall()
    db.close()
    return {frame.partition("/")[0]: crashes for frame, crashes in rows}


async def all_answered(transport: Transport) -> None:
    """Wait until every frame in the log is committed by the workers, through any outage."""
    ask = partial(transport.lag, "worker", "frames")
    async with asyncio.timeout(GIVE_UP_S):
        while sum((await patiently(ask, deadline_s=GIVE_UP_S)).values()):
            await asyncio.sleep(0.05)


def run(test: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run an async test; what it has started and not ended is killed."""
    try:
        asyncio.run(test())
    finally:
        for process in _started:
            if process.poll() is None:
                process.kill()
                process.wait(GIVE_UP_S)
        _started.clear()
