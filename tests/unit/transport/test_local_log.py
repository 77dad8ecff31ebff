"""The two threads of the log: a busy disk stops neither the event loop nor the readers, and sends share a commit."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from stream.config import LocalSection
from stream.transport.local import LocalTransport
from stream.transport.protocol import Message


@asynccontextmanager
async def busy_disk(transport: LocalTransport) -> AsyncIterator[None]:
    """Within: the writing thread is busy."""
    held, release = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        held.set()
        release.wait()

    holding = asyncio.ensure_future(transport.log.maintain(hold))
    await asyncio.to_thread(held.wait)
    try:
        yield
    finally:
        release.set()
        await holding


def commits_in(wal: Path) -> int:
    """A frame of SQLite's write-ahead log ends a commit if it names the size of the file after it."""
    data = wal.read_bytes()
    frame_bytes = 24 + int.from_bytes(data[8:12], "big")
    return sum(any(data[start + 4 : start + 8]) for start in range(32, len(data), frame_bytes))


def send(transport: LocalTransport, key: str) -> asyncio.Task[object]:
    return asyncio.ensure_future(transport.send(Message(topic="frames", key=key, value=b"")))


def test_readers_and_the_event_loop_go_on_while_a_send_waits_for_the_disk(tmp_path: Path) -> None:
    async def main() -> None:
        transport = await LocalTransport.open(tmp_path, LocalSection(partitions=1))
        async with busy_disk(transport):
            sending = send(transport, "k")
            assert await transport.lag("worker", "frames") == {0: 0}
            assert not sending.done()
        await sending
        assert await transport.lag("worker", "frames") == {0: 1}
        await transport.close()

    asyncio.run(main())


def test_sends_that_wait_together_share_a_commit_and_keep_their_order(tmp_path: Path) -> None:
    async def main() -> None:
        transport = await LocalTransport.open(tmp_path, LocalSection(partitions=1))
        keys = [str(number) for number in range(50)]
        wal = tmp_path / "log.sqlite-wal"
        async with busy_disk(transport):
            sending = [send(transport, key) for key in keys]
            await asyncio.sleep(0)  # all are queued now
            before = commits_in(wal)
        told = [await task for task in sending]
        assert told == [(("frames", 0), offset) for offset in range(50)]
        assert commits_in(wal) - before == 1
        assert [record.key async for record in transport.read("frames")] == keys
        await transport.close()

    asyncio.run(main())


def test_a_cancelled_send_does_not_keep_the_others_from_their_acknowledgement(tmp_path: Path) -> None:
    async def main() -> None:
        transport = await LocalTransport.open(tmp_path, LocalSection(partitions=1))
        async with busy_disk(transport):
            cancelled, kept = send(transport, "cancelled"), send(transport, "kept")
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait([cancelled])
        assert await asyncio.wait_for(kept, 60) == (("frames", 0), 0)
        assert [record.key async for record in transport.read("frames")] == ["kept"]
        await transport.close()

    asyncio.run(main())
