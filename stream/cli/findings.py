"""`spanwatch findings`: the role that turns results into alerts until it is told to stop."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from stream.cli.common import (
    ConfigOption,
    LogFormatOption,
    TransportOption,
    load_config,
    log_to_stderr,
    opened,
    run,
    stop_on_signals,
)
from stream.errors import Misuse
from stream.messages import RecordPosition

SkipOption = Annotated[
    list[str] | None,
    typer.Option(
        "--skip", help="Give up a record that cannot be read, by its position in the error message.", metavar="T/P/O"
    ),
]


def findings(
    config: ConfigOption = None,
    transport: TransportOption = None,
    skip: SkipOption = None,
    log_format: LogFormatOption = "text",
) -> None:
    """Turn results and people's decisions into alerts. Several may run and share the partitions.

    Example: spanwatch findings --transport local:/var/lib/spanwatch
    """

    async def main() -> None:
        from stream.findings.role import run_findings

        settings = load_config(config, transport)
        positions = frozenset(map(_position, skip or ()))
        log_to_stderr(log_format)
        for chatty in ("faust", "mode"):  # every service's start and stop
            logging.getLogger(chatty).setLevel(logging.WARNING)
        stop = stop_on_signals()
        async with opened(settings, "findings") as log:
            await run_findings(log, settings, stop, skip=positions)

    run(main())


def _position(text: str) -> RecordPosition:
    """`results/2/17`: topic, partition, offset."""
    match text.split("/"):
        case [topic, partition, offset] if topic and partition.isdecimal() and offset.isdecimal():
            return RecordPosition(topic=topic, partition=int(partition), offset=int(offset))
    raise Misuse(f"--skip takes TOPIC/PARTITION/OFFSET, for example results/2/17, not {text!r}")
