"""The outbox on a real file: what it remembers after being closed, and what it refuses to open."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from stream.errors import Broken, Misuse
from stream.messages import BlobRef, Frame, RecordPosition
from stream.uploader.outbox import Outbox, default_path

LOG, OTHER = "local:/log", "local:/other"
NOW = datetime(2024, 5, 17, 9, 0, tzinfo=UTC)
PIER = Path("/card/pier.jpg")


def frame(number: int, *, flight: str = "monday", asset: str = "bridge-3", correction: int = 0) -> Frame:
    return Frame(frame_id=f"{number:064x}", asset=asset, flight=flight, size_bytes=10, correction=correction)


def send(outbox: Outbox, photo: Frame, *, to: str = LOG, offset: int = 0) -> Frame:
    noted = outbox.recorded(to, photo, PIER)
    outbox.acknowledged(to, noted, RecordPosition(topic="frames", partition=1, offset=offset), NOW)
    return noted


def test_it_remembers_across_a_restart_what_was_acknowledged_and_what_was_not(tmp_path: Path) -> None:
    blob = BlobRef(sha256="a" * 64, size_bytes=10, url="blob:" + "a" * 64)
    with Outbox(tmp_path / "new" / "outbox.sqlite") as outbox:
        noted = outbox.recorded(LOG, frame(1), PIER)
        sent = msgspec.structs.replace(noted, blob=blob)
        outbox.acknowledged(LOG, sent, RecordPosition(topic="frames", partition=1, offset=7), NOW)
        open_frame = outbox.recorded(LOG, frame(2), PIER)
    with Outbox(tmp_path / "new" / "outbox.sqlite") as outbox:
        first, second = outbox.latest(LOG, sent.frame_id), outbox.latest(LOG, open_frame.frame_id)
        assert first is not None and second is not None
        assert (first.frame, first.path, first.sent_at) == (sent, PIER, NOW)
        assert first.acknowledged == RecordPosition(topic="frames", partition=1, offset=7)
        assert (second.frame, second.acknowledged) == (open_frame, None)
        assert outbox.latest(OTHER, sent.frame_id) is None


def test_sequence_numbers_count_up_in_each_flight_and_stay_with_their_frame(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        numbers = [send(outbox, frame(n)).sequence for n in range(3)]
        assert numbers == [0, 1, 2]
        assert send(outbox, frame(9, flight="tuesday")).sequence == 0
        known = outbox.latest(LOG, frame(1).frame_id)
        assert known is not None
        assert outbox.recorded(LOG, known.frame, PIER).sequence == 1
        assert send(outbox, frame(3)).sequence == 3


def test_a_file_that_has_changed_since_is_not_known(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        outbox.hashed(PIER, 10, 5, "a" * 64)
        assert outbox.sha256_at(PIER, 10, 5) == "a" * 64
        assert outbox.sha256_at(PIER, 11, 5) is None
        assert outbox.sha256_at(PIER, 10, 6) is None
        outbox.hashed(PIER, 11, 6, "b" * 64)
        assert outbox.sha256_at(PIER, 11, 6) == "b" * 64


def test_a_name_that_is_not_utf_8_is_a_name(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(b"/card/pi\xe9r.jpg"))
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        outbox.hashed(odd, 10, 5, "a" * 64)
        assert outbox.sha256_at(odd, 10, 5) == "a" * 64
        noted = outbox.recorded(LOG, frame(1), odd)
        known = outbox.latest(LOG, noted.frame_id)
        assert known is not None and known.path == odd


def test_a_flight_is_what_is_filed_under_it_now(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        stays, moved = send(outbox, frame(1), offset=0), send(outbox, frame(2), offset=1)
        outbox.recorded(LOG, frame(3), PIER)
        send(outbox, msgspec.structs.replace(moved, flight="tuesday", correction=1), offset=2)
        outbox.recorded(LOG, msgspec.structs.replace(stays, flight="friday", correction=1), PIER)
        assert [entry.frame for entry in outbox.flight(LOG, "monday")] == [stays]
        assert [entry.frame.frame_id for entry in outbox.flight(LOG, "tuesday")] == [moved.frame_id]
        assert outbox.flight(LOG, "friday") == []
        assert outbox.flight(OTHER, "monday") == []
        assert sorted(outbox.flights(LOG)) == ["monday", "tuesday"]


def test_two_processes_may_share_it(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.sqlite") as one, Outbox(tmp_path / "outbox.sqlite") as two:
        numbers = [send(box, frame(n)).sequence for n, box in enumerate([one, two, one, two])]
    assert numbers == [0, 1, 2, 3]


def test_what_is_no_outbox_is_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database " * 100)
    foreign = tmp_path / "foreign.sqlite"
    with closing(sqlite3.connect(foreign)) as db:
        db.execute("CREATE TABLE photos (id)")
    newer = tmp_path / "newer.sqlite"
    Outbox(newer).close()
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA user_version=99")
    for path in (text, foreign, newer, tmp_path):
        with pytest.raises(Misuse, match="--outbox"):
            Outbox(path)
    with closing(sqlite3.connect(foreign)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("photos",)]


def test_an_outbox_that_fails_while_in_use_stops_the_uploader(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        with closing(sqlite3.connect(tmp_path / "outbox.sqlite")) as db:
            db.execute("DROP TABLE entries")
        with pytest.raises(Broken, match="no photo is lost"):
            outbox.recorded(LOG, frame(1), PIER)


def test_its_default_place_follows_the_desktop_rules() -> None:
    assert default_path({"XDG_STATE_HOME": "/state"}) == Path("/state/spanwatch/outbox.sqlite")
    assert default_path({}) == Path.home() / ".local/state/spanwatch/outbox.sqlite"
