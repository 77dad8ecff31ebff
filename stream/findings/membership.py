"""A member of the findings group on Kafka: which offset is due, which is done, what was refused; without Faust."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from stream.errors import Broken, PartitionLost, Unavailable
from stream.findings.order import Hole, Order
from stream.findings.partitions import DEADLINE_S, DECISIONS, RESULTS, Duty, Partitions
from stream.patience import patiently
from stream.transport.kafka_group import cause, is_passing
from stream.transport.kafka_records import Start
from stream.transport.protocol import Record, TopicPartition
from stream.transport.topics import check_name, stored_name

log = logging.getLogger(__name__)

AGAIN_S = 0.5
"""After a fetch that failed."""

Stored = tuple[str, int]
"""A partition by its topic on the broker and its number."""


class Client(Protocol):
    """What a member asks of the broker."""

    async def starts(self, partitions: Mapping[Any, TopicPartition]) -> Mapping[Any, Start]:
        """See `kafka_group.starts_of`."""

    async def write(self, offsets: Mapping[Any, int]) -> None:
        """See `kafka_group.commit`."""

    async def seek_wait(self, partitions: Mapping[Any, int]) -> None:
        """Fetch on from these offsets."""


class Membership:
    """What one member knows of its partitions. It is their Driver, and never raises: `failure` is what must end it."""

    def __init__(self, duty: Duty, prefix: str) -> None:
        """
        Args:
            prefix: of the site's topics and groups.

        Raises:
            Misuse: prefix and group are not a name Kafka allows.
        """
        self.group_id = check_name("prefix and group", prefix + check_name("group", duty.group))
        self.topics = {stored_name(prefix, name): name for name in (RESULTS, DECISIONS)}
        """By name on the broker, our name."""
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        self.stop = asyncio.Event()
        self.ready = False
        """Whether partitions are assigned, or the group has none left for this member."""
        self._prefix = prefix
        self._partitions = Partitions(duty)
        self._order = Order()
        self._done: dict[Stored, int] = {}
        """The offset to commit."""
        self._committed: dict[Stored, int] = {}
        self._away_since: float | None = None
        self._working = asyncio.Lock()
        self._committing = asyncio.Lock()

    async def check(self) -> None:
        """See `Partitions.check`; this one raises."""
        await self._partitions.check()

    def fail(self, error: BaseException) -> None:
        """Keep the first error and begin nothing more; what is finished stays finished."""
        if self.failure is None:
            self.failure = error
            log.error("findings must stop error=%s", error)
        self.failed.set()
        self.ready = False

    # ── the work ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def work(self, message: Any) -> None:
        """What the agent does with an event; it never raises, since Faust would go on past the record."""
        try:
            async with self._working:
                if not self.failed.is_set() and self._order.take(message.tp, message.offset):
                    await self._partitions.take([self._record(message)], self)
        except Hole as hole:
            where = f"{self.topics[message.tp.topic]}[{message.tp.partition}]"
            self.fail(Broken(f"{where}: {hole}; nothing is lost and nothing past it is committed: start again"))
        except Exception as error:
            self.fail(error)

    async def look_after(self) -> None:
        """Every now and then: decisions that wait, and the figures."""
        try:
            async with self._working:
                await self._partitions.take([], self)
            await self._partitions.measure()
        except Exception as error:
            self.fail(error)

    @property
    def stopping(self) -> bool:
        """See `Driver.stopping`."""
        return self.stop.is_set() or self.failed.is_set()

    async def finish(self, record: Record) -> None:
        """See `Driver.finish`: the offset is committed within COMMIT_S, and before the partition is given away."""
        stored = stored_name(self._prefix, record.topic)
        if (stored, record.partition) in self._order:
            self._done[stored, record.partition] = record.offset + 1

    def _record(self, message: Any) -> Record:
        """What Faust read, in our words."""
        return Record(
            topic=self.topics[message.topic],
            partition=message.partition,
            offset=message.offset,
            key=(message.key or b"").decode(errors="replace"),
            value=message.value or b"",
            headers={name: (value or b"").decode(errors="replace") for name, value in message.headers or ()},
            timestamp=message.timestamp,
        )

    # ── the group ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def assigned(self, client: Client, partitions: Iterable[Any]) -> None:
        """Find where to begin, see that the group has a commit there, and read the state."""
        ours = {tp: TopicPartition(self.topics[tp.topic], tp.partition) for tp in partitions}
        try:
            starts = await patiently(lambda: client.starts(ours), deadline_s=DEADLINE_S)
            # From now on the group has a commit, so that retention cannot pass it unnoticed.
            first = {tp: start.offset for tp, start in starts.items() if not start.committed}
            if first:
                await patiently(lambda: client.write(first), deadline_s=DEADLINE_S)
            async with self._working:
                await self._partitions.load(tp.partition for tp in ours.values() if tp.topic == RESULTS)
            for tp, start in starts.items():
                self._order.begin(tp, start.offset)
            self._done = {tp: start.offset for tp, start in starts.items()}
            self._committed = dict(self._done)
            self.ready = True
        except PartitionLost as error:
            log.info("lost at once, joining again error=%s", error)
        except Unavailable as error:
            self.fail(Broken(f"where to start is not known, so nothing was begun: {error}"))
        except Exception as error:
            self.fail(error)

    async def revoked(self, client: Client) -> None:
        """Give the partitions away: the agent has let go of them; commit what is finished, forget the rest."""
        self.ready = False
        async with self._working:
            await self.commit(client)
            self._forget()

    def _forget(self) -> None:
        self._partitions.drop({number for _, number in self._done})
        self._order.clear()
        self._done, self._committed = {}, {}

    async def commit(self, client: Client) -> bool:
        """Write the offsets of what is finished; whether there were any, and the broker has them."""
        async with self._committing:
            offsets = self.uncommitted()
            if not offsets:
                return False
            try:
                await client.write(offsets)
            except PartitionLost as error:
                log.info("the group has gone on without this member, joining again error=%s", error)
                self._order.clear()
                self._done = dict(self._committed)
            except Unavailable as error:
                self._away(error)
            except Exception as error:
                self.fail(error)
            else:
                self._away_since = None
                self._committed |= offsets
                return True
            return False

    def uncommitted(self) -> dict[Any, int]:
        """What is finished and not committed yet."""
        return {tp: done for tp, done in self._done.items() if done != self._committed[tp]}

    def _away(self, error: Unavailable) -> None:
        """A commit that fails is tried again at the next turn, inside the one deadline."""
        now = time.monotonic()
        self._away_since = now if self._away_since is None else self._away_since
        log.warning("cannot commit, trying again error=%s", error)
        if now > self._away_since + DEADLINE_S:
            self.fail(error)

    # ── the fetch ──────────────────────────────────────────────────────────────────────────────────────────────────

    def positions(self, partitions: Iterable[Any]) -> dict[Any, int]:
        """Where to fetch on, after whatever was fetched and not worked off has been thrown away."""
        return {tp: self._order.rewind(tp) for tp in partitions if tp in self._order}

    def holds(self, tp: Any) -> bool:
        """Whether this partition is ours and begun."""
        return tp in self._order

    def emptied(self) -> None:
        """The queues between fetch and work were emptied: what lay there is due again."""
        self._order.emptied()

    async def before_fetch(self, client: Client) -> None:
        """Go back to what got lost on the way to the work, if anything did: no other record may ever tell of it."""
        if lost := self._order.lost():
            log.info("fetching again what got lost positions=%s", lost)
            await client.seek_wait(lost)

    async def fetched(self, client: Client, records: Mapping[Any, list[Any]]) -> Mapping[Any, list[Any]]:
        """Let through what comes in order; for the rest, fetch once more."""
        passed = {}
        for tp, batch in records.items():
            again = self._order.fetched(tp, [record.offset for record in batch]) if tp in self._order else None
            if again is not None:
                log.info("fetching again topic=%s partition=%d offset=%d", *tp, again)
                await client.seek_wait({tp: again})
            elif tp in self._order:
                passed[tp] = batch
        return passed

    async def unread(self, client: Client, error: Exception) -> None:
        """A fetch failed: go on if that passes by itself, else stop with what it means."""
        if is_passing(error):
            return
        try:
            await client.starts(
                {(topic, number): TopicPartition(self.topics[topic], number) for topic, number in self._done}
            )
            raise cause(error, "read")
        except Unavailable as away:
            log.warning("cannot read, trying again error=%s", away)
            await asyncio.sleep(AGAIN_S)
        except Exception as final:
            self.fail(final)
