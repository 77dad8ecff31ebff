"""Makes the topics on a Kafka broker, and says where those that are there differ from how they should be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from stream.config import Config
from stream.errors import Misuse, SpanwatchError
from stream.transport import topics
from stream.transport.kafka_client import REQUEST_S, connection, meaning, probe, translated


@asynccontextmanager
async def administration(config: Config) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client that may change topics, for as long as the block runs."""
    arguments = connection(config, "reader")
    admin = AIOKafkaAdminClient(**arguments)
    try:
        with translated(f"reach {config.transport}"):
            async with asyncio.timeout(REQUEST_S):
                await probe(arguments)
                await admin.start()
        with translated("manage topics"):
            yield admin
    finally:
        await admin.close()


async def create_topics(config: Config) -> Mapping[str, bool]:
    """Make what is missing; of each topic, by its name on the broker, whether it was made now.

    Raises:
        Unavailable, Broken: the broker is away, or this login may not.
        Misuse: the broker cannot have such topics, for example more copies than there are brokers.
    """
    wanted = {spec.stored: spec for spec in topics.specs(config)}
    async with administration(config) as admin:
        known = set(await admin.list_topics())
        missing = [spec for name, spec in wanted.items() if name not in known]
        if missing:
            made = await admin.create_topics(
                [
                    NewTopic(spec.stored, spec.partitions, spec.replication, topic_configs=spec.settings)
                    for spec in missing
                ],
                timeout_ms=int(REQUEST_S * 1000),
            )
            for name, code, *says in made.topic_errors:
                if code and kafka.for_code(code) is not kafka.TopicAlreadyExistsError:
                    raise _refused(name, kafka.for_code(code), says)
            async with asyncio.timeout(REQUEST_S):
                await _known(admin, list(wanted))
        return {name: name not in known for name in wanted}


async def _known(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Wait until the brokers have heard of new topics and every partition has a leader: they are told one by one."""
    while any(  # noqa: ASYNC110 - there is nothing to be told by but asking
        topic["error_code"] or any(partition["error_code"] for partition in topic["partitions"])
        for topic in await admin.describe_topics(names)
    ):
        await asyncio.sleep(0.02)


async def delete_topics(config: Config) -> list[str]:
    """Remove the topics of this prefix with all their records; the names of those that were there."""
    async with administration(config) as admin:
        known = set(await admin.list_topics())
        there = [spec.stored for spec in topics.specs(config) if spec.stored in known]
        if there:
            await admin.delete_topics(there)
        return there


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic as it is, beside how it should be."""

    spec: topics.TopicSpec
    partitions: int
    """0: it is not there."""
    settings: Mapping[str, str]
    differs: Mapping[str, tuple[str, str]]
    """Setting -> (as it is, as it should be)."""
    fix: tuple[str, ...]
    """What to type, or, where no command mends it, what to do; empty if nothing differs."""


async def describe_topics(config: Config) -> list[TopicState]:
    """Compare every topic of the site with how it should be."""
    wanted = topics.specs(config)
    async with administration(config) as admin:
        found = {topic["topic"]: topic for topic in await admin.describe_topics([spec.stored for spec in wanted])}
        there = {name: len(topic["partitions"]) for name, topic in found.items() if not topic["error_code"]}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in there]
        answers = await admin.describe_configs(resources) if resources else []
    settings = {
        name: {entry[0]: entry[1] for entry in entries}
        for answer in answers
        for _, _, _, name, entries in answer.resources
    }
    return [state_of(spec, there.get(spec.stored, 0), settings.get(spec.stored, {}), config) for spec in wanted]


def state_of(spec: topics.TopicSpec, partitions: int, settings: Mapping[str, str], config: Config) -> TopicState:
    """What differs, and the command that mends it."""
    broker = config.transport.partition("://")[2]
    if not partitions:
        return TopicState(spec, 0, {}, {}, (f"spanwatch topics create --transport {config.transport}",))
    differs = {
        name: (settings.get(name, ""), value) for name, value in spec.settings.items() if settings.get(name) != value
    }
    fix: list[str] = []
    if differs:
        pairs = ",".join(f"{name}={value}" for name, (_, value) in differs.items())
        fix.append(f"kafka-configs.sh --bootstrap-server {broker} --alter --topic {spec.stored} --add-config {pairs}")
    if partitions != spec.partitions:
        differs["partitions"] = (str(partitions), str(spec.partitions))
        fix.append(_repartition(spec, partitions, broker))
    return TopicState(spec, partitions, settings, differs, tuple(fix))


def _repartition(spec: topics.TopicSpec, have: int, broker: str) -> str:
    """What mends a count. It may grow only where a key means nothing: an asset would leave its alerts behind."""
    if topics.rule(spec.name).carries_photos and have < spec.partitions:
        command = f"kafka-topics.sh --bootstrap-server {broker} --alter --topic {spec.stored}"
        return f"{command} --partitions {spec.partitions}"
    return (
        f"{spec.stored}: records keep their places, so set partitions = {have} under [kafka]; or, while it is empty,"
        f" make it anew: kafka-topics.sh --bootstrap-server {broker} --delete --topic {spec.stored}"
    )


def troubles(states: Sequence[TopicState]) -> list[str]:
    """What is not merely different but breaks a promise, each in a sentence."""
    found = []
    for state in states:
        policy = state.settings.get("cleanup.policy", "")
        if topics.rule(state.spec.name).compacted and state.partitions and policy != "compact":
            found.append(f"{state.spec.stored} is not compacted ({policy}): the state of old alerts would be removed")
    counts = {state.spec.name: state.partitions for state in states if state.partitions}
    together = {name: counts[name] for name in topics.TOGETHER if name in counts}
    if len(set(together.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in together.items())
        found.append(f"{', '.join(together)} need equal partition counts, or findings does not start: {listed}")
    return found


def _refused(name: str, error: type[kafka.KafkaError], says: list[str | None]) -> SpanwatchError:
    detail = says[0] if says and says[0] else error.__name__
    if issubclass(error, (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError)):
        return meaning(error(name), f"make {name}")
    return Misuse(f"the broker does not make {name}: {detail}")
