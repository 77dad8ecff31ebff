"""Fakes to test against: `Faulty` wraps any transport and fails at an exact call, so that a crash is a list literal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from stream.errors import Misuse, Unavailable
from stream.messages import BlobRef
from stream.transport.protocol import BlobStore, Consumer, Listener, Message, Record, TopicPartition, Transport

On = Literal["send", "poll", "commit", "blob_put", "blob_get"]
How = Literal[
    "unavailable",  # raise Unavailable instead of the call, once
    "exit_before",  # end the process at once, the call not begun
    "exit_after",  # end the process at once, the call done and its answer unseen
    "stall",  # wait for `until`, then go on with the call
    "lose_ack",  # do it, then raise Unavailable as if it had not been done
]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, once."""

    on: On
    at: int
    """The how-manieth, from 1: calls of `send`, `commit`, `put`, `get`; of `poll`, the record it is about to return."""
    how: How
    code: int = 70
    """Exit code of `exit_before` and `exit_after`."""
    until: asyncio.Event | None = None
    """Ends a `stall`."""

    def __post_init__(self) -> None:
        if self.at < 1:
            raise Misuse(f"a fault is at the first call or later, not at {self.at}")
        if (self.how == "stall") != (self.until is not None):
            raise Misuse("a stall, and nothing else, needs `until`, the event that ends it")
        if self.on == "poll" and self.how == "lose_ack":
            raise Misuse("a poll has no acknowledgement to lose: use `unavailable` or `exit_after`")


class _Script:
    """Counts each kind of call and lets the faults happen."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = list(faults)
        self._count: dict[On, int] = {}

    async def around(self, on: On, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call, with the fault that is due."""
        self._count[on] = self._count.get(on, 0) + 1
        fault = self._due(on, self._count[on])
        await _before(fault)
        answer = await call()
        _after(fault)
        return answer

    async def poll(self, call: Callable[[int], Awaitable[Sequence[Record]]], max_records: int) -> Sequence[Record]:
        """Poll so that the record a fault is about comes alone; a poll that brings none is not counted."""
        done = self._count.get("poll", 0)
        fault = self._due("poll", done + 1)
        ahead = [other.at - done - 1 for other in self._faults if other.on == "poll" and other.at > done + 1]
        await _before(fault)
        records = await call(1 if fault else min([max_records, *ahead]))
        self._count["poll"] = done + len(records)
        if records:
            _after(fault)
        elif fault is not None and fault.how == "exit_after":
            self._faults.append(fault)  # it waits for a record
        return records

    def _due(self, on: On, number: int) -> Fault | None:
        fault = next((fault for fault in self._faults if (fault.on, fault.at) == (on, number)), None)
        if fault is not None:
            self._faults.remove(fault)
        return fault


async def _before(fault: Fault | None) -> None:
    if fault is None:
        return
    if fault.how == "exit_before":
        os._exit(fault.code)
    if fault.how == "unavailable":
        raise Unavailable(f"{fault.on} {fault.at} fails, as the test asked")
    if fault.until is not None:
        await fault.until.wait()


def _after(fault: Fault | None) -> None:
    if fault is None:
        return
    if fault.how == "exit_after":
        os._exit(fault.code)
    if fault.how == "lose_ack":
        raise Unavailable(f"the acknowledgement of {fault.on} {fault.at} is lost, as the test asked")


class Faulty:
    """A `Transport` that does what the wrapped one does, except for its faults; `Faulty(inner)` only passes through.

    Deterministic: calls are counted, no clock and no chance is involved. Exits are `os._exit`, so nothing is flushed,
    closed or committed on the way out; use them in a child process. Reading without a group is passed through.
    """

    def __init__(self, inner: Transport, faults: Sequence[Fault] = ()) -> None:
        self._inner = inner
        self._script = _Script(faults)
        self._blobs = _FaultyBlobs(inner.blobs, self._script)

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def blobs(self) -> BlobStore:
        return self._blobs

    @property
    def max_inline_bytes(self) -> int:
        return self._inner.max_inline_bytes

    async def partitions(self, topic: str) -> int:
        return await self._inner.partitions(topic)

    async def send(self, message: Message) -> tuple[TopicPartition, int]:
        return await self._script.around("send", lambda: self._inner.send(message))

    async def subscribe(self, group: str, topics: Sequence[str], listener: Listener) -> Consumer:
        return _FaultyConsumer(await self._inner.subscribe(group, topics, listener), self._script)

    def read(self, topic: str, *, partition: int | None = None, follow: bool = False) -> AsyncIterator[Record]:
        return self._inner.read(topic, partition=partition, follow=follow)

    async def lag(self, group: str, topic: str) -> Mapping[int, int]:
        return await self._inner.lag(group, topic)

    async def close(self) -> None:
        await self._inner.close()


class _FaultyConsumer:
    """The `Consumer` of a `Faulty`."""

    def __init__(self, inner: Consumer, script: _Script) -> None:
        self._inner = inner
        self._script = script

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        return self._inner.assignment

    async def poll(self, *, max_records: int, timeout_s: float) -> Sequence[Record]:
        return await self._script.poll(
            lambda most: self._inner.poll(max_records=most, timeout_s=timeout_s), max_records
        )

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        await self._script.around("commit", lambda: self._inner.commit(offsets))

    async def close(self) -> None:
        await self._inner.close()


class _FaultyBlobs:
    """The `BlobStore` of a `Faulty`."""

    def __init__(self, inner: BlobStore, script: _Script) -> None:
        self._inner = inner
        self._script = script

    async def put(self, data: bytes | Path) -> BlobRef:
        return await self._script.around("blob_put", lambda: self._inner.put(data))

    async def get(self, ref: BlobRef) -> bytes:
        return await self._script.around("blob_get", lambda: self._inner.get(ref))

    async def exists(self, sha256: str) -> bool:
        return await self._inner.exists(sha256)

    async def delete(self, sha256: str) -> None:
        await self._inner.delete(sha256)
