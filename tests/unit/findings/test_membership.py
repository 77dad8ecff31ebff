"""A member on Kafka, driven by hand over a real log: what it lets through, what it commits, what ends it."""

from __future__ import annotations

import asyncio
from collections import namedtuple
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from stream.config import LocalSection
from stream.errors import Broken, PartitionLost
from stream.findings.membership import Membership
from stream.findings.order import TRIES
from stream.messages import encode
from stream.metrics import Metrics
from stream.transport.kafka_records import Start
from stream.transport.local import LocalTransport
from stream.transport.protocol import Transport
from tests.unit.findings.driving import compacted, duty, message
from tests.unit.findings.made import region, result

TP = namedtuple("TP", ["topic", "partition"])
RESULTS = TP("site.results", 0)


@dataclass(frozen=True)
class Event:
    """What Faust hands out."""

    offset: int
    value: bytes = b""
    topic: str = RESULTS.topic
    partition: int = 0
    key: bytes = b"pier-3"
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: float = 0.0

    @property
    def tp(self) -> TP:
        return TP(self.topic, self.partition)


@dataclass
class Broker:
    """Remembers what it was asked, and refuses when told to."""

    start: Start = field(default_factory=lambda: Start(5, committed=True))
    written: dict[Any, int] = field(default_factory=dict)
    sought: list[Mapping[Any, int]] = field(default_factory=list)
    refuses: Exception | None = None

    async def starts(self, partitions: Mapping[Any, Any]) -> Mapping[Any, Start]:
        return dict.fromkeys(partitions, self.start)

    async def write(self, offsets: Mapping[Any, int]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.written |= offsets

    async def seek_wait(self, partitions: Mapping[Any, int]) -> None:
        self.sought.append(partitions)


def shot(number: int) -> Event:
    """A result with one finding, as it comes from Kafka at that offset."""
    noun = result(number, [region()])
    headers = tuple((name, text.encode()) for name, text in message(noun).headers.items())
    return Event(offset=number, value=encode(noun), headers=headers)


def with_member(folder: Path, test: Callable[[Membership, Broker, Transport], Awaitable[None]]) -> None:
    async def main() -> None:
        log = await LocalTransport.open(folder / "log", LocalSection(partitions=1, min_free_bytes=0))
        try:
            member, broker = Membership(duty(log, Metrics(CollectorRegistry())), "site."), Broker()
            await member.assigned(broker, [RESULTS])
            await test(member, broker, log)
        finally:
            await log.close()

    asyncio.run(main())


def test_what_is_finished_is_committed_once_and_nothing_else(tmp_path: Path) -> None:
    async def test(member: Membership, broker: Broker, log: Transport) -> None:
        assert not await member.commit(broker)
        await member.fetched(broker, {RESULTS: [shot(5), shot(6)]})
        await member.work(shot(5))
        assert await member.commit(broker)
        assert broker.written == {RESULTS: 6}
        assert not await member.commit(broker)

    with_member(tmp_path, test)


def test_a_group_that_never_committed_commits_its_start_before_it_begins(tmp_path: Path) -> None:
    async def test(member: Membership, broker: Broker, log: Transport) -> None:
        broker.start = Start(3, committed=False)
        await member.assigned(broker, [RESULTS])
        assert broker.written == {RESULTS: 3}
        assert member.positions([RESULTS]) == {RESULTS: 3}

    with_member(tmp_path, test)


def test_a_record_handed_out_twice_is_worked_once(tmp_path: Path) -> None:
    async def test(member: Membership, broker: Broker, log: Transport) -> None:
        await member.fetched(broker, {RESULTS: [shot(5)]})
        for _ in range(2):
            await member.work(shot(5))
        assert len([record async for record in log.read("alerts")]) == 1

    with_member(tmp_path, test)


def test_a_fetch_that_leaves_records_out_is_held_back_and_made_again(tmp_path: Path) -> None:
    async def test(member: Membership, broker: Broker, log: Transport) -> None:
        assert await member.fetched(broker, {RESULTS: [shot(9)]}) == {}
        assert broker.sought == [{RESULTS: 5}]

    with_member(tmp_path, test)


def test_a_record_lost_on_the_way_is_fetched_again_and_not_committed_past(tmp_path: Path) -> None:
    async def test(member: Membership, broker: Broker, log: Transport) -> None:
        await member.fetched(broker, {RESULTS: [shot(5), shot(6), shot(7)]})
        await member.work(shot(5))
        await member.work(shot(7))
        await member.commit(broker)
        assert broker.written == {RESULTS: 6}
        await member.before_fetch(broker)
        assert broker.sought == [{RESULTS: 6}]
        await member.fetched(broker, {RESULTS: [shot(6), shot(7)]})
        await member.before_fetch(broker)
        assert broker.sought == [{RESULTS: 6}]
        for number in (6, 7):
            await member.work(shot(number))
        assert member.failure is None
        await member.commit(broker)
        assert broker.written == {RESULTS: 8}
        assert len(await compacted(log)) == 3

    with_member(tmp_path, test)


def test_a_record_lost_again_and_again_ends_the_member_and_is_not_committed_past(tmp_path: Path) -> None:
    async def test(member: Membership, broker: Broker, log: Transport) -> None:
        for _ in range(TRIES):
            assert member.failure is None
            await member.fetched(broker, {RESULTS: [shot(5), shot(6)]})
            await member.work(shot(6))
        assert isinstance(member.failure, Broken)
        assert "results[0]: offset 5 was due, 6 came, 5 times" in str(member.failure)
        await member.work(shot(5))
        assert not await member.commit(broker)

    with_member(tmp_path, test)


def test_a_record_that_cannot_be_read_ends_the_member_and_those_after_it_are_left(tmp_path: Path) -> None:
    async def test(member: Membership, broker: Broker, log: Transport) -> None:
        await member.fetched(broker, {RESULTS: [Event(5, b"{"), shot(6)]})
        await member.work(Event(5, b"{"))
        await member.work(shot(6))
        assert "results/0/5 is not a Result" in str(member.failure)
        assert not await member.commit(broker)
        assert await compacted(log) == {}

    with_member(tmp_path, test)


def test_a_partition_lost_at_the_commit_is_dropped_and_worked_no_further(tmp_path: Path) -> None:
    async def test(member: Membership, broker: Broker, log: Transport) -> None:
        await member.fetched(broker, {RESULTS: [shot(5), shot(6)]})
        await member.work(shot(5))
        broker.refuses = PartitionLost("it is another's")
        assert not await member.commit(broker)
        broker.refuses = None
        await member.work(shot(6))
        await member.revoked(broker)
        assert member.failure is None
        assert broker.written == {}
        assert len(await compacted(log)) == 1

    with_member(tmp_path, test)


def test_what_is_finished_is_committed_before_a_partition_is_given_away(tmp_path: Path) -> None:
    async def test(member: Membership, broker: Broker, log: Transport) -> None:
        await member.fetched(broker, {RESULTS: [shot(5), shot(6)]})
        await member.work(shot(5))
        await member.revoked(broker)
        assert broker.written == {RESULTS: 6}
        await member.work(shot(6))
        assert not await member.commit(broker)
        assert len(await compacted(log)) == 1

    with_member(tmp_path, test)
