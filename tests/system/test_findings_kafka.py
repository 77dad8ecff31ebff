"""Findings on a real broker: deaths, members that come and go, refusals, and the alerts of the embedded log at the end.

Run as a script it is one member in a process of its own: `test_findings_kafka.py CONFIG MODE [STEP COUNT]`.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import faust
import msgspec
import pytest
from aiokafka import TopicPartition as StoredPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.types import Array, Bytes, Int16, Int32, Schema, String
from prometheus_client import CollectorRegistry

from stream.config import Config, KafkaSection, LocalSection
from stream.errors import Broken
from stream.findings.role import run_findings
from stream.messages import Alert, Decision, Result, decode
from stream.metrics import Metrics
from stream.patience import patiently
from stream.transport import open_transport
from stream.transport.kafka_topics import administration, create_topics, delete_topics
from stream.transport.local import LocalTransport
from stream.transport.protocol import Transport
from tests.kafka.broker import Broker
from tests.system.test_findings import DIED, ROOT, made_release, recorded
from tests.unit.findings.driving import PATIENCE_S, compacted, duty, lag, send, stop_after, work
from tests.unit.findings.made import SEVERITIES, region, result

PARTITIONS = 4
T = TypeVar("T")


@pytest.fixture
def config(broker: Broker, tmp_path: Path) -> Iterator[Config]:
    """A site of its own on the broker; deaths are noticed fast."""
    kafka = KafkaSection(
        partitions=PARTITIONS,
        blobs=str(tmp_path / "blobs"),
        min_free_bytes=0,
        session_timeout_s=6.0,
        heartbeat_s=0.2,
    )
    settings = Config(transport=broker.url, topic_prefix=f"findings-{secrets.token_hex(6)}.", kafka=kafka)
    asyncio.run(create_topics(settings))
    yield settings
    asyncio.run(delete_topics(settings))


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """alert_id -> its bytes, as an undisturbed run on the embedded log leaves them."""

    async def main() -> dict[str, bytes]:
        section = LocalSection(partitions=PARTITIONS, min_free_bytes=0)
        log = await LocalTransport.open(tmp_path_factory.mktemp("findings") / "log", section)
        try:
            await send(log, recorded())
            await work(log, until=len(recorded()))
            return await compacted(log)
        finally:
            await log.close()

    return asyncio.run(main())


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Transport]:
    log = await open_transport(config, "findings")
    try:
        yield log
    finally:
        await log.close()


def on_log(config: Config, use: Callable[[Transport], Awaitable[T]]) -> T:
    async def main() -> T:
        async with opened(config) as log:
            return await use(log)

    return asyncio.run(main())


@dataclass
class Member:
    """One member of the group in this process, over a connection of its own."""

    config: Config
    step: Callable[[int], None] = lambda _: None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    metrics: Metrics = field(default_factory=lambda: Metrics(CollectorRegistry()))

    async def run(self) -> None:
        from stream.findings.agents import Agents

        async with opened(self.config) as log:
            await Agents(duty(log, self.metrics, step=self.step), self.config).run(self.stop)


async def check_commits(log: Transport) -> None:
    """What lies below a committed offset is in the alerts: nothing was committed past open work.

    Members may be at work meanwhile: the offsets are read first, since what is committed after the alerts were read
    may not be among these.
    """
    shots = [decode(value, Result) for value in await committed(log, "results")]
    words = [decode(value, Decision) for value in await committed(log, "decisions")]
    found = [decode(value, Alert) for value in (await compacted(log)).values()]
    seen = {(one.result_id, alert.defect) for alert in found for one in alert.evidence}
    said = {change.decision_id for alert in found for change in alert.history}
    assert {(shot.result_id, one.defect) for shot in shots for one in shot.regions} <= seen
    assert {word.decision_id for word in words if word.alert_id != "f" * 32} <= said


async def committed(log: Transport, topic: str) -> list[bytes]:
    """The records below the group's committed offsets."""
    # The records first: what is sent after the offsets were read would count as committed.
    sent = [[record.value async for record in log.read(topic, partition=number)] for number in range(PARTITIONS)]
    left = await log.lag("findings", topic)
    return [value for number, values in enumerate(sent) for value in values[: max(0, len(values) - left[number])]]


# ── one member that dies ───────────────────────────────────────────────────────────────────────────────────────────


def child(config: Config, *words: str | int) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, msgspec.json.encode(config).decode(), *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def named(config: Config) -> Config:
    """With static membership, as `spanwatch site` gives it: who falls and rises has its partitions back at once."""
    return msgspec.structs.replace(config, kafka=msgspec.structs.replace(config.kafka, member="findings"))


DEATHS = [(1, 1), (2, 1), (3, 2), (2, 21), (3, 40)]
KILLS = (2, 30)


