"""`spanwatch worker` and `spanwatch site`: the roles that run until they are told to stop."""

from __future__ import annotations

import socket
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
    state_folder,
    stop_on_signals,
)
from stream.site import Role, run_site


def worker(
    config: ConfigOption = None, transport: TransportOption = None, log_format: LogFormatOption = "text"
) -> None:
    """Answer photos: decode, tile, infer, and write a result for each. Several workers share the partitions.

    Example: spanwatch worker --transport local:/var/lib/spanwatch
    """

    async def main() -> None:
        from stream.worker.role import run_worker

        settings = load_config(config, transport)
        log_to_stderr(log_format)
        stop = stop_on_signals()
        async with opened(settings, "worker") as log:
            await run_worker(log, settings, stop, state=state_folder(settings))

    run(main())


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

    async def main() -> None:
        settings = load_config(config, transport)  # a wrong file is told here, not by every child
        first = settings.metrics.worker_port
        member = settings.kafka.member or f"{settings.site}-{socket.gethostname()}"
        roles = [Role("findings", ("findings", *options), {"SPANWATCH_KAFKA__MEMBER": f"{member}-findings"})]
        for number in range(workers):
            # The name outlives the process: a worker that falls and is restarted gets its own partitions back at once.
            variables = {"SPANWATCH_KAFKA__MEMBER": f"{member}-worker-{number}"}
            variables |= {"SPANWATCH_METRICS__WORKER_PORT": str(first + number)} if first > 0 else {}
            roles.append(Role(f"worker-{number}", ("worker", *options), variables))
        log_to_stderr(log_format)
        await run_site(roles, stop_on_signals())

    run(main())
