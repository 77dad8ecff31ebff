"""Addresses, logins and the meaning of Kafka's errors, without a broker; and where a group begins."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from aiokafka import TopicPartition as StoredPartition
from aiokafka import errors as kafka
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from stream.config import Config, KafkaSection, Login, RoleName, load
from stream.errors import Broken, Misuse, PartitionLost, Rejected, SpanwatchError, Unavailable
from stream.transport.kafka_client import addresses, connection, ssl_context, translated
from stream.transport.kafka_records import Start, record_of, start_of
from stream.transport.protocol import TopicPartition

TP = TopicPartition("frames", 2)


def expired() -> ssl.SSLCertVerificationError:
    """As OpenSSL raises it."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "certificate has expired"
    return error


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("kafka://127.0.0.1:9092", ["127.0.0.1:9092"]),
        ("kafka://one:9092,two:9093", ["one:9092", "two:9093"]),
        ("kafka://[::1]:9092", ["[::1]:9092"]),
    ],
)
def test_a_url_names_its_brokers(url: str, expected: list[str]) -> None:
    assert addresses(url) == expected


@pytest.mark.parametrize(
    "url", ["kafka://", "kafka://one", "kafka://one:", "kafka://one:port", "kafka://:9092", "kafka:one:9092", "local:x"]
)
def test_a_url_without_host_or_port_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(Misuse, match="write kafka://HOST:PORT"):
        addresses(url)


def test_a_login_in_a_url_is_refused_and_not_printed() -> None:
    with pytest.raises(Misuse) as refused:
        addresses("kafka://eve:hunter2@one:9092")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("role", "expected"), [("worker", "w"), ("uploader", "all"), ("findings", "all"), ("reader", "all")]
)
def test_a_role_has_its_own_login_or_the_one_for_all(role: RoleName, expected: str) -> None:
    section = KafkaSection(login=Login(username="all"), worker=Login(username="w"))
    assert section.login_of(role).username == expected


def test_a_login_reaches_the_client_and_never_a_text() -> None:
    env = {
        "SPANWATCH_TRANSPORT": "kafka://one:9092",
        "SPANWATCH_KAFKA__SECURITY": "sasl",
        "SPANWATCH_KAFKA__WORKER__USERNAME": "w",
        "SPANWATCH_KAFKA__WORKER__PASSWORD": "hunter2",
    }
    config = load(None, env)
    arguments = connection(config, "worker")
    assert (arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == ("w", "hunter2")
    assert arguments["security_protocol"] == "SASL_PLAINTEXT"
    assert "hunter2" not in f"{config}{config!r}{config.kafka.worker!r}"


@pytest.mark.parametrize("login", [Login(), Login(username="w"), Login(password="p")])
def test_an_incomplete_login_is_refused_with_the_variable_to_set(login: Login) -> None:
    config = Config(transport="kafka://one:9092", kafka=KafkaSection(security="sasl_tls", worker=login))
    with pytest.raises(Misuse, match=r"SPANWATCH_KAFKA__LOGIN__(USERNAME|PASSWORD)"):
        connection(config, "worker")


def test_certificates_are_only_looked_at_where_there_is_tls(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "ca.pem")
    assert ssl_context(KafkaSection(ca=nowhere), Login()) is None
    with pytest.raises(Misuse, match=r"kafka\.ca"):
        ssl_context(KafkaSection(security="tls", ca=nowhere), Login())
    with pytest.raises(Misuse, match="client certificate"):
        ssl_context(KafkaSection(security="tls"), Login(certificate=nowhere))
    context = ssl_context(KafkaSection(security="tls"), Login())
    assert context is not None and context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (kafka.KafkaConnectionError(), Unavailable),
        (kafka.RequestTimedOutError(), Unavailable),
        (kafka.GroupLoadInProgressError(), Unavailable),
        (kafka.NodeNotReadyError(), Unavailable),
        (TimeoutError(), Unavailable),
        (ConnectionRefusedError(), Unavailable),
        (kafka.CommitFailedError(), PartitionLost),
        (kafka.IllegalGenerationError(), PartitionLost),
        (kafka.UnknownMemberIdError(), PartitionLost),
        (kafka.SaslAuthenticationFailed(), Rejected),
        (kafka.TopicAuthorizationFailedError(), Rejected),
        (kafka.GroupAuthorizationFailedError(), Rejected),
        (kafka.MessageSizeTooLargeError(), Rejected),
        (kafka.UnknownTopicOrPartitionError(), Misuse),
        (expired(), Rejected),
        (kafka.KafkaError("something new"), Broken),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_every_error_of_kafkas_says_what_happens_next(error: Exception, meaning: type[SpanwatchError]) -> None:
    with pytest.raises(meaning, match="cannot try it") as raised, translated("try it"):
        raise error
    assert isinstance(raised.value, Rejected) == (meaning is Rejected)


def test_an_error_of_ours_and_an_unknown_one_pass_as_they_are() -> None:
    for error in (Misuse("ours"), KeyError("a fault of the program")):
        with pytest.raises(type(error)) as raised, translated("try it"):
            raise error
        assert raised.value is error


@given(
    st.integers(min_value=0, max_value=1000), st.integers(min_value=0, max_value=1000), st.none() | st.integers(0, 2000)
)
def test_a_group_begins_at_its_commit_or_at_the_first_record_and_nothing_is_ever_skipped(
    first: int, length: int, committed: int | None
) -> None:
    span = (first, first + length)
    if committed is None:
        assert start_of("worker", TP, None, span, "frames") == Start(first, committed=False)
    elif first <= committed <= first + length:
        assert start_of("worker", TP, committed, span, "frames") == Start(committed, committed=True)
    else:
        with pytest.raises(Broken, match=r"frames\[2\]: group worker has committed .* --reset-offsets"):
            start_of("worker", TP, committed, span, "frames")


def test_the_numbers_of_a_gap_are_told_with_the_name_on_the_broker() -> None:
    with pytest.raises(Broken, match=r"committed 3 .* first record is 1,007: 1,004 records .* --topic site\.frames:2"):
        start_of("site.worker", TP, 3, (1007, 2000), "site.frames")
    with pytest.raises(Broken, match=r"committed 30 and the broker's log ends at 20"):
        start_of("site.worker", TP, 30, (0, 20), "site.frames")


def test_a_record_of_a_foreign_producer_becomes_text_whatever_its_bytes() -> None:
    stored = StoredPartition("site.frames", 2)
    raw = ConsumerRecord(
        stored.topic,
        2,
        7,
        1500,
        0,
        b"\xfe",
        None,
        None,
        1,
        -1,
        (("frame", b"\xff"), ("none", None), ("ok", "ü".encode())),
    )
    record = record_of(TP, raw)
    assert (record.tp, record.offset, record.timestamp) == (TP, 7, 1.5)
    assert (record.key, record.value) == ("\ufffd", b"")
    assert dict(record.headers) == {"frame": "\ufffd", "none": "", "ok": "ü"}
