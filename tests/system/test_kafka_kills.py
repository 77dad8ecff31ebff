"""Sixty photos through a real broker; uploader, workers, findings and the broker killed: nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from PIL import Image

from stream.config import Config
from stream.messages import DeadFrame, Result, decode
from stream.patience import patiently
from stream.transport.kafka import KafkaTransport
from stream.transport.kafka_client import connection
from stream.transport.protocol import TopicPartition
from tests.kafka.broker import Broker
from tests.system import kills, line
from tests.system.kills import Killed
from tests.system.line import Role

FLIGHTS, PHOTOS = 10, 6
"""So many flights of so many photos; each is answered before the next, so that there is always something to disturb."""
WORKER_KILLS = FINDINGS_KILLS = 5
SIDES = ((1024, 832), (1280, 1024), (1536, 1280), (1792, 1664))
"""Noise of these sizes is 3 to 12 MB, and cheap to make and to read."""


def make_photos(folder: Path) -> None:
    """Every third shows a defect: the scripted engine takes red for a crack."""
    folder.mkdir()
    for number in range(FLIGHTS * PHOTOS):
        width, height = SIDES[number % len(SIDES)]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        if number % 3 == 0:
            pixels[:256, :256] = (250, 5, 5)
        flight = folder / f"flight-{number // PHOTOS}"
        flight.mkdir(exist_ok=True)
        path = flight / f"{number:02}.jpg"
        Image.fromarray(pixels).save(path, quality=100, subsampling=0)
        assert 3_000_000 < path.stat().st_size < 12_500_000


class Site:
    """The roles around one broker, and what is done to them."""

    def __init__(self, broker: Broker, config: Config, folder: Path, transport: KafkaTransport) -> None:
        self.broker, self.config, self.folder, self.transport = broker, config, folder, transport
        self.outbox = folder / "outbox.sqlite"
        self.worker = Killed(lambda: Role.start("worker", self.named("worker-1")).process, WORKER_KILLS)
        self.findings = Killed(lambda: Role.start("findings", self.named("findings")).process, FINDINGS_KILLS)

    def named(self, member: str) -> Config:
        """The settings of a role that is the same member of its group after a restart."""
        kafka = msgspec.structs.replace(self.config.kafka, member=member)
        return msgspec.structs.replace(self.config, kafka=kafka)

    def upload(self, number: int) -> subprocess.Popen[bytes]:
        flight, asset = self.folder / "photos" / f"flight-{number}", f"bridge-{number % 3}"
        command = ("upload", flight, "--asset", asset, "--outbox", self.outbox)
        return line.spanwatch(self.config, *command, stdout=subprocess.DEVNULL)

    async def photo_caught(self, uploader: subprocess.Popen[bytes], at_least: int) -> str:
        """Stop an uploader while a photo is on its way, after so many have been sent; that photo."""
        async with asyncio.timeout(line.GIVE_UP_S):
            while True:
                await asyncio.sleep(0.005)
                if len(kills.outbox(self.outbox)) <= at_least:
                    continue
                uploader.send_signal(signal.SIGSTOP)
                for frame, place in kills.outbox(self.outbox).items():
                    if place is None:
                        return frame
                uploader.send_signal(signal.SIGCONT)

    async def check_commits(self) -> None:
        """Of the frames whose place the uploader knows, those below the committed offsets are answered."""
        starts = lambda: self.transport.start_positions("worker", ["frames"])  # noqa: E731
        committed = await patiently(starts, deadline_s=line.GIVE_UP_S)
        answered = await patiently(self.answered, deadline_s=line.GIVE_UP_S)
        for frame, place in kills.outbox(self.outbox).items():
            below = place is not None and place[1] < committed[TopicPartition("frames", place[0])]
            assert frame in answered or not below, f"the group has committed past {frame} at {place}, which is open"

    async def answered(self) -> set[str]:
        results = {decode(record.value, Result).frame.frame_id async for record in self.transport.read("results")}
        return results | {decode(r.value, DeadFrame).frame_id async for r in self.transport.read("dead-frames")}

    async def members(self) -> int:
        """How many workers the group has, once it has settled."""
        admin = AIOKafkaAdminClient(**connection(self.config, "reader"))
        await admin.start()
        try:
            (response,) = await admin.describe_consumer_groups([self.transport.group_id("worker")])
            _, _, state, _, _, members, *_ = response.groups[0]
            return len(members) if state == "Stable" else 0
        finally:
            await admin.close()

    async def settle(self, members: int) -> None:
        async with asyncio.timeout(line.GIVE_UP_S):
            while await self.members() != members:
                await asyncio.sleep(0.1)

    async def join_and_leave(self) -> None:
        """One more worker, which is no member of long standing: it leaves as it stops."""
        second = Role.start("worker", self.config)
        await self.settle(members=2)
        assert await asyncio.to_thread(second.stop) == 0
        await self.settle(members=1)
        sys.stdout.write("a second worker joined and left\n")

    async def lose_broker(self, when: str) -> None:
        """It has answered nothing since it was frozen: whatever was under way stays without an acknowledgement."""
        self.broker.kill()
        sys.stdout.write(f"broker killed {when}\n")
        await asyncio.to_thread(self.broker.start)

    async def quiet(self) -> None:
        """Wait until all there is has been answered and reduced."""
        await line.all_answered(self.transport)
        await kills.drained(self.transport, "findings", "results")


async def kill_the_uploader(site: Site, flight: int) -> None:
    uploader = site.upload(flight)
    photo = await site.photo_caught(uploader, flight * PHOTOS + 2)
    uploader.kill()
    sys.stdout.write(f"uploader killed with {photo[:8]} on its way\n")
    assert await line.ended(site.upload(flight)) == 0


async def kill_the_broker_in_mid_produce(site: Site, flight: int) -> None:
    uploader = site.upload(flight)
    photo = await site.photo_caught(uploader, flight * PHOTOS + 2)
    site.broker.freeze()
    uploader.send_signal(signal.SIGCONT)
    await site.lose_broker(f"with {photo[:8]} of the uploader on its way")
    assert await line.ended(uploader) == 0


async def kill_the_broker_in_mid_commit(site: Site, flight: int) -> None:
    """The worker stands still between answer and commit; its commit meets a broker that no longer answers."""
    assert site.worker.stop() in {0, -signal.SIGTERM}  # it may not have come so far as to hear it
    before = await site.answered()
    halted = Role.start("worker", site.named("worker-1"), "--stop-at", "2:3")
    uploader = site.upload(flight)
    await kills.until(halted.stands_still)
    assert len(await site.answered() - before) >= 3  # three frames are closed, and their answers were there before
    await site.check_commits()
    site.broker.freeze()
    halted.process.send_signal(signal.SIGCONT)
    await site.lose_broker("between the answer of a frame and its commit")
    assert await line.ended(uploader) == 0
    await site.quiet()
    await site.join_and_leave()
    assert await asyncio.to_thread(halted.stop) == 0


async def disturb(site: Site) -> None:
    async with kills.counted(site.transport, "results") as results, asyncio.TaskGroup() as group:
        supervisors = [group.create_task(role.supervise()) for role in (site.worker, site.findings)]
        group.create_task(kills.kill_workers(site.worker, site.config, results, site.check_commits))
        group.create_task(kills.kill_findings(site.transport, site.findings, results))
        await kill_the_uploader(site, flight=0)
        await kill_the_broker_in_mid_produce(site, flight=1)
        await site.join_and_leave()
        for flight in range(2, FLIGHTS - 1):
            await site.quiet()
            assert await line.ended(site.upload(flight)) == 0
        await site.quiet()
        assert not site.worker.left and not site.findings.left, "there was too little work for all these deaths"
        await kill_the_broker_in_mid_commit(site, flight=FLIGHTS - 1)
        for supervisor in supervisors:
            supervisor.cancel()


@pytest.mark.slow
def test_every_photo_has_a_result_whatever_is_killed(mortal: Broker, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")

    async def test() -> None:
        async with line.opened(config) as transport:
            assert isinstance(transport, KafkaTransport)
            site = Site(mortal, config, tmp_path, transport)
            await disturb(site)
            assert site.findings.stop() == 0
            await line.check_commits(transport)
            seen = await line.look(transport)
            seen.check()
            assert len(seen.frames) == FLIGHTS * PHOTOS and not seen.dead
            sys.stdout.write(
                f"{len(seen.frames)} frames, {seen.duplicates} duplicate results, {len(seen.alerts)} alerts\n"
            )
            assert len(seen.alerts) == FLIGHTS * PHOTOS // 3
            fresh = tmp_path / "fresh"
            undisturbed = await kills.undisturbed(transport, fresh, lambda: Role.start("findings", fresh).process)
            assert seen.alerts == undisturbed

    with line.on_kafka(mortal.url, tmp_path) as config:
        line.run(test)
