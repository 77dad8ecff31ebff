"""The findings role of one box: the severities of the release, the pages of its figures, and the home of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry

from stream.config import Config
from stream.findings.partitions import Duty
from stream.findings.service import Findings
from stream.messages import RecordPosition, Severity
from stream.metrics import Metrics, serve
from stream.releases import open_release, severities_of
from stream.transport.protocol import Transport


class Member(Protocol):
    """One member of the findings group, on whichever home."""

    @property
    def ready(self) -> bool: ...

    async def run(self, stop: asyncio.Event) -> None: ...


async def run_findings(
    transport: Transport,
    config: Config,
    stop: asyncio.Event,
    *,
    severities: Mapping[str, Severity] | None = None,
    skip: frozenset[RecordPosition] = frozenset(),
    step: Callable[[int], None] = lambda _: None,
) -> None:
    """Turn results into alerts until `stop` is set; then finish and commit the record in hand.

    Args:
        severities: None: those of the release that the settings name.
        skip: records that an operator has looked at and given up.
        step: for crash tests.
    """
    known = severities
    if known is None:
        known = severities_of(await asyncio.to_thread(open_release, config.engine))  # it reads and verifies the files
    duty = Duty(
        transport=transport,
        group=config.findings.group,
        severities=known,
        metrics=Metrics(CollectorRegistry()),
        least_tiles=config.findings.least_tiles,
        source=f"{config.site}/findings",
        skip=skip,
        step=step,
    )
    member = _member(duty, config)
    async with serve(duty.metrics, config.metrics.host, config.metrics.findings_port, lambda: member.ready):
        await member.run(stop)


def _member(duty: Duty, config: Config) -> Member:
    if config.transport.startswith("kafka:"):
        from stream.findings.agents import Agents

        return Agents(duty, config)
    return Findings(duty)
