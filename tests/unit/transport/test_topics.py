"""Topics: every one has its rules, and names that are no safe file names are refused."""

from __future__ import annotations

import pytest

from stream.config import RetentionSection
from stream.errors import Misuse
from stream.messages import TOPICS
from stream.transport import topics


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
