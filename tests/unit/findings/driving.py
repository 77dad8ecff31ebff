"""Runs the real findings loop on a real log until a known number of records is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from stream.config import FindingsSection
from stream.findings.partitions import Duty
from stream.findings.service import Findings
from stream.messages import Decision, Noun, Result, encode, envelope
from stream.metrics import Metrics
from stream.transport.protocol import Message, Transport
from tests.unit.findings.made import SEVERITIES

GROUP = FindingsSection().group
PATIENCE_S = 120
"""Ends a test that hangs; nothing is measured against it."""


def message(noun: Result | Decision, **changes: Any) -> Message:
    """The record that a worker or the command sends."""
    ident, topic, asset = (
        (noun.result_id, "results", noun.frame.asset)
        if isinstance(noun, Result)
        else (noun.decision_id, "decisions", noun.asset)
    )
    headers = envelope(type(noun), ident, "test", datetime(2025, 5, 1, tzinfo=UTC))
    fields: dict[str, Any] = {"topic": topic, "key": asset, "value": encode(noun), "headers": headers}
    return Message(**(fields | changes))


async def send(log: Transport, nouns: Sequence[Noun]) -> None:
    for noun in nouns:
        assert isinstance(noun, Result | Decision)
        await log.send(message(noun))


async def work(log: Transport, *, until: int, metrics: Metrics | None = None, **options: Any) -> Metrics:
    """Be the findings role until `until` records are committed."""
    metrics = metrics or Metrics(CollectorRegistry())
    stop = asyncio.Event()
    async with asyncio.timeout(PATIENCE_S):
        await member(log, stop_after(stop, until), metrics, **options).run(stop)
    return metrics


def member(log: Transport, step: Callable[[int], None], metrics: Metrics | None = None, **options: Any) -> Findings:
    """One member of the group, not running yet."""
    return Findings(duty(log, metrics or Metrics(CollectorRegistry()), step=step, **options))


def duty(log: Transport, metrics: Metrics, **options: Any) -> Duty:
    """What the tests' findings are there for."""
    return Duty(transport=log, group=GROUP, severities=SEVERITIES, metrics=metrics, **options)


def stop_after(stop: asyncio.Event, commits: int) -> Callable[[int], None]:
    """A `step` that sets `stop` when step 3 has been done so often; for 0 at once."""
    left = commits
    if not commits:
        stop.set()

    def step(number: int) -> None:
        nonlocal left
        left -= number == 3
        if not left:
            stop.set()

    return step


async def lag(log: Transport) -> int:
    """Records of both topics that the group has not committed."""
    counts: list[Mapping[int, int]] = [await log.lag(GROUP, topic) for topic in ("results", "decisions")]
    return sum(sum(by_partition.values()) for by_partition in counts)


async def compacted(log: Transport) -> dict[str, bytes]:
    """alert_id -> its latest encoding."""
    return {record.key: record.value async for record in log.read("alerts")}
