"""What any home of the log promises: written once against the protocol, run on every home there is.

Another home is one more function in `HOMES`.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stream.config import Config, KafkaSection, LocalSection
from stream.errors import BlobMissing, Broken, Misuse
from stream.messages import TOPICS, BlobRef
from stream.testing import Faulty
from stream.transport.kafka import KafkaTransport
from stream.transport.kafka_topics import create_topics, delete_topics
from stream.transport.local import LocalTransport
from stream.transport.protocol import Consumer, Message, Record, TopicPartition, Transport
from tests.kafka.broker import Broker

PARTITIONS = 4
Opener = Callable[[], Awaitable[Transport]]


async def open_local(folder: Path) -> Transport:
    return await LocalTransport.open(folder / "log", LocalSection(partitions=PARTITIONS, min_free_bytes=0))


async def open_local_in_faulty(folder: Path) -> Transport:
    return Faulty(await open_local(folder), [])


HOMES: Mapping[str, Callable[[Path], Coroutine[Any, Any, Transport]]] = {
    "local": open_local,
    "local-in-faulty": open_local_in_faulty,
}


def on_kafka(broker: Broker, folder: Path) -> Config:
    """Settings of a site of its own on the broker; a group notices its changes fast."""
    kafka = KafkaSection(partitions=PARTITIONS, blobs=str(folder / "blobs"), min_free_bytes=0, heartbeat_s=0.2)
    return Config(transport=broker.url, topic_prefix=f"contract-{secrets.token_hex(6)}.", kafka=kafka)


@pytest.fixture(params=[*HOMES, "kafka", "kafka-in-faulty"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same log each time it is called."""
    if request.param in HOMES:
        yield lambda: HOMES[request.param](tmp_path)
        return
    config = on_kafka(request.getfixturevalue("broker"), tmp_path)

    async def opened() -> Transport:
        transport = await KafkaTransport.open(config, "worker")
        return Faulty(transport) if request.param == "kafka-in-faulty" else transport

    asyncio.run(create_topics(config))
    yield opened
    asyncio.run(delete_topics(config))


class Ear:
    """A listener that writes down what it hears, and commits what was finished when it loses a partition."""

    def __init__(self, name: str = "", events: list[tuple[str, str, int]] | None = None) -> None:
        self.name = name
        self.events = events if events is not None else []
        self.consumer: Consumer | None = None
        self.done: dict[TopicPartition, int] = {}

    async def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.events += [(self.name, "assigned", tp.partition) for tp in partitions]

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.events += [(self.name, "revoked", tp.partition) for tp in partitions]
        if self.consumer is not None:
            await self.consumer.commit({tp: self.done[tp] for tp in partitions if tp in self.done})


def frame(key: str, value: bytes = b"x", partition: int | None = None, **headers: str) -> Message:
    return Message(topic="frames", key=key, value=value, headers=headers, partition=partition)


async def send_frames(transport: Transport, count: int, first: int = 0) -> set[str]:
    keys = [f"frame-{number}" for number in range(first, first + count)]
    await asyncio.gather(*(transport.send(frame(key)) for key in keys))
    return set(keys)


async def poll_until(
    consumers: Sequence[Consumer], enough: Callable[[list[Record]], bool], *, max_records: int = 3
) -> list[Record]:
    """Poll in turn until there is enough; the bound is of calls, far above what is needed, and not of time."""
    records: list[Record] = []
    for _ in range(400):
        if enough(records):
            return records
        for consumer in consumers:
            records += await consumer.poll(max_records=max_records, timeout_s=0.03)
    raise AssertionError(f"still not enough after {len(records)} records: {[c.assignment for c in consumers]}")


def spread(*consumers: Consumer) -> list[int]:
    return [len(consumer.assignment) for consumer in consumers]


async def listing(transport: Transport, topic: str, partition: int | None = None) -> list[Record]:
    return [record async for record in transport.read(topic, partition=partition)]