@pytest.mark.slow
def test_deaths_after_every_step_and_at_any_moment_end_in_the_bytes_of_the_embedded_log(
    config: Config, truth: dict[str, bytes]
) -> None:
    config = named(config)
    on_log(config, lambda log: send(log, recorded()))
    for step, count in DEATHS:
        with child(config, "exit", step, count) as process:
            try:
                assert process.wait(PATIENCE_S) == DIED, f"it should have died after step {step}, time {count}"
            finally:
                process.kill()
        on_log(config, check_commits)
        assert on_log(config, lag) > 0
    for steps in KILLS:
        with child(config, "lockstep") as process:
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                for _ in range(steps):
                    assert process.stdout.readline()
                    process.stdin.write(b"\n")
                    process.stdin.flush()
            finally:
                process.kill()  # on its way to the next step, or waiting there for leave to go on
            assert process.wait(PATIENCE_S) == -9
        on_log(config, check_commits)
        left = on_log(config, lag)
        sys.stdout.write(f"killed after {steps} steps with {left} records open\n")
        assert left > 0
    with child(config, "finish") as process:
        assert process.wait(PATIENCE_S) == 0
    assert on_log(config, lag) == 0
    assert on_log(config, compacted) == truth


# ── members that come and go ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_members_come_and_go_each_with_all_topics_of_its_partitions_and_nothing_is_lost(
    config: Config, truth: dict[str, bytes]
) -> None:
    # A decision on an alert whose result has not been sent yet would be ignored, rightly: those come last.
    results = [one for one in recorded() if isinstance(one, Result)]
    parts = [results[start : start + 18] for start in range(0, len(results), 18)]
    parts.append([one for one in recorded() if isinstance(one, Decision)])

    async def main() -> None:
        async with (
            asyncio.timeout(PATIENCE_S),
            opened(config) as log,
            asyncio.TaskGroup() as group,
        ):
            members = [Member(config) for _ in range(3)]
            running = []
            for number, member in enumerate(members, 1):
                await send(log, parts.pop(0))
                running.append(group.create_task(member.run()))
                assert_copartitioned(await until_shared(config, members=number))
            await send(log, parts.pop(0))
            members[1].stop.set()
            await running[1]
            assert_copartitioned(await until_shared(config, members=2))
            await send(log, parts.pop(0))
            while await lag(log):
                await check_commits(log)
            for member in members:
                member.stop.set()

    asyncio.run(main())
    assert on_log(config, lag) == 0
    assert on_log(config, compacted) == truth


@pytest.mark.slow
def test_what_faust_throws_away_when_it_opens_the_flow_once_more_is_fetched_again(
    config: Config, truth: dict[str, bytes]
) -> None:
    """As where two rebalances overlap: the flow is open, records lie ready, and the end of the second opens it anew."""

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S), opened(config) as log:
            await send(log, recorded())
            member = Member(config)
            done = stop_after(member.stop, len(recorded()))
            thrown = 0

            def step(number: int) -> None:
                nonlocal thrown
                done(number)
                event = faust.current_event()
                if event is not None and number == 3 and event.message.offset % 5 == 2:
                    thrown += sum(queue.qsize() for queue in event.app.flow_control._queues)
                    event.app.flow_control.resume()
                    event.app.consumer.resume_flow()

            member.step = step
            await member.run()
            assert thrown
            assert await lag(log) == 0
            assert await compacted(log) == truth

    asyncio.run(main())


Shares = Sequence[dict[str, list[int]]]
ASSIGNMENT = Schema(
    ("version", Int16), ("topics", Array(("topic", String("utf-8")), ("partitions", Array(Int32)))), ("data", Bytes)
)


async def until_shared(config: Config, *, members: int) -> Shares:
    """Ask the broker until so many members share the partitions; each member's, by topic."""

    async def ask() -> tuple[str, list[Any]]:
        async with administration(config) as admin:
            (answer,) = await admin.describe_consumer_groups([f"{config.topic_prefix}findings"])
            (_, _, state, _, _, found, *_) = answer.groups[0]
            return state, found

    while True:
        # A broker that has had no group yet makes the topic of their offsets first; until then nobody can be asked.
        state, found = await patiently(ask, deadline_s=PATIENCE_S)
        if state == "Stable" and len(found) == members:
            shares = [ASSIGNMENT.decode(_Stream(one[-1])) for one in found]
            return [{topic: sorted(numbers) for topic, numbers in share[1]} for share in shares]
        await asyncio.sleep(0.05)


