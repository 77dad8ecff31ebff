"""Where photos go: named at once and opened at its first use, so that an upload begins while it is away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from stream.config import Config
from stream.transport import open_transport
from stream.transport.protocol import Transport
from stream.uploader.scan import readable


class Destination:
    """A transport that need not be there yet; what it is called is what the outbox knows it by."""

    def __init__(self, name: str, connect: Callable[[], Awaitable[Transport]]) -> None:
        """`connect` is awaited until it succeeds once."""
        self.name = _absolute(name)
        self._connect = connect
        self._transport: Transport | None = None

    @classmethod
    def of(cls, transport: Transport) -> Destination:
        """One that is open; whoever opened it closes it."""

        async def there() -> Transport:
            return transport

        return cls(transport.url, there)

    @classmethod
    def configured(cls, config: Config) -> Destination:
        """The one that the settings name. Two sites on one broker are two destinations."""
        name = config.transport + (f"#{config.topic_prefix}" if config.topic_prefix else "")
        return cls(name, lambda: open_transport(config, "uploader"))

    async def transport(self) -> Transport:
        """The open transport.

        Raises:
            Unavailable: it is away; ask again.
            Broken, Misuse: see `open_transport`.
        """
        if self._transport is None:
            self._transport = await self._connect()
        return self._transport

    async def close(self) -> None:
        """Close it, if it was ever opened."""
        if self._transport is not None:
            await self._transport.close()


def _absolute(url: str) -> str:
    """A local log is the same destination from whatever folder it is named."""
    scheme, _, rest = url.partition(":")
    return f"local:{readable(Path(rest).resolve())}" if scheme == "local" else url