def run(main: Callable[[Transport], Coroutine[Any, Any, None]], home: Opener) -> None:
    async def opened() -> None:
        transport = await home()
        try:
            await main(transport)
        finally:
            await transport.close()

    asyncio.run(opened())


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_is_read_where_its_acknowledgement_said(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        told = {key: await transport.send(frame(key)) for key in ("a", "b", "c", "d", "e")}
        read = {record.key: (record.tp, record.offset) for record in await listing(transport, "frames")}
        assert read == told

    run(main, home)


def test_records_of_a_partition_are_read_in_the_order_sent(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        for number in range(20):
            await transport.send(frame("same", value=str(number).encode()))
        records = await listing(transport, "frames")
        assert [record.value for record in records] == [str(number).encode() for number in range(20)]
        assert [record.offset for record in records] == sorted(record.offset for record in records)
        assert [record.timestamp for record in records] == sorted(record.timestamp for record in records)

    run(main, home)


def test_the_same_key_lies_in_the_same_partition_and_keys_spread(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        first = {key: (await transport.send(frame(key)))[0] for key in map(str, range(64))}
        again = {key: (await transport.send(frame(key)))[0] for key in first}
        assert again == first
        assert {tp.partition for tp in first.values()} == set(range(PARTITIONS))

    run(main, home)


def test_a_given_partition_wins_over_the_key(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        for number in range(PARTITIONS):
            tp, _ = await transport.send(frame("same", partition=number))
            assert tp == TopicPartition("frames", number)

    run(main, home)


@pytest.mark.parametrize("key", ["", "Brücke-7/Träger", "橋梁", "🌉", "a\x00b", "x" * 500], ids=ascii)
def test_keys_and_headers_come_back_as_they_were(home: Opener, key: str) -> None:
    async def main(transport: Transport) -> None:
        headers = {"frame": '{"asset": "Köhlbrand"}', "ce_type": "spanwatch.Frame.v1.0", "empty": "", "bridge": "🌉"}
        await transport.send(Message(topic="results", key=key, value=b"v", headers=headers))
        (record,) = await listing(transport, "results")
        assert (record.key, dict(record.headers), record.value) == (key, headers, b"v")

    run(main, home)


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024])
def test_values_of_any_size_come_back(home: Opener, size: int) -> None:
    async def main(transport: Transport) -> None:
        value = (b"\x00\xff" * (size // 2 + 1))[:size]
        await transport.send(frame("k", value=value))
        (record,) = await listing(transport, "frames")
        assert record.value == value

    run(main, home)


def test_what_was_acknowledged_is_there_after_opening_again(home: Opener) -> None:
    async def main() -> None:
        transport = await home()
        told = await transport.send(frame("k", value=b"kept"))
        await transport.close()
        transport = await home()
        (record,) = await listing(transport, "frames")
        await transport.close()
        assert ((record.tp, record.offset), record.value) == (told, b"kept")

    asyncio.run(main())


def test_every_topic_has_its_partitions_and_an_unknown_one_is_named_with_those_there_are(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        assert {topic: await transport.partitions(topic) for topic in TOPICS} == dict.fromkeys(TOPICS, PARTITIONS)
        for call in (
            lambda: transport.partitions("frame"),
            lambda: transport.send(Message(topic="frame", key="", value=b"")),
            lambda: transport.subscribe("group", ["frame"], Ear()),
            lambda: transport.lag("group", "frame"),
            lambda: listing(transport, "frame"),
        ):
            with pytest.raises(Misuse, match="frames, results, alerts"):
                await call()

    run(main, home)


@pytest.mark.parametrize("partition", [-1, PARTITIONS])
def test_a_partition_that_is_not_there_is_refused(home: Opener, partition: int) -> None:
    async def main(transport: Transport) -> None:
        with pytest.raises(Misuse, match="partitions 0 to 3"):
            await transport.send(frame("k", partition=partition))
        with pytest.raises(Misuse, match="partitions 0 to 3"):
            await listing(transport, "frames", partition)
        assert await listing(transport, "frames") == []

    run(main, home)


# --- reading without a group -----------------------------------------------------------------------------------------


def test_read_ends_at_the_end_as_of_the_call(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        before = await send_frames(transport, 10)
        reading = transport.read("frames")
        seen = [(await anext(reading)).key]
        await send_frames(transport, 10, first=10)
        seen += [record.key async for record in reading]
        assert sorted(seen) == sorted(before)

    run(main, home)


def test_read_of_one_partition_and_of_an_empty_topic(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        for number in range(PARTITIONS):
            await transport.send(frame(f"of-{number}", partition=number))
        assert [record.key for record in await listing(transport, "frames", 2)] == ["of-2"]
        assert await listing(transport, "decisions") == []

    run(main, home)


def test_read_merges_partitions_by_time(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        sent = [str(number) for number in range(40)]
        for key in sent:
            await transport.send(frame(key))
        records = await listing(transport, "frames")
        times = [record.timestamp for record in records]  # as fine as the home's clock: a millisecond, or better
        assert times == sorted(times) and {record.key for record in records} == set(sent)
        assert len({record.partition for record in records}) > 1

    run(main, home)


def test_following_goes_on_with_what_comes_later(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        await transport.send(frame("early"))
        following = transport.read("frames", follow=True)
        assert (await anext(following)).key == "early"
        late = asyncio.ensure_future(anext(following))
        await transport.send(frame("late"))
        assert (await asyncio.wait_for(late, 60)).key == "late"
        await transport.send(frame("later"))
        assert (await asyncio.wait_for(anext(following), 60)).key == "later"

    run(main, home)


def test_a_compacted_topic_yields_at_least_the_latest_of_each_key(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        for turn in range(3):
            for key in ("alert-1", "alert-2"):
                await transport.send(Message(topic="alerts", key=key, value=f"{key} {turn}".encode()))
        latest = {record.key: record.value for record in await listing(transport, "alerts")}
        assert latest == {"alert-1": b"alert-1 2", "alert-2": b"alert-2 2"}

    run(main, home)


# --- groups ----------------------------------------------------------------------------------------------------------


def test_a_member_gets_every_record_in_order_and_a_later_one_too(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        sent = await send_frames(transport, 50)
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        records = await poll_until([consumer], lambda got: len(got) == 50)
        assert {record.key for record in records} == sent
        for number in range(PARTITIONS):
            offsets = [record.offset for record in records if record.partition == number]
            assert offsets == sorted(set(offsets))
        await transport.send(frame("later"))
        assert [record.key for record in await poll_until([consumer], bool)] == ["later"]
        await consumer.close()

    run(main, home)


def test_a_poll_without_records_returns_none_and_a_cancelled_one_loses_none(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        got = list(await consumer.poll(max_records=10, timeout_s=0.0))
        assert got == []
        for number in range(10):
            waiting = asyncio.ensure_future(consumer.poll(max_records=10, timeout_s=60))
            for _ in range(number):
                await asyncio.sleep(0)  # let it get a little further each time before it is cancelled
            waiting.cancel()
            await asyncio.wait([waiting])
            await transport.send(frame(f"frame-{number}"))
            if not waiting.cancelled():
                got += waiting.result()
        got += await poll_until([consumer], lambda late: len(got) + len(late) >= 10)
        assert sorted(record.key for record in got) == sorted(f"frame-{number}" for number in range(10))
        await consumer.close()

    run(main, home)


def test_a_busy_partition_does_not_keep_the_others_waiting(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        for number in range(30):
            await transport.send(frame(f"busy-{number}", partition=0))
        await transport.send(frame("quiet", partition=3))
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        records = await poll_until([consumer], lambda got: len(got) == 31, max_records=1)
        assert "quiet" in [record.key for record in records[:8]]
        await consumer.close()

    run(main, home)


def test_what_was_not_committed_is_read_again_by_the_next_member(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        sent = await send_frames(transport, 20)
        first = await transport.subscribe("worker", ["frames"], Ear())
        await poll_until([first], lambda got: len(got) == 20)
        await first.close()
        second = await transport.subscribe("worker", ["frames"], Ear())
        again = await poll_until([second], lambda got: len(got) == 20)
        assert {record.key for record in again} == sent
        await second.close()

    run(main, home)


def test_what_was_committed_is_not_read_again_even_after_opening_again(home: Opener) -> None:
    async def main() -> None:
        transport = await home()
        await asyncio.gather(*(transport.send(frame(str(number), partition=1)) for number in range(10)))
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        await poll_until([consumer], lambda got: len(got) == 10)
        await consumer.commit({TopicPartition("frames", 1): 7})
        await consumer.close()
        await transport.close()
        transport = await home()
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        again = await poll_until([consumer], lambda got: len(got) >= 3)
        assert [record.offset for record in again] == [7, 8, 9]
        await consumer.close()
        await transport.close()

    asyncio.run(main())


def test_a_member_that_had_nothing_to_do_reads_what_another_left(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        for number in range(PARTITIONS):
            await transport.send(frame(str(number), partition=number))
        a = await transport.subscribe("worker", ["frames"], Ear())
        b = await transport.subscribe("worker", ["frames"], Ear())
        seen = await poll_until([a, b], lambda got: spread(a, b) == [2, 2] and len(got) >= 4)
        assert len(seen) >= 4
        assert list(await a.poll(max_records=9, timeout_s=0.1)) == []
        given_up = {tp.partition for tp in b.assignment}
        await b.close()
        again = await poll_until([a], lambda got: given_up <= {record.partition for record in got})
        assert {record.key for record in again} <= {str(number) for number in range(PARTITIONS)}
        await a.close()

    run(main, home)


def test_groups_do_not_see_each_others_commits(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        await transport.send(frame("k", partition=0))
        for group in ("worker", "archive"):
            consumer = await transport.subscribe(group, ["frames"], Ear())
            records = await poll_until([consumer], bool)
            assert [record.key for record in records] == ["k"]
            await consumer.commit({records[0].tp: 1})
            await consumer.close()

    run(main, home)


def test_a_commit_never_lowers_what_was_committed(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        for number in range(5):
            await transport.send(frame(str(number), partition=0))
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        await poll_until([consumer], lambda got: len(got) == 5)
        await consumer.commit({TopicPartition("frames", 0): 4})
        await consumer.commit({TopicPartition("frames", 0): 2})
        assert (await transport.lag("worker", "frames"))[0] == 1
        await consumer.close()

    run(main, home)


def test_a_member_that_does_not_hold_a_partition_cannot_commit_it(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        await send_frames(transport, 20)
        a = await transport.subscribe("worker", ["frames"], Ear())
        b = await transport.subscribe("worker", ["frames"], Ear())
        await poll_until([a, b], lambda _: spread(a, b) == [2, 2])
        for tp in a.assignment:
            with pytest.raises(Broken, match="not held"):
                await b.commit({tp: 1})
        await a.close()
        with pytest.raises(Broken, match="not held"):
            await a.commit({TopicPartition("frames", 0): 1})
        assert sum((await transport.lag("worker", "frames")).values()) == 20
        await b.close()

    run(main, home)


def test_two_members_share_the_partitions_and_a_third_joins_and_leaves(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        a = await transport.subscribe("worker", ["frames"], Ear())
        await poll_until([a], lambda _: spread(a) == [4])
        b = await transport.subscribe("worker", ["frames"], Ear())
        await poll_until([a, b], lambda _: spread(a, b) == [2, 2])
        c = await transport.subscribe("worker", ["frames"], Ear())
        await poll_until([a, b, c], lambda _: sorted(spread(a, b, c)) == [1, 1, 2])
        held = [tp for consumer in (a, b, c) for tp in consumer.assignment]
        assert sorted(held) == [TopicPartition("frames", number) for number in range(4)]
        sent = await send_frames(transport, 30)
        records = await poll_until([a, b, c], lambda got: len(got) >= 30)
        assert sorted(record.key for record in records) == sorted(sent)
        await c.close()
        await poll_until([a, b], lambda _: spread(a, b) == [2, 2])
        await a.close()
        await poll_until([b], lambda _: spread(b) == [4])
        await b.close()

    run(main, home)


def test_a_partition_is_revoked_from_one_before_it_is_assigned_to_another(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        events: list[tuple[str, str, int]] = []
        ears = {name: Ear(name, events) for name in "abc"}
        a = await transport.subscribe("worker", ["frames"], ears["a"])
        await poll_until([a], lambda _: spread(a) == [4])
        b = await transport.subscribe("worker", ["frames"], ears["b"])
        await poll_until([a, b], lambda _: spread(a, b) == [2, 2])
        await a.close()
        await poll_until([b], lambda _: spread(b) == [4])
        await b.close()
        for number in range(PARTITIONS):
            story = [(name, what) for name, what, partition in events if partition == number]
            assert [what for _, what in story] == ["assigned", "revoked"] * (len(story) // 2)
            assert all(story[turn][0] == story[turn + 1][0] for turn in range(0, len(story), 2))
            assert story[0][0] == "a" and story[-1][0] == "b"

    run(main, home)


def test_what_is_committed_while_a_partition_is_revoked_is_not_read_by_the_next_owner(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        await send_frames(transport, 40)
        ear = Ear()
        a = ear.consumer = await transport.subscribe("worker", ["frames"], ear)
        for record in await poll_until([a], lambda got: len(got) == 40):
            ear.done[record.tp] = record.offset + 1
        b = await transport.subscribe("worker", ["frames"], Ear())
        again = await poll_until([a, b], lambda _: spread(a, b) == [2, 2])
        await a.close()
        again += await poll_until([b], lambda _: spread(b) == [4])
        assert again == []
        assert set((await transport.lag("worker", "frames")).values()) == {0}
        await b.close()

    run(main, home)


def test_topics_subscribed_together_are_held_together(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        a = await transport.subscribe("findings", ["results", "decisions"], Ear())
        b = await transport.subscribe("findings", ["results", "decisions"], Ear())
        await poll_until([a, b], lambda _: spread(a, b) == [4, 4])
        for consumer in (a, b):
            held = {topic: {tp.partition for tp in consumer.assignment if tp.topic == topic} for topic in TOPICS}
            assert held["results"] == held["decisions"] and len(held["results"]) == 2
        await a.close()
        await b.close()

    run(main, home)


def test_lag_counts_what_a_group_has_not_committed(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        for number in range(6):
            await transport.send(frame(str(number), partition=number % 2))
        assert await transport.lag("nobody", "frames") == {0: 3, 1: 3, 2: 0, 3: 0}
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        await poll_until([consumer], lambda got: len(got) == 6)
        assert await transport.lag("worker", "frames") == {0: 3, 1: 3, 2: 0, 3: 0}
        await consumer.commit({TopicPartition("frames", 0): 2, TopicPartition("frames", 1): 3})
        assert await transport.lag("worker", "frames") == {0: 1, 1: 0, 2: 0, 3: 0}
        await consumer.close()

    run(main, home)


# --- blobs -----------------------------------------------------------------------------------------------------------


def test_a_blob_comes_back_as_it_was_put_and_is_named_by_its_digest(home: Opener, tmp_path: Path) -> None:
    async def main(transport: Transport) -> None:
        data = bytes(range(256)) * 20_000
        photo = tmp_path / "DJI 0001 ü.JPG"
        photo.write_bytes(data)
        ref = await transport.blobs.put(photo)
        assert (ref.sha256, ref.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        assert await transport.blobs.put(data) == ref
        assert await transport.blobs.get(ref) == data
        empty = await transport.blobs.put(b"")
        assert await transport.blobs.get(empty) == b""

    run(main, home)


def test_a_blob_exists_from_put_to_delete_and_is_missing_otherwise(home: Opener) -> None:
    async def main(transport: Transport) -> None:
        digest = hashlib.sha256(b"photo").hexdigest()
        ref = BlobRef(sha256=digest, size_bytes=5, url=f"blob:{digest}")
        assert not await transport.blobs.exists(digest)
        with pytest.raises(BlobMissing, match=digest):
            await transport.blobs.get(ref)
        assert await transport.blobs.put(b"photo") == ref
        assert await transport.blobs.exists(digest)
        await transport.blobs.delete(digest)
        await transport.blobs.delete(digest)
        assert not await transport.blobs.exists(digest)
        with pytest.raises(BlobMissing):
            await transport.blobs.get(ref)

    run(main, home)