class _Stream:
    """Bytes as aiokafka's decoder reads them."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        return taken


def assert_copartitioned(shares: Shares) -> None:
    """results[n] and decisions[n] are one member's, and every partition is somebody's."""
    for share in shares:
        results, decisions = sorted((topic, numbers) for topic, numbers in share.items())[::-1]
        assert results[0].endswith("results")
        assert results[1] == decisions[1]
    held = [
        number
        for share in shares
        for topic, numbers in share.items()
        if topic.endswith("results")
        for number in numbers
    ]
    assert sorted(held) == list(range(PARTITIONS))


# ── the end ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_member_that_stops_has_committed_exactly_what_it_finished(config: Config) -> None:
    async def main() -> None:
        records = [result(number, [region()], asset=f"pier-{number % 3}") for number in range(30)]
        async with asyncio.timeout(PATIENCE_S), opened(config) as log:
            await send(log, records)
            member = Member(config)
            member.step = stop_after(member.stop, 13)
            await member.run()
            assert await lag(log) == len(records) - 13
            assert len(await compacted(log)) == 13
            await check_commits(log)

    asyncio.run(main())


def test_a_decision_whose_result_is_not_there_holds_nobody_up(config: Config) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S), opened(config) as log:
            await send(log, recorded()[-4:])  # decisions alone
            member = Member(config)
            member.step = stop_after(member.stop, 4)
            await member.run()
            assert await lag(log) == 0
            unknown = member.metrics.registry.get_sample_value("spanwatch_decisions_total", {"outcome": "unknown"})
            assert unknown == 4

    asyncio.run(main())


def test_records_that_retention_removed_before_they_were_done_stop_the_role_with_the_numbers(config: Config) -> None:
    async def main() -> None:
        shots = [result(number, [region()]) for number in range(10)]
        async with asyncio.timeout(PATIENCE_S), opened(config) as log:
            await send(log, shots)
            first = Member(config)
            first.step = stop_after(first.stop, 2)
            await first.run()
            (number,) = [number for number, left in (await log.lag("findings", "results")).items() if left]
            async with administration(config) as admin:
                where = StoredPartition(f"{config.topic_prefix}results", number)
                await admin.delete_records({where: RecordsToDelete(before_offset=5)})
            with pytest.raises(Broken, match="has committed 2 and the broker's first record is 5: 3 records"):
                await Member(config).run()
            assert (await log.lag("findings", "results"))[number] == 8

    asyncio.run(main())


def command(config: Config, folder: Path) -> subprocess.Popen[str]:
    """`spanwatch findings` as an operator starts it."""
    settings = {
        **made_release(folder),
        "SPANWATCH_METRICS__FINDINGS_PORT": "0",
        "SPANWATCH_TOPIC_PREFIX": config.topic_prefix,
        "SPANWATCH_KAFKA__BLOBS": config.kafka.blobs,
    }
    words = [sys.executable, "-W", "error", "-m", "stream", "findings", "--transport", config.transport]
    own = {name: value for name, value in os.environ.items() if not name.startswith("SPANWATCH_")}
    return subprocess.Popen(words, env=own | settings, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_the_command_works_until_sigterm_and_ends_well(config: Config, tmp_path: Path) -> None:
    shots = [result(number, [region()]) for number in range(3)]
    on_log(config, lambda log: send(log, shots))
    with command(config, tmp_path) as process:

        async def three_alerts(log: Transport) -> None:
            seen = 0
            async with asyncio.timeout(PATIENCE_S):
                async for _ in log.read("alerts", follow=True):
                    seen += 1
                    if seen == len(shots):
                        return

        try:
            on_log(config, three_alerts)
        finally:
            process.terminate()
            _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, told
    assert on_log(config, lag) == 0
    assert "Traceback" not in told


@pytest.mark.slow
def test_an_alert_the_broker_refuses_ends_the_role_with_one_line_and_its_result_uncommitted(
    config: Config, tmp_path: Path
) -> None:
    large = [region(cell=(row, col)) for row in range(3) for col in range(4)]

    async def prepare(log: Transport) -> None:
        async with administration(config) as admin:
            topic = f"{config.topic_prefix}alerts"
            small = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "1500"})
            await admin.alter_configs([small])
        await send(log, [result(0, [region()]), result(1, large), result(2, [region()])])

    on_log(config, prepare)
    with command(config, tmp_path) as process:
        try:
            _, told = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 1, told
    (line,) = re.findall(r"^spanwatch: .*$", told, re.MULTILINE)
    assert "alerts" in line
    assert "max.message.bytes" in line
    assert "Traceback" not in told
    assert on_log(config, lag) == 2
    assert len(on_log(config, compacted)) == 1


def be_the_process(config: Config, mode: str, *numbers: int) -> None:
    async def main() -> None:
        async with opened(config) as log:
            stop = asyncio.Event()
            finish = stop_after(stop, await lag(log)) if mode == "finish" else lambda _: None
            deaths = list(numbers)

            def step(number: int) -> None:
                if mode == "exit" and number == deaths[0]:
                    deaths[1] -= 1
                    if deaths[1] == 0:
                        os._exit(DIED)
                if mode == "lockstep":
                    sys.stdout.write(f"{number}\n")
                    sys.stdout.flush()
                    sys.stdin.readline()
                finish(number)

            settings = msgspec.structs.replace(config.metrics, findings_port=-1)
            quiet = msgspec.structs.replace(config, metrics=settings)
            await run_findings(log, quiet, stop, severities=SEVERITIES, step=step)

    asyncio.run(main())


if __name__ == "__main__":
    be_the_process(msgspec.json.decode(sys.argv[1], type=Config), sys.argv[2], *map(int, sys.argv[3:]))
