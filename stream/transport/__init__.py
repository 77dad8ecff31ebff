"""The log that carries frames, results and alerts: one protocol, opened by URL."""

from __future__ import annotations

from pathlib import Path

from stream.config import Config, RoleName
from stream.errors import Misuse
from stream.transport.protocol import Transport


async def open_transport(config: Config, role: RoleName = "reader") -> Transport:
    """Open what `config.transport` names: `local:DIR` or `kafka://HOST:PORT[,HOST:PORT]`.

    Args:
        role: who asks; a Kafka broker may know each role by a login of its own.

    Raises:
        Misuse: the URL has no known scheme.
        Unavailable: it is away.
        Broken: the broker refuses the login or its certificate.
    """
    scheme, colon, rest = config.transport.partition(":")
    if scheme == "local" and colon and rest:
        from stream.transport.local import LocalTransport

        return await LocalTransport.open(Path(rest), config.local, prefix=config.topic_prefix)
    if scheme == "kafka":
        from stream.transport.kafka import KafkaTransport

        return await KafkaTransport.open(config, role)
    raise Misuse(
        f"no transport {config.transport!r}: write local:DIR, for example local:spanwatch-data,"
        " or kafka://HOST:PORT, for example kafka://127.0.0.1:9092"
    )
