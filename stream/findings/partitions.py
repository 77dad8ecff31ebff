"""What happens to every result and decision: read it here for both homes of the log, in three numbered steps.

    (1) reduce: which alerts does the record change?
    (2) each changed alert is one acknowledged send to the compacted `alerts` topic: state and notice at once
    (3) the record is finished: its offset may be committed

The state is the `alerts` topic itself: partition n of it belongs to partition n of `results` and of `decisions`, which
one member holds together. When a member gets a partition, it reads that partition of `alerts` to its end before any
record. A crash after any step repeats the record, and a repeat changes nothing.

Who holds which partition, and how an offset is committed, is the driver's: findings/service.py on any transport,
findings/agents.py with Faust on Kafka.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Protocol, TypeVar

import msgspec

from stream.errors import BadFrame, Broken, Misuse, Unavailable
from stream.findings.rules import Alerts, UnknownAlert, too_small
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
from stream.transport.protocol import Message, Record, Transport

log = logging.getLogger(__name__)

RESULTS, DECISIONS, ALERTS = "results", "decisions", "alerts"
DEADLINE_S = 60.0
"""A transport that is away for longer ends the process, so that the supervisor and its operator see it."""
ASK_S = 0.5
"""How often it is asked whether results are left that a decision waits for."""
LAG_EVERY_S = 5.0

N = TypeVar("N", bound=Noun)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """What a findings process is there for."""

    transport: Transport
    group: str
    severities: Mapping[str, Severity]
    """Of every defect a result may name."""
    metrics: Metrics
    least_tiles: int = 1
    """See `Alerts`."""
    source: str = "site/findings"
    """Names this process in `ce_source`."""
    skip: frozenset[RecordPosition] = frozenset()
    """Records that an operator has looked at and given up; each is logged and finished unread."""
    step: Callable[[int], None] = lambda _: None
    """Called with the number of each step when it is done; tests die here."""


class Driver(Protocol):
    """How records come and go."""

    @property
    def stopping(self) -> bool:
        """Whether no further record is to be begun."""

    async def finish(self, record: Record) -> None:
        """Step 3: all alerts of this record, and of those before it in its partition, are safe."""


@dataclass(slots=True)
class _Partition:
    """What is known of one partition while this member holds it."""

    alerts: Alerts
    decisions: deque[Record] = field(default_factory=deque)
    """Taken and not finished, in offset order."""
    applied: int = 0
    """Results finished since the assignment."""
    due: int | None = None
    """The first decision names an alert that is not there: it is given up when `applied` has come this far."""
    asked: float = float("-inf")
    """When it was last asked whether results are left, by the monotonic clock."""


class Partitions:
    """The partitions this member holds, and what becomes of their records. Calls must not overlap."""

    def __init__(self, duty: Duty) -> None:
        self._duty = duty
        self._transport = duty.transport
        self._metrics = duty.metrics
        self._held: dict[int, _Partition] = {}
        self._lag_due = 0.0

    async def check(self) -> None:
        """Look at the topics before anything else.

        Raises:
            Misuse: results, decisions and alerts have different partition counts.
            Unavailable: the transport was away for longer than the deadline.
        """
        counts = {}
        for topic in (RESULTS, DECISIONS, ALERTS):
            counts[topic] = await patiently(partial(self._transport.partitions, topic), deadline_s=DEADLINE_S)
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{topic} has {count}" for topic, count in counts.items())
            raise Misuse(f"results, decisions and alerts need equal partition counts, but {found}")

    # ── the state ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def load(self, numbers: Iterable[int]) -> None:
        """Read these partitions of `alerts` to their end; to be done before any record of theirs is taken.

        Raises:
            Broken: an alert cannot be read, or the transport was away for longer than the deadline.
        """
        for number in sorted(numbers):
            try:
                alerts = await patiently(partial(self._read_alerts, number), deadline_s=DEADLINE_S)
            except Unavailable as error:
                # Not Unavailable: the call around this would be repeated, and would go on without the state.
                raise Broken(f"cannot read {ALERTS}[{number}], so nothing was begun: {error}") from error
            self._held[number] = _Partition(alerts)
            log.info("assigned partition=%d alerts=%d", number, len(alerts))

    def drop(self, numbers: Iterable[int]) -> None:
        """Forget partitions that go to another member: every finished record is committed, the rest is theirs."""
        for number in numbers:
            if self._held.pop(number, None) is not None:
                log.info("revoked partition=%d", number)
                for topic in (RESULTS, DECISIONS):
                    self._metrics.lag_seconds.labels(topic=topic, partition=number).set(0)

    async def _read_alerts(self, number: int) -> Alerts:
        alerts = Alerts(self._duty.least_tiles)
        async for record in self._transport.read(ALERTS, partition=number):
            if not self._skipped(record):
                alerts.load(_read(record, Alert))
        return alerts

    # ── the records ────────────────────────────────────────────────────────────────────────────────────────────────

    async def take(self, records: Sequence[Record], driver: Driver) -> None:
        """Work off records of held partitions, and decisions that have waited; `[]` only looks after the latter.

        Raises:
            Broken: a record cannot be read; it and those after it in its partition are not finished.
            Unavailable: the transport was away for longer than the deadline.
        """
        for record in records:
            self._metrics.lag_seconds.labels(topic=record.topic, partition=record.partition).set(_age_s(record))
            if record.topic == DECISIONS:
                self._held[record.partition].decisions.append(record)
        for record in records:
            if record.topic == RESULTS and not driver.stopping:
                await self._result(record, driver)
        for number in [number for number, held in self._held.items() if held.decisions]:
            await self._decide(number, driver)

    async def _result(self, record: Record, driver: Driver) -> None:
        held = self._held[record.partition]
        if not self._skipped(record):
            # 1. Reduce: which alerts does it change?
            result = _read(record, Result)
            changed = held.alerts.apply_result(result, self._duty.severities)
            for defect in too_small(result, self._duty.least_tiles):
                self._metrics.small_findings.labels(defect=defect).inc()
            self._duty.step(1)
            await self._emit(record.partition, changed)
        await self._finish(record, driver)
        held.applied += 1

    async def _decide(self, number: int, driver: Driver) -> None:
        """Take decisions in their order until none is left or the first one has to wait for results."""
        held = self._held[number]
        while held.decisions and not driver.stopping:
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
                    self._duty.step(1)
                    await self._emit(number, [changed] if changed else [])
                    self._metrics.decisions.labels(outcome="applied" if changed else "repeated").inc()
            await self._finish(record, driver)
            held.decisions.popleft()
            held.due = None

    async def _may_still_come(self, held: _Partition, number: int) -> bool:
        """Whether results are left that may open the alert a decision names.

        People decide on alerts they have seen, so the result lies in the log already; but the topics are read side by
        side, and when a log is read anew the decision may be met first. It waits until the results that lie there now
        are done.
        """
        if held.due is not None and held.applied >= held.due:
            return False
        if held.due is not None and time.monotonic() < held.asked + ASK_S:
            return True
        held.asked = time.monotonic()
        lags = await patiently(partial(self._transport.lag, self._duty.group, RESULTS), deadline_s=DEADLINE_S)
        lag = lags.get(number, 0)
        if held.due is None:
            held.due = held.applied + lag
        # Either answer is enough: in a busy log the lag is never nought, and it also counts records that are long gone.
        return lag > 0 and held.applied < held.due

    async def _emit(self, partition: int, changed: Sequence[Alert]) -> None:
        for alert in changed:
            value = encode(alert)
            # The id names this state of the alert: a consumer that drops repeats by it still sees every change.
            headers = envelope(Alert, content_id("change", value.decode()), self._duty.source, datetime.now(UTC))
            message = Message(topic=ALERTS, key=alert.alert_id, value=value, headers=headers, partition=partition)
            # 2. Each changed alert is one acknowledged send: the state write and the notice to consumers at once.
            await patiently(partial(self._transport.send, message), deadline_s=DEADLINE_S)
            self._duty.step(2)
            self._metrics.alerts.labels(defect=alert.defect, severity=alert.severity).inc()

    async def _finish(self, record: Record, driver: Driver) -> None:
        # 3. Finish: its alerts are safe, so the record is done.
        await driver.finish(record)
        self._duty.step(3)

    def _skipped(self, record: Record) -> bool:
        where = RecordPosition(topic=record.topic, partition=record.partition, offset=record.offset)
        if where not in self._duty.skip:
            return False
        log.error("skipped as told, unread at=%s key=%s bytes=%d", _at(record), record.key, len(record.value))
        return True

    # ── the figures ────────────────────────────────────────────────────────────────────────────────────────────────

    async def measure(self) -> None:
        """Every few seconds, say how far behind each held partition is, in records and in seconds.

        Seconds: the age of the decision that waits longest, or of the record taken last; 0 when all is done.
        """
        if time.monotonic() < self._lag_due:
            return
        self._lag_due = time.monotonic() + LAG_EVERY_S
        for topic in (RESULTS, DECISIONS):
            ask = partial(self._transport.lag, self._duty.group, topic)
            for number, records in (await patiently(ask, deadline_s=DEADLINE_S)).items():
                self._metrics.lag_records.labels(topic=topic, partition=number).set(records)
                held = self._held.get(number)
                seconds = self._metrics.lag_seconds.labels(topic=topic, partition=number)
                if held is not None and records == 0:
                    seconds.set(0)
                elif held is not None and topic == DECISIONS and held.decisions:
                    seconds.set(_age_s(held.decisions[0]))


def _age_s(record: Record) -> float:
    return max(0.0, datetime.now(UTC).timestamp() - record.timestamp)


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
