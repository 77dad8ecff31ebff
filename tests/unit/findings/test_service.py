"""The findings loop on the embedded log: what it waits for, what stops it, and that nothing is committed too early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from stream.config import Config, FindingsSection, LocalSection, MetricsSection
from stream.errors import Broken
from stream.findings.role import run_findings
from stream.messages import Alert, RecordPosition, Result, decode
from stream.metrics import Metrics
from stream.testing import Fault, Faulty
from stream.transport.local import LocalTransport
from stream.transport.protocol import Transport
from tests.unit.findings.driving import GROUP, PATIENCE_S, compacted, lag, member, message, send, stop_after, work
from tests.unit.findings.made import SEVERITIES, decision, first_alert, region, result


def on_a_log(folder: Path, test: Callable[[Transport], Awaitable[None]]) -> None:
    async def main() -> None:
        log = await LocalTransport.open(folder / "log", LocalSection(partitions=2, min_free_bytes=0))
        try:
            await test(log)
        finally:
            await log.close()

    asyncio.run(main())


def counted(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_finding_becomes_an_alert_in_the_partition_of_its_result(tmp_path: Path) -> None:
    async def test(log: Transport) -> None:
        shots = [result(1, [region()], asset="pier-3"), result(2, [region("spalling")], asset="abutment-e")]
        placed = {shot.result_id: (await log.send(message(shot)))[0].partition for shot in shots}
        assert len(set(placed.values())) == 2
        metrics = await work(log, until=2)
        found = {record.key: record async for record in log.read("alerts")}
        assert len(found) == 2
        for record in found.values():
            (evidence,) = decode(record.value, Alert).evidence
            assert record.partition == placed[evidence.result_id]
        assert counted(metrics, "spanwatch_alerts_total", defect="crack", severity="medium") == 1
        assert counted(metrics, "spanwatch_alerts_total", defect="spalling", severity="high") == 1

    on_a_log(tmp_path, test)


def test_the_settings_say_how_much_of_a_photo_has_to_show_a_defect(tmp_path: Path) -> None:
    quiet = MetricsSection(findings_port=-1)
    config = Config(findings=FindingsSection(group=GROUP, least_tiles=3), metrics=quiet)

    async def test(log: Transport) -> None:
        small, large = (result(number, [region(tiles=number)]) for number in (2, 3))
        await send(log, [small, large])
        stop = asyncio.Event()
        async with asyncio.timeout(PATIENCE_S):
            await run_findings(log, config, stop, severities=SEVERITIES, step=stop_after(stop, 2))
        (value,) = (await compacted(log)).values()
        assert [one.result_id for one in decode(value, Alert).evidence] == [large.result_id]

    on_a_log(tmp_path, test)


def test_what_is_too_small_for_an_alert_is_counted(tmp_path: Path) -> None:
    async def test(log: Transport) -> None:
        await send(log, [result(1, [region(tiles=2), region("spalling", tiles=3)]), result(2, [region()])])
        metrics = await work(log, until=2, least_tiles=3)
        assert counted(metrics, "spanwatch_small_findings_total", defect="crack") == 2
        assert counted(metrics, "spanwatch_small_findings_total", defect="spalling") is None

    on_a_log(tmp_path, test)


def test_a_decision_met_before_its_result_waits_for_it(tmp_path: Path) -> None:
    async def test(log: Transport) -> None:
        shots = [result(number, [region()]) for number in range(250)]  # more than one poll brings
        await send(log, [decision(first_alert(shots[-1]), "dismiss"), *shots])
        metrics = await work(log, until=251)
        states = [decode(value, Alert).state for value in (await compacted(log)).values()]
        assert sorted(states) == ["dismissed"] + ["open"] * 249
        assert counted(metrics, "spanwatch_decisions_total", outcome="applied") == 1
        assert counted(metrics, "spanwatch_decisions_total", outcome="unknown") is None

    on_a_log(tmp_path, test)


def test_a_decision_on_an_unknown_alert_is_counted_committed_and_holds_nothing_up(tmp_path: Path) -> None:
    async def test(log: Transport) -> None:
        shot = result(1, [region()])
        stranger = decision("0" * 32)
        await send(log, [stranger, decision(first_alert(shot)), decision(first_alert(shot)), shot])
        metrics = await work(log, until=4)
        (alert,) = [decode(value, Alert) for value in (await compacted(log)).values()]
        assert (alert.state, len(alert.history)) == ("confirmed", 1)
        for outcome in ("unknown", "applied", "repeated"):
            assert counted(metrics, "spanwatch_decisions_total", outcome=outcome) == 1
        assert await lag(log) == 0

    on_a_log(tmp_path, test)


def test_what_was_said_twice_is_emitted_once(tmp_path: Path) -> None:
    async def test(log: Transport) -> None:
        shot = result(1, [region(), region("algae")])
        await send(log, [shot, shot, result(2)])
        await work(log, until=3)
        assert len([record async for record in log.read("alerts")]) == 2

    on_a_log(tmp_path, test)


def test_a_later_member_knows_what_an_earlier_one_did(tmp_path: Path) -> None:
    async def test(log: Transport) -> None:
        shot = result(1, [region()])
        await send(log, [shot])
        await work(log, until=1)
        await send(log, [shot, decision(first_alert(shot))])
        await work(log, until=2)
        (value,) = (await compacted(log)).values()
        assert decode(value, Alert).state == "confirmed"
        assert len([record async for record in log.read("alerts")]) == 2

    on_a_log(tmp_path, test)


def test_two_members_share_the_partitions_and_lose_nothing(tmp_path: Path) -> None:
    async def test(log: Transport) -> None:
        other = await LocalTransport.open(tmp_path / "log", LocalSection(partitions=2, min_free_bytes=0))
        stop, worked = asyncio.Event(), asyncio.Event()
        sent: list[Result] = []
        commits = {"first": 0, "second": 0}
        fed = False

        def step_of(name: str) -> Callable[[int], None]:
            def step(number: int) -> None:
                commits[name] += number == 3
                worked.set()
                if fed and sum(commits.values()) == len(sent):
                    stop.set()

            return step

        async def feed() -> None:
            """Results for both partitions until both members have worked, then one more for each."""
            nonlocal fed
            while not all(commits.values()):
                sent.append(result(len(sent), [region()], asset=f"pier-{len(sent) % 5}"))
                await send(log, sent[-1:])
                while sum(commits.values()) < len(sent) - 5:
                    worked.clear()
                    await worked.wait()
            fed = True
            last = [result(len(sent) + n, [region()], asset=f"pier-{n}") for n in range(5)]
            sent.extend(last)
            await send(log, last)

        try:
            async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
                for one, name in ((log, "first"), (other, "second")):
                    group.create_task(member(one, step_of(name)).run(stop))
                await feed()
        finally:
            await other.close()
        found = [decode(value, Alert) for value in (await compacted(log)).values()]
        assert {alert.evidence[0].result_id for alert in found} == {one.result_id for one in sent}
        assert await lag(log) == 0

    on_a_log(tmp_path, test)


NEWER = {"ce_type": "spanwatch.Result.v99.0"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"headers": NEWER}, r"results/\d/1 was written by a newer spanwatch .*v99\.0.*--skip results/\d/1"),
        ({"value": b"{"}, r"results/\d/1 is not a Result: .*--skip results/\d/1"),
        ({"value": b'{"result_id": "\xff"}'}, r"results/\d/1 is not a Result: .*--skip results/\d/1"),
        ({"value": b"{}"}, r"results/\d/1 is not a Result: .*result_id"),
        ({"topic": "decisions"}, r"decisions/\d/0 is not a Decision"),
    ],
    ids=["newer major version", "no JSON", "no UTF-8", "no Result", "a Result among decisions"],
)
def test_an_unreadable_record_stops_the_role_with_its_position_and_nothing_past_it_is_committed(
    tmp_path: Path, changes: dict, says: str
) -> None:
    async def test(log: Transport) -> None:
        await send(log, [result(1, [region()])])
        at, offset = await log.send(message(result(2, [region()]), **changes))
        await send(log, [result(3, [region()])])
        with pytest.raises(Broken, match=says):
            await work(log, until=3)
        assert (await log.lag("findings", at.topic))[at.partition] >= 1
        before = await lag(log)

        await work(log, until=before, skip=frozenset([RecordPosition(topic=at.topic, partition=at[1], offset=offset)]))
        assert len(await compacted(log)) == 2
        assert await lag(log) == 0

    on_a_log(tmp_path, test)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="send", at=2, how="unavailable"),
        Fault(on="send", at=2, how="lose_ack"),
        Fault(on="commit", at=2, how="unavailable"),
        Fault(on="commit", at=2, how="lose_ack"),
        Fault(on="poll", at=2, how="unavailable"),
    ],
    ids=lambda fault: f"{fault.on} {fault.how}",
)
def test_a_log_that_is_away_for_a_moment_changes_nothing(tmp_path: Path, fault: Fault) -> None:
    async def test(log: Transport) -> None:
        shots = [result(number, [region(), region("spalling")]) for number in range(3)]
        await send(log, [*shots, decision(first_alert(shots[0]))])
        await work(Faulty(log, [fault]), until=4, metrics=Metrics(CollectorRegistry()))
        found = [decode(value, Alert) for value in (await compacted(log)).values()]
        assert sorted(alert.state for alert in found) == ["confirmed"] + ["open"] * 5
        assert await lag(log) == 0

    # Sends that go through the wrapped log are those of the role alone: the test sends to the log itself.
    on_a_log(tmp_path, test)
