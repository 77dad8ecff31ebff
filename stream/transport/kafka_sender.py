"""Sends records to the broker and waits for the acknowledgement, through any outage, each record once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka

from stream.errors import Broken, Rejected, SpanwatchError, Unavailable
from stream.transport.kafka_client import REQUEST_S, meaning, translated
from stream.transport.protocol import Message

PRODUCE_S = 120.0
"""How long one request may take: a photo of 40 MB needs more than 30 s on a link of 10 Mbit/s."""
IN_FLIGHT_BYTES = 64 * 1024 * 1024
"""Of all records without an acknowledgement. aiokafka puts one batch of every partition into one request, and a broker
hangs up on a request of more than 100 MiB (socket.request.max.bytes), each time it is tried again."""
CLOSE_S = 5.0
"""What is not acknowledged when the process ends is sent again by the next one: there is little to wait for."""


@dataclass(slots=True)
class _Producer:
    """One producer of aiokafka's, and the records it goes on offering."""

    client: AIOKafkaProducer
    offered: set[asyncio.Future[Any]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A record whose sender gave up waiting; it is under way all the same."""

    message: Message
    producer: _Producer
    future: asyncio.Future[Any]


class KafkaSender:
    """One idempotent producer, acks=all, started by the first send.

    The producer offers a record until the broker has it or refuses it, however long that takes; `send` waits for
    `REQUEST_S` at a time. When the same record is sent again after such a time-out, the send waits on for the one that
    is already under way: a long outage leaves one copy in memory and one on the topic.

    A producer whose record is refused has a hole in its sequence, and the broker would refuse the next one as well: it
    finishes what it has, and another takes over. A record may then lie there twice, under the same key.
    """

    def __init__(self, arguments: dict[str, Any], max_bytes: int) -> None:
        """`arguments` are those of every client; `max_bytes` bounds key, value and headers together."""
        self._arguments = arguments | {"request_timeout_ms": int(PRODUCE_S * 1000)}
        self._max_bytes = max_bytes
        self._producer: _Producer | None = None
        self._starting = asyncio.Lock()
        self._room = _Room(IN_FLIGHT_BYTES)
        self._waiting: dict[tuple[str, int, str], _Waiting] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def send(self, message: Message, topic: str, partition: int) -> int:
        """Append to a topic (its name on the broker) and return the offset.

        Raises:
            Unavailable: no acknowledgement yet; send the same message again.
            Rejected: the broker will not have it, for its size or for a right that is missing. It is not sent.
        """
        size = _size(message)
        if size > self._max_bytes:
            raise Rejected(
                f"a record of {size:,} bytes for {topic} is over this client's limit of {self._max_bytes:,}"
                " (kafka.max_inline_bytes and 8 MiB): send the bytes by reference"
            )
        what = f"send {size:,} bytes to {topic}"
        known = (topic, partition, message.key)
        waiting = self._waiting.pop(known, None)
        if waiting is None or waiting.message.value != message.value or waiting.message.headers != message.headers:
            waiting = await self._offer(message, topic, partition, what)
        # Neither a time-out nor our own cancellation takes back what the producer has.
        done, _ = await asyncio.wait({waiting.future}, timeout=REQUEST_S)
        if not done:
            self._waiting[known] = waiting
            raise Unavailable(f"cannot {what}: no acknowledgement in {REQUEST_S:.0f} s; the broker is away or busy")
        try:
            return int(waiting.future.result().offset)
        except kafka.KafkaError as error:
            raise self._consequence(waiting.producer, error, what) from error

    async def _offer(self, message: Message, topic: str, partition: int, what: str) -> _Waiting:
        headers = [(name, value.encode()) for name, value in message.headers.items()]
        with translated(what):
            async with asyncio.timeout(REQUEST_S):
                await self._room.take(_size(message))
        producer = None
        future: asyncio.Future[Any] | None = None
        try:
            with translated(what):
                producer = await self._started()
                async with asyncio.timeout(REQUEST_S):
                    try:
                        future = await producer.client.send(
                            topic, message.value, message.key.encode(), partition, headers=headers
                        )
                    except kafka.KafkaError as error:
                        raise self._consequence(producer, error, what) from error
        finally:
            if future is None:
                self._room.give(_size(message))
        future.add_done_callback(producer.offered.discard)
        future.add_done_callback(_look_at)
        future.add_done_callback(lambda _: self._room.give(_size(message)))
        producer.offered.add(future)
        return _Waiting(message, producer, future)

    async def _started(self) -> _Producer:
        async with self._starting:
            if self._producer is None:
                client = AIOKafkaProducer(
                    **self._arguments,
                    acks="all",
                    enable_idempotence=True,
                    linger_ms=0,
                    max_request_size=self._max_bytes + 64 * 1024,  # ours is the limit that is told
                    retry_backoff_ms=200,
                )
                try:
                    async with asyncio.timeout(REQUEST_S):
                        await client.start()
                except BaseException:
                    await client.stop()
                    raise
                self._producer = _Producer(client)
            return self._producer

    def _consequence(self, producer: _Producer, error: kafka.KafkaError, what: str) -> SpanwatchError:
        """What a refused record means; after any refusal the next send starts anew."""
        self._retire(producer)
        ours = meaning(error, what)
        if isinstance(ours, Broken) and not isinstance(ours, Rejected):
            return Unavailable(f"{ours}; the producer is started anew")
        return ours

    def _retire(self, producer: _Producer) -> None:
        if self._producer is producer:
            self._producer = None
            task = asyncio.get_running_loop().create_task(_end(producer))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """End the producer; what it still offers after a few seconds is dropped."""
        if self._producer is not None:
            self._retire(self._producer)
        if self._leaving:
            await asyncio.wait(set(self._leaving))


class _Room:
    """Bytes that may be under way at once; first come, first served. One larger than all of it goes alone."""

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._door = asyncio.Lock()
        self._freed = asyncio.Event()

    async def take(self, size: int) -> None:
        async with self._door:
            while self._free < min(size, self._limit):
                self._freed.clear()
                await self._freed.wait()
            self._free -= min(size, self._limit)

    def give(self, size: int) -> None:
        self._free += min(size, self._limit)
        self._freed.set()


def _size(message: Message) -> int:
    headers = sum(len(name.encode()) + len(value.encode()) for name, value in message.headers.items())
    return len(message.value) + len(message.key.encode()) + headers


def _look_at(future: asyncio.Future[Any]) -> None:
    """Nobody may come back for it; an exception that was looked at is not reported at exit."""
    if not future.cancelled():
        future.exception()


async def _end(producer: _Producer) -> None:
    """Let it finish for a while, then end it: its own `stop` waits for what it offers, without a broker for ever."""
    client = producer.client
    if producer.offered:
        await asyncio.wait(set(producer.offered), timeout=CLOSE_S)
    if not producer.offered:
        await client.stop()
        return
    try:
        async with asyncio.timeout(CLOSE_S):
            await client._sender.close()  # waits for the request under way; when that is given up, it is ended too
    except (TimeoutError, kafka.KafkaError):
        pass
    client._closed = True
    await client.client.close()
    for future in list(producer.offered):
        future.set_exception(kafka.ProducerClosed())
