"""What each topic is: how long it is kept, whether it is compacted, whether it waits for a reader."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stream.config import Config, RetentionSection
from stream.errors import Misuse
from stream.messages import TOPICS

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
PHOTO_HEADROOM_BYTES = 8 * 1024 * 1024
"""On top of the largest inline photo: its headers and the batch around it."""
SMALL_RECORD_BYTES = 4 * 1024 * 1024
"""The largest record of the topics that carry JSON: raising it for all would invite photos there."""
SEGMENT_BYTES = 1024 * 1024 * 1024
COMPACTED_SEGMENT_BYTES = 64 * 1024 * 1024
"""Kafka never compacts the segment it writes to, and findings reads all of it before its first event."""
TOGETHER = ("results", "decisions", "alerts")
"""One partition of each is one state of findings: their counts must be equal."""


@dataclass(frozen=True, slots=True)
class Topic:
    """The rules of one topic."""

    name: str
    kept: str | None
    """The key under `[retention]` that says for how many hours; None: for ever."""
    compacted: bool = False
    """Only the latest record of each key must stay."""
    carries_photos: bool = False
    """Its records may be as large as a photo."""
    awaits_reader: bool = False
    """Work: however old, it is kept until a group has done it. If not, age alone decides while no group reads it."""


_RULES = (
    Topic("frames", "frames_hours", carries_photos=True, awaits_reader=True),
    Topic("results", "results_hours", awaits_reader=True),
    Topic("alerts", None, compacted=True),
    Topic("decisions", "decisions_hours"),
    Topic("dead-frames", "dead_frames_hours"),
)
RULES: Mapping[str, Topic] = {topic.name: topic for topic in _RULES}
"""By name; exactly `stream.messages.TOPICS`."""


def rule(name: str) -> Topic:
    """Look a topic up.

    Raises:
        Misuse: there is none of that name; the message lists those there are.
    """
    topic = RULES.get(name)
    if topic is None:
        raise Misuse(f"no topic {name!r}; there are {', '.join(TOPICS)}")
    return topic


def stored_name(prefix: str, name: str) -> str:
    """The topic's name in the log, with the site's prefix."""
    return f"{prefix}{rule(name).name}"


def kept_s(topic: Topic, retention: RetentionSection) -> float | None:
    """For how many seconds its records are kept; None: for ever."""
    return None if topic.kept is None else float(getattr(retention, topic.kept)) * 3600.0


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic should be on a Kafka broker."""

    name: str
    stored: str
    """Its name on the broker."""
    partitions: int
    replication: int
    settings: Mapping[str, str]
    """In Kafka's words, as strings."""


def specs(config: Config) -> tuple[TopicSpec, ...]:
    """How every topic of a site should be on its broker."""
    return tuple(
        TopicSpec(
            topic.name,
            stored_name(config.topic_prefix, topic.name),
            config.kafka.partitions,
            config.kafka.replication,
            _kafka_settings(topic, config),
        )
        for topic in RULES.values()
    )


def _kafka_settings(topic: Topic, config: Config) -> Mapping[str, str]:
    """Everything that matters is said, so that a broker's own defaults change nothing."""
    seconds = kept_s(topic, config.retention)
    largest = config.kafka.max_inline_bytes + PHOTO_HEADROOM_BYTES if topic.carries_photos else SMALL_RECORD_BYTES
    return {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "retention.ms": "-1" if seconds is None else str(int(seconds * 1000)),
        "retention.bytes": "-1",
        "segment.bytes": str(COMPACTED_SEGMENT_BYTES if topic.compacted else SEGMENT_BYTES),
        "max.message.bytes": str(largest),
        "min.insync.replicas": str(config.kafka.min_insync),
        "message.timestamp.type": "LogAppendTime",
        "compression.type": "producer",
        "unclean.leader.election.enable": "false",
    }


def check_name(what: str, name: str) -> str:
    """Refuse what would not be safe as a file name and as a Kafka name.

    Raises:
        Misuse: with what is allowed.
    """
    if not _NAME.fullmatch(name):
        raise Misuse(f"{what} {name!r}: use up to 100 letters, digits, '.', '_' and '-', not beginning with '.'")
    return name


def common_partitions(counts: Mapping[str, int], names: Sequence[str]) -> int:
    """How many partitions topics that are read together have.

    Raises:
        Misuse: no topic, or topics of different counts: partition 3 of one would have no partner.
    """
    found = {name: counts[rule(name).name] for name in names}
    if not found:
        raise Misuse("subscribe to at least one topic")
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in found.items())
        raise Misuse(f"topics read together need equal partition counts, these have: {listed}")
    return next(iter(found.values()))
