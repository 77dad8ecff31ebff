"""The embedded home of the log: one SQLite file and a folder of blobs, shared by the processes of one box."""

from __future__ import annotations

import asyncio
import fcntl
import heapq
import os
import zlib
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import msgspec

from stream.config import LocalSection
from stream.errors import Misuse, Unavailable
from stream.transport import local_store, topics
from stream.transport.blobs import FolderBlobs
from stream.transport.durable import fsync_folder, make_folder
from stream.transport.local_consumer import LOOK_S, LocalConsumer
from stream.transport.local_group import Membership
from stream.transport.local_log import Log
from stream.transport.local_store import Store, StoredTopic
from stream.transport.protocol import Listener, Message, Record, TopicPartition

MAX_VALUE_BYTES = 256 * 1024 * 1024
"""Larger values belong into the blob store."""
_PAGE_RECORDS = 500


class LocalTransport:
    """The `Transport` of one box; several processes open the same folder at once.

        DIR/log.sqlite        topics, records, committed offsets (write-ahead log beside it)
        DIR/blobs/ab/SHA256   photos
        DIR/groups/           who holds which partition; see local_group.py

    What is on the disk when a call returns: `send` and `Consumer.commit` return after an SQLite commit with
    `synchronous=FULL`, which fsyncs the write-ahead log; sends that wait at the same time share one. `blobs.put`
    returns after file and folder are fsynced. So a record that names a blob is never there without its bytes, if the
    blob was put first. Killed at any moment, a process leaves whole transactions: what was acknowledged is there, what
    was not is there or not.

    Offsets of a partition are dense and ascending and are never used again, whatever is removed: the next one is
    stored beside the records. The partition of a key is its CRC-32 modulo the count, the same in every process. The
    count is fixed when a folder is made. The write lock is waited for `local_store.BUSY_TIMEOUT_S`, then the call is
    `Unavailable`; a full disk is `DiskLow`; a folder that goes away (unmounted, removed) is `Unavailable` until it is
    back, and is never silently made anew under a running process.

    `flock` and SQLite's shared memory need a file system of this machine: not NFS, not a share.
    """

    def __init__(self, folder: Path, log: Log, blobs: FolderBlobs, prefix: str) -> None:
        """Use `open`."""
        self._folder = folder
        self._log = log
        self._blobs = blobs
        self._prefix = prefix
        self._consumers: list[LocalConsumer] = []

    @classmethod
    async def open(cls, folder: Path, section: LocalSection, prefix: str = "") -> LocalTransport:
        """Open the log in a folder; folder and log are made if only they are missing.

        Raises:
            Unavailable: the folder's parent is not there, or the folder cannot be written; retrying may help.
            Misuse: another partition count than the log was made with, a bad prefix, a file in place of the folder.
            Broken: there is a file of that name and it is not a log.
        """
        if section.partitions < 1:
            raise Misuse(f"[local] partitions is {section.partitions}: at least 1")
        if prefix:
            topics.check_name("topic_prefix", prefix)
        counts = {topics.stored_name(prefix, name): section.partitions for name in topics.RULES}
        path = folder / "log.sqlite"
        stored = await asyncio.to_thread(_prepare, path, counts)
        blobs = FolderBlobs(folder / "blobs", section.min_free_bytes)
        return cls(folder, Log(Store(path), Store(path), stored), blobs, prefix)

    @property
    def url(self) -> str:
        """`local:DIR`."""
        return f"local:{self._folder}"

    @property
    def blobs(self) -> FolderBlobs:
        """The blob folder beside the log."""
        return self._blobs

    @property
    def max_inline_bytes(self) -> int:
        """0: photos always go by reference."""
        return 0

    @property
    def log(self) -> Log:
        """The log file itself, for retention."""
        return self._log

    def stored_topic(self, topic: str) -> StoredTopic:
        """The topic's row in the file.

        Raises:
            Misuse: there is no such topic.
        """
        return self._log.topic(topics.stored_name(self._prefix, topic))

    async def partitions(self, topic: str) -> int:
        """See `Transport.partitions`."""
        return self.stored_topic(topic).partitions

    async def send(self, message: Message) -> tuple[TopicPartition, int]:
        """See `Transport.send`; unless there is no such topic or partition (Misuse) it is durable when this returns."""
        topic = self.stored_topic(message.topic)
        try:
            key, headers = message.key.encode(), msgspec.json.encode(dict(message.headers)).decode()
        except UnicodeEncodeError as error:
            raise Misuse(f"key and headers of a {message.topic!r} record must be Unicode text: {error}") from error
        if len(message.value) > MAX_VALUE_BYTES:
            raise Misuse(f"a value of {len(message.value):,} bytes: put it into the blob store and send its reference")
        chosen = zlib.crc32(key) % topic.partitions if message.partition is None else message.partition
        if not 0 <= chosen < topic.partitions:
            raise Misuse(f"{message.topic!r} has partitions 0 to {topic.partitions - 1}, not {chosen}")
        step = partial(local_store.append, at=(topic.id, chosen), key=message.key, headers=headers, value=message.value)
        return TopicPartition(message.topic, chosen), await self._log.write(step)

    async def subscribe(self, group: str, topics: Sequence[str], listener: Listener) -> LocalConsumer:
        """See `Transport.subscribe`; all living members of a group read the same topics (else Misuse)."""
        stored = {name: f"{self._prefix}{name}" for name in topics}
        partitions = self._common_partitions(topics)
        folder = self._folder / "groups" / _group_name(self._prefix, group)
        consumer = LocalConsumer(self._log, Membership(folder, list(stored.values()), partitions), listener, stored)
        await consumer.join(group)
        self._consumers.append(consumer)
        return consumer

    def read(self, topic: str, *, partition: int | None = None, follow: bool = False) -> AsyncIterator[Record]:
        """See `Transport.read`: by time of acceptance across partitions, and in any case by offset within each.

        The end is that of the call, not of the first record. With `follow`, the end is looked up again and again, and
        each time the new records come merged after those before.
        """
        stored = self.stored_topic(topic)
        if partition is not None and not 0 <= partition < stored.partitions:
            raise Misuse(f"{topic!r} has partitions 0 to {stored.partitions - 1}, not {partition}")
        chosen = range(stored.partitions) if partition is None else [partition]
        ends = self._log.submit(partial(_ends, topic=stored))
        return self._read([TopicPartition(topic, number) for number in chosen], ends, follow)

    async def _read(
        self, chosen: Sequence[TopicPartition], ends: Future[dict[int, int]], follow: bool
    ) -> AsyncIterator[Record]:
        at = dict.fromkeys(chosen, 0)
        while True:
            end = await asyncio.wrap_future(ends)
            async for record in self._merged(at, end):
                yield record
            at = {tp: max(offset, end[tp.partition]) for tp, offset in at.items()}
            if not follow:
                return
            await asyncio.sleep(LOOK_S)
            ends = self._log.submit(partial(_ends, topic=self.stored_topic(chosen[0].topic)))

    async def _merged(self, at: Mapping[TopicPartition, int], end: Mapping[int, int]) -> AsyncIterator[Record]:
        """Merge the partitions page by page, the oldest head first."""
        ready: list[tuple[float, int, deque[Record]]] = []
        for tp, first in at.items():
            await self._refill(ready, tp, (first, end[tp.partition]))
        while ready:
            _, number, records = heapq.heappop(ready)
            record = records.popleft()
            yield record
            if records:
                heapq.heappush(ready, (records[0].timestamp, number, records))
            else:
                await self._refill(ready, record.tp, (record.offset + 1, end[number]))

    async def _refill(
        self, ready: list[tuple[float, int, deque[Record]]], tp: TopicPartition, span: tuple[int, int]
    ) -> None:
        topic = self.stored_topic(tp.topic).id
        page = partial(local_store.page, tp=tp, topic=topic, span=span, limit=_PAGE_RECORDS)
        if span[0] < span[1] and (records := deque(await self._log.query(page))):
            heapq.heappush(ready, (records[0].timestamp, tp.partition, records))

    async def lag(self, group: str, topic: str) -> Mapping[int, int]:
        """See `Transport.lag`; in offsets, so records that compaction has removed in between count as well."""
        return await self._log.query(partial(local_store.pending, topic=self.stored_topic(topic).id, reader=group))

    async def close(self) -> None:
        """See `Transport.close`; consumers still open lose what they hold, unheard, as at the process's death."""
        for consumer in self._consumers:
            consumer.abandon()
        await self._log.close()

    def _common_partitions(self, names: Sequence[str]) -> int:
        return topics.common_partitions({name: self.stored_topic(name).partitions for name in names}, names)


def _prepare(path: Path, counts: Mapping[str, int]) -> dict[str, StoredTopic]:
    """Make folder and file, one process at a time: SQLite cannot change to write-ahead logging while others look."""
    folder = path.parent
    try:
        make_folder(folder)
        guard = os.open(folder / "open.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except NotADirectoryError as error:
        raise Misuse(f"{folder} is a file; name a folder for the log, local:DIR") from error
    except FileNotFoundError as error:
        raise Unavailable(
            f"cannot make {folder}: {folder.parent} is not there; is its disk mounted? (only the last folder is made)"
        ) from error
    except OSError as error:
        raise Unavailable(f"cannot use {folder} for the log: {error.strerror}; it must be writable") from error
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        stored = Store(path).create(counts)
        fsync_folder(folder)
        return stored
    finally:
        os.close(guard)


def _group_name(prefix: str, group: str) -> str:
    return topics.check_name("prefix and group", prefix + topics.check_name("group", group))


def _ends(store: Store, topic: StoredTopic) -> dict[int, int]:
    with store.connection() as db:
        return local_store.ends(db, topic.id)
