"""A record the broker will not have: the role ends with one clear line, nothing is committed, and nothing is lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from stream.config import Config
from stream.transport import topics
from stream.transport.kafka_topics import administration
from tests.kafka.broker import Broker
from tests.system import kills, line
from tests.system.line import Role

TINY = 200
"""Bytes: less than any record of ours."""


async def limit(config: Config, topic: str, largest: int | None) -> None:
    """Set the largest record a topic takes; None: as `spanwatch topics create` would."""
    (spec,) = [spec for spec in topics.specs(config) if spec.name == topic]
    settings = dict(spec.settings) | ({} if largest is None else {"max.message.bytes": str(largest)})
    async with administration(config) as admin:
        (answer,) = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, spec.stored, settings)])
    assert not answer.resources[0][0], answer


def ended(config: Config, *arguments: object) -> str:
    """Run a command that must fail; the one line it leaves for a person."""
    process = line.spanwatch(config, *arguments, stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=line.GIVE_UP_S)
    assert process.returncode == 1, said.decode()
    (last,) = [words for words in said.decode().splitlines() if words.startswith("spanwatch: ")]
    return last


def names(said: str, config: Config, topic: str) -> bool:
    """Whether a message tells the topic and the setting to raise."""
    return f"{config.topic_prefix}{topic}" in said and "max.message.bytes" in said


@pytest.mark.slow
def test_a_result_the_broker_refuses_ends_the_worker_and_its_frame_stays_uncommitted(
    broker: Broker, tmp_path: Path
) -> None:
    async def test() -> None:
        await limit(config, "results", TINY)
        async with line.opened(config) as transport:
            frame = await line.send(transport, line.photo(0))
            assert names(ended(config, "worker"), config, "results")
            for _ in range(2):  # however often: the frame is not to blame, so it does not end as poison
                assert Role.start("worker", config).wait() == 1
                assert await kills.lag(transport, "worker", "frames") == 1
            await limit(config, "results", None)
            worker = Role.start("worker", config)
            await line.all_answered(transport)
            assert worker.stop() == 0
            seen = await line.look(transport)
            assert set(seen.results) == {frame} and not seen.dead

    with line.on_kafka(broker.url, tmp_path, member="worker-1") as config:
        line.run(test)


@pytest.mark.slow
def test_an_alert_the_broker_refuses_ends_the_findings_and_its_result_stays_uncommitted(
    broker: Broker, tmp_path: Path
) -> None:
    async def test() -> None:
        await limit(config, "alerts", TINY)
        async with line.opened(config) as transport:
            await line.send(transport, line.photo(0))  # it cracks
            worker = Role.start("worker", config)
            await line.all_answered(transport)
            assert worker.stop() == 0
            assert names(ended(config, "findings"), config, "alerts")
            assert await kills.lag(transport, "findings", "results") == 1
            await limit(config, "alerts", None)
            findings = Role.start("findings", config)
            await kills.drained(transport, "findings", "results")
            assert findings.stop() == 0
            assert len((await line.look(transport)).alerts) == 1

    with line.on_kafka(broker.url, tmp_path, member="findings") as config:
        line.run(test)


@pytest.mark.slow
def test_a_photo_the_broker_refuses_ends_the_upload_and_stays_in_the_outbox(broker: Broker, tmp_path: Path) -> None:
    card, outbox = tmp_path / "card", tmp_path / "outbox.sqlite"
    card.mkdir()
    (card / "a.jpg").write_bytes(line.photo(1))
    uploading = ("upload", card, "--asset", "bridge-7", "--outbox", outbox)

    async def test() -> None:
        await limit(config, "frames", TINY)
        assert names(ended(config, *uploading), config, "frames")
        assert list(kills.outbox(outbox).values()) == [None]
        await limit(config, "frames", None)
        assert line.spanwatch(config, *uploading).wait(line.GIVE_UP_S) == 0
        async with line.opened(config) as transport:
            assert (await line.look(transport)).frames == kills.outbox(outbox).keys()

    with line.on_kafka(broker.url, tmp_path) as config:
        line.run(test)
