"""Reads a topic without a group: from its first record to its end as of the call, or on for ever."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as StoredPartition

from stream.errors import Unavailable
from stream.transport.kafka_client import REQUEST_S, translated
from stream.transport.kafka_records import record_of
from stream.transport.protocol import Record, TopicPartition

Spans = Mapping[TopicPartition, tuple[int, int]]
"""The first offset, and the one after the last, of each partition."""
ROUND_S = 1.0
AT_ONCE = 100
"""Records of one partition held ready; large ones come one fetch at a time anyway."""


class Reading:
    """One pass over partitions of a topic, merged by time."""

    def __init__(
        self, client: Callable[[], AIOKafkaConsumer], topic: str, stored: str, spans: asyncio.Future[Spans]
    ) -> None:
        """
        Args:
            client: makes one that belongs to no group.
            stored: the topic's name on the broker.
            spans: what to read; it began when the caller asked, so that the end is that of the call.
        """
        self._make = client
        self._topic = topic
        self._stored = stored
        self._spans = spans
        self._ready: dict[int, deque[Record]] = {}

    async def records(self, *, follow: bool) -> AsyncIterator[Record]:
        """The records, one by one. Their client is closed when the iteration ends or is dropped.

        Raises:
            Unavailable: the broker is away; with `follow` it is waited for instead.
        """
        spans = await self._spans
        if not follow and all(first >= end for first, end in spans.values()):
            return
        client = self._make()
        try:
            with translated(f"read {self._stored}"):
                async with asyncio.timeout(REQUEST_S):
                    await client.start()
            client.assign([self._of(tp.partition) for tp in spans])
            for tp, (first, _) in spans.items():
                client.seek(self._of(tp.partition), first)
            async with aclosing(self._to_the_end(client, spans)) as merged:
                async for record in merged:
                    yield record
            for tp, (_, end) in spans.items():
                client.seek(self._of(tp.partition), end)  # what came after it was passed over above
            while follow:
                for record in sorted(await self._next(client, None), key=lambda found: found.timestamp):
                    yield record
        finally:
            await client.stop()

    async def _to_the_end(self, client: AIOKafkaConsumer, spans: Spans) -> AsyncGenerator[Record]:
        """Merge: the oldest of the heads may go when every partition that is not at its end shows its head."""
        ends = {tp.partition: end for tp, (first, end) in spans.items() if first < end}
        self._ready = {number: deque() for number in ends}
        silent_since = asyncio.get_running_loop().time()
        while ends or any(self._ready.values()):
            blank = [number for number in ends if not self._ready[number]]
            if blank:
                records = await self._next(client, blank)
                for record in records:
                    if record.offset < ends[record.partition]:
                        self._ready[record.partition].append(record)
                for number in blank:
                    if await client.position(self._of(number)) >= ends[number]:
                        del ends[number]
                now = asyncio.get_running_loop().time()
                silent_since = now if records else silent_since
                if now - silent_since > REQUEST_S:
                    raise Unavailable(
                        f"cannot read {self._stored}: no record in {REQUEST_S:.0f} s; is the broker away?"
                    )
                continue
            oldest = min((ready for ready in self._ready.values() if ready), key=lambda ready: ready[0].timestamp)
            yield oldest.popleft()

    async def _next(self, client: AIOKafkaConsumer, partitions: list[int] | None) -> list[Record]:
        chosen = [self._of(number) for number in partitions or ()]
        with translated(f"read {self._stored}"):
            batches = await client.getmany(*chosen, timeout_ms=int(ROUND_S * 1000), max_records=AT_ONCE)
        return [
            record_of(TopicPartition(self._topic, tp.partition), raw) for tp, batch in batches.items() for raw in batch
        ]

    def _of(self, partition: int) -> StoredPartition:
        return StoredPartition(self._stored, partition)
