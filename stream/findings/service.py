"""The findings role: reads results and decisions, keeps the alerts in their topic, and commits last.

The state is the compacted `alerts` topic itself: partition n of it belongs to partition n of `results` and of
`decisions`, which one member holds together. On assignment that partition is read to its end; after that every record
goes through the same three numbered steps. A crash after any of them repeats the record, and a repeat changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import msgspec

from stream.config import FindingsSection
from stream.errors import BadFrame, Broken, Misuse, Unavailable
from stream.findings.rules import Alerts, UnknownAlert
from stream.messages import (
    Alert,
    Decision,
    Noun,
    RecordPosition,
    Result,
    Severity,
    check_version,
    content_id,
    decode,
    encode,
    envelope,
)
from stream.metrics import Metrics
from stream.patience import patiently
from stream.transport.protocol import Consumer, Message, Record, TopicPartition, Transport

log = logging.getLogger(__name__)

RESULTS, DECISIONS, ALERTS = "results", "decisions", "alerts"
POLL_RECORDS = 100
POLL_S = 0.5
"""How long an idle role takes to notice that it should stop."""
DEADLINE_S = 60.0
"""A transport that is away for longer ends the process, so that the supervisor and its operator see it."""

N = TypeVar("N", bound=Noun)


@dataclass(slots=True)
class _Partition:
    """What is known of one partition while this member holds it."""

    alerts: Alerts
    decisions: deque[Record] = field(default_factory=deque)
    """Polled and not committed, in offset order."""
    applied: int = 0
    """Results committed since the assignment."""
    due: int | None = None
    """The first decision names an alert that is not there: it is tried again when `applied` has come this far."""


class Findings:
    """One member of the findings group; `run` is the whole role. It is the transport's Listener for its own group."""

    def __init__(
        self,
        transport: Transport,
        section: FindingsSection,
        severities: Mapping[str, Severity],
        metrics: Metrics,
        *,
        source: str = "site/findings",
        skip: frozenset[RecordPosition] = frozenset(),
        step: Callable[[int], None] = lambda _: None,
    ) -> None:
        """
        Args:
            severities: of every defect a result may name.
            source: names this process in `ce_source`.
            skip: records that an operator has looked at and given up; each is logged and committed unread.
            step: called with the number of each step when it is done; tests die here.
        """
        self._transport = transport
        self._group = section.group
        self._severities = severities
        self._metrics = metrics
        self._source = source
        self._skip = skip
        self._step = step
        self._held: dict[int, _Partition] = {}
        self._stop = asyncio.Event()
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether the group has been joined and the log answers."""
        return self._ready

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish and commit the record in hand.

        Raises:
            Unavailable: the transport was away for longer than the deadline.
            Broken: a record cannot be read, or the partition was taken away; nothing past it was committed.
            Misuse: the topics have different partition counts.
        """
        self._stop = stop
        await self._check_copartitioned()
        join = partial(self._transport.subscribe, self._group, (RESULTS, DECISIONS), self)
        consumer = await patiently(join, deadline_s=DEADLINE_S)
        try:
            poll = partial(consumer.poll, max_records=POLL_RECORDS, timeout_s=POLL_S)
            while not stop.is_set():
                records = await patiently(poll, deadline_s=DEADLINE_S)
                self._ready = True
                await self._take(consumer, records)
        finally:
            self._ready = False
            await consumer.close()

    # ── the state ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Read these partitions of `alerts` to their end before any record of theirs is handed out."""
        for partition in sorted(tp.partition for tp in partitions if tp.topic == RESULTS):
            try:
                alerts = await patiently(partial(self._read_alerts, partition), deadline_s=DEADLINE_S)
            except Unavailable as error:
                # Not Unavailable: the poll around this would be repeated, and would go on without the state.
                raise Broken(f"cannot read {ALERTS}[{partition}], so nothing was begun: {error}") from error
            self._held[partition] = _Partition(alerts)
            log.info("assigned partition=%d alerts=%d", partition, len(alerts))

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop them: every finished record is committed already, the rest is the next member's."""
        for tp in partitions:
            if self._held.pop(tp.partition, None) is not None:
                log.info("revoked partition=%d", tp.partition)

    async def _read_alerts(self, partition: int) -> Alerts:
        alerts = Alerts()
        async for record in self._transport.read(ALERTS, partition=partition):
            if not self._skipped(record):
                alerts.load(_read(record, Alert))
        return alerts

    async def _check_copartitioned(self) -> None:
        counts = {topic: await self._transport.partitions(topic) for topic in (RESULTS, DECISIONS, ALERTS)}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{topic} has {count}" for topic, count in counts.items())
            raise Misuse(f"results, decisions and alerts need equal partition counts, but {found}")

    # ── the records ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _take(self, consumer: Consumer, records: Sequence[Record]) -> None:
        for record in records:
            self._metrics.lag_seconds.labels(topic=record.topic, partition=record.partition).set(
                max(0.0, datetime.now(UTC).timestamp() - record.timestamp)
            )
            if record.topic == DECISIONS:
                self._held[record.partition].decisions.append(record)
        for record in records:
            if record.topic == RESULTS and not self._stop.is_set():
                await self._result(consumer, record)
        for number in [number for number, held in self._held.items() if held.decisions]:
            await self._decide(consumer, number)

    async def _result(self, consumer: Consumer, record: Record) -> None:
        held = self._held[record.partition]
        if not self._skipped(record):
            # 1. Reduce: which alerts does it change?
            changed = held.alerts.apply_result(_read(record, Result), self._severities)
            self._step(1)
            await self._emit(record.partition, changed)
        await self._commit(consumer, record)
        held.applied += 1

    async def _decide(self, consumer: Consumer, number: int) -> None:
        """Take decisions in their order until none is left or the first one has to wait for results."""
        held = self._held[number]
        while held.decisions and not self._stop.is_set():
            record = held.decisions[0]
            if not self._skipped(record):
                decision = _read(record, Decision)
                try:
                    # 1. Reduce: what does it make of its alert?
                    changed = held.alerts.apply_decision(decision)
                except UnknownAlert:
                    if await self._may_still_come(held, number):
                        return
                    log.warning("no such alert, decision ignored at=%s decision=%s", _at(record), decision)
                    self._metrics.decisions.labels(outcome="unknown").inc()
                else:
                    self._step(1)
                    await self._emit(number, [changed] if changed else [])
                    self._metrics.decisions.labels(outcome="applied" if changed else "repeated").inc()
            await self._commit(consumer, record)
            held.decisions.popleft()
            held.due = None

    async def _may_still_come(self, held: _Partition, number: int) -> bool:
        """Whether results are left that may open the alert a decision names.

        People decide on alerts they have seen, so the result lies in the log already; but the topics are read side by
        side, and when a log is read anew the decision may be met first. It waits until the results that lie there now
        are done.
        """
        lags = await patiently(partial(self._transport.lag, self._group, RESULTS), deadline_s=DEADLINE_S)
        lag = lags.get(number, 0)
        if held.due is None:
            held.due = held.applied + lag
        # Either answer is enough: in a busy log the lag is never nought, and it also counts records that are long gone.
        return lag > 0 and held.applied < held.due

    async def _emit(self, partition: int, changed: Sequence[Alert]) -> None:
        for alert in changed:
            value = encode(alert)
            # The id names this state of the alert: a consumer that drops repeats by it still sees every change.
            headers = envelope(Alert, content_id("change", value.decode()), self._source, datetime.now(UTC))
            message = Message(topic=ALERTS, key=alert.alert_id, value=value, headers=headers, partition=partition)
            # 2. Each changed alert is one acknowledged send: the state write and the notice to consumers at once.
            await patiently(partial(self._transport.send, message), deadline_s=DEADLINE_S)
            self._step(2)
            self._metrics.alerts.labels(defect=alert.defect, severity=alert.severity).inc()

    async def _commit(self, consumer: Consumer, record: Record) -> None:
        # 3. Commit: its alerts are safe, so the record is done.
        await patiently(partial(consumer.commit, {record.tp: record.offset + 1}), deadline_s=DEADLINE_S)
        self._step(3)

    def _skipped(self, record: Record) -> bool:
        where = RecordPosition(topic=record.topic, partition=record.partition, offset=record.offset)
        if where not in self._skip:
            return False
        log.error("skipped as told, unread at=%s key=%s bytes=%d", _at(record), record.key, len(record.value))
        return True


def _at(record: Record) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"


def _read(record: Record, kind: type[N]) -> N:
    """The noun in a record of our own topics; one that cannot be read stops the process before anything is lost.

    Raises:
        Broken: with the record's position.
    """
    way_out = f"or look at it and give it up with `spanwatch findings --skip {_at(record)}`"
    try:
        check_version(record.headers)
        return decode(record.value, kind)
    except BadFrame as error:
        what = f"{_at(record)} was written by a newer spanwatch (ce_type={record.headers.get('ce_type')!r})"
        raise Broken(f"{what}; nothing is lost: update this one, {way_out}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the first is also the base of ValidationError
        what = f"{_at(record)} is not a {kind.__name__}: {error}"
        raise Broken(f"{what}; nothing is lost: find out what wrote it, {way_out}") from error
