"""One member of a Kafka group: hears what it gets and loses, reads in turn, commits what is done and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import TopicPartition as StoredPartition
from aiokafka import errors as kafka
from aiokafka.structs import ConsumerRecord

from stream.errors import Broken, Misuse, PartitionLost, Unavailable
from stream.patience import patiently
from stream.transport.kafka_client import REQUEST_S, translated
from stream.transport.protocol import Listener, Record, TopicPartition

log = logging.getLogger(__name__)

START_DEADLINE_S = 60.0
"""How long a member asks where to start before it gives up; its partitions wait for it."""

Starts = Callable[[Iterable[TopicPartition]], Awaitable[Mapping[TopicPartition, "Start"]]]


class Start:
    """Where reading a partition begins: at the group's commit, or at the beginning if there is none."""

    def __init__(self, offset: int, committed: bool) -> None:
        self.offset = offset
        self.committed = committed


def start_of(group: str, tp: TopicPartition, committed: int | None, log_span: tuple[int, int]) -> Start:
    """Decide where a group begins, and refuse to skip.

    Args:
        committed: the group's offset; None: it has never committed.
        log_span: the first offset the broker still has, and the one after the last.

    Raises:
        Broken: retention has removed records that the group has not done, or the log is shorter than it was.
    """
    first, end = log_span
    if committed is None:
        return Start(first, committed=False)
    where = f"{tp.topic}[{tp.partition}]"
    way_out = f"kafka-consumer-groups.sh --group {group} --topic {tp.topic} --reset-offsets --to-earliest --execute"
    if committed < first:
        raise Broken(
            f"{where}: group {group} has committed {committed:,} and the broker's first record is {first:,}:"
            f" {first - committed:,} records were removed before they were done. Lengthen retention.ms; to accept the"
            f" loss and go on: {way_out}"
        )
    if committed > end:
        raise Broken(
            f"{where}: group {group} has committed {committed:,} and the broker's log ends at {end:,}: it is not the"
            f" log that was read before (made anew, or restored from a copy). To read it from its beginning: {way_out}"
        )
    return Start(committed, committed=True)


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
        self._failure: BaseException | None = None
        self._closed = False

    def join(self) -> None:
        """Enter the group; partitions come while `poll` waits, or before."""
        self._client.subscribe(list(self._stored.values()), listener=_Rebalance(self))

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
        for tp, offset in offsets.items():
            if tp not in self._held:
                raise PartitionLost(f"{tp.topic}[{tp.partition}] is not held by this member: its commit does not count")
            if offset > self._given.get(tp, 0):
                raise Broken(f"{tp.topic}[{tp.partition}]: commit of {offset} is past what was read")
        higher = {tp: offset for tp, offset in offsets.items() if offset > self._done.get(tp, -1)}
        if not higher:
            return
        try:
            await self._commit(higher)
        except PartitionLost:
            # The group has gone on without us, and aiokafka joins it anew. Until then nothing counts and nothing is
            # read: a later commit that went through would pass the frames dropped here.
            self._held = frozenset()
            self._stop_reading()
            raise
        self._done |= higher

    async def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        what = ", ".join(f"{tp.topic}[{tp.partition}] at {offset}" for tp, offset in offsets.items())
        with translated(f"commit {what}"):
            async with asyncio.timeout(REQUEST_S):
                await self._client.commit({self._of(tp): offset for tp, offset in offsets.items()})

    # ── the group ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def revoke(self) -> None:
        """The group gives the partitions to others, or has done so."""
        self._stop_reading()
        leaving, self._announced = self._announced, frozenset()
        try:
            if leaving:
                await self._listener.revoked(sorted(leaving))
        except Exception as error:
            self._fail(error)
        finally:
            self._held = frozenset()

    async def assign(self, stored: Iterable[StoredPartition]) -> None:
        """These partitions are ours now."""
        ours = sorted(TopicPartition(self._names[tp.topic], tp.partition) for tp in stored)
        self._done, self._given = {}, {}
        self._held = self._announced = frozenset(ours)
        try:
            await self._listener.assigned(ours)
            await self._set_starts(ours)
        except Exception as error:
            self._fail(error)
        else:
            self._turns = ours
            self._readable.set()

    async def _set_starts(self, partitions: Sequence[TopicPartition]) -> None:
        try:
            starts = await patiently(partial(self._starts, partitions), deadline_s=START_DEADLINE_S)
            for tp, start in starts.items():
                self._client.seek(self._of(tp), start.offset)
                self._given[tp] = start.offset
            # From now on the group has a commit, so that retention cannot pass it unnoticed.
            first = {tp: start.offset for tp, start in starts.items() if not start.committed}
            if first:
                await patiently(partial(self._commit, first), deadline_s=START_DEADLINE_S)
            self._done = {tp: start.offset for tp, start in starts.items()}
        except PartitionLost as error:
            log.info("lost at once, joining again error=%s", error)
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
        stopping = asyncio.ensure_future(self._client.stop())
        # Without a broker it would wait for ever for somebody to say goodbye to.
        await asyncio.wait({stopping}, timeout=REQUEST_S)
        stopping.cancel()
        await asyncio.wait({stopping})
        if not stopping.cancelled() and stopping.exception() is not None:
            log.warning("the group was left without a goodbye error=%s", stopping.exception())

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


def record_of(tp: TopicPartition, raw: ConsumerRecord) -> Record:
    """What aiokafka read, in our words; text that is not UTF-8 is kept readable, so that it can become a dead frame."""
    return Record(
        topic=tp.topic,
        partition=tp.partition,
        offset=raw.offset,
        key=(raw.key or b"").decode(errors="replace"),
        value=raw.value or b"",
        headers={name: (value or b"").decode(errors="replace") for name, value in raw.headers},
        timestamp=raw.timestamp / 1000.0,
    )
