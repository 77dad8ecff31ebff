"""`spanwatch worker` and `spanwatch site`: the roles that run until they are told to stop."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.cli.common import (
    ConfigOption,
    LogFormatOption,
    TransportOption,
    load_config,
    log_to_stderr,
    run,
    state_folder,
    stop_on_signals,
)
from stream.config import Config
from stream.site import Role, run_site
from stream.transport import open_transport


def worker(
    config: ConfigOption = None, transport: TransportOption = None, log_format: LogFormatOption = "text"
) -> None:
    """Answer photos: decode, tile, infer, and write a result for each. Several workers share the partitions.

    Example: spanwatch worker --transport local:/var/lib/spanwatch
    """
    run(_worker(load_config(config, transport), log_format))


async def _worker(settings: Config, log_format: str) -> None:
    from stream.worker.role import run_worker

    log_to_stderr(log_format)
    stop = stop_on_signals()
    log = await open_transport(settings)
    try:
        await run_worker(log, settings, stop, state=state_folder(settings))
    finally:
        await log.close()


def site(
    config: ConfigOption = None,
    transport: TransportOption = None,
    workers: Annotated[int, typer.Option(help="Worker processes; one fills all cores.", min=1)] = 1,
    log_format: LogFormatOption = "text",
) -> None:
    """Run all roles of one box as child processes, restart what falls, stop cleanly on SIGTERM.

    Example: spanwatch site --transport local:/var/lib/spanwatch
    """
    options = ["--log-format", log_format]
    options += ["--config", str(config)] if config else []
    options += ["--transport", transport] if transport else []
    load_config(config, transport)  # a wrong configuration is told once, here, not by every child
    roles = [Role(f"worker-{n}", ("worker", *options)) for n in range(workers)]
    roles.append(Role("findings", ("findings", *options)))
    run(_site(roles, log_format))


async def _site(roles: list[Role], log_format: str) -> None:
    log_to_stderr(log_format)
    await run_site(roles, stop_on_signals())
