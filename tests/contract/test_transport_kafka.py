"""What only the distributed log promises: retention never skips in silence, a lost membership commits nothing, …"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as StoredPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from stream.config import Config, KafkaSection
from stream.errors import Broken, Misuse, Rejected, Unavailable
from stream.patience import patiently
from stream.transport.kafka import KafkaTransport
from stream.transport.kafka_topics import create_topics, delete_topics
from stream.transport.protocol import Consumer, Message, Record, TopicPartition
from tests.kafka.broker import Broker

PARTITIONS = 4
MIB = 1024 * 1024


def settings(url: str, folder: Path, session_s: float = 6.0) -> Config:
    """A site of its own; a group notices its changes fast."""
    kafka = KafkaSection(
        partitions=PARTITIONS,
        blobs=str(folder / "blobs"),
        min_free_bytes=0,
        heartbeat_s=0.2,
        session_timeout_s=session_s,
    )
    return Config(transport=url, topic_prefix=f"only-kafka-{secrets.token_hex(6)}.", kafka=kafka)


@pytest.fixture
def site(broker: Broker, tmp_path: Path) -> Iterator[Config]:
    config = settings(broker.url, tmp_path)
    asyncio.run(create_topics(config))
    yield config
    asyncio.run(delete_topics(config))


def run(config: Config, main: Callable[[KafkaTransport], Coroutine[Any, Any, None]]) -> None:
    async def opened() -> None:
        transport = await KafkaTransport.open(config, "worker")
        try:
            await main(transport)
        finally:
            await transport.close()

    asyncio.run(opened())


class Ear:
    """A listener that writes down what it hears, and may be told to wait or to fail when it loses partitions."""

    def __init__(self, losing: Callable[[Sequence[TopicPartition]], Awaitable[None]] | None = None) -> None:
        self.heard: list[str] = []
        self.busy = False
        self._losing = losing

    async def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        assert not self.busy, "two calls at once"
        self.heard.append("assigned")

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        assert not self.busy, "two calls at once"
        self.busy = True
        self.heard.append("revoked")
        try:
            if self._losing is not None:
                await self._losing(partitions)
        finally:
            self.busy = False


async def until(holds: Callable[[], bool], *polled: Consumer) -> list[Record]:
    """Poll until it holds; what was read meanwhile."""
    records: list[Record] = []
    async with asyncio.timeout(60):
        while not holds():
            for consumer in polled:
                records += await consumer.poll(max_records=3, timeout_s=0.05)
            await asyncio.sleep(0.01)
    return records


async def read(consumer: Consumer, count: int) -> list[Record]:
    records: list[Record] = []
    async with asyncio.timeout(60):
        while len(records) < count:
            records += await consumer.poll(max_records=count - len(records), timeout_s=0.1)
    return records


async def fill(transport: KafkaTransport, count: int, partition: int = 0, value: bytes = b"x") -> None:
    for number in range(count):
        await transport.send(Message(topic="frames", key=f"frame-{number}", value=value, partition=partition))


@asynccontextmanager
async def administrator(config: Config) -> Any:
    admin = AIOKafkaAdminClient(bootstrap_servers=config.transport.partition("://")[2])
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def remove_records(config: Config, partition: int, before: int) -> None:
    """As retention does, at once."""
    async with administrator(config) as admin:
        tp = StoredPartition(f"{config.topic_prefix}frames", partition)
        await admin.delete_records({tp: RecordsToDelete(before)})


# --- the gap ---------------------------------------------------------------------------------------------------------


def test_a_retention_that_passed_the_commit_is_an_error_with_the_numbers_and_never_a_skip(site: Config) -> None:
    async def main(transport: KafkaTransport) -> None:
        await fill(transport, 10)
        first = await transport.subscribe("worker", ["frames"], Ear())
        await read(first, 3)
        await first.commit({TopicPartition("frames", 0): 3})
        await first.close()
        await remove_records(site, 0, before=7)
        says = r"frames\[0\].*committed 3 .* first record is 7: 4 records were removed"
        with pytest.raises(Broken, match=says):
            await transport.start_positions("worker", ["frames"])
        second = await transport.subscribe("worker", ["frames"], Ear())
        with pytest.raises(Broken, match=says):
            await read(second, 1)
        await second.close()
        assert (await transport.lag("worker", "frames"))[0] == 7

    run(site, main)


def test_a_group_that_has_begun_and_committed_nothing_notices_a_retention_as_well(site: Config) -> None:
    async def main(transport: KafkaTransport) -> None:
        await fill(transport, 5)
        first = await transport.subscribe("worker", ["frames"], Ear())
        await read(first, 1)
        await first.close()
        await remove_records(site, 0, before=2)
        with pytest.raises(Broken, match=r"committed 0 .* 2 records were removed"):
            await transport.start_positions("worker", ["frames"])
        assert (await transport.start_positions("another", ["frames"]))[TopicPartition("frames", 0)] == 2

    run(site, main)


def test_a_retention_that_overtakes_a_member_while_it_reads_ends_the_poll(site: Config) -> None:
    async def main(transport: KafkaTransport) -> None:
        await fill(transport, 6, value=bytes(5 * MIB))  # one fetch brings one of them
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        await read(consumer, 1)
        await remove_records(site, 0, before=6)
        with pytest.raises(Broken, match="first record is 6: 6 records were removed"):
            await read(consumer, 6)
        await consumer.close()

    run(site, main)


# --- the group -------------------------------------------------------------------------------------------------------


def test_what_a_listener_raises_ends_the_next_poll(site: Config) -> None:
    async def fails(_: Sequence[TopicPartition]) -> None:
        raise Broken("nothing can be given back")

    async def main(transport: KafkaTransport) -> None:
        first = await transport.subscribe("worker", ["frames"], Ear(fails))
        await until(lambda: len(first.assignment) == PARTITIONS, first)
        second = await transport.subscribe("worker", ["frames"], Ear())
        with pytest.raises(Broken, match="nothing can be given back"):
            await until(lambda: False, first, second)
        await second.close()
        with pytest.raises(Broken, match="nothing can be given back"):
            await first.close()

    run(site, main)


def test_a_member_that_does_not_poll_gives_partitions_back_all_the_same(site: Config) -> None:
    async def main(transport: KafkaTransport) -> None:
        ear = Ear()
        silent = await transport.subscribe("worker", ["frames"], ear)
        await until(lambda: len(silent.assignment) == PARTITIONS, silent)
        other = await transport.subscribe("worker", ["frames"], Ear())
        await until(lambda: len(other.assignment) == 2 and len(silent.assignment) == 2, other)
        assert ear.heard == ["assigned", "revoked", "assigned"]
        await silent.close()
        await other.close()

    run(site, main)


def test_no_record_leaves_a_poll_while_its_partition_is_given_back_and_commits_still_count(site: Config) -> None:
    async def main(transport: KafkaTransport) -> None:
        await fill(transport, 20)
        finish = asyncio.Event()
        given: list[Consumer] = []

        async def waits(partitions: Sequence[TopicPartition]) -> None:
            await finish.wait()
            if TopicPartition("frames", 0) in partitions:
                await given[0].commit({TopicPartition("frames", 0): 5})

        ear = Ear(waits)
        first = await transport.subscribe("worker", ["frames"], ear)
        given.append(first)
        await read(first, 5)
        joining = asyncio.ensure_future(transport.subscribe("worker", ["frames"], Ear()))
        await until(lambda: ear.busy)
        assert [await first.poll(max_records=5, timeout_s=0.1) for _ in range(3)] == [[], [], []]
        finish.set()
        second = await joining
        again = await until(lambda: len(first.assignment) == len(second.assignment) == 2, first, second)
        again += [*await read(first, 1)] if not again and TopicPartition("frames", 0) in first.assignment else []
        again += [*await read(second, 1)] if not again else []
        assert again[0].offset == 5
        await first.close()
        await second.close()

    run(site, main)


def test_members_that_leave_at_once_hear_one_thing_at_a_time(site: Config) -> None:
    async def a_while(_: Sequence[TopicPartition]) -> None:
        await asyncio.sleep(1.0)  # longer than a member takes to hear that another has left

    async def main(transport: KafkaTransport) -> None:
        ears = [Ear(), Ear(a_while)]
        members = [await transport.subscribe("worker", ["frames"], ear) for ear in ears]
        await until(lambda: [len(member.assignment) for member in members] == [2, 2], *members)
        await asyncio.gather(*(member.close() for member in members))
        assert [ear.heard[-1] for ear in ears] == ["revoked", "revoked"]
        assert all(ear.heard.count("assigned") == ear.heard.count("revoked") for ear in ears)

    run(site, main)


SILENT = """
import asyncio, sys
from pathlib import Path
from tests.contract.test_transport_kafka import Ear, read, settings, until
from stream.transport.kafka import KafkaTransport
from stream.transport.protocol import TopicPartition
import msgspec

