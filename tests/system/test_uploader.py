"""Photos through a real uploader into a real log: whatever breaks in between, each photo is there in the end."""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import stream.uploader.uploader
from stream.cli.upload import upload_app
from stream.config import LocalSection
from stream.errors import Misuse, Unavailable
from stream.messages import HEADER_FRAME, Frame, decode
from stream.testing import Fault, Faulty
from stream.transport.local import LocalTransport
from stream.transport.protocol import Transport
from stream.uploader import Flight, Options, Outbox, Progress, Report, Uploader

BRIDGE = Flight(asset="bridge-3", drone="M3E", flight="monday")
SECTION = LocalSection(min_free_bytes=0)


def jpeg(path: Path, color: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (color % 256, color // 256, 90)).save(path, quality=90)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Site:
    """A card with photos, an outbox, and a log that remembers; all in one temporary folder."""

    def __init__(self, folder: Path, photos: int) -> None:
        self.folder = folder
        self.card = folder / "card"
        self.log = folder / "log"
        self.outbox = folder / "outbox.sqlite"
        self.photos = [jpeg(self.card / f"{n:04}.jpg", n) for n in range(photos)]

    @property
    def ids(self) -> set[str]:
        return {sha256(path) for path in self.photos}

    @contextlib.asynccontextmanager
    async def uploader(
        self,
        *faults: Fault,
        flight: Flight = BRIDGE,
        options: Options | None = None,
        hear: Callable[[Uploader, Progress], None] = lambda uploader, event: None,
    ) -> AsyncIterator[Uploader]:
        transport = await LocalTransport.open(self.log, SECTION)
        try:
            with Outbox(self.outbox) as outbox:
                made: list[Uploader] = []
                wrapped = Faulty(transport, faults)
                made.append(Uploader(wrapped, outbox, flight, options, lambda event: hear(made[0], event)))
                yield made[0]
        finally:
            await transport.close()

    def frames(self) -> list[Frame]:
        """All frames in the log in no promised order; the bytes of each are checked."""

        async def read() -> list[Frame]:
            transport = await LocalTransport.open(self.log, SECTION)
            try:
                return [
                    await whole(transport, record.headers[HEADER_FRAME]) async for record in transport.read("frames")
                ]
            finally:
                await transport.close()

        return asyncio.run(read())

    def state(self) -> dict[str, tuple[bytes, int]]:
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(self.card.iterdir())}


async def whole(transport: Transport, header: str) -> Frame:
    frame = decode(header, Frame)
    assert frame.blob is not None
    data = await transport.blobs.get(frame.blob)
    assert hashlib.sha256(data).hexdigest() == frame.frame_id == frame.blob.sha256
    return frame


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, photos=5)


def upload(site: Site, *faults: Fault, **how: Any) -> Report:
    """One run of an uploader in this process."""

    async def main() -> Report:
        async with site.uploader(*faults, **how) as uploader:
            return await uploader.upload([site.card])

    return asyncio.run(main())


def test_the_example_in_the_docstring_runs(capsys: pytest.CaptureFixture[str]) -> None:
    result = doctest.testmod(stream.uploader.uploader)
    assert result.attempted >= 7
    assert result.failed == 0, capsys.readouterr().out


# Death in the middle


