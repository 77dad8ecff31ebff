"""One member of a group on the embedded log: takes and gives partitions, reads them in turn, commits what is done."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial

from stream.errors import Misuse, PartitionLost
from stream.transport import local_store
from stream.transport.local_group import Membership
from stream.transport.local_log import Log
from stream.transport.local_store import Store, Version
from stream.transport.protocol import Listener, Record, TopicPartition

CHECK_MEMBERS_S = 0.1
"""How often `poll` looks who is there: a partition of a dead member is idle for about this long."""
LOOK_S = 0.025
"""How often a waiting `poll` looks for new records; a look is one read of shared memory."""


class LocalConsumer:
    """The `Consumer` of the embedded log.

    All that changes happens inside `poll` and `close`, in the caller's task: there is no task and no thread of its own.
    A member that does not poll therefore keeps what it holds, as long as it lives.

    A partition goes through these steps: locked ▸ its committed offsets read ▸ `listener.assigned` returned ▸ records ▸
    `listener.revoked` returned ▸ unlocked. Each may be cancelled or fail, and the next `poll` goes on there: `assigned`
    is called again if it has not returned, and no record comes before it has; `revoked` likewise, and the lock is let
    go only afterwards, so the next owner starts from everything that was committed.

    `commit` fsyncs. It never lowers: the offset of a group is the highest that any owner has committed, so a repeat or
    a late commit of an older offset is ignored; one beyond the end of the partition is refused as Broken.
    """

    def __init__(self, log: Log, membership: Membership, listener: Listener, topics: Mapping[str, str]) -> None:
        self._log = log
        self._membership = membership
        self._listener = listener
        self._topics = dict(topics)
        """The group's topics and their stored names."""
        self._reader = ""
        self._announced: set[int] = set()
        self._positions: dict[TopicPartition, int] = {}
        """The next offset of each partition that is read; in the order in which they have their turn."""
        self._seen: Version | None = None
        """The log's version at which nothing was left to read."""
        self._next_check = 0.0
        self._closed = False

    async def join(self, group: str) -> None:
        """Enter the group and note in the log that it reads these topics, so that retention waits for it."""
        self._reader = group
        self._membership.join()
        try:
            starts = []
            for stored in self._topics.values():
                topic = self._log.topic(stored)
                starts += [(topic.id, partition, 0) for partition in range(topic.partitions)]
            await self._log.write(partial(local_store.commit, reader=group, offsets=starts))
        except BaseException:
            self._membership.leave()
            raise

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions held now."""
        return frozenset(self._of(self._membership.held))

    async def poll(self, *, max_records: int, timeout_s: float) -> Sequence[Record]:
        """See `Consumer.poll`; one partition that is always full does not keep the others waiting."""
        if self._closed:
            raise Misuse("this consumer was closed: subscribe again")
        if max_records < 1:
            raise Misuse(f"max_records is {max_records}: ask for at least one")
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        while True:
            if clock() >= self._next_check:
                self._next_check = clock() + CHECK_MEMBERS_S
                await self._rebalance()
            await self._announce()
            records = await self._log.read(partial(self._next, dict(self._positions), max_records))
            self._advance(records)
            left_s = deadline - clock()
            if records or left_s <= 0:
                return records
            await asyncio.sleep(min(LOOK_S, left_s))

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See `Consumer.commit`."""
        rows = []
        for tp, offset in offsets.items():
            if tp.topic not in self._topics or not self._membership.owns(tp.partition):
                where = f"{tp.topic}/{tp.partition}"
                raise PartitionLost(f"group {self._reader!r}: {where} is not held by this member, no commit")
            rows.append((self._log.topic(self._topics[tp.topic]).id, tp.partition, offset))
        await self._log.write(partial(local_store.commit, reader=self._reader, offsets=rows))

    async def close(self) -> None:
        """See `Consumer.close`; the partitions are let go even when the listener fails."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._announced:
                await self._listener.revoked(self._of(sorted(self._announced)))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let everything go at once, unheard, as at the death of the process."""
        self._closed = True
        self._announced.clear()
        self._positions.clear()
        self._membership.leave()

    async def _rebalance(self) -> None:
        """Give what is too much; take what is free, up to the fair share."""
        share = self._membership.share()
        surplus = self._membership.held[share:]
        told = [partition for partition in surplus if partition in self._announced]
        if told:
            await self._listener.revoked(self._of(told))
        for partition in surplus:
            self._announced.discard(partition)
            for tp in self._of([partition]):
                self._positions.pop(tp, None)
            self._membership.release(partition)
        for partition in range(self._log.topic(next(iter(self._topics.values()))).partitions):
            if len(self._membership.held) >= share:
                break
            if partition not in self._membership.held:
                self._membership.take(partition)

    async def _announce(self) -> None:
        """Tell the listener of partitions it has not heard of, then begin to read them."""
        new = [partition for partition in self._membership.held if partition not in self._announced]
        if not new:
            return
        starts = await self._log.query(partial(self._starts, new))
        await self._listener.assigned(self._of(new))
        self._announced.update(new)
        self._positions.update(starts)
        self._seen = None

    def _starts(self, partitions: Sequence[int], db: sqlite3.Connection) -> dict[TopicPartition, int]:
        starts = {}
        for name, stored in self._topics.items():
            done = local_store.commits(db, self._log.topic(stored).id, self._reader)
            starts.update({TopicPartition(name, partition): done.get(partition, 0) for partition in partitions})
        return starts

    def _next(self, positions: Mapping[TopicPartition, int], max_records: int, store: Store) -> list[Record]:
        """In the reading thread: an equal part of each partition in turn, then more from the first that have more."""
        version = store.version()
        if version == self._seen or not positions:
            return []
        records: list[Record] = []
        size = 0
        even = max(1, max_records // len(positions))
        at = dict(positions)
        with store.connection() as db:
            for part in (even, max_records):
                for tp in positions:
                    limit = min(part, max_records - len(records))
                    if limit <= 0 or size >= local_store.PAGE_BYTES:
                        return records
                    topic = self._log.topic(self._topics[tp.topic]).id
                    page = local_store.page(db, tp, topic, (at[tp], None), limit)
                    if page:
                        at[tp] = page[-1].offset + 1
                        size += sum(len(record.value) for record in page)
                        records += page
        if not records:
            self._seen = version
        return records

    def _advance(self, records: Sequence[Record]) -> None:
        """Move past what is returned, and let who had a turn wait for the others."""
        for record in records:
            self._positions.pop(record.tp)
            self._positions[record.tp] = record.offset + 1

    def _of(self, partitions: Sequence[int]) -> list[TopicPartition]:
        return [TopicPartition(topic, partition) for partition in partitions for topic in self._topics]
