"""What only the embedded log promises: several processes on one folder, and nothing acknowledged lost by SIGKILL."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from stream.config import LocalSection
from stream.errors import Misuse, Unavailable
from stream.messages import TOPICS
from stream.testing import Fault, Faulty
from stream.transport.local import LocalTransport
from stream.transport.protocol import Message, Record, TopicPartition

ROOT = Path(__file__).parents[2]
SECTION = LocalSection(partitions=4, min_free_bytes=0)
PROLOGUE = """
import asyncio, sys
from pathlib import Path
from stream.config import LocalSection
from stream.testing import Fault, Faulty
from stream.transport.local import LocalTransport
from stream.transport.protocol import Message, TopicPartition

class Ear:
    async def assigned(self, partitions): pass
    async def revoked(self, partitions): pass

def say(*words): print(*words, flush=True)

async def opened():
    return await LocalTransport.open(Path(sys.argv[1]), LocalSection(partitions=4, min_free_bytes=0))
"""
HOLDS_ALL = """
async def main():
    consumer = await (await opened()).subscribe("worker", ["frames"], Ear())
    while len(consumer.assignment) < 4:
        await consumer.poll(max_records=1, timeout_s=0.01)
    say("holding")
    await asyncio.sleep(3600)
asyncio.run(main())
"""
SENDS = """
async def main():
    transport, name, count = await opened(), sys.argv[2], int(sys.argv[3])
    async def send(number):
        tp, offset = await transport.send(Message(topic="frames", key=f"{name}-{number}", value=b"v" * 3000))
        say(tp.partition, offset, f"{name}-{number}")
    for first in range(0, count, 5):
        await asyncio.gather(*(send(number) for number in range(first, min(count, first + 5))))
    await transport.close()
asyncio.run(main())
"""
CRASHES = """
async def main():
    transport = Faulty(await opened(), [Fault(on=sys.argv[2], at=3, how=sys.argv[3], code=41)])
    for number in range(5):
        await transport.send(Message(topic="frames", key=str(number), value=b"", partition=0))
    consumer = await transport.subscribe("worker", ["frames"], Ear())
    done = 0
    while done < 5:
        for record in await consumer.poll(max_records=10, timeout_s=1):
            done = record.offset + 1
            say("got", record.offset)
            await consumer.commit({record.tp: done})
    await consumer.close()
    await transport.close()
asyncio.run(main())
"""


class Ear:
    """A listener that has nothing to do."""

    async def assigned(self, partitions: object) -> None: ...

    async def revoked(self, partitions: object) -> None: ...


@contextmanager
def child(program: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A real process that runs a program on the log; killed when the test is over."""
    command = [sys.executable, "-c", PROLOGUE + program, str(folder), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def rest(process: subprocess.Popen[str]) -> list[str]:
    """What else it says until it ends; a line cut off by its death is no acknowledgement."""
    assert process.stdout is not None
    return [text.strip() for text in process.stdout if text.endswith("\n")]


async def listing(folder: Path, topic: str = "frames") -> list[Record]:
    transport = await LocalTransport.open(folder, SECTION)
    records = [record async for record in transport.read(topic)]
    await transport.close()
    return records


def integrity(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "log.sqlite")) as db:
        return str(db.execute("PRAGMA integrity_check").fetchone()[0])


@pytest.mark.slow
def test_a_killed_process_frees_its_partitions_and_its_member_file_is_cleaned_up(tmp_path: Path) -> None:
    async def main() -> None:
        with child(HOLDS_ALL, tmp_path / "log") as other:
            assert line(other) == "holding"
            transport = await LocalTransport.open(tmp_path / "log", SECTION)
            consumer = await transport.subscribe("worker", ["frames"], Ear())
            await consumer.poll(max_records=1, timeout_s=0.3)
            assert consumer.assignment == frozenset()  # the other has not polled since, so it has given nothing
            other.send_signal(signal.SIGKILL)
            other.wait()
            for _ in range(100):
                await consumer.poll(max_records=1, timeout_s=0.05)
                if len(consumer.assignment) == 4:
                    break
            assert len(consumer.assignment) == 4
            assert len(list((tmp_path / "log/groups/worker/members").iterdir())) == 1
            await consumer.close()
            await transport.close()

    asyncio.run(main())


