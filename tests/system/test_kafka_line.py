"""The line on a broker: photos inside their records or beside them, bad ones, and an upload that finds nobody there."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from pathlib import Path

import pytest

from stream.messages import DeadFrame, decode
from stream.transport.protocol import Message
from tests.kafka.broker import Broker, free_port
from tests.system import kills, line
from tests.system.child import kafka_config
from tests.system.line import Role
from tests.system.test_bad_input import DEAD, READ


@pytest.mark.slow
def test_small_photos_travel_inside_their_record_and_large_ones_beside_it(broker: Broker, tmp_path: Path) -> None:
    card = tmp_path / "card"
    card.mkdir()
    small, large = line.photo(0, tiles=(1, 1)), line.photo(1)
    (card / "small.jpg").write_bytes(small)
    (card / "large.jpg").write_bytes(large)

    async def test() -> None:
        uploading = line.spanwatch(config, "upload", card, "--asset", "b", "--outbox", tmp_path / "outbox")
        assert uploading.wait(line.GIVE_UP_S) == 0
        async with line.opened(config) as transport:
            values = [record.value async for record in transport.read("frames")]
            assert sorted(values) == sorted([small, b""])
            worker = Role.start("worker", config)
            await line.all_answered(transport)
            assert worker.stop() == 0
            seen = await line.look(transport)
            seen.check()
            assert len(seen.results) == 2

    with line.on_kafka(broker.url, tmp_path, max_inline_bytes=len(small)) as config:
        line.run(test)


@pytest.mark.slow
def test_bad_photos_inside_records_are_dead_with_a_reason_and_their_bytes_are_kept(
    broker: Broker, tmp_path: Path
) -> None:
    async def test() -> None:
        async with line.opened(config) as transport:
            reasons = {await line.send_inline(transport, data): reason for data, reason in DEAD.values()}
            good = {await line.send_inline(transport, data) for data, _ in READ.values()}
            worker = Role.start("worker", config)
            await line.all_answered(transport)
            assert worker.stop() == 0
            seen = await line.look(transport)
            seen.check()
            assert {frame: dead.reason for frame, dead in seen.dead.items()} == reasons
            assert set(seen.results) == good
            async for record in transport.read("dead-frames"):
                dead = decode(record.value, DeadFrame)
                assert dead.reason == "empty" or (dead.blob and await transport.blobs.exists(dead.blob.sha256))

    with line.on_kafka(broker.url, tmp_path) as config:
        line.run(test)


@pytest.mark.slow
def test_an_upload_without_a_broker_says_what_it_waits_for_and_a_stop_loses_nothing(tmp_path: Path) -> None:
    card, outbox = tmp_path / "card", tmp_path / "outbox.sqlite"
    card.mkdir()
    for number in range(3):
        (card / f"{number}.jpg").write_bytes(line.photo(number, tiles=(1, 1)))
    config = kafka_config(f"kafka://127.0.0.1:{free_port()}", tmp_path, "")

    async def test() -> None:
        uploading = ("upload", card, "--asset", "b", "--outbox", outbox, "--json")
        with line.spanwatch(config, *uploading, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stderr is not None
            said = await asyncio.to_thread(process.stderr.readline)
            assert b"Ctrl-C loses nothing" in said
            said = await asyncio.to_thread(process.stderr.readline)
            assert f"waiting for {config.transport}".encode() in said and b"no broker answers" in said
            process.send_signal(signal.SIGINT)
            out, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == 1
        assert out.count(b".jpg") == 3 and b'"sent":[]' in out  # each of them is told to be left
        assert list(kills.outbox(outbox).values()) == [None]

    line.run(test)


RECORDS, FOLLOWERS = 120, 8


@pytest.mark.slow
def test_those_who_begin_to_follow_while_another_sends_miss_nothing(broker: Broker, tmp_path: Path) -> None:
    async def test() -> None:
        async with line.opened(config) as transport, asyncio.timeout(60), asyncio.TaskGroup() as group:

            async def follow() -> list[int]:
                offsets: list[int] = []
                async with contextlib.aclosing(transport.read("frames", partition=0, follow=True)) as reading:
                    while RECORDS - 1 not in offsets:
                        offsets.append((await anext(reading)).offset)
                return offsets

            followers = []
            for number in range(RECORDS):
                await transport.send(Message(topic="frames", key=f"{number}", value=b"x", partition=0))
                if number % 10 == 0 and len(followers) < FOLLOWERS:
                    followers.append(group.create_task(follow()))
        assert [follower.result() for follower in followers] == [list(range(RECORDS))] * FOLLOWERS

    with line.on_kafka(broker.url, tmp_path) as config:
        line.run(test)
