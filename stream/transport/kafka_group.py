"""What every member of a Kafka group is, whoever drives it: its client, where it begins, how it commits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as StoredPartition
from aiokafka import errors as kafka
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from stream.config import KafkaSection
from stream.errors import Broken
from stream.transport.kafka_client import REQUEST_S, meaning, translated
from stream.transport.kafka_offsets import committed_offsets
from stream.transport.kafka_records import Start, start_of
from stream.transport.protocol import TopicPartition

FETCH_BYTES = 64 * 1024 * 1024
"""The most one response brings; a member asks for the next one when it has handed this one out."""
PARTITION_FETCH_BYTES = 4 * 1024 * 1024
"""About one frame of one partition; a larger record still comes, alone. Larger fetches cost more processor time."""
METADATA_MS = 5000
"""How old what a member knows of the topics may be."""
MAX_POLL_S = 600.0
"""A member that hands out nothing for so long leaves the group; longer than any frame takes under back-pressure."""

K = TypeVar("K", bound=tuple[str, int])
"""A partition by its topic on the broker and its number, of whichever library."""


def group_client(
    arguments: Mapping[str, Any], section: KafkaSection, group_id: str, *, max_records: int | None = None
) -> AIOKafkaConsumer:
    """A member that is not started: explicit commits and starts only, and partition n of all its topics or of none.

    Args:
        arguments: those of every client, see `connection`.
        group_id: the group's name on the broker.
        max_records: the most one fetch hands out; None: whoever reads says.
    """
    return AIOKafkaConsumer(
        **(dict(arguments) | {"request_timeout_ms": int(join_s(section) * 1000)}),
        group_id=group_id,
        group_instance_id=section.member,
        enable_auto_commit=False,
        auto_offset_reset="none",
        # Ranges of equal counts, of topics subscribed together, hand out partition n of all of them to one member.
        # Round robin, which Faust would take, does not.
        partition_assignment_strategy=[RangePartitionAssignor],
        session_timeout_ms=int(section.session_timeout_s * 1000),
        heartbeat_interval_ms=int(section.heartbeat_s * 1000),
        rebalance_timeout_ms=int(section.rebalance_timeout_s * 1000),
        max_poll_interval_ms=int(MAX_POLL_S * 1000),
        max_poll_records=max_records,
        fetch_max_bytes=FETCH_BYTES,
        max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
        fetch_max_wait_ms=100,
        # A broker that dies during a join leaves the leader without metadata: it would share out nothing for as long.
        metadata_max_age_ms=METADATA_MS,
    )


def join_s(section: KafkaSection) -> float:
    """How long a request of a member may take.

    The answer to a join comes when all members have given their partitions back; the request must not end before.
    """
    return max(REQUEST_S, section.rebalance_timeout_s + 10.0)


async def starts_of(
    client: AIOKafkaConsumer, group_id: str, partitions: Mapping[K, TopicPartition]
) -> Mapping[K, Start]:
    """Where a member begins in its partitions; each by its topic on the broker and its number.

    Raises:
        Broken: records the group has not done are gone, or the log is not the one it has read.
        Unavailable: no answer.
    """
    wanted = [StoredPartition(*tp) for tp in partitions]
    if not wanted:  # more members than partitions
        return {}
    with translated(f"read where group {group_id} begins"):
        async with asyncio.timeout(REQUEST_S):
            committed = await committed_offsets(client._client, group_id, wanted)
            first = await client.beginning_offsets(wanted)
            end = await client.end_offsets(wanted)
    return {
        key: start_of(group_id, ours, committed[tp], (first[tp], end[tp]), tp.topic)
        for (key, ours), tp in zip(partitions.items(), wanted, strict=True)
    }


async def commit(client: AIOKafkaConsumer, offsets: Mapping[K, int], *, within_s: float) -> None:
    """Durably note that all records below each offset are done; see `Consumer.commit` for what it raises."""
    with translated(f"commit {', '.join(f'{topic}[{number}] at {at}' for (topic, number), at in offsets.items())}"):
        async with asyncio.timeout(within_s):
            await client.commit({StoredPartition(*tp): offset for tp, offset in offsets.items()})


async def check(client: AIOKafkaConsumer) -> None:
    """Raise what the group has to say: a right that is missing, or a membership that has ended for good.

    aiokafka says it to callers of `getmany`; one who reads past that, as Faust does, would wait for ever.
    """
    with translated("be a member of the group"):
        if client._coordinator is not None:  # it is made by the first subscription
            client._coordinator.check_errors()


def is_passing(error: BaseException) -> bool:
    """A fetch that met a rebalance: before the explicit start was set, or for a partition that has gone."""
    return isinstance(error, kafka.NoOffsetForPartitionError | kafka.IllegalStateError)


def cause(error: BaseException | None, what: str) -> BaseException:
    """An error of Kafka's in our words; another one is nothing we know, and stays as it is."""
    if error is None:
        return Broken(f"cannot {what}, and nobody said why")
    return meaning(error, what) if isinstance(error, kafka.KafkaError) else error
