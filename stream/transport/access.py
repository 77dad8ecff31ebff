"""Who may do what on the broker: the least rights that each role needs, and the commands that give them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from stream.config import Config, RoleName
from stream.transport import topics

Operation = Literal["Read", "Write", "Describe"]


@dataclass(frozen=True, slots=True)
class Right:
    """One line of the table. `Read` and `Write` include `Describe`, as they do in Kafka."""

    role: RoleName
    kind: Literal["topic", "group"]
    name: str
    """Of ours: the topic, or whose group it is."""
    operation: Operation


RIGHTS: tuple[Right, ...] = (
    Right("uploader", "topic", "frames", "Write"),
    # The worker commits what it has read, and says how far behind it is.
    Right("worker", "topic", "frames", "Read"),
    Right("worker", "group", "worker", "Read"),
    Right("worker", "topic", "results", "Write"),
    Right("worker", "topic", "dead-frames", "Write"),
    # Findings reads its own alerts: they are its state.
    Right("findings", "topic", "results", "Read"),
    Right("findings", "topic", "decisions", "Read"),
    Right("findings", "topic", "alerts", "Read"),
    Right("findings", "group", "findings", "Read"),
    Right("findings", "topic", "alerts", "Write"),
    # A person at the desk: a word on an alert goes out as a decision, a dead frame goes back as a frame.
    Right("operator", "topic", "alerts", "Read"),
    Right("operator", "topic", "results", "Read"),
    Right("operator", "topic", "dead-frames", "Read"),
    Right("operator", "topic", "frames", "Read"),
    Right("operator", "topic", "frames", "Write"),
    Right("operator", "topic", "decisions", "Write"),
    # An alert consumer.
    Right("reader", "topic", "alerts", "Read"),
    Right("reader", "topic", "results", "Read"),
    Right("reader", "topic", "dead-frames", "Read"),
)
"""The whole table; idempotent producers need no right of their own since Kafka 3.0."""


def principal(config: Config, role: RoleName) -> str:
    """The role's name on the broker, as its login is configured; else `User:ROLE`, for you to replace."""
    return f"User:{config.kafka.login_of(role).username or role}"


def _resource(config: Config, right: Right) -> tuple[str, str]:
    """The kind of the resource, as an option, and its name on the broker."""
    if right.kind == "topic":
        return "--topic", topics.stored_name(config.topic_prefix, right.name)
    groups = {"worker": config.worker.group, "findings": config.findings.group}
    return "--group", f"{config.topic_prefix}{groups[right.name]}"


def commands(config: Config) -> Iterator[tuple[RoleName, list[str]]]:
    """What an administrator types, role by role: the arguments of `kafka-acls.sh`."""
    broker = config.transport.partition("://")[2]
    for (role, operation), rights in groupby(RIGHTS, key=lambda right: (right.role, right.operation)):
        resources = [part for right in rights for part in _resource(config, right)]
        who = ["--allow-principal", principal(config, role)]
        yield role, ["--bootstrap-server", broker, "--add", *who, "--operation", operation, *resources]
