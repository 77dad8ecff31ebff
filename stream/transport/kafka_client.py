"""How every client reaches the broker: addresses, login and certificates, and what an error of Kafka's means to us."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka
from aiokafka.conn import create_conn

from stream.config import Config, KafkaSection, Login, RoleName
from stream.errors import Broken, Misuse, PartitionLost, Rejected, SpanwatchError, Unavailable

# A program that has not set up logging prints one line of ours for an error, and not aiokafka's beside it.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())

log = logging.getLogger(__name__)

REQUEST_S = 30.0
"""How long one request may take before the broker counts as away."""
GOODBYE_S = 5.0
"""How long a leaving member waits for the broker; without a goodbye its partitions wait for the end of its session."""

_AWAY = (OSError, kafka.KafkaTimeoutError, kafka.KafkaConnectionError, kafka.KafkaUnavailableError)
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[SpanwatchError], str], ...] = (
    (
        (
            kafka.AuthenticationFailedError,
            kafka.AuthenticationMethodNotSupported,
            kafka.SaslAuthenticationFailed,
            kafka.UnsupportedSaslMechanismError,
            kafka.IllegalSaslStateError,
        ),
        Rejected,
        "the broker refuses the login: check user name, password and kafka.mechanism",
    ),
    (
        (
            kafka.TopicAuthorizationFailedError,
            kafka.GroupAuthorizationFailedError,
            kafka.ClusterAuthorizationFailedError,
        ),
        Rejected,
        "this login may not ({error}): `spanwatch topics acls` prints the rights each role needs",
    ),
    (
        (
            kafka.IllegalGenerationError,
            kafka.UnknownMemberIdError,
            kafka.RebalanceInProgressError,
            kafka.CommitFailedError,
        ),
        PartitionLost,
        "the partition is not held (any longer): the group has given it to another member",
    ),
    (
        (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError, kafka.RecordTooLargeError),
        Rejected,
        "the broker refuses a record of this size: raise max.message.bytes of the topic",
    ),
    (
        (kafka.UnknownTopicOrPartitionError,),
        Misuse,
        "the topic is not on the broker: `spanwatch topics create` makes it",
    ),
)
"""Errors of Kafka's, what happens next, and what to do; the rest is passing or is not understood."""


def addresses(url: str) -> list[str]:
    """The brokers of `kafka://HOST:PORT[,HOST:PORT]`.

    Raises:
        Misuse: it is not such a URL.
    """
    scheme, _, rest = url.partition("://")
    hosts = rest.split(",")
    for host in hosts:
        name, colon, port = host.rpartition(":")
        if scheme != "kafka" or not name or not colon or not port.isdecimal() or "/" in host or "@" in host:
            raise Misuse(f"no Kafka brokers in {_without_login(url)!r}: write kafka://HOST:PORT[,HOST:PORT]")
    return hosts


