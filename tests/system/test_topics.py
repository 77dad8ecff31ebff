"""The topics on a real broker: made once, compared in Kafka's own words, and mended by the very line that is shown."""

from __future__ import annotations

import json
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stream.cli.app import app
from stream.config import Config, KafkaSection
from stream.messages import TOPICS
from stream.transport.kafka_topics import delete_topics
from tests.kafka.broker import Broker, NoBroker, java
from tests.system import line

pytestmark = pytest.mark.slow
TOOLS = {"kafka-configs.sh": "kafka.admin.ConfigCommand", "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand"}
"""What Kafka's scripts run."""


def invoke(*arguments: str, **variables: str) -> Result:
    """`spanwatch ARGUMENTS`."""
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "80", **variables})


class Site:
    """The topics of one prefix, by our own command."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = f"topics-{uuid.uuid4().hex[:8]}."

    def topics(self, verb: str, *options: str, **settings: str) -> Result:
        """`spanwatch topics VERB`, with variables beside the usual ones."""
        variables = {"SPANWATCH_TRANSPORT": self.url, "SPANWATCH_TOPIC_PREFIX": self.prefix}
        variables |= {"SPANWATCH_KAFKA__PARTITIONS": "2"} | settings
        return invoke("topics", verb, *options, **variables)

    def described(self, **settings: str) -> tuple[int, dict[str, dict[str, object]]]:
        """The exit code, and what is said of each topic that is not as it should be."""
        done = self.topics("describe", "--json", **settings)
        said = [json.loads(text) for text in done.stdout.splitlines()]
        return done.exit_code, {entry["topic"].removeprefix(self.prefix): entry for entry in said if entry["type"]}


@pytest.fixture
def site(broker: Broker) -> Iterator[Site]:
    made = Site(broker.url)
    yield made
    line.run(lambda: delete_topics(Config(transport=made.url, topic_prefix=made.prefix, kafka=KafkaSection())))


def type_in(command: object) -> None:
    """Do what an operator does with a line that is shown."""
    script, *arguments = shlex.split(str(command))
    try:
        typed = java(TOOLS[script], *arguments)
    except NoBroker as error:
        pytest.skip(f"needs Kafka's console tools: {error}")
    done = subprocess.run(typed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_topics_are_made_once_and_are_then_as_they_should_be(site: Site) -> None:
    code, missing = site.described()
    assert code == 1
    create = [f"spanwatch topics create --transport {site.url}"]
    assert {name: entry["type"] for name, entry in missing.items()} == dict.fromkeys(TOPICS, create)
    first, again = (site.topics("create", "--json") for _ in range(2))
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert {json.loads(text)["made"] for text in first.stdout.splitlines()} == {True}
    assert {json.loads(text)["made"] for text in again.stdout.splitlines()} == {False}
    assert site.described() == (0, {})


def test_what_differs_is_mended_by_the_line_that_is_shown(site: Site) -> None:
    site.topics("create")
    wanted = {"SPANWATCH_RETENTION__RESULTS_HOURS": "1", "SPANWATCH_KAFKA__MAX_INLINE_BYTES": "1000"}
    code, differs = site.described(**wanted)
    assert code == 1
    assert set(differs) == {"results", "frames"}
    assert differs["results"]["differs"] == {"retention.ms": {"is": "2592000000", "should_be": "3600000"}}
    for entry in differs.values():
        (command,) = entry["type"]  # type: ignore[misc]
        type_in(command)
    assert site.described(**wanted) == (0, {})


def test_a_person_is_told_what_to_type_in_one_line_that_can_be_copied(site: Site) -> None:
    site.topics("create")
    done = site.topics("describe", SPANWATCH_RETENTION__RESULTS_HOURS="1")
    (command,) = [text for text in done.stdout.splitlines() if text.startswith("kafka-configs.sh")]
    assert command.endswith(f"--topic {site.prefix}results --add-config retention.ms=3600000")
    done = site.topics("describe", SPANWATCH_KAFKA__PARTITIONS="3")
    (command,) = [text for text in done.stdout.splitlines() if text.startswith("kafka-topics.sh")]
    assert command.endswith(f"--alter --topic {site.prefix}frames --partitions 3")
    assert "set partitions = 2 under [kafka]" in done.stdout


def test_counts_that_findings_cannot_work_with_are_an_error(site: Site) -> None:
    site.topics("create")
    address = site.url.removeprefix("kafka://")
    type_in(f"kafka-topics.sh --bootstrap-server {address} --alter --topic {site.prefix}results --partitions 3")
    done = site.topics("describe")
    assert done.exit_code == 1
    told = [text for text in done.stderr.splitlines() if text.startswith("spanwatch:")]
    assert told == [
        "spanwatch: results, decisions, alerts need equal partition counts, or findings does not start:"
        " results 3, decisions 2, alerts 2"
    ]


def test_more_copies_than_brokers_are_refused_with_the_brokers_words(site: Site) -> None:
    done = site.topics("create", SPANWATCH_KAFKA__REPLICATION="7")
    assert done.exit_code == 2
    assert "Unable to replicate the partition 7 time(s)" in done.stderr
    assert site.described()[0] == 1


def test_the_embedded_log_has_no_use_for_it(tmp_path: Path) -> None:
    done = invoke("topics", "create", "--transport", f"local:{tmp_path}")
    assert done.exit_code == 2
    assert "--transport kafka://HOST:PORT" in done.stderr