@pytest.mark.slow
def test_processes_that_send_at_once_lose_nothing_and_offsets_are_dense(tmp_path: Path) -> None:
    with (
        child(SENDS, tmp_path / "log", "a", "60") as a,
        child(SENDS, tmp_path / "log", "b", "60") as b,
        child(SENDS, tmp_path / "log", "c", "60") as c,
    ):
        told = [tuple(text.split()) for process in (a, b, c) for text in rest(process)]
        assert [process.wait() for process in (a, b, c)] == [0, 0, 0]
    assert len(told) == 180
    records = asyncio.run(listing(tmp_path / "log"))
    assert sorted(told) == sorted((str(record.partition), str(record.offset), record.key) for record in records)
    for partition in range(4):
        offsets = sorted(record.offset for record in records if record.partition == partition)
        assert offsets == list(range(len(offsets)))


@pytest.mark.slow
@pytest.mark.parametrize("acknowledged", [1, 23, 58])
def test_what_was_acknowledged_is_there_after_sigkill_in_the_middle_of_sends(tmp_path: Path, acknowledged: int) -> None:
    with child(SENDS, tmp_path / "log", "a", "100000") as process:
        told = [line(process) for _ in range(acknowledged)]
        process.send_signal(signal.SIGKILL)
        told += rest(process)
        assert process.wait() == -signal.SIGKILL
    assert integrity(tmp_path / "log") == "ok"
    records = asyncio.run(listing(tmp_path / "log"))
    assert {f"{record.partition} {record.offset} {record.key}" for record in records} >= set(told)
    assert all(len(record.value) == 3000 for record in records)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("on", "how", "sent", "seen", "committed"),
    [
        ("send", "exit_before", 2, [], 0),
        ("send", "exit_after", 3, [], 0),
        ("poll", "exit_before", 5, [0, 1], 2),
        ("poll", "exit_after", 5, [0, 1], 2),
        ("commit", "exit_before", 5, [0, 1, 2], 2),
        ("commit", "exit_after", 5, [0, 1, 2], 3),
    ],
)
def test_a_scripted_exit_ends_the_process_exactly_there(
    tmp_path: Path, on: str, how: str, sent: int, seen: list[int], committed: int
) -> None:
    async def left() -> tuple[int, int]:
        transport = await LocalTransport.open(tmp_path / "log", SECTION)
        records = [record async for record in transport.read("frames")]
        lag = await transport.lag("worker", "frames")
        await transport.close()
        return len(records), len(records) - lag[0]

    with child(CRASHES, tmp_path / "log", on, how) as process:
        said = rest(process)
        assert process.wait() == 41
    assert said == [f"got {offset}" for offset in seen]
    assert asyncio.run(left()) == (sent, committed)


@pytest.mark.slow
def test_a_key_has_the_same_partition_in_every_process(tmp_path: Path) -> None:
    async def here() -> dict[str, int]:
        transport = await LocalTransport.open(tmp_path / "log", SECTION)
        keys = [f"a-{number}" for number in range(20)]
        told = {key: (await transport.send(Message(topic="frames", key=key, value=b"")))[0].partition for key in keys}
        await transport.close()
        return told

    with child(SENDS, tmp_path / "log", "a", "20") as process:
        there = {key: int(partition) for partition, _, key in (text.split() for text in rest(process))}
    assert asyncio.run(here()) == there


@pytest.mark.slow
def test_processes_that_make_the_log_at_once_make_one_log(tmp_path: Path) -> None:
    with child(SENDS, tmp_path / "log", "a", "1") as a, child(SENDS, tmp_path / "log", "b", "1") as b:
        assert (a.wait(), b.wait()) == (0, 0)
    assert sorted(record.key for record in asyncio.run(listing(tmp_path / "log"))) == ["a-0", "b-0"]


