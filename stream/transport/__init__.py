"""The log that carries frames, results and alerts: one protocol, opened by URL."""

from __future__ import annotations

from pathlib import Path

from stream.config import Config
from stream.errors import Misuse
from stream.transport.protocol import Transport


async def open_transport(config: Config) -> Transport:
    """Open what `config.transport` names: `local:DIR`.

    Raises:
        Misuse: the URL has no known scheme.
        Unavailable: it is away.
    """
    scheme, colon, rest = config.transport.partition(":")
    if scheme == "local" and colon and rest:
        from stream.transport.local import LocalTransport

        return await LocalTransport.open(Path(rest), config.local, prefix=config.topic_prefix)
    raise Misuse(f"no transport {config.transport!r}: write local:DIR, for example local:spanwatch-data")
