"""Forty photos; workers, uploader and findings killed; one worker joins and leaves: nothing is lost."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.system import kills, line
from tests.system.kills import Killed

FLIGHT = Path(__file__).parents[1] / "data" / "flight"
PHOTOS = 40
WORKER_KILLS = FINDINGS_KILLS = 5
SIZE = (1536, 1280)
"""Thirty tiles: long enough in the engine to be caught there, short enough for forty of them."""


def make_photos(folder: Path) -> None:
    """Crops of real photos of a deck and a wall, so that there are real findings to lose."""
    folder.mkdir()
    sources = [Image.open(path).convert("RGB") for path in sorted(FLIGHT.glob("*.jpg"))]
    sources = [image for image in sources if image.width > 4000]
    assert sources, "the sample flight holds no photo large enough to crop from"
    chance = random.Random(4)
    for number in range(PHOTOS):
        image = sources[number % len(sources)]
        x, y = chance.randrange(image.width - SIZE[0]), chance.randrange(image.height - SIZE[1])
        image.crop((x, y, x + SIZE[0], y + SIZE[1])).save(folder / f"photo-{number:02}.jpg", quality=92)


@pytest.mark.slow
def test_every_frame_has_a_result_whatever_is_killed(tmp_path: Path) -> None:
    photos, log = tmp_path / "photos", tmp_path / "log"
    make_photos(photos)
    uploading = ("upload", photos, "--asset", "bridge-7", "--flight", "f1", "--outbox", tmp_path / "outbox")

    async def test() -> None:
        async with line.opened(log) as transport, kills.counted(transport, "results") as results:
            async with kills.counted(transport, "frames") as frames:
                uploader = line.spanwatch(log, *uploading)
                await kills.until(lambda: len(frames) >= PHOTOS // 4)
                uploader.kill()
            worker = Killed(lambda: line.spanwatch(log, "worker"), WORKER_KILLS)
            findings = Killed(lambda: line.spanwatch(log, "findings"), FINDINGS_KILLS)
            again = line.spanwatch(log, *uploading)
            async with asyncio.TaskGroup() as group:
                group.create_task(kills.kill_workers(worker, log, results, lambda: line.check_commits(transport)))
                group.create_task(kills.kill_findings(transport, findings, results))
            assert again.wait(line.GIVE_UP_S) == 0
            second = line.spanwatch(log, "worker")
            await kills.until(lambda: len(list((log / "state" / "owners").iterdir())) >= 2)
            second.terminate()
            assert second.wait(line.GIVE_UP_S) == 0  # it joined, and left in good order
            await line.all_answered(transport)
            await kills.drained(transport, "findings", "results")
            assert worker.stop() == 0 and findings.stop() == 0
            seen = await line.look(transport)
            seen.check()
            assert len(seen.frames) == PHOTOS and not seen.dead
            sys.stdout.write(
                f"{len(seen.frames)} frames, {seen.duplicates} duplicate results, {len(seen.alerts)} alerts\n"
            )
            assert seen.alerts
            fresh = tmp_path / "fresh"
            assert seen.alerts == await kills.undisturbed(transport, fresh, lambda: line.spanwatch(fresh, "findings"))

    line.run(test)
