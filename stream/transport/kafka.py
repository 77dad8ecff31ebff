"""The distributed home of the log: Apache Kafka, spoken through aiokafka, with a folder of blobs beside it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as StoredPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.metadata import MetadataRequest

from stream.config import Config, RoleName
from stream.errors import Misuse
from stream.transport import topics
from stream.transport.blobs import FolderBlobs
from stream.transport.kafka_client import (
    REQUEST_S,
    connection,
    probe,
    translated,
)
from stream.transport.kafka_consumer import KafkaConsumer
from stream.transport.kafka_group import group_client, join_s
from stream.transport.kafka_offsets import committed_offsets
from stream.transport.kafka_read import Reading
from stream.transport.kafka_records import Start, start_of
from stream.transport.kafka_sender import KafkaSender
from stream.transport.protocol import Listener, Message, Record, TopicPartition


class KafkaTransport:
    """The `Transport` on a Kafka broker; any number of processes on any number of boxes.

    `send` returns when all in-sync copies have the record (acks=all, idempotent). The partition of a key is its CRC-32
    modulo the count, as on the embedded log; a producer that is not ours may choose any partition of `frames`.
    Offsets rise and may have gaps. Topics must be there (`spanwatch topics create`): nothing is made on the way.
    """

    def __init__(self, config: Config, arguments: dict[str, Any]) -> None:
        """Use `open`."""
        section = config.kafka
        self._url = config.transport
        self._prefix = config.topic_prefix
        self._section = section
        self._arguments = arguments
        self._blobs = FolderBlobs(Path(section.blobs), section.min_free_bytes)
        self._sender = KafkaSender(arguments, section.max_inline_bytes + topics.PHOTO_HEADROOM_BYTES)
        self._admin = AIOKafkaAdminClient(**arguments)
        self._looking: AIOKafkaConsumer | None = None
        """A client of no group, for looking at the log."""
        self._opening = asyncio.Lock()
        self._counts: dict[str, int] = {}
        self._consumers: list[KafkaConsumer] = []

    @classmethod
    async def open(cls, config: Config, role: RoleName) -> KafkaTransport:
        """Connect, so that a wrong address, login or certificate is told at once.

        Raises:
            Unavailable: no broker answers.
            Broken: the broker refuses the login, or its certificate is not to be trusted.
            Misuse: the URL, the prefix, or the login is incomplete.
        """
        if config.topic_prefix:
            topics.check_name("topic_prefix", config.topic_prefix)
        arguments = connection(config, role)
        transport = cls(config, arguments)
        try:
            with translated(f"reach {config.transport}"):
                async with asyncio.timeout(REQUEST_S):
                    await probe(arguments)
                    await transport._admin.start()
        except BaseException:
            await transport.close()
            raise
        return transport

    @property
    def url(self) -> str:
        """`kafka://HOST:PORT[,HOST:PORT]`."""
        return self._url

    @property
    def blobs(self) -> FolderBlobs:
        """The folder of photos by reference."""
        return self._blobs

    @property
    def max_inline_bytes(self) -> int:
        """From the settings."""
        return self._section.max_inline_bytes

    # ── records ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def partitions(self, topic: str) -> int:
        """See `Transport.partitions`; asked once, since a topic whose count changes needs a restart of its roles."""
        stored = topics.stored_name(self._prefix, topic)
        if topic not in self._counts:
            with translated(f"read how many partitions {stored} has"):
                async with asyncio.timeout(REQUEST_S):
                    # Not by `describe_topics`: on a broker that makes topics of itself, asking would make this one.
                    request = MetadataRequest([stored], allow_auto_topic_creation=False)
                    client = self._admin._client
                    answer = await client.send(client.get_random_node(), request)
                (found,) = answer.to_object()["topics"]
                if found["error_code"]:
                    raise _error(found["error_code"])(stored)
            self._counts[topic] = len(found["partitions"])
        return self._counts[topic]

    async def send(self, message: Message) -> tuple[TopicPartition, int]:
        """See `Transport.send`.

        Raises:
            Broken: the broker refuses the record: its size, or a right that is missing.
        """
        count = await self.partitions(message.topic)
        try:
            key = message.key.encode()
            for value in message.headers.values():
                value.encode()
        except UnicodeEncodeError as error:
            raise Misuse(f"key and headers of a {message.topic!r} record must be Unicode text: {error}") from error
        chosen = zlib.crc32(key) % count if message.partition is None else message.partition
        self._check(message.topic, chosen, count)
        stored = topics.stored_name(self._prefix, message.topic)
        offset = await self._sender.send(message, stored, chosen)
        return TopicPartition(message.topic, chosen), offset

    def read(self, topic: str, *, partition: int | None = None, follow: bool = False) -> AsyncIterator[Record]:
        """See `Transport.read`: by the broker's time across partitions, and in any case by offset within each."""
        stored = topics.stored_name(self._prefix, topic)
        spans = asyncio.ensure_future(self._spans_of(topic, partition))
        client = partial(AIOKafkaConsumer, **self._arguments, enable_auto_commit=False, auto_offset_reset="none")
        return Reading(client, topic, stored, spans).records(follow=follow)

    async def _spans_of(self, topic: str, partition: int | None) -> Mapping[TopicPartition, tuple[int, int]]:
        count = await self.partitions(topic)
        if partition is not None:
            self._check(topic, partition, count)
        chosen = range(count) if partition is None else [partition]
        return await self._spans([TopicPartition(topic, number) for number in chosen])

    def _check(self, topic: str, partition: int, count: int) -> None:
        if not 0 <= partition < count:
            raise Misuse(f"{topic!r} has partitions 0 to {count - 1}, not {partition}")

    # ── groups ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def subscribe(self, group: str, topics: Sequence[str], listener: Listener) -> KafkaConsumer:
        """See `Transport.subscribe`: ranges of equal counts hand out partition n of all topics together."""
        await self._common_partitions(topics)
        client = group_client(self._arguments, self._section, self.group_id(group))
        await _start(client, f"join the group {group}")
        names = {name: self._name(name) for name in topics}
        consumer = KafkaConsumer(client, listener, names, partial(self._starts, group))
        await consumer.join(join_s(self._section))
        self._consumers.append(consumer)
        return consumer

    def group_id(self, group: str) -> str:
        """The group's name on the broker, with the site's prefix."""
        return topics.check_name("prefix and group", self._prefix + topics.check_name("group", group))

    async def start_positions(self, group: str, topics: Sequence[str]) -> Mapping[TopicPartition, int]:
        """Where a group begins in each partition of these topics.

        Raises:
            Broken: records the group has not done are gone, or the log is not the one it has read.
        """
        chosen = [TopicPartition(topic, number) for topic in topics for number in range(await self.partitions(topic))]
        return {tp: start.offset for tp, start in (await self._starts(group, chosen)).items()}

    async def _starts(self, group: str, chosen: Iterable[TopicPartition]) -> Mapping[TopicPartition, Start]:
        wanted = list(chosen)
        committed = await self._committed(group, wanted)
        spans = await self._spans(wanted)
        return {tp: start_of(self.group_id(group), tp, committed[tp], spans[tp], self._name(tp.topic)) for tp in wanted}

    async def lag(self, group: str, topic: str) -> Mapping[int, int]:
        """See `Transport.lag`; in offsets, so records that compaction has removed in between count as well."""
        wanted = [TopicPartition(topic, number) for number in range(await self.partitions(topic))]
        committed = await self._committed(group, wanted)
        spans = await self._spans(wanted)
        found = {}
        for tp, (first, end) in spans.items():
            done = committed[tp]
            found[tp.partition] = end - (first if done is None else done)
        return found

    async def _common_partitions(self, names: Sequence[str]) -> int:
        return topics.common_partitions({name: await self.partitions(name) for name in names}, names)

    async def _committed(self, group: str, wanted: Sequence[TopicPartition]) -> dict[TopicPartition, int | None]:
        client = await self._client()
        with translated(f"read the offsets of group {group}"):
            async with asyncio.timeout(REQUEST_S):
                found = await committed_offsets(client._client, self.group_id(group), map(self._of, wanted))
        return {tp: found[self._of(tp)] for tp in wanted}

    async def _spans(self, wanted: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """The first offset there is, and the one after the last, of each partition."""
        client = await self._client()
        stored = {tp: self._of(tp) for tp in wanted}
        with translated("read the ends of the log"):
            async with asyncio.timeout(REQUEST_S):
                first = await client.beginning_offsets(list(stored.values()))
                end = await client.end_offsets(list(stored.values()))
        return {tp: (first[there], end[there]) for tp, there in stored.items()}

    async def _client(self) -> AIOKafkaConsumer:
        """A client that looks and never joins."""
        async with self._opening:
            if self._looking is None:
                client = AIOKafkaConsumer(**self._arguments, enable_auto_commit=False)
                await _start(client, "look at the log")
                self._looking = client
            return self._looking

    def _name(self, topic: str) -> str:
        return topics.stored_name(self._prefix, topic)

    def _of(self, tp: TopicPartition) -> StoredPartition:
        return StoredPartition(self._name(tp.topic), tp.partition)

    async def close(self) -> None:
        """See `Transport.close`; consumers still open lose what they hold, unheard."""
        for consumer in self._consumers:
            await consumer.abandon()
        if self._looking is not None:
            await self._looking.stop()
        await self._sender.close()
        await self._admin.close()


async def _start(client: AIOKafkaConsumer, what: str) -> None:
    try:
        with translated(what):
            async with asyncio.timeout(REQUEST_S):
                await client.start()
    except BaseException:
        await client.stop()
        raise


def _error(code: int) -> type[Exception]:
    kind: type[Exception] = for_code(code)
    return kind
