"""What a group has committed, asked so that a broker's "not now" or "you may not" is never read as "nothing yet"."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from aiokafka import TopicPartition as StoredPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import for_code
from aiokafka.protocol.commit import OffsetFetchRequest


async def committed_offsets(
    client: AIOKafkaClient, group_id: str, partitions: Iterable[StoredPartition]
) -> dict[StoredPartition, int | None]:
    """The committed offset of each partition; None: the group has never committed it.

    aiokafka's own `committed` does not look at the error of the whole answer, where a broker says that the group's
    offsets are still being loaded (after its restart) or that this login may not see them. The answer then has no
    partitions, and a group that has done a million records would begin anew.

    Args:
        client: a connected one; of any consumer or admin client, as its `_client`.
        group_id: the group's name on the broker.

    Raises:
        aiokafka.errors.KafkaError: see `kafka_client.translated`.
    """
    wanted = list(partitions)
    by_topic: dict[str, list[int]] = defaultdict(list)
    for tp in wanted:
        by_topic[tp.topic].append(tp.partition)
    node = await client.coordinator_lookup(CoordinationType.GROUP, group_id)
    request = OffsetFetchRequest(group_id, list(by_topic.items()))
    answer = await client.send(node, request, group=ConnectionGroup.COORDINATION)
    _check(answer.error_code, group_id)
    found: dict[StoredPartition, int | None] = {}
    for topic, entries in answer.topics:
        for number, offset, _, code in entries:
            _check(code, group_id)
            found[StoredPartition(topic, number)] = None if offset < 0 else offset
    return {tp: found[tp] for tp in wanted}


def _check(code: int, group_id: str) -> None:
    if code:
        raise for_code(code)(group_id)
