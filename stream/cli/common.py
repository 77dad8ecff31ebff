"""What all commands share: the options every one of them takes, exit codes, and one way to end with an error."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from stream import config as settings
from stream.config import Config, RoleName
from stream.errors import BadFrame, Misuse, SpanwatchError
from stream.transport import open_transport
from stream.transport.protocol import Transport

DONE, FAILED, MISUSED, SOME_DEAD = 0, 1, 2, 3
"""Exit codes: done; failed; used wrongly; done, but some frames are dead."""


def plain_console(**where: Any) -> Console:
    """A console that takes brackets and colons for text: photos, flights and settings have names with them."""
    return Console(highlight=False, markup=False, emoji=False, **where)


out = plain_console()
"""For what a person asked for."""
err = plain_console(stderr=True)
"""For progress and trouble, so that `--json` output can be piped."""

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file; see configs/edge.toml.", metavar="FILE")
]
TransportOption = Annotated[
    str | None,
    typer.Option("--transport", help="local:DIR or kafka://HOST:PORT; wins over the configuration.", metavar="URL"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For a program: JSON, one object a line.")]

T = TypeVar("T")


def load_config(path: Path | None, transport: str | None = None) -> Config:
    """The settings of this call: file, variables, then the options given on the command line."""
    config = settings.load(path, os.environ)
    return msgspec.structs.replace(config, transport=transport) if transport else config


@contextlib.asynccontextmanager
async def opened(config: Config, role: RoleName = "reader") -> AsyncIterator[Transport]:
    """The settings' transport, for as long as the block runs, opened as that role."""
    transport = await open_transport(config, role)
    try:
        yield transport
    finally:
        await transport.close()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run one coroutine; a `SpanwatchError` ends the process with its message and its exit code, never a traceback."""
    with guarded():
        return asyncio.run(main)
    raise AssertionError("unreachable")


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """In here, a `SpanwatchError` ends the process with its message and its exit code."""
    try:
        yield
    except* Misuse as group:
        _end(group, MISUSED)
    except* SpanwatchError as group:
        _end(group, FAILED)


def complain(words: object) -> None:
    """What is wrong, as every command says it."""
    err.print(Text.assemble(("spanwatch:", "red"), f" {words}"), soft_wrap=True)


def _end(group: BaseExceptionGroup[SpanwatchError], code: int) -> None:
    for error in _leaves(group):
        kind = f" ({error.reason})" if isinstance(error, BadFrame) else ""
        complain(f"{error}{kind}")
    sys.exit(code)


def _leaves(group: BaseExceptionGroup[SpanwatchError]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


def print_json(noun: Any) -> None:
    """One JSON object on one line of standard output."""
    sys.stdout.write(msgspec.json.encode(noun).decode() + "\n")
    sys.stdout.flush()  # a program that follows waits for this line


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set: the first one asks for a clean stop, a second SIGINT ends at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ask)
    return stop


def log_to_stderr(form: str) -> None:
    """Configure logging; only roles do, and only here.

    Raises:
        Misuse: neither `text` nor `json`.
    """
    if form not in {"text", "json"}:
        raise Misuse(f"--log-format is text or json, not {form!r}")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(TEXT_LINE))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # While a broker is away aiokafka writes ten errors a second; what it means is in our own lines.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


TEXT_LINE = "%(asctime)s %(levelname)-7s %(name)s %(message)s"


class JsonLines(logging.Formatter):
    """One JSON object a line, for a log collector."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


LogFormatOption = Annotated[str, typer.Option("--log-format", help="text or json.", metavar="FORMAT")]


def state_folder(config: Config) -> Path:
    """Where a role of this box keeps what is its own: beside the embedded log, or beside the blobs."""
    scheme, _, rest = config.transport.partition(":")
    if config.state is not None:
        return Path(config.state)
    if scheme == "local":
        return Path(rest) / "state"
    return Path(config.kafka.blobs).parent / "state"