async def main():
    config = msgspec.structs.replace(settings(sys.argv[1], Path(sys.argv[2])), topic_prefix=sys.argv[3])
    transport = await KafkaTransport.open(config, "worker")

    async def commits(partitions):
        try:
            await consumer.commit({TopicPartition("frames", 0): 3})
            print("committed", flush=True)
        except Exception as error:
            print(type(error).__name__, flush=True)

    ear = Ear(commits)
    consumer = await transport.subscribe("worker", ["frames"], ear)
    await read(consumer, 3)
    print("holding", flush=True)
    sys.stdin.readline()  # nothing else runs here meanwhile: no heart beats
    await until(lambda: "revoked" in ear.heard, consumer)
    await consumer.close()
    await transport.close()
asyncio.run(main())
"""


@pytest.mark.slow
def test_a_member_that_was_silent_for_longer_than_its_session_commits_nothing(site: Config, tmp_path: Path) -> None:
    async def main(transport: KafkaTransport) -> None:
        await fill(transport, 10)
        silent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SILENT, site.transport, str(tmp_path), site.topic_prefix),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert silent.stdin is not None and silent.stdout is not None
        try:
            assert await silent.stdout.readline() == b"holding\n"
            other = await transport.subscribe("worker", ["frames"], Ear())
            await read(other, 10)
            await other.commit({TopicPartition("frames", 0): 10})
            await other.close()  # the group is empty now, and an empty group takes commits from anybody
            silent.stdin.write(b"\n")
            assert await silent.stdout.readline() == b"PartitionLost\n"
            assert await silent.wait() == 0
        finally:
            if silent.returncode is None:
                silent.kill()
                await silent.wait()
        assert (await transport.lag("worker", "frames"))[0] == 0

    run(site, main)


# --- sending ---------------------------------------------------------------------------------------------------------


def test_a_record_over_the_topics_limit_is_rejected_and_the_next_one_is_taken(site: Config) -> None:
    async def main(transport: KafkaTransport) -> None:
        decision = partial(Message, topic="decisions", key="k", partition=1)
        await transport.send(decision(value=b"before"))
        with pytest.raises(Rejected, match=r"5,242,881 bytes to .*decisions: .* max.message.bytes"):
            await transport.send(decision(value=bytes(5 * MIB)))
        assert (await transport.send(decision(value=b"after")))[1] == 1
        with pytest.raises(Rejected, match="send the bytes by reference"):
            await transport.send(decision(value=bytes(49 * MIB)))
        assert [record.value async for record in transport.read("decisions")] == [b"before", b"after"]

    run(site, main)


def test_large_records_sent_at_once_are_more_than_a_broker_takes_in_one_request_and_arrive(site: Config) -> None:
    async def main(transport: KafkaTransport) -> None:
        sends = [Message(topic="frames", key="k", value=bytes(30 * MIB), partition=number) for number in range(4)]
        async with asyncio.timeout(60):
            told = await asyncio.gather(*(transport.send(message) for message in sends))
        assert [(tp.partition, offset) for tp, offset in told] == [(0, 0), (1, 0), (2, 0), (3, 0)]

    run(site, main)


def test_a_topic_that_is_not_on_the_broker_is_named_with_the_command_that_makes_it(
    broker: Broker, tmp_path: Path
) -> None:
    async def main(transport: KafkaTransport) -> None:
        for call in (
            lambda: transport.partitions("frames"),
            lambda: transport.send(Message(topic="frames", key="", value=b"")),
            lambda: transport.subscribe("group", ["frames"], Ear()),
            lambda: transport.lag("group", "frames"),
            lambda: anext(transport.read("frames")),
        ):
            with pytest.raises(Misuse, match="spanwatch topics create"):
                await call()

    run(settings(broker.url, tmp_path), main)


# --- records of others -----------------------------------------------------------------------------------------------


def test_records_without_key_or_value_and_headers_that_are_no_text_are_read(site: Config) -> None:
    async def main(transport: KafkaTransport) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=site.transport.partition("://")[2])
        await producer.start()
        try:
            stored = f"{site.topic_prefix}frames"
            await producer.send_and_wait(stored, b"photo", None, 0, headers=[("frame", b"\xff{}"), ("none", None)])
            await producer.send_and_wait(stored, None, b"\xfe", 0)
        finally:
            await producer.stop()
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        photo, nothing = await read(consumer, 2)
        assert (photo.key, photo.value, dict(photo.headers)) == ("", b"photo", {"frame": "\ufffd{}", "none": ""})
        assert (nothing.key, nothing.value) == ("\ufffd", b"")
        await consumer.close()
        assert [record.value async for record in transport.read("frames")] == [b"photo", b""]

    run(site, main)


# --- outages ---------------------------------------------------------------------------------------------------------


def test_a_member_without_partitions_waits_and_lets_others_work(site: Config) -> None:
    async def main(transport: KafkaTransport) -> None:
        members = [await transport.subscribe("worker", ["frames"], Ear()) for _ in range(PARTITIONS + 1)]
        await until(lambda: sorted(len(member.assignment) for member in members)[0] == 0, *members)
        idle = next(member for member in members if not member.assignment)
        waiting = asyncio.ensure_future(idle.poll(max_records=1, timeout_s=0.5))
        turns = 0
        while not waiting.done():
            turns += 1
            await asyncio.sleep(0.01)
        assert turns > 3, "the loop stood still"
        assert await waiting == []
        for member in members:
            await member.close()

    run(site, main)


@pytest.mark.slow
def test_a_broker_killed_between_sends_and_commits_loses_nothing_and_is_waited_for(
    mortal: Broker, tmp_path: Path
) -> None:
    """Oracle: what was acknowledged is there, once; what was committed is not read again; the rest is."""
    config = settings(mortal.url, tmp_path, session_s=60.0)

    async def main(transport: KafkaTransport) -> None:
        async def send(number: int) -> None:
            message = Message(topic="frames", key=f"frame-{number}", value=bytes(MIB), partition=number % PARTITIONS)
            await patiently(partial(transport.send, message), deadline_s=120)

        await asyncio.gather(*(send(number) for number in range(8)))
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        done = {record.tp: record.offset + 1 for record in await read(consumer, 8)}
        mortal.kill()
        sending = asyncio.gather(*(send(number) for number in range(8, 16)))
        committing = asyncio.ensure_future(patiently(partial(consumer.commit, done), deadline_s=120))
        with pytest.raises(Unavailable):
            await KafkaTransport.open(config, "reader")
        await asyncio.to_thread(mortal.start)
        await sending
        await committing
        again = await read(consumer, 8)
        assert {record.key for record in again} == {f"frame-{number}" for number in range(8, 16)}
        keys = [record.key async for record in transport.read("frames")]
        assert sorted(keys) == sorted(f"frame-{number}" for number in range(16))
        mortal.kill()
        async with asyncio.timeout(60):
            while consumer._client._coordinator.coordinator_id is not None:  # until a heartbeat has failed
                await consumer.poll(max_records=1, timeout_s=0.1)
        closing = asyncio.create_task(consumer.close())
        await asyncio.wait({closing})
        assert not closing.cancelled(), "a task group takes a stage that ends as cancelled for one that was told to end"
        assert closing.exception() is None

    asyncio.run(create_topics(config))
    run(config, main)