def test_a_log_keeps_the_partition_count_it_was_made_with(tmp_path: Path) -> None:
    async def main() -> None:
        await (await LocalTransport.open(tmp_path / "log", LocalSection(partitions=3))).close()
        with pytest.raises(Misuse, match=r"made with 3 partitions.*says 4: set partitions = 3"):
            await LocalTransport.open(tmp_path / "log", LocalSection(partitions=4))
        transport = await LocalTransport.open(tmp_path / "log", LocalSection(partitions=3))
        assert {topic: await transport.partitions(topic) for topic in TOPICS} == dict.fromkeys(TOPICS, 3)
        await transport.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("folder", "error", "words"),
    [
        ("nowhere/log", Unavailable, "is its disk mounted"),
        ("a-file", Misuse, "is a file"),
        ("a-file/log", Misuse, "is a file"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named_with_what_to_do(
    tmp_path: Path, folder: str, error: type[Exception], words: str
) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(error, match=words):
        asyncio.run(LocalTransport.open(tmp_path / folder, SECTION))


def test_a_file_that_is_no_log_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").write_bytes(b"somebody's notes, " * 100)
    with pytest.raises(Exception, match="not a spanwatch log"):
        asyncio.run(LocalTransport.open(tmp_path, SECTION))
    assert (tmp_path / "log.sqlite").read_bytes() == b"somebody's notes, " * 100


def test_a_prefix_keeps_two_sites_in_one_folder_apart(tmp_path: Path) -> None:
    async def main() -> None:
        north = await LocalTransport.open(tmp_path, SECTION, prefix="north.")
        south = await LocalTransport.open(tmp_path, SECTION, prefix="south.")
        await north.send(Message(topic="frames", key="n", value=b""))
        a = await north.subscribe("worker", ["frames"], Ear())
        b = await south.subscribe("worker", ["frames"], Ear())
        records = list(await a.poll(max_records=5, timeout_s=0)) + list(await b.poll(max_records=5, timeout_s=0))
        assert [(record.topic, record.key) for record in records] == [("frames", "n")]
        assert (len(a.assignment), len(b.assignment)) == (4, 4)
        for closing_ in (a, b, north, south):
            await closing_.close()

    asyncio.run(main())


def test_a_log_whose_disk_went_away_is_unavailable_until_it_is_back_and_is_not_made_anew(tmp_path: Path) -> None:
    async def main() -> None:
        transport = await LocalTransport.open(tmp_path / "log", SECTION)
        await transport.send(Message(topic="frames", key="before", value=b""))
        (tmp_path / "log").rename(tmp_path / "unplugged")
        for call in (
            lambda: transport.send(Message(topic="frames", key="lost?", value=b"")),
            lambda: transport.lag("worker", "frames"),
        ):
            with pytest.raises(Unavailable, match="is its disk mounted"):
                await call()
        assert not (tmp_path / "log").exists()
        (tmp_path / "unplugged").rename(tmp_path / "log")
        await transport.send(Message(topic="frames", key="after", value=b""))
        await transport.close()
        assert sorted(record.key for record in await listing(tmp_path / "log")) == ["after", "before"]

    asyncio.run(main())


def test_a_log_that_was_replaced_under_its_users_stops_them(tmp_path: Path) -> None:
    async def main() -> None:
        transport = await LocalTransport.open(tmp_path / "log", SECTION)
        await transport.send(Message(topic="frames", key="k", value=b""))
        (tmp_path / "log").rename(tmp_path / "old")
        await (await LocalTransport.open(tmp_path / "log", SECTION)).close()
        with pytest.raises(Exception, match="was replaced by another"):
            await transport.send(Message(topic="frames", key="k", value=b""))
        await transport.close()

    asyncio.run(main())


def test_members_of_a_group_must_read_the_same_topics(tmp_path: Path) -> None:
    async def main() -> None:
        transport = await LocalTransport.open(tmp_path, SECTION)
        first = await transport.subscribe("findings", ["results"], Ear())
        with pytest.raises(Misuse, match="give this one another group"):
            await transport.subscribe("findings", ["decisions"], Ear())
        await first.close()
        second = await transport.subscribe("findings", ["decisions"], Ear())
        await second.close()
        await transport.close()

    asyncio.run(main())


@pytest.mark.parametrize("group", ["", "..", ".hidden", "a/b", "a b", "x" * 200])
def test_a_group_whose_name_is_no_file_name_is_refused(tmp_path: Path, group: str) -> None:
    async def main() -> None:
        transport = await LocalTransport.open(tmp_path, SECTION)
        with pytest.raises(Misuse, match="letters, digits"):
            await transport.subscribe(group, ["frames"], Ear())
        await transport.close()

    asyncio.run(main())


def test_a_commit_beyond_the_end_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        transport = await LocalTransport.open(tmp_path, SECTION)
        await transport.send(Message(topic="frames", key="k", value=b"", partition=0))
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        await consumer.poll(max_records=1, timeout_s=1)
        with pytest.raises(Exception, match="partition 1, which ends at 0"):
            await consumer.commit({TopicPartition("frames", 0): 1, TopicPartition("frames", 1): 1})
        assert (await transport.lag("worker", "frames"))[0] == 1
        await consumer.close()
        await transport.close()

    asyncio.run(main())


def test_a_removed_lock_file_ends_the_ownership(tmp_path: Path) -> None:
    async def main() -> None:
        transport = await LocalTransport.open(tmp_path, SECTION)
        await transport.send(Message(topic="frames", key="k", value=b"", partition=0))
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        await consumer.poll(max_records=1, timeout_s=1)
        (tmp_path / "groups/worker/0.lock").unlink()
        with pytest.raises(Exception, match="not held"):
            await consumer.commit({TopicPartition("frames", 0): 1})
        await consumer.close()
        await transport.close()

    asyncio.run(main())


def test_a_listener_that_fails_is_asked_again_before_any_record_comes(tmp_path: Path) -> None:
    class Slow(Ear):
        tries = 0

        async def assigned(self, partitions: object) -> None:
            self.tries += 1
            if self.tries < 3:
                raise Unavailable("the state cannot be read yet")

    async def main() -> None:
        transport = await LocalTransport.open(tmp_path, SECTION)
        await transport.send(Message(topic="frames", key="k", value=b""))
        ear = Slow()
        consumer = await transport.subscribe("worker", ["frames"], ear)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await consumer.poll(max_records=1, timeout_s=0)
        assert [record.key for record in await consumer.poll(max_records=1, timeout_s=0)] == ["k"]
        assert ear.tries == 3
        await consumer.close()
        await transport.close()

    asyncio.run(main())


def test_closing_the_transport_frees_what_its_consumers_hold(tmp_path: Path) -> None:
    async def main() -> None:
        transport = await LocalTransport.open(tmp_path, SECTION)
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        await consumer.poll(max_records=1, timeout_s=0)
        await transport.close()
        await transport.close()
        with pytest.raises(Misuse, match="was closed"):
            await transport.send(Message(topic="frames", key="k", value=b""))
        again = await LocalTransport.open(tmp_path, SECTION)
        heir = await again.subscribe("worker", ["frames"], Ear())
        await heir.poll(max_records=1, timeout_s=0)
        assert len(heir.assignment) == 4
        await heir.close()
        await again.close()

    asyncio.run(main())


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def once() -> None:
        transport = await LocalTransport.open(tmp_path, SECTION)
        await transport.blobs.put(b"photo")
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        await consumer.poll(max_records=1, timeout_s=0)
        await consumer.close()
        await transport.close()

    asyncio.run(once())
    before = descriptors()
    for _ in range(3):
        asyncio.run(once())
    assert descriptors() <= before


def test_a_lost_acknowledgement_and_an_outage_lose_no_record(tmp_path: Path) -> None:
    async def main() -> None:
        faults = [
            Fault(on="send", at=2, how="lose_ack"),
            Fault(on="send", at=4, how="unavailable"),
            Fault(on="poll", at=2, how="unavailable"),
            Fault(on="commit", at=1, how="lose_ack"),
        ]
        transport = Faulty(await LocalTransport.open(tmp_path, SECTION), faults)
        failed = 0
        for number in range(4):
            while True:
                try:
                    await transport.send(Message(topic="frames", key=str(number), value=b"", partition=0))
                    break
                except Unavailable:
                    failed += 1
        assert failed == 2
        consumer = await transport.subscribe("worker", ["frames"], Ear())
        first = list(await consumer.poll(max_records=10, timeout_s=1))
        with pytest.raises(Unavailable, match="poll 2 fails"):
            await consumer.poll(max_records=10, timeout_s=1)
        records = first + list(await consumer.poll(max_records=10, timeout_s=1))
        assert [record.key for record in records] == ["0", "1", "1", "2", "3"]
        with pytest.raises(Unavailable, match="commit 1 is lost"):
            await consumer.commit({TopicPartition("frames", 0): 5})
        assert (await transport.lag("worker", "frames"))[0] == 0
        await consumer.close()
        await transport.close()

    asyncio.run(main())


def test_a_stalled_put_goes_on_when_it_is_released(tmp_path: Path) -> None:
    async def main() -> None:
        until = asyncio.Event()
        inner = await LocalTransport.open(tmp_path, SECTION)
        transport = Faulty(inner, [Fault(on="blob_put", at=1, how="stall", until=until)])
        putting = asyncio.ensure_future(transport.blobs.put(b"photo"))
        await asyncio.sleep(0)  # let it begin, so that it is the first
        other = await transport.blobs.put(b"another")
        assert not putting.done()
        assert [entry.sha256 for entry in await inner.blobs.list()] == [other.sha256]
        until.set()
        assert (await transport.blobs.get(await putting)) == b"photo"
        await transport.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "fault", [{"at": 0, "how": "unavailable"}, {"at": 1, "how": "stall"}, {"at": 1, "how": "lose_ack"}], ids=json.dumps
)
def test_a_fault_that_makes_no_sense_is_refused(fault: dict[str, object]) -> None:
    with pytest.raises(Misuse):
        Fault(on="poll", **fault)  # type: ignore[arg-type]
