"""The table of rights: each role has what it needs, none may pass for another, and Kafka's own tool takes it."""

from __future__ import annotations

import pytest

from stream.config import Config, KafkaSection, Login, RoleName
from stream.messages import TOPICS
from stream.transport.access import RIGHTS, commands, principal


def granted(role: RoleName, operation: str, kind: str = "topic") -> set[str]:
    return {right.name for right in RIGHTS if (right.role, right.operation, right.kind) == (role, operation, kind)}


@pytest.mark.parametrize(
    ("role", "reads", "writes", "groups"),
    [
        ("uploader", set(), {"frames"}, set()),
        ("worker", {"frames"}, {"results", "dead-frames"}, {"worker"}),
        ("findings", {"results", "decisions", "alerts"}, {"alerts"}, {"findings"}),
        ("operator", {"alerts", "results", "dead-frames", "frames"}, {"decisions", "frames"}, set()),
        ("reader", {"alerts", "results", "dead-frames"}, set(), set()),
    ],
)
def test_a_role_may_do_its_work_and_no_more(
    role: RoleName, reads: set[str], writes: set[str], groups: set[str]
) -> None:
    assert granted(role, "Read") == reads
    assert granted(role, "Write") == writes
    assert granted(role, "Read", "group") == groups


def test_every_topic_has_exactly_one_role_that_writes_it_but_an_operator_may_send_a_frame_back() -> None:
    written = sorted(right.name for right in RIGHTS if right.operation == "Write")
    assert written == sorted([*TOPICS, "frames"])


def test_no_right_is_listed_twice() -> None:
    assert len(set(RIGHTS)) == len(RIGHTS)


def test_commands_name_topics_and_groups_as_they_are_on_the_broker() -> None:
    config = Config(transport="kafka://a:9093,b:9093", topic_prefix="site-7.")
    assert [arguments for role, arguments in commands(config) if role == "worker"] == [
        [
            *("--bootstrap-server", "a:9093,b:9093", "--add", "--allow-principal", "User:worker"),
            *("--operation", operation, *resources),
        ]
        for operation, resources in (
            ("Read", ("--topic", "site-7.frames", "--group", "site-7.worker")),
            ("Write", ("--topic", "site-7.results", "--topic", "site-7.dead-frames")),
        )
    ]


def test_commands_say_every_right_once_and_no_pattern() -> None:
    said = [part for _, arguments in commands(Config(transport="kafka://a:1")) for part in arguments]
    assert said.count("--topic") + said.count("--group") == len(RIGHTS)
    assert not {"*", "All", "--cluster", "--resource-pattern-type"} & set(said)


@pytest.mark.parametrize(
    ("section", "role", "expected"),
    [
        (KafkaSection(), "worker", "User:worker"),
        (KafkaSection(login=Login(username="box")), "worker", "User:box"),
        (KafkaSection(login=Login(username="box"), worker=Login(username="w1")), "worker", "User:w1"),
        (KafkaSection(login=Login(username="box"), worker=Login(username="w1")), "reader", "User:box"),
    ],
)
def test_a_role_is_called_by_its_login(section: KafkaSection, role: RoleName, expected: str) -> None:
    assert principal(Config(kafka=section), role) == expected


def test_no_command_tells_a_password() -> None:
    section = KafkaSection(worker=Login(username="w1", password="hush-hush"))
    said = " ".join(
        part for _, arguments in commands(Config(transport="kafka://a:1", kafka=section)) for part in arguments
    )
    assert "w1" in said and "hush-hush" not in said
