"""One member of a Kafka group: hears what it gets and loses, reads in turn, commits what is done and nothing else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import TopicPartition as StoredPartition
from aiokafka import errors as kafka
from aiokafka.structs import ConsumerRecord

from stream.errors import Broken, Misuse, PartitionLost, Unavailable
from stream.patience import patiently
from stream.transport.kafka_client import REQUEST_S, leave, translated
from stream.transport.kafka_records import Start, record_of, where_is
from stream.transport.protocol import Listener, Record, TopicPartition

log = logging.getLogger(__name__)

START_DEADLINE_S = 60.0
"""How long a member asks where to start before it gives up; its partitions wait for it."""

LOOK_S = 0.25
"""How often a joining member looks whether the broker refuses it."""
NEVER_S = 1e9

Starts = Callable[[Iterable[TopicPartition]], Awaitable[Mapping[TopicPartition, Start]]]


class KafkaConsumer:
    """The `Consumer` of a Kafka group.

    aiokafka rebalances eagerly, from a task of its own: all partitions are revoked, then some are assigned. Our
    listener is called there, so that a caller who is held up by back-pressure still gives partitions back in time.

    revoke: no record leaves `poll` ▸ `listener.revoked` returns, its commits counting ▸ commits raise PartitionLost
    assign: `listener.assigned` returns ▸ the start of each partition is set, explicitly ▸ records

    aiokafka logs and swallows what a listener raises; here it is kept, and raised by the next `poll`.
    While the broker is away `poll` returns nothing; `Transport.lag`, which roles ask every few seconds, says so. When
    it is back the group is joined again, also after the session has run out.
    """

    def __init__(self, client: AIOKafkaConsumer, listener: Listener, names: Mapping[str, str], starts: Starts) -> None:
        """
        Args:
            client: started, not subscribed.
            names: the group's topics and their names on the broker.
            starts: where partitions begin, see `start_of`.
        """
        self._client = client
        self._listener = listener
        self._stored = dict(names)
        self._names = {stored: name for name, stored in names.items()}
        self._starts = starts
        self._announced: frozenset[TopicPartition] = frozenset()
        """What the listener believes to hold."""
        self._held: frozenset[TopicPartition] = frozenset()
        """What may be committed."""
        self._turns: list[TopicPartition] = []
        """What may be read, the partition that waits longest first."""
        self._nothing = TopicPartition(next(iter(names)), -1)
        """No partition has this number: asking for it tells only what is wrong with the group."""
        self._readable = asyncio.Event()
        """There is something to read, or a failure to raise."""
        self._done: dict[TopicPartition, int] = {}
        """The highest offset committed since the assignment."""
        self._given: dict[TopicPartition, int] = {}
        """The offset after the last record handed out."""
        self._generation = -1
        """Of the group, when the partitions were assigned."""
        self._telling = asyncio.Lock()
        """The listener hears one thing at a time, also when a rebalance comes while we close."""
        self._committing = asyncio.Lock()
        self._settled = asyncio.Event()
        """The group has told what is ours, for the first time."""
        self._failure: BaseException | None = None
        self._closed = False

    async def join(self, timeout_s: float) -> None:
        """Enter the group and wait for its first answer: partitions, or none when there are more members than those.

        Raises:
            Unavailable: no answer in time; this consumer has left again.
            Rejected: this login may not be in the group.
        """
        # When what it has fetched is not taken for so long, aiokafka asks for the other partitions as well, and in the
        # end holds a response for each. Never: while the caller is busy, one response lies in memory.
        self._client._fetcher._prefetch_backoff = NEVER_S
        self._client.subscribe(list(self._stored.values()), listener=_Rebalance(self))
        try:
            with translated("join the group"):
                async with asyncio.timeout(timeout_s):
                    while not self._settled.is_set():
                        self._client._coordinator.check_errors()
                        with suppress(TimeoutError):
                            await asyncio.wait_for(self._settled.wait(), LOOK_S)
        except BaseException:
            await self.abandon()
            raise

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions held now."""
        return self._held

    # ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def poll(self, *, max_records: int, timeout_s: float) -> Sequence[Record]:
        """See `Consumer.poll`; the partition served last has its next turn last."""
        if self._closed:
            raise Misuse("this consumer was closed: subscribe again")
        if max_records < 1:
            raise Misuse(f"max_records is {max_records}: ask for at least one")
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            self._raise_failure()
            records = await self._look(max_records, deadline)
            self._raise_failure()
            if records or asyncio.get_running_loop().time() >= deadline:
                return records

    async def _look(self, max_records: int, deadline: float) -> list[Record]:
        """Take what lies ready, in turn; else wait for whatever comes first. Nothing is awaited after the taking.

        Only partitions whose start is set are asked for: what aiokafka hands out counts as read.
        """
        try:
            async with asyncio.timeout_at(deadline + 0.01):  # a rebalance under way would hold it up for longer
                with translated("read"):
                    for tp in list(self._turns) or [self._nothing]:
                        ready = await self._client.getmany(self._of(tp), timeout_ms=0, max_records=max_records)
                        if ready:
                            return self._handed_out(ready)
                    if not self._turns:
                        await self._readable.wait()
                        return []
                    left = max(0.0, deadline - asyncio.get_running_loop().time())
                    turns = [self._of(tp) for tp in self._turns]
                    came = await self._client.getmany(*turns, timeout_ms=int(left * 1000), max_records=max_records)
                    return self._handed_out(came)
        except TimeoutError:
            return []
        except Broken as error:
            if isinstance(error.__cause__, kafka.NoOffsetForPartitionError):
                return []  # aiokafka looked before our explicit start was set; it is set now, or will be
            if isinstance(error.__cause__, kafka.OffsetOutOfRangeError):
                await self._starts(self._held)  # raises with the numbers, if retention overtook us
            raise
        finally:
            # aiokafka counts the calls under way and does not count one down that was cut short; it would then think us
            # busy for ever, and a member that hands out nothing for MAX_POLL_S would never leave the group.
            self._client._subscription._fetch_count = 0
            self._client._subscription._last_fetch_ended = time.monotonic()

    def _handed_out(self, batches: Mapping[StoredPartition, Sequence[ConsumerRecord]]) -> list[Record]:
        """The records of partitions that are still ours."""
        records: list[Record] = []
        for stored, batch in batches.items():
            tp = TopicPartition(self._names[stored.topic], stored.partition)
            if tp not in self._turns:
                continue  # revoked while it was fetched: the next owner reads it
            self._turns.remove(tp)
            self._turns.append(tp)
            records += [record_of(tp, raw) for raw in batch]
            self._given[tp] = records[-1].offset + 1
        return records

    # ── committing ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See `Consumer.commit`; an offset below what this member has committed already is ignored."""
        async with self._committing:
            for tp, offset in offsets.items():
                if tp not in self._held:
                    raise PartitionLost(f"{where_is(tp)} is not held by this member: its commit does not count")
                if offset > self._given.get(tp, 0):
                    raise Broken(f"{where_is(tp)}: commit of {offset} is past what was read")
            higher = {tp: offset for tp, offset in offsets.items() if offset > self._done.get(tp, -1)}
            if not higher:
                return
            try:
                self._check_membership()
                await self._commit(higher)
            except PartitionLost:
                # The group has gone on without us, and aiokafka joins it anew. Until then nothing counts and nothing
                # is read: a later commit that went through would pass the frames dropped here.
                self._held = frozenset()
                self._stop_reading()
                raise
            self._done |= higher

    def _check_membership(self) -> None:
        """A member that was thrown out commits as nobody, and a group that is empty by then would take that."""
        if self._client._coordinator.generation != self._generation:
            raise PartitionLost("the group has given the partitions to others: this member was silent for too long")

    async def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        what = ", ".join(f"{where_is(tp)} at {offset}" for tp, offset in offsets.items())
        with translated(f"commit {what}"):
            async with asyncio.timeout(REQUEST_S):
                await self._client.commit({self._of(tp): offset for tp, offset in offsets.items()})

    # ── the group ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def revoke(self) -> None:
        """The group gives the partitions to others, or has done so."""
        self._stop_reading()
        async with self._telling:
            leaving, self._announced = self._announced, frozenset()
            try:
                if leaving:
                    await self._listener.revoked(sorted(leaving))
            except Exception as error:
                self._fail(error)
            finally:
                async with self._committing:  # one that is under way still counts
                    self._held = frozenset()

    async def assign(self, stored: Iterable[StoredPartition]) -> None:
        """These partitions are ours now."""
        async with self._telling:
            if self._closed:
                return
            ours = sorted(TopicPartition(self._names[tp.topic], tp.partition) for tp in stored)
            self._done, self._given = {}, {}
            self._generation = self._client._coordinator.generation
            self._held = self._announced = frozenset(ours)
            try:
                await self._listener.assigned(ours)
                await self._set_starts(ours)
            except PartitionLost as error:
                log.info("lost at once, joining again error=%s", error)
                return
            except Exception as error:
                self._fail(error)
            else:
                self._turns = ours  # nothing is awaited since the starts were set: see there
                if ours:  # a member without partitions waits, it does not look again and again
                    self._readable.set()
            self._settled.set()

    async def _set_starts(self, partitions: Sequence[TopicPartition]) -> None:
        try:
            starts = await patiently(partial(self._starts, partitions), deadline_s=START_DEADLINE_S)
            # From now on the group has a commit, so that retention cannot pass it unnoticed.
            first = {tp: start.offset for tp, start in starts.items() if not start.committed}
            if first:
                await patiently(partial(self._commit, first), deadline_s=START_DEADLINE_S)
            self._done = {tp: start.offset for tp, start in starts.items()}
            # Last, and nothing is awaited from here to the first turn: a poll older than the rebalance may still take a
            # record, which is passed over as not ours. The seek takes it back; after the seek it would be lost.
            for tp, start in starts.items():
                self._client.seek(self._of(tp), start.offset)
                self._given[tp] = start.offset
        except Unavailable as error:
            # Not Unavailable: the poll that raises this would be repeated, and would wait for ever.
            raise Broken(f"where to start is not known, so nothing was begun: {error}") from error

    def _fail(self, error: Exception) -> None:
        log.error("the listener of a rebalance failed error=%s", error)
        self._failure = self._failure or error
        self._readable.set()

    def _stop_reading(self) -> None:
        self._turns = []
        self._readable.clear()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    async def close(self) -> None:
        """See `Consumer.close`; a member with a name of its own (`kafka.member`) stays one until its session ends."""
        if not self._closed:
            self._closed = True
            try:
                await self.revoke()
            finally:
                await self.abandon()
        self._raise_failure()

    async def abandon(self) -> None:
        """Leave without a word to the listener."""
        self._closed = True
        self._held = frozenset()
        self._stop_reading()
        await leave(self._client)

    def _of(self, tp: TopicPartition) -> StoredPartition:
        return StoredPartition(self._stored[tp.topic], tp.partition)


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types for mypy here
    """aiokafka's listener, handing on to the consumer."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[StoredPartition]) -> None:
        await self._consumer.revoke()

    async def on_partitions_assigned(self, assigned: Iterable[StoredPartition]) -> None:
        await self._consumer.assign(assigned)
