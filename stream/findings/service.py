"""The findings loop on any transport that promises what the protocol says: poll, work off, commit, one record a time.

What happens to a record is findings/partitions.py. On Kafka a Faust agent stands in for this loop: findings/agents.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from stream.findings.partitions import DEADLINE_S, DECISIONS, RESULTS, Duty, Partitions
from stream.patience import patiently
from stream.transport.protocol import Consumer, Record, TopicPartition

POLL_RECORDS = 100
POLL_S = 0.5
"""How long an idle role takes to notice that it should stop."""


class Findings:
    """One member of the findings group; `run` is the whole role. It is the transport's Listener for its own group."""

    def __init__(self, duty: Duty) -> None:
        self._duty = duty
        self._partitions = Partitions(duty)
        self._stop = asyncio.Event()
        self._consumer: Consumer | None = None
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether the group has been joined and the log answers."""
        return self._ready

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish and commit the record in hand.

        Raises:
            Unavailable: the transport was away for longer than the deadline.
            Broken: a record cannot be read, or the partition was taken away; nothing past it was committed.
            Misuse: the topics have different partition counts.
        """
        self._stop = stop
        await self._partitions.check()
        join = partial(self._duty.transport.subscribe, self._duty.group, (RESULTS, DECISIONS), self)
        consumer = self._consumer = await patiently(join, deadline_s=DEADLINE_S)
        try:
            poll = partial(consumer.poll, max_records=POLL_RECORDS, timeout_s=POLL_S)
            while not stop.is_set():
                records = await patiently(poll, deadline_s=DEADLINE_S)
                self._ready = True
                await self._partitions.take(records, self)
                await self._partitions.measure()
        finally:
            self._ready = False
            await consumer.close()

    async def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Read the state of these partitions before any record of theirs is handed out."""
        await self._partitions.load(tp.partition for tp in partitions if tp.topic == RESULTS)

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop them: every finished record is committed already, the rest is the next member's."""
        self._partitions.drop(tp.partition for tp in partitions)

    @property
    def stopping(self) -> bool:
        """See `Driver.stopping`."""
        return self._stop.is_set()

    async def finish(self, record: Record) -> None:
        """See `Driver.finish`: here each record is committed by itself."""
        if self._consumer is None:
            raise AssertionError("a record was taken before the group was joined")
        commit = partial(self._consumer.commit, {record.tp: record.offset + 1})
        await patiently(commit, deadline_s=DEADLINE_S)
