"""Retention: nothing goes that a group has not committed, and the bytes of a remaining record stay."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from stream.cli.gc import gc as gc_command
from stream.config import LocalSection, RetentionSection
from stream.messages import Frame, encode
from stream.transport import topics
from stream.transport.local import LocalTransport
from stream.transport.protocol import Message, TopicPartition
from stream.transport.retention import GcReport, Held, compact_below, gc, keep_from

DAY_S = 24 * 3600.0
RETENTION = RetentionSection(frames_hours=24, results_hours=48, decisions_hours=72, dead_frames_hours=96)
offsets = st.integers(0, 1000)
commits = st.dictionaries(st.text(max_size=3), offsets, max_size=4)


class Ear:
    """A listener that has nothing to do."""

    async def assigned(self, partitions: Sequence[TopicPartition]) -> None: ...

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None: ...


# --- the rule --------------------------------------------------------------------------------------------------------


@given(topic=st.sampled_from(list(topics.RULES.values())), first_young=offsets, end=offsets, commits=commits)
def test_retention_never_passes_a_groups_commit_or_a_young_record(
    topic: topics.Topic, first_young: int, end: int, commits: dict[str, int]
) -> None:
    keep = keep_from(topic, first_young, end, commits)
    assert 0 <= keep <= min(first_young, end)
    assert all(keep <= offset for offset in commits.values())
    assert all(compact_below(end, commits) <= offset for offset in [end, *commits.values()])


@given(topic=st.sampled_from(list(topics.RULES.values())), first_young=offsets, end=offsets, commits=commits)
def test_retention_removes_all_it_may(topic: topics.Topic, first_young: int, end: int, commits: dict[str, int]) -> None:
    keep = keep_from(topic, first_young, end, commits)
    if commits:
        assert keep in (first_young, end, *commits.values())


@pytest.mark.parametrize(
    ("topic", "commits", "expected"),
    [
        ("frames", {}, 0),  # nobody has ever read them: they are work
        ("results", {}, 0),
        ("decisions", {}, 50),  # nobody reads them here: age alone
        ("dead-frames", {}, 50),
        ("frames", {"worker": 80}, 50),
        ("frames", {"worker": 30}, 30),
        ("frames", {"worker": 80, "archive": 10}, 10),
        ("decisions", {"findings": 7}, 7),
        ("frames", {"worker": 0}, 0),
    ],
)
def test_the_rule_by_example(topic: str, commits: dict[str, int], expected: int) -> None:
    assert keep_from(topics.rule(topic), 50, 100, commits) == expected


# --- on a log --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[LocalTransport]:
    transport = await LocalTransport.open(folder, LocalSection(partitions=2, min_free_bytes=0))
    try:
        yield transport
    finally:
        await transport.close()


async def fill(transport: LocalTransport, topic: str, count: int, value: bytes = b"v" * 100) -> None:
    for number in range(count):
        await transport.send(Message(topic=topic, key=str(number), value=value, partition=0))


async def commit(transport: LocalTransport, group: str, topic: str, offset: int) -> None:
    consumer = await transport.subscribe(group, [topic], Ear())
    while len(consumer.assignment) < 2:
        await consumer.poll(max_records=1, timeout_s=0.01)
    await consumer.commit({TopicPartition(topic, 0): offset})
    await consumer.close()


async def left(transport: LocalTransport, topic: str) -> list[int]:
    return [record.offset async for record in transport.read(topic)]


def test_old_records_go_up_to_the_slowest_group_and_the_report_says_who_holds_the_rest(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as transport:
            await fill(transport, "frames", 10)
            await commit(transport, "worker", "frames", 8)
            await commit(transport, "archive", "frames", 3)
            report = await gc(transport, RETENTION, time.time() + 2 * DAY_S)
            assert report.removed == {"frames": 3}
            assert report.record_bytes == 300
            assert report.held == (Held(topic="frames", groups=("archive", "worker"), records=7),)
            assert await left(transport, "frames") == list(range(3, 10))

    asyncio.run(main())


def test_young_records_stay_although_they_are_committed(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as transport:
            await fill(transport, "frames", 5)
            await commit(transport, "worker", "frames", 5)
            report = await gc(transport, RETENTION, time.time() + DAY_S / 2)
            assert (report.removed, report.held) == ({}, ())
            assert await left(transport, "frames") == list(range(5))

    asyncio.run(main())


def test_a_group_that_has_joined_and_committed_nothing_loses_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as transport:
            await fill(transport, "decisions", 4)
            consumer = await transport.subscribe("findings", ["decisions"], Ear())
            await consumer.close()
            report = await gc(transport, RETENTION, time.time() + 9 * DAY_S)
            assert report.held == (Held(topic="decisions", groups=("findings",), records=4),)
            assert await left(transport, "decisions") == [0, 1, 2, 3]

    asyncio.run(main())


def test_offsets_are_not_used_again_after_everything_was_removed(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as transport:
            await fill(transport, "dead-frames", 3)
            assert (await gc(transport, RETENTION, time.time() + 9 * DAY_S)).removed == {"dead-frames": 3}
        async with opened(tmp_path) as transport:
            assert await left(transport, "dead-frames") == []
            await fill(transport, "dead-frames", 1)
            assert await left(transport, "dead-frames") == [3]

    asyncio.run(main())


def test_a_reader_and_a_group_go_on_past_the_gap_that_retention_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as transport:
            await fill(transport, "frames", 6)
            await commit(transport, "worker", "frames", 4)
            await gc(transport, RETENTION, time.time() + 2 * DAY_S)
            late = await transport.subscribe("late", ["frames"], Ear())
            assert [record.offset for record in await late.poll(max_records=9, timeout_s=1)] == [4, 5]
            assert (await transport.lag("late", "frames"))[0] == 2
            await late.close()

    asyncio.run(main())


def test_alerts_keep_the_latest_of_each_key_and_what_a_group_has_not_passed(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as transport:
            for key in ("a", "b", "a", "c", "a", "b"):
                await transport.send(Message(topic="alerts", key=key, value=b"0123456789", partition=1))
            consumer = await transport.subscribe("pager", ["alerts"], Ear())
            await consumer.poll(max_records=9, timeout_s=1)
            await consumer.commit({TopicPartition("alerts", 1): 2})
            await consumer.close()
            report = await gc(transport, RETENTION, time.time() + 1000 * DAY_S)
            assert (report.compacted, report.removed) == ({"alerts": 2}, {})
            assert await left(transport, "alerts") == [2, 3, 4, 5]
            consumer = await transport.subscribe("pager", ["alerts"], Ear())
            await consumer.poll(max_records=9, timeout_s=1)
            await consumer.commit({TopicPartition("alerts", 1): 6})
            await consumer.close()
            await gc(transport, RETENTION, time.time())
            assert await left(transport, "alerts") == [3, 4, 5]

    asyncio.run(main())


def test_gc_keeps_the_blobs_of_remaining_records_and_removes_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as transport:
            done, waiting, dead, unnamed = [
                await transport.blobs.put(data) for data in (b"done", b"waiting", b"dead", b"unnamed")
            ]
            for ref in (done, waiting):
                frame = encode(Frame(frame_id=ref.sha256, asset="bridge", blob=ref)).decode()
                await transport.send(
                    Message(topic="frames", key=ref.sha256, value=b"", headers={"frame": frame}, partition=0)
                )
            await transport.send(
                Message(topic="dead-frames", key="k", value=json.dumps({"blob": {"url": dead.url}}).encode())
            )
            await commit(transport, "worker", "frames", 1)
            now = time.time() + 2 * DAY_S
            planned = await gc(transport, RETENTION, now, dry_run=True)
            assert len(await transport.blobs.list()) == 4 and await left(transport, "frames") == [0, 1]
            report = await gc(transport, RETENTION, now)
            assert (report.removed, report.blobs, report.blob_bytes) == ({"frames": 1}, 2, len(b"doneunnamed"))
            assert (planned.removed, planned.blobs, planned.held) == (report.removed, report.blobs, report.held)
            assert {entry.sha256 for entry in await transport.blobs.list()} == {waiting.sha256, dead.sha256}
            assert not await transport.blobs.exists(unnamed.sha256)

    asyncio.run(main())


def test_a_record_that_nobody_can_decode_and_one_of_another_prefix_keep_their_bytes(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as transport:
            ref, other = await transport.blobs.put(b"photo"), await transport.blobs.put(b"elsewhere")
            broken = {"frame": f'{{"blob": {{"url": "file:///fotos/%ab{ref.sha256}", oops'}
            await transport.send(Message(topic="frames", key="k", value=b"", headers=broken))
            section = LocalSection(partitions=2, min_free_bytes=0)
            south = await LocalTransport.open(tmp_path, section, prefix="south.")
            await south.send(Message(topic="frames", key="k", value=b"", headers={"frame": other.url}))
            assert (await gc(transport, RETENTION, time.time() + 9 * DAY_S)).blobs == 0
            await south.close()

    asyncio.run(main())


def test_a_blob_that_was_just_put_stays_although_its_record_is_not_sent_yet(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as transport:
            ref = await transport.blobs.put(b"photo")
            path = tmp_path / "blobs" / ref.sha256[:2] / ref.sha256
            assert (await gc(transport, RETENTION, time.time() + 3000)).blobs == 0
            os.utime(path, (1.0, 1.0))
            await transport.blobs.put(b"photo")  # a repeated upload renews it
            assert (await gc(transport, RETENTION, time.time())).blobs == 0
            assert (await gc(transport, RETENTION, time.time() + 4000)).blobs == 1

    asyncio.run(main())


def test_the_disk_is_given_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as transport:
            await asyncio.gather(*(fill(transport, "dead-frames", 20, os.urandom(50_000)) for _ in range(4)))
            before = (tmp_path / "log.sqlite").stat().st_size + (tmp_path / "log.sqlite-wal").stat().st_size
            report = await gc(transport, RETENTION, time.time() + 9 * DAY_S)
            assert report.record_bytes == 80 * 50_000
            after = (tmp_path / "log.sqlite").stat().st_size + (tmp_path / "log.sqlite-wal").stat().st_size
            assert before > 4_000_000
            assert after < 400_000
            assert report.log_bytes == (tmp_path / "log.sqlite").stat().st_size

    asyncio.run(main())


def test_senders_and_readers_run_on_while_gc_removes(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as transport, opened(tmp_path) as other:
            await fill(transport, "frames", 40)
            await commit(transport, "worker", "frames", 40)
            consumer = await other.subscribe("worker", ["frames"], Ear())

            async def work() -> list[int]:
                seen: list[int] = []
                for number in range(30):
                    await other.send(Message(topic="frames", key=str(number), value=b"", partition=0))
                    seen += [record.offset for record in await consumer.poll(max_records=5, timeout_s=1)]
                return seen

            working = asyncio.ensure_future(work())
            reports: list[GcReport] = []
            while not working.done():
                reports.append(await gc(transport, RETENTION, time.time() + 2 * DAY_S))
            assert await working == list(range(40, 70))
            assert sum(report.removed.get("frames", 0) for report in reports) == 40
            await consumer.close()

    asyncio.run(main())


# --- the command -----------------------------------------------------------------------------------------------------


def command(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(gc_command)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_prints_for_a_person_and_for_a_program(tmp_path: Path) -> None:
    async def prepare() -> None:
        async with opened(tmp_path / "log") as transport:
            for _ in range(3):
                await transport.send(Message(topic="alerts", key="a", value=b"", partition=0))

    asyncio.run(prepare())
    settings = tmp_path / "edge.toml"
    settings.write_text(f'transport = "local:{tmp_path / "log"}"\n[local]\npartitions = 2\n')
    assert "would remove 2 alerts records replaced by a later one" in command("--config", str(settings), "--dry-run")
    report = json.loads(command("--config", str(settings), "--json"))
    assert (report["dry_run"], report["compacted"], report["removed"]) == (False, {"alerts": 2}, {})
    assert "nothing to remove" in command("--config", str(settings))


def test_the_help_has_an_example_and_loses_no_word_to_markup() -> None:
    words = " ".join(command("--help").split())
    assert "Example: spanwatch gc --transport local:/data/spanwatch --dry-run" in words
    assert "The times are in the retention section of the configuration." in words
