"""Topics: every one has its rules, what differs on a broker has its remedy, and unsafe names are refused."""

from __future__ import annotations

import pytest

from stream.config import Config, KafkaSection, RetentionSection
from stream.errors import Misuse
from stream.messages import TOPICS
from stream.transport import kafka_topics, topics


def test_every_topic_has_rules_and_there_are_no_others() -> None:
    assert tuple(topics.RULES) == TOPICS


@pytest.mark.parametrize(
    ("name", "hours"), [("frames", 1), ("results", 2), ("alerts", None), ("decisions", 3), ("dead-frames", 4)]
)
def test_a_topic_is_kept_as_long_as_the_configuration_says(name: str, hours: float | None) -> None:
    section = RetentionSection(frames_hours=1, results_hours=2, decisions_hours=3, dead_frames_hours=4)
    assert topics.kept_s(topics.rule(name), section) == (None if hours is None else hours * 3600)


def test_a_prefix_stands_before_the_name() -> None:
    assert topics.stored_name("site-7.", "dead-frames") == "site-7.dead-frames"


def test_an_unknown_topic_is_refused_with_those_there_are() -> None:
    with pytest.raises(Misuse, match="no topic 'labels'; there are frames, results, alerts, decisions, dead-frames"):
        topics.rule("labels")


@pytest.mark.parametrize("name", ["worker", "a", "site-7.worker_2", "x" * 100])
def test_a_plain_name_is_taken(name: str) -> None:
    assert topics.check_name("group", name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a b", "ä", "x\n", "x" * 101])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(Misuse, match="letters, digits"):
        topics.check_name("group", name)


def test_topics_read_together_need_equal_partition_counts() -> None:
    counts = {"results": 4, "decisions": 4, "frames": 8}
    assert topics.common_partitions(counts, ["results", "decisions"]) == 4
    with pytest.raises(Misuse, match="results 4, frames 8"):
        topics.common_partitions(counts, ["results", "frames"])
    with pytest.raises(Misuse, match="at least one topic"):
        topics.common_partitions(counts, [])


CONFIG = Config(
    transport="kafka://broker:9092",
    topic_prefix="site-7.",
    kafka=KafkaSection(partitions=6, replication=3, min_insync=2, max_inline_bytes=40 * 1024 * 1024),
)
SPECS = {spec.name: spec for spec in topics.specs(CONFIG)}


def test_every_topic_is_specified_under_its_prefix_with_the_same_partitions() -> None:
    assert [spec.stored for spec in SPECS.values()] == [f"site-7.{name}" for name in TOPICS]
    assert {(spec.partitions, spec.replication) for spec in SPECS.values()} == {(6, 3)}


@pytest.mark.parametrize("name", TOPICS)
def test_no_setting_that_keeps_records_is_left_to_the_broker(name: str) -> None:
    settings = SPECS[name].settings
    assert settings["min.insync.replicas"] == "2"
    assert settings["unclean.leader.election.enable"] == "false"
    assert settings["compression.type"] == "producer"
    assert settings["retention.bytes"] == "-1"


def test_frames_take_a_photo_with_its_headers_and_the_rest_cannot() -> None:
    assert SPECS["frames"].settings["max.message.bytes"] == str(48 * 1024 * 1024)
    rest = {SPECS[name].settings["max.message.bytes"] for name in TOPICS if name != "frames"}
    assert rest == {str(4 * 1024 * 1024)}


def test_alerts_are_compacted_and_kept_for_ever_and_nothing_else_is() -> None:
    compacted = {name for name, spec in SPECS.items() if spec.settings["cleanup.policy"] == "compact"}
    for_ever = {name for name, spec in SPECS.items() if spec.settings["retention.ms"] == "-1"}
    assert compacted == for_ever == {"alerts"}
    assert SPECS["frames"].settings["retention.ms"] == str(7 * 24 * 3600 * 1000)


def state(name: str, partitions: int = 6, **changed: str) -> kafka_topics.TopicState:
    """A topic that is as it should be, but for what is given."""
    spec = SPECS[name]
    settings = {**spec.settings, **{key.replace("_", "."): value for key, value in changed.items()}}
    return kafka_topics.state_of(spec, partitions, settings, CONFIG)


def test_a_topic_as_it_should_be_needs_nothing() -> None:
    assert [(found.differs, found.fix) for found in map(state, TOPICS)] == [({}, ())] * len(TOPICS)


def test_a_missing_topic_is_made() -> None:
    missing = kafka_topics.state_of(SPECS["frames"], 0, {}, CONFIG)
    assert missing.fix == ("spanwatch topics create --transport kafka://broker:9092",)


def test_a_setting_that_differs_is_shown_both_ways_with_the_command_that_mends_it() -> None:
    found = state("results", retention_ms="1000", max_message_bytes="9")
    assert found.differs["retention.ms"] == ("1000", "2592000000")
    assert found.fix == (
        "kafka-configs.sh --bootstrap-server broker:9092 --alter --topic site-7.results"
        " --add-config retention.ms=2592000000,max.message.bytes=4194304",
    )


def test_frames_may_get_more_partitions() -> None:
    found = state("frames", partitions=2)
    assert found.differs == {"partitions": ("2", "6")}
    assert found.fix == ("kafka-topics.sh --bootstrap-server broker:9092 --alter --topic site-7.frames --partitions 6",)


@pytest.mark.parametrize(("name", "have"), [("alerts", 2), ("results", 4), ("decisions", 12), ("frames", 12)])
def test_what_lies_by_key_is_never_told_to_grow_and_nothing_to_shrink(name: str, have: int) -> None:
    (fix,) = state(name, partitions=have).fix
    assert f"set partitions = {have} under [kafka]" in fix
    assert "--alter" not in fix


def test_alerts_that_are_removed_by_time_are_trouble() -> None:
    assert kafka_topics.troubles([state("alerts", cleanup_policy="delete"), state("frames")]) == [
        "site-7.alerts is not compacted (delete): the state of old alerts would be removed"
    ]


def test_unequal_counts_of_what_findings_reads_together_are_trouble() -> None:
    assert kafka_topics.troubles([state("results"), state("decisions"), state("alerts", 2), state("frames", 9)]) == [
        "results, decisions, alerts need equal partition counts, or findings does not start:"
        " results 6, decisions 6, alerts 2"
    ]


def test_what_is_missing_or_merely_different_is_no_trouble() -> None:
    missing = kafka_topics.state_of(SPECS["alerts"], 0, {}, CONFIG)
    assert not kafka_topics.troubles([missing, state("results"), state("frames", 9, retention_ms="1")])
