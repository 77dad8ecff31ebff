"""What a broker's numbers and bytes mean to us: where a group begins, and what a record says."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka.structs import ConsumerRecord

from stream.errors import Broken
from stream.transport.protocol import Record, TopicPartition


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading a partition begins: at the group's commit, or at the beginning if there is none."""

    offset: int
    committed: bool


def start_of(group: str, tp: TopicPartition, committed: int | None, log_span: tuple[int, int], stored: str) -> Start:
    """Decide where a group begins, and refuse to skip.

    Args:
        committed: the group's offset; None: it has never committed.
        log_span: the first offset the broker still has, and the one after the last.
        stored: the topic's name on the broker, for the message.

    Raises:
        Broken: retention has removed records that the group has not done, or the log is shorter than it was.
    """
    first, end = log_span
    if committed is None:
        return Start(first, committed=False)
    where = where_is(tp)
    way_out = (
        f"kafka-consumer-groups.sh --bootstrap-server HOST:PORT --group {group} --topic {stored}:{tp.partition}"
        " --reset-offsets --to-earliest --execute (with the group's roles stopped)"
    )
    if committed < first:
        raise Broken(
            f"{where}: group {group} has committed {committed:,} and the broker's first record is {first:,}:"
            f" {first - committed:,} records were removed before they were done. Lengthen retention.ms; to accept the"
            f" loss and go on: {way_out}"
        )
    if committed > end:
        raise Broken(
            f"{where}: group {group} has committed {committed:,} and the broker's log ends at {end:,}: it is not the"
            f" log that was read before (made anew, or restored from a copy). To read it from its beginning: {way_out}"
        )
    return Start(committed, committed=True)


def record_of(tp: TopicPartition, raw: ConsumerRecord) -> Record:
    """What aiokafka read, in our words; text that is not UTF-8 is kept readable, so that it can become a dead frame."""
    return Record(
        topic=tp.topic,
        partition=tp.partition,
        offset=raw.offset,
        key=(raw.key or b"").decode(errors="replace"),
        value=raw.value or b"",
        headers={name: (value or b"").decode(errors="replace") for name, value in raw.headers},
        timestamp=raw.timestamp / 1000.0,
    )


def where_is(tp: TopicPartition) -> str:
    """A partition, for a message."""
    return f"{tp.topic}[{tp.partition}]"
