"""Whatever is killed at whatever moment, every photo has an answer: the oracle on real processes that really die."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.transport.protocol import Transport
from tests.kafka.broker import Broker
from tests.system import line
from tests.system.child import DIED, Home
from tests.system.line import Role

PHOTOS = 4


async def fill(home: Home, count: int = PHOTOS) -> None:
    async with line.opened(home) as transport:
        for number in range(count):
            await line.send(transport, line.photo(number), asset=f"bridge-{number % 2}")


async def die_then_finish(home: Home, *options: str) -> line.Seen:
    """A worker that dies where it is told, a check of what it left, and a second worker that does the rest."""
    assert Role.start("worker", home, *options).wait() == DIED
    async with line.opened(home) as transport:
        await line.check_commits(transport)
        if sum((await transport.lag("worker", "frames")).values()):
            second = Role.start("worker", home)
            await line.all_answered(transport)
            assert second.stop() == 0
        await line.check_commits(transport)
        seen = await line.look(transport)
    seen.check()
    assert not seen.dead
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("time", [1, 4])
def test_a_worker_that_dies_after_any_commit_step_loses_nothing(tmp_path: Path, step: int, time: int) -> None:
    async def test() -> None:
        await fill(tmp_path)
        seen = await die_then_finish(tmp_path, "--exit-at", f"{step}:{time}")
        # After (1) and (2) the frame's result is there and its offset is not: exactly one comes again. After (3), none.
        assert seen.duplicates == (0 if step == 3 else 1)

    line.run(test)


RECORDS = [
    f"{on}:{at}:{how}"
    for on in ("poll", "blob_get", "send", "commit")
    for at in range(1, PHOTOS + 1)
    for how in (("exit_after",) if on == "poll" else ("exit_before", "exit_after"))
]


ON_KAFKA = {
    ("--exit-at", "1:2"): 1,
    ("--exit-at", "2:2"): 1,
    ("--exit-at", "3:2"): 0,
    ("--fault", "poll:2:exit_after"): 0,
    ("--fault", "commit:2:exit_after"): 0,
}
"""How it dies, and how many results that repeats."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", RECORDS)
def test_a_worker_that_dies_at_any_record_of_the_transport_loses_nothing(tmp_path: Path, fault: str) -> None:
    async def test() -> None:
        await fill(tmp_path)
        await die_then_finish(tmp_path, "--fault", fault)

    line.run(test)


@pytest.mark.slow
@pytest.mark.parametrize(("death", "duplicates"), ON_KAFKA.items(), ids=[" ".join(death) for death in ON_KAFKA])
def test_on_kafka_a_worker_that_dies_loses_nothing(
    broker: Broker, tmp_path: Path, death: tuple[str, str], duplicates: int
) -> None:
    async def test() -> None:
        await fill(config)
        assert (await die_then_finish(config, *death)).duplicates == duplicates

    with line.on_kafka(broker.url, tmp_path, member="worker-1") as config:
        line.run(test)


@pytest.mark.slow
def test_on_kafka_a_worker_lives_through_lost_acknowledgements(broker: Broker, tmp_path: Path) -> None:
    async def test() -> None:
        await fill(config)
        faults = [f"{on}:{at}:lose_ack" for on in ("send", "commit") for at in (2, 3)]
        worker = Role.start("worker", config, *(part for fault in faults for part in ("--fault", fault)))
        async with line.opened(config) as transport:
            await line.all_answered(transport)
            assert worker.stop() == 0
            seen = await line.look(transport)
        seen.check()
        assert seen.duplicates == 2

    with line.on_kafka(broker.url, tmp_path, member="worker-1") as config:
        line.run(test)


@pytest.mark.slow
def test_a_worker_lives_through_outages_and_lost_acknowledgements(tmp_path: Path) -> None:
    async def test() -> None:
        await fill(tmp_path)
        outages = [f"{on}:{at}:unavailable" for on in ("poll", "blob_get", "send", "commit") for at in (1, 3)]
        lost = [f"{on}:{at}:lose_ack" for on in ("send", "commit") for at in (2, 4)]
        options = [part for fault in outages + lost for part in ("--fault", fault)]
        worker = Role.start("worker", tmp_path, *options)
        async with line.opened(tmp_path) as transport:
            await line.all_answered(transport)
            assert worker.stop() == 0
            seen = await line.look(transport)
        seen.check()
        assert seen.duplicates == 2  # the two sends whose acknowledgement was lost were done, and are done again

    line.run(test)


@pytest.mark.slow
def test_a_frame_that_kills_the_process_ends_as_poison_and_its_neighbours_have_results(tmp_path: Path) -> None:
    from tests.system.child import POISON

    async def test() -> None:
        async with line.opened(tmp_path) as transport:
            for number in range(4):
                await line.send(transport, line.photo(number))
            poison = await line.send(transport, line.photo(99, colour=POISON), name="evil.png")
            for number in range(4, 8):
                await line.send(transport, line.photo(number))
            lives = 0
            while (worker := Role.start("worker", tmp_path)) and lives < 10:
                lives += 1
                answered = await ended_or_answered(transport, worker)
                if answered:
                    assert worker.stop() == 0
                    break
                assert worker.wait() == DIED
            seen = await line.look(transport)
            kept = seen.dead[poison].blob
            assert kept is not None and await transport.blobs.exists(kept.sha256)
        seen.check()
        assert set(seen.dead) == {poison} and seen.dead[poison].reason == "poison"
        assert lives == 4  # two crashes among others, one alone, and the life in which it is set aside

    async def ended_or_answered(transport: Transport, worker: Role) -> bool:
        while worker.process.poll() is None:
            if not sum((await transport.lag("worker", "frames")).values()):
                return True
            await line.asyncio.sleep(0.05)
        return False

    line.run(test)


@pytest.mark.slow
def test_a_card_that_is_lost_ends_the_worker_and_its_frames_are_in_the_journal(tmp_path: Path) -> None:
    async def test() -> None:
        await fill(tmp_path)
        assert Role.start("worker", tmp_path, "--card-lost-at", "20").wait() == 1  # in the first batches
        async with line.opened(tmp_path) as transport:
            await line.check_commits(transport)
            left = await transport.lag("worker", "frames")
            assert line.open_attempts(tmp_path) and sum(left.values()) > 0
            second = Role.start("worker", tmp_path)
            await line.all_answered(transport)
            assert second.stop() == 0
            seen = await line.look(transport)
        seen.check()
        assert not seen.dead

    line.run(test)