CHILD = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from stream.config import LocalSection
    from stream.testing import Fault, Faulty
    from stream.transport.local import LocalTransport
    from stream.uploader import Flight, Outbox, Uploader

    async def main(folder, on, at, how):
        until = asyncio.Event() if how == "stall" else None
        transport = await LocalTransport.open(folder / "log", LocalSection(min_free_bytes=0))
        faulty = Faulty(transport, [Fault(on=on, at=int(at), how=how, until=until)])
        with Outbox(folder / "outbox.sqlite") as outbox:
            flight = Flight(asset="bridge-3", drone="M3E", flight="monday")
            tell = lambda event: print(event.done_files, event.current, flush=True)
            await Uploader(faulty, outbox, flight, on_progress=tell).upload([folder / "card"])

    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
    """
)


def child(site: Site, on: str, at: int, how: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CHILD, str(site.folder), on, str(at), how]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("on", "at", "how", "in_log"),
    [
        ("blob_put", 1, "exit_before", 0),  # after (1): recorded, nothing sent
        ("blob_put", 3, "exit_after", 2),  # after (2): its bytes are there, its record is not
        ("send", 3, "exit_before", 2),
        ("send", 3, "exit_after", 3),  # after (3): sent, not marked
        ("send", 5, "exit_after", 5),
    ],
)
def test_killed_after_any_step_the_next_upload_sends_what_is_missing(
    site: Site, on: str, at: int, how: str, in_log: int
) -> None:
    with child(site, on, at, how) as process:
        process.communicate()
    assert process.returncode == 70
    assert len(site.frames()) == in_log

    report = upload(site)
    frames = site.frames()
    assert {frame.frame_id for frame in frames} == site.ids
    # Only a death between (3) and (4) repeats a frame, and then that one frame, field for field.
    repeated = [frame for frame, count in Counter(map(msgspec.json.encode, frames)).items() if count > 1]
    assert len(repeated) == len(frames) - len(site.ids) == (1 if (on, how) == ("send", "exit_after") else 0)
    assert len(report.sent) + len(report.already_there) == len(site.ids)
    assert {frame.sequence for frame in frames} == set(range(5))


@pytest.mark.slow
def test_killed_with_signal_9_while_a_photo_is_on_its_way_nothing_is_lost(site: Site) -> None:
    for at in (1, 2):
        done = len(site.frames()) + at - 1
        with child(site, "send", at, "stall") as process:
            assert process.stdout is not None
            assert any(line.startswith(f"{done} /") for line in process.stdout), "the photo whose send never returns"
            process.kill()
            process.stdout.read()
        assert process.returncode == -signal.SIGKILL
    upload(site)
    counts = Counter(frame.frame_id for frame in site.frames())
    assert set(counts) == site.ids
    assert set(counts.values()) == {1}


# Sent once


def test_photos_are_sent_whole_in_order_and_left_as_they_were(site: Site) -> None:
    before = site.state()
    report = upload(site)
    frames = site.frames()
    assert [frame.frame_id for frame in sorted(frames, key=lambda frame: frame.sequence or 0)] == [
        sha256(path) for path in site.photos
    ]
    first = next(frame for frame in frames if frame.sequence == 0)
    assert (first.asset, first.drone, first.flight, first.name) == ("bridge-3", "M3E", "monday", "0000.jpg")
    assert (first.width, first.height, first.photo.format) == (64, 48, "JPEG")
    assert first.size_bytes == site.photos[0].stat().st_size
    assert [Path(sent.path) for sent in report.sent] == site.photos
    assert site.state() == before


def test_a_photo_is_sent_once_however_often_it_is_named_and_under_whatever_name(site: Site) -> None:
    upload(site)
    shutil.copy(site.photos[0], site.card / "copy of 0000.jpg")
    site.photos[1].rename(site.card / "renamed.jpg")

    async def main() -> Report:
        async with site.uploader() as uploader:
            return await uploader.upload([site.card, site.card, site.card / "renamed.jpg"])

    report = asyncio.run(main())
    assert (len(report.sent), len(report.already_there), report.refused) == (0, 6, ())
    assert len(site.frames()) == 5


def test_two_copies_in_one_upload_are_one_frame(site: Site) -> None:
    shutil.copy(site.photos[0], site.card / "copy.jpg")
    report = upload(site)
    assert (len(report.sent), len(report.already_there)) == (5, 1)
    assert len(site.frames()) == 5


def test_another_day_does_not_send_a_flight_without_a_name_again(site: Site) -> None:
    unnamed = Flight(asset="bridge-3")
    first = upload(site, flight=unnamed)
    assert {sent.flight[:5] for sent in first.sent} == {"card-"}
    for path in site.photos:
        os.utime(path, (86_400, 86_400))
    assert len(upload(site, flight=unnamed).already_there) == 5


def test_a_photo_that_belongs_elsewhere_is_refused_with_the_command_that_moves_it(site: Site) -> None:
    upload(site)
    report = upload(site, flight=Flight(asset="bridge-4"))
    assert len(report.refused) == 5
    assert "spanwatch upload correct monday --asset bridge-4" in report.refused[0].reason
    assert len(site.frames()) == 5


def test_a_changed_file_is_a_new_photo(site: Site) -> None:
    upload(site)
    jpeg(site.photos[2], 900)
    report = upload(site)
    assert [sent.frame_id for sent in report.sent] == [sha256(site.photos[2])]
    assert site.ids < {frame.frame_id for frame in site.frames()}


def test_another_log_is_another_destination(site: Site) -> None:
    upload(site)
    site.log = site.folder / "other"
    assert len(upload(site).sent) == 5


def test_a_log_that_was_thrown_away_gets_its_photos_again(site: Site) -> None:
    upload(site)
    shutil.rmtree(site.log)
    assert len(upload(site).sent) == 5
    assert {frame.frame_id for frame in site.frames()} == site.ids


def test_what_has_been_cleared_away_after_its_time_is_not_sent_again(site: Site) -> None:
    upload(site)
    shutil.rmtree(site.log)
    assert len(upload(site, options=Options(recheck_s=0)).already_there) == 5
    again = upload(site, options=Options(recheck_s=0, again=True))
    assert len(again.sent) == 5
    assert [frame.correction for frame in site.frames()] == [0] * 5


def test_numbers_follow_the_time_of_capture_and_then_the_name(site: Site) -> None:
    for seconds, path in zip((50, 10, 30, 30, 20), site.photos, strict=True):
        os.utime(path, (seconds, seconds))
    upload(site)
    ordered = sorted(site.frames(), key=lambda frame: frame.sequence or 0)
    assert [frame.name for frame in ordered] == ["0001.jpg", "0004.jpg", "0002.jpg", "0003.jpg", "0000.jpg"]


def test_what_is_no_photo_is_refused_and_the_rest_is_sent(site: Site) -> None:
    (site.card / "0000_empty.jpg").touch()
    (site.card / "0001_notes.txt").write_text("battery 3 was weak")
    (site.card / "0002.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(64))
    (site.card / "0003_zeros.jpg").write_bytes(bytes(4096))
    report = upload(site)
    assert [Path(item.path).name for item in report.refused] == ["0000_empty.jpg", "0001_notes.txt", "0002.mp4"]
    assert len(report.sent) == 6, "zeros under a photo's name are for the worker to judge"


def test_a_name_that_is_not_utf_8_is_sent(site: Site) -> None:
    odd = jpeg(Path(os.fsdecode(os.fsencode(site.card) + b"/pi\xe9r.jpg")), 77)
    upload(site)
    assert {frame.name for frame in site.frames() if frame.frame_id == sha256(odd)} == {"pi\ufffdr.jpg"}


# Bytes: by blob, in place, inline


def test_in_place_nothing_is_copied(site: Site) -> None:
    upload(site, options=Options(in_place=True))
    assert {frame.blob.url for frame in site.frames() if frame.blob} == {path.as_uri() for path in site.photos}
    assert not list(site.log.glob("blobs/*/*"))


class Inline(LocalTransport):
    """The local log as a transport that takes small photos inside a record."""

    @property
    def max_inline_bytes(self) -> int:
        return 5000


def test_small_photos_travel_inside_the_record_and_large_ones_beside_it(site: Site) -> None:
    large = site.card / "large.png"
    Image.effect_noise((100, 100), 90).save(large)

    async def main() -> dict[str, bytes]:
        transport = await Inline.open(site.log, SECTION)
        try:
            with Outbox(site.outbox) as outbox:
                await Uploader(transport, outbox, BRIDGE).upload([site.card])
            return {record.key: record.value async for record in transport.read("frames")}
        finally:
            await transport.close()

    values = asyncio.run(main())
    assert values.pop(sha256(large)) == b""
    assert values == {sha256(path): path.read_bytes() for path in site.photos}


def test_a_file_that_changes_while_it_is_sent_is_hashed_again_and_sent_whole(site: Site) -> None:
    def change(uploader: Uploader, event: Progress) -> None:
        if event.waiting and event.done_files == 2:
            jpeg(site.photos[2], 5000)

    report = upload(site, Fault(on="blob_put", at=3, how="unavailable"), hear=change)
    assert len(report.sent) == 5
    assert {frame.frame_id for frame in site.frames()} == site.ids


def test_a_card_that_is_pulled_out_loses_only_what_was_on_it(site: Site) -> None:
    def pull(uploader: Uploader, event: Progress) -> None:
        if event.waiting and event.done_files == 2:
            for path in site.photos[2:]:
                path.unlink()

    report = upload(site, Fault(on="blob_put", at=3, how="unavailable"), hear=pull)
    assert [Path(item.path) for item in report.refused] == site.photos[2:]
    assert len(site.frames()) == 2


# Outages


@pytest.mark.parametrize(
    ("fault", "repeats"),
    [
        (Fault(on="blob_put", at=2, how="unavailable"), 0),
        (Fault(on="send", at=2, how="unavailable"), 0),
        (Fault(on="blob_put", at=2, how="lose_ack"), 0),
        (Fault(on="send", at=2, how="lose_ack"), 1),
    ],
    ids=lambda value: f"{value.on} {value.how}" if isinstance(value, Fault) else str(value),
)
def test_an_outage_loses_nothing_and_is_told(site: Site, fault: Fault, repeats: int) -> None:
    reasons: list[str] = []

    def hear(uploader: Uploader, event: Progress) -> None:
        if event.waiting:
            reasons.append(event.waiting)

    report = upload(site, fault, hear=hear)
    assert len(report.sent) == 5
    assert {frame.frame_id for frame in site.frames()} == site.ids
    assert len(site.frames()) == 5 + repeats
    assert len(reasons) == 1 and "as the test asked" in reasons[0] and "next try in" in reasons[0]


def test_a_log_whose_disk_is_unplugged_and_comes_back_has_everything(site: Site) -> None:
    away = site.folder / "away"
    reasons: list[str] = []

    def hear(uploader: Uploader, event: Progress) -> None:
        if event.waiting:
            reasons.append(event.waiting)
            if len(reasons) == 3:
                away.rename(site.log)
        elif event.done_files == 2 and not reasons and not away.exists():
            site.log.rename(away)

    report = upload(site, hear=hear)
    assert len(report.sent) == 5 and len(reasons) >= 3
    assert str(site.log) in reasons[0]
    assert {frame.frame_id for frame in site.frames()} == site.ids


def test_bytes_that_vanish_during_an_outage_are_put_again_before_the_record(site: Site) -> None:
    def hear(uploader: Uploader, event: Progress) -> None:
        if event.waiting:
            shutil.rmtree(site.log / "blobs")

    upload(site, Fault(on="send", at=1, how="unavailable"), hear=hear)
    assert {frame.frame_id for frame in site.frames()} == site.ids


def test_after_its_deadline_it_gives_up_and_the_report_says_how_far_it_came(site: Site) -> None:
    async def main() -> Report:
        fault = Fault(on="send", at=3, how="unavailable")
        async with site.uploader(fault, options=Options(deadline_s=0.0)) as uploader:
            with pytest.raises(Unavailable, match="as the test asked"):
                await uploader.upload([site.card])
            return uploader.report

    report = asyncio.run(main())
    assert (len(report.sent), [Path(path) for path in report.left]) == (2, [site.photos[2]])
    assert len(upload(site).sent) == 3


def test_stopped_it_finishes_the_photo_in_hand_and_the_next_upload_goes_on(site: Site) -> None:
    def hear(uploader: Uploader, event: Progress) -> None:
        if event.done_files == 1 and event.current is not None:
            uploader.stop()

    report = upload(site, hear=hear)
    assert (len(report.sent), len(report.left)) == (2, 3)
    assert len(upload(site).sent) == 3
    assert len(site.frames()) == 5


def test_stopped_during_an_outage_it_does_not_wait_for_its_end(site: Site) -> None:
    def hear(uploader: Uploader, event: Progress) -> None:
        if event.done_files == 1 and event.current is not None and event.waiting is None and site.log.exists():
            shutil.rmtree(site.log)  # it never comes back
        if event.waiting:
            uploader.stop()

    report = upload(site, hear=hear)
    assert (len(report.sent), len(report.left)) == (1, 4)


def test_a_bandwidth_limit_says_that_it_is_what_it_waits_for(site: Site) -> None:
    reasons: set[str | None] = set()

    def hear(uploader: Uploader, event: Progress) -> None:
        reasons.add(event.waiting)
        if event.waiting:
            uploader.stop()

    size = site.photos[0].stat().st_size
    report = upload(site, options=Options(max_bytes_per_s=size / 1.5), hear=hear)
    assert "the bandwidth limit" in reasons
    assert (len(report.sent), len(report.left)) == (1, 4)


# Watching


def test_a_watched_card_may_come_later_and_ends_with_a_stop(site: Site) -> None:
    away = site.folder / "away"
    site.card.rename(away)
    reasons: list[str] = []

    def hear(uploader: Uploader, event: Progress) -> None:
        if event.waiting and not reasons:
            reasons.append(event.waiting)
            away.rename(site.card)
        if event.done_files == 5:
            uploader.stop()

    async def main() -> Report:
        async with site.uploader(options=Options(settle_s=0.0, poll_s=0.01), hear=hear) as uploader:
            return await uploader.watch([site.card])

    assert len(asyncio.run(main()).sent) == 5
    assert reasons == [f"{site.card} to appear"]


# Corrections


def correct(site: Site, flight: Flight, *faults: Fault, options: Options | None = None) -> Report:
    async def main() -> Report:
        async with site.uploader(*faults, flight=flight, options=options) as uploader:
            return await uploader.correct("monday")

    return asyncio.run(main())


def test_a_corrected_flight_goes_out_once_more_without_its_bytes(site: Site) -> None:
    upload(site)
    shutil.rmtree(site.card)
    report = correct(site, Flight(asset="bridge-4"))
    moved = [frame for frame in site.frames() if frame.correction]
    assert len(report.sent) == len(moved) == 5
    assert {(frame.asset, frame.correction, frame.flight, frame.drone) for frame in moved} == {
        ("bridge-4", 1, "monday", "M3E")
    }
    assert {frame.sequence for frame in moved} == set(range(5))
    assert len(correct(site, Flight(asset="bridge-4")).already_there) == 5
    assert len(site.frames()) == 10
    back = correct(site, Flight(asset="bridge-3"))
    assert len(back.sent) == 5
    assert Counter(frame.correction for frame in site.frames()) == {0: 5, 1: 5, 2: 5}


def test_a_correction_that_was_cut_off_is_repeated_and_not_counted_twice(site: Site) -> None:
    upload(site)
    with pytest.raises(Unavailable):
        correct(site, Flight(asset="bridge-4"), Fault(on="send", at=2, how="lose_ack"), options=Options(deadline_s=0.0))
    report = correct(site, Flight(asset="bridge-4"))
    assert (len(report.sent), len(report.already_there)) == (4, 1)
    moved = Counter((frame.frame_id, frame.correction) for frame in site.frames() if frame.asset == "bridge-4")
    assert set(moved) == {(frame_id, 1) for frame_id in {sha256(path) for path in site.photos}}
    assert sorted(moved.values()) == [1, 1, 1, 1, 2]


def test_after_a_correction_an_upload_as_the_new_asset_has_nothing_to_send(site: Site) -> None:
    upload(site)
    correct(site, Flight(asset="bridge-4", flight="tuesday"))
    assert len(upload(site, flight=Flight(asset="bridge-4")).already_there) == 5
    assert len(upload(site).refused) == 5


def test_bytes_that_the_destination_has_lost_are_read_where_they_were(site: Site) -> None:
    upload(site)
    shutil.rmtree(site.log / "blobs")
    jpeg(site.photos[1], 999)
    site.photos[2].unlink()
    report = correct(site, Flight(asset="bridge-4"))
    assert [Path(sent.path).name for sent in report.sent] == ["0000.jpg", "0003.jpg", "0004.jpg"]
    assert [Path(item.path).name for item in report.refused] == ["0001.jpg", "0002.jpg"]
    assert "another photo lies there" in report.refused[0].reason


def test_a_flight_that_was_sent_in_place_is_corrected_in_place(site: Site) -> None:
    upload(site, options=Options(in_place=True))
    jpeg(site.photos[1], 999)
    report = correct(site, Flight(asset="bridge-4"))
    assert (len(report.sent), len(report.refused)) == (4, 1)
    assert not list(site.log.glob("blobs/*/*"))


def test_an_unknown_flight_is_answered_with_the_known_ones(site: Site) -> None:
    upload(site, flight=Flight(asset="bridge-3", flight="sunday"))
    with pytest.raises(Misuse, match="sunday"):
        correct(site, Flight(asset="bridge-4"))


# The command

app = typer.Typer()
app.add_typer(upload_app, name="upload")


@app.command()
def other() -> None:
    """So that `upload` is one command of several, as it is in spanwatch."""


def command(site: Site, *arguments: str) -> tuple[int, str]:
    log = ["--transport", f"local:{site.log}", "--outbox", str(site.outbox)]
    result = CliRunner().invoke(
        app, ["upload", *arguments, *log], env={"SPANWATCH_LOCAL__MIN_FREE_BYTES": "0", "COLUMNS": "200"}
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_command_sends_and_ends_with_a_table(site: Site) -> None:
    code, text = command(site, str(site.card), "--asset", "bridge-3", "--flight", "monday")
    assert code == 0
    assert "5" in text and "sent" in text and "flight monday" in text
    code, text = command(site, "--asset", "bridge-3", str(site.card))
    assert code == 0 and "already there" in text
    assert len(site.frames()) == 5


def test_for_a_program_it_prints_one_object_and_refused_files_make_exit_code_3(site: Site) -> None:
    (site.card / "notes [bold].txt").write_text("battery 3 was weak")
    code, text = command(site, str(site.card), "--asset", "bridge-3", "--json")
    answer = json.loads(text)
    assert code == 3
    assert len(answer["sent"]) == 5 and answer["already_there"] == answer["left"] == []
    assert [Path(item["path"]).name for item in answer["refused"]] == ["notes [bold].txt"]
    assert answer["destination"] == f"local:{site.log}"
    code, text = command(site, str(site.card), "--asset", "bridge-3")
    assert code == 3 and "notes [bold].txt" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--asset", "bridge-3"],
        ["CARD"],
        ["CARD", "--asset", " "],
        ["CARD", "CARD/nothing.jpg", "--asset", "bridge-3"],
        ["CARD", "--asset", "bridge-3", "--limit-mb-s", "0"],
        ["correct", "--asset", "bridge-3"],
        ["correct", "sunday", "--asset", "bridge-3"],
    ],
    ids=" ".join,
)
def test_used_wrongly_it_ends_with_exit_code_2_and_has_sent_nothing(site: Site, arguments: list[str]) -> None:
    assert command(site, *(argument.replace("CARD", str(site.card)) for argument in arguments))[0] == 2
    assert site.frames() == []


def test_a_transport_that_stays_away_ends_it_with_exit_code_1(site: Site) -> None:
    site.log = site.folder / "not mounted" / "log"
    assert command(site, str(site.card), "--asset", "bridge-3", "--deadline-s", "0")[0] == 1


def test_upload_correct_moves_a_flight(site: Site) -> None:
    command(site, str(site.card), "--asset", "bridge-3", "--flight", "monday")
    code, text = command(site, "correct", "monday", "--asset", "bridge-4", "--flight", "tuesday", "--json")
    assert code == 0 and len(json.loads(text)["sent"]) == 5
    assert {(frame.asset, frame.flight) for frame in site.frames() if frame.correction} == {("bridge-4", "tuesday")}


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        (["upload", "--help"], r"upload \[OPTIONS\] \{?PHOTO_OR_FOLDER"),
        (["upload", "correct", "--help"], r"upload correct \[OPTIONS\] \{?FLIGHT"),
    ],
)
def test_help_shows_the_usage_and_one_example(arguments: list[str], usage: str) -> None:
    text = CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "TERM": "dumb"}).stdout
    assert re.search(usage, text)
    assert text.count("Example: spanwatch upload") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_ends_cleanly_on_a_signal_with_its_report(site: Site, number: signal.Signals) -> None:
    environment = os.environ | {"SPANWATCH_LOCAL__MIN_FREE_BYTES": "0", "SPANWATCH_UPLOAD__SETTLE_S": "0.01"}
    start = "import typer, stream.cli.upload as u; a = typer.Typer(); a.add_typer(u.upload_app, name='upload'); "
    start += "a.command('other')(lambda: None); a()"
    arguments = [sys.executable, "-c", start, "upload", str(site.card), "--watch", "--json", "--asset", "bridge-3"]
    arguments += ["--transport", f"local:{site.log}", "--outbox", str(site.outbox)]

    async def followed() -> None:
        """Return when the five and the late one are in the log."""
        transport = await LocalTransport.open(site.log, SECTION)
        try:
            count = 0
            async with contextlib.aclosing(transport.read("frames", follow=True)) as records:
                async for _ in records:
                    count += 1
                    if count == 5:
                        jpeg(site.folder / "late.jpg", 70).rename(site.card / "late.jpg")
                    if count == 6:
                        return
        finally:
            await transport.close()

    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as process:
        asyncio.run(followed())
        process.send_signal(number)
        text, _ = process.communicate()
    assert process.returncode == 0
    assert len(json.loads(text)["sent"]) == 6