def _without_login(url: str) -> str:
    """Logins do not belong into a URL; if somebody wrote one there, it is not printed."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def ssl_context(section: KafkaSection, login: Login) -> ssl.SSLContext | None:
    """What certificates are checked against and shown; None: this connection has no TLS.

    Raises:
        Misuse: a file of certificates cannot be read.
    """
    if section.security not in {"tls", "sasl_tls"}:
        return None
    try:
        context = ssl.create_default_context(cafile=section.ca)
    except (OSError, ssl.SSLError) as error:
        raise Misuse(f"kafka.ca = {section.ca!r} is not a PEM file of certificates: {error}") from error
    if login.certificate is not None:
        try:
            context.load_cert_chain(login.certificate, login.key)
        except (OSError, ssl.SSLError) as error:
            raise Misuse(f"the client certificate {login.certificate!r} cannot be used: {error}") from error
    return context


def connection(config: Config, role: RoleName) -> dict[str, Any]:
    """Keyword arguments common to aiokafka's producer, consumer and admin client.

    Raises:
        Misuse: the URL, a certificate, or a login that lacks its user name or password.
    """
    section, login = config.kafka, config.kafka.login_of(role)
    protocol = {"plaintext": "PLAINTEXT", "tls": "SSL", "sasl": "SASL_PLAINTEXT", "sasl_tls": "SASL_SSL"}
    arguments: dict[str, Any] = {
        "bootstrap_servers": addresses(config.transport),
        "client_id": f"spanwatch-{role}",
        "request_timeout_ms": int(REQUEST_S * 1000),
        "security_protocol": protocol[section.security],
        "ssl_context": ssl_context(section, login),
    }
    if section.security in {"sasl", "sasl_tls"}:
        if not login.username or not login.password:
            missing = "username" if not login.username else "password"
            raise Misuse(
                f'kafka.security is "{section.security}" and the role {role} has no {missing}: set'
                f" SPANWATCH_KAFKA__LOGIN__{missing.upper()} (or, for this role alone, its own in place of LOGIN)"
            )
        arguments |= {
            "sasl_mechanism": section.mechanism,
            "sasl_plain_username": login.username,
            "sasl_plain_password": login.password,
        }
    return arguments


async def probe(arguments: dict[str, Any]) -> None:
    """Connect and log in once, by hand: aiokafka logs a refused login or certificate, and says that no broker answers.

    Raises:
        ssl.SSLError, aiokafka.errors.KafkaError: why the first broker that answers refuses us, or we refuse it.
    """
    common = {name: value for name, value in arguments.items() if name != "bootstrap_servers"}
    for address in arguments["bootstrap_servers"]:
        host, _, port = address.rpartition(":")
        try:
            made = await create_conn(host.strip("[]"), int(port), **common)
        except ssl.SSLError:
            raise
        except (OSError, kafka.KafkaConnectionError) as error:
            if _tls_trouble(error) is not None:
                raise
            continue  # aiokafka tries them all, and says if none answers
        await made.close()
        return


async def leave(client: AIOKafkaConsumer) -> None:
    """Stop a consumer: its own `stop` waits for a broker to say goodbye to, if need be for ever."""
    if await _ended(client.stop()):
        return
    log.warning("left without a goodbye: the broker does not answer")
    if client._coordinator is not None:
        await _ended(client._coordinator._stop_heartbeat_task())
        await _ended(client._coordinator._stop_commit_offsets_refresh_task())
    await _ended(client._client.close())
    if client._fetcher is not None:
        await _ended(client._fetcher.close())


async def _ended(call: Coroutine[Any, Any, object]) -> bool:
    """Whether a call of aiokafka's came to its end in good order, within GOODBYE_S.

    In a task of its own: cut short, they let the cancellation of their own tasks out, and a stage of ours that ends as
    cancelled instead of failed would end unnoticed by its task group.
    """
    task = asyncio.ensure_future(call)
    await asyncio.wait({task}, timeout=GOODBYE_S)
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=GOODBYE_S)
    return task.done() and not task.cancelled() and task.exception() is None


@contextmanager
def translated(what: str) -> Iterator[None]:
    """In here, an error of Kafka's becomes one of ours; `what` is being tried, for the message: "cannot WHAT: …"."""
    try:
        yield
    except SpanwatchError:
        raise
    except (kafka.KafkaError, OSError, TimeoutError) as error:  # an ssl.SSLError is an OSError
        raise meaning(error, what) from error


def meaning(error: BaseException, what: str) -> SpanwatchError:
    """The error of ours that says what happens next."""
    if (tls := _tls_trouble(error)) is not None:
        return Rejected(f"cannot {what}: {tls}")
    for kinds, ours, says in _MEANINGS:
        if isinstance(error, kinds):
            return ours(f"cannot {what}: {says.format(error=error)}")
    passing = isinstance(error, _AWAY) or getattr(error, "retriable", False)
    return (Unavailable if passing else Broken)(f"cannot {what}: {_said(error)}")


def _tls_trouble(error: BaseException) -> str | None:
    """What is wrong with TLS, if that is what is wrong."""
    found = _find(error, ssl.SSLError)
    if isinstance(found, ssl.SSLCertVerificationError):
        return f"the broker's certificate is refused ({found.verify_message}): renew it, or check kafka.ca"
    if found is not None:
        return f"no TLS with this broker ({found}): check kafka.security, the port and the client certificate"
    return None


def _said(error: BaseException) -> str:
    """An error's own words, or better ones."""
    if isinstance(error, (kafka.KafkaConnectionError, kafka.NodeNotReadyError)):
        return "no broker answers there"
    return str(error) or f"no answer in time ({type(error).__name__})"


def _find(error: BaseException | None, kind: type[ssl.SSLError]) -> ssl.SSLError | None:
    """The TLS error behind an error: aiokafka wraps it."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, kind):
            return error
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None
