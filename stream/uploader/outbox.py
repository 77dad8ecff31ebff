"""What the uploader remembers: which content lies at a path, and what each destination has acknowledged of it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from stream.errors import Broken, Misuse
from stream.messages import Frame, RecordPosition, decode, encode

_VERSION = 1
_SCHEMA = """
CREATE TABLE files (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE entries (
    destination TEXT NOT NULL, frame_id TEXT NOT NULL, correction INTEGER NOT NULL,
    flight TEXT NOT NULL, sequence INTEGER, frame BLOB NOT NULL, path BLOB NOT NULL,
    topic TEXT, partition INTEGER, offset INTEGER, sent_at TEXT,
    PRIMARY KEY (destination, frame_id, correction)
) WITHOUT ROWID;
CREATE INDEX entries_by_flight ON entries (destination, flight, sequence);
"""
# Paths are bytes: a file system's names need not be UTF-8, and SQLite's text must.


@dataclass(frozen=True, slots=True)
class Entry:
    """One frame on its way to one destination."""

    frame: Frame
    path: Path
    """Where its bytes were read last."""
    acknowledged: RecordPosition | None
    """None: recorded, and perhaps sent, but no acknowledgement has been noted."""
    sent_at: datetime | None


def default_path(env: Mapping[str, str]) -> Path:
    """`spanwatch/outbox.sqlite` under $XDG_STATE_HOME, or under ~/.local/state."""
    base = env.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "spanwatch" / "outbox.sqlite"


class Outbox:
    """One SQLite file; every method that writes has it on the disk before it returns (WAL, synchronous=FULL).

    `destination` is a transport's URL throughout. Several processes may share the file: at worst both send the same
    photo, which changes nothing. A write takes an fsync or two, so the methods are called straight from the event loop.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; made, with its folder, if it is absent.

        Raises:
            Misuse: it cannot be opened, is not an outbox, or was written by a newer spanwatch.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise Misuse(f"cannot open the outbox {path}: {error}; name another with --outbox FILE") from error
        try:
            self._prepare()
        except (Broken, sqlite3.Error) as error:
            self._db.close()
            raise Misuse(f"{path} is not an outbox of spanwatch ({error}): name another with --outbox FILE") from error
        except Misuse:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        with self._writing():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version == 0 and tables == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={_VERSION}")
            elif version != _VERSION:
                raise Misuse(
                    f"{self._path} is not an outbox that this spanwatch can read (format {version}, not {_VERSION}):"
                    " update spanwatch, or name another with --outbox FILE"
                )

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sha256_at(self, path: Path, size: int, mtime_ns: int) -> str | None:
        """The digest of the file as it was hashed last; None if it was not, or has changed since."""
        found = self._one(
            "SELECT sha256 FROM files WHERE path=? AND size=? AND mtime_ns=?", os.fsencode(path), size, mtime_ns
        )
        return None if found is None else str(found[0])

    def hashed(self, path: Path, size: int, mtime_ns: int, sha256: str) -> None:
        """Note what lies at a path."""
        with self._writing():
            self._db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (os.fsencode(path), size, mtime_ns, sha256)
            )

    def latest(self, destination: str, frame_id: str) -> Entry | None:
        """The frame's latest pass on its way to this destination."""
        found = self._one(
            f"SELECT {_ENTRY} FROM entries WHERE destination=? AND frame_id=? ORDER BY correction DESC LIMIT 1",
            destination,
            frame_id,
        )
        return None if found is None else _entry(found)

    def flight(self, destination: str, flight: str) -> list[Entry]:
        """The latest acknowledged pass of every frame that is of this flight now, by sequence."""
        with self._guarded():
            rows = self._db.execute(
                f"SELECT {_ENTRY} FROM entries AS e WHERE destination=? AND flight=? AND offset IS NOT NULL"
                " AND NOT EXISTS (SELECT 1 FROM entries AS n WHERE n.destination=e.destination"
                " AND n.frame_id=e.frame_id AND n.correction>e.correction AND n.offset IS NOT NULL)"
                " ORDER BY sequence, frame_id",
                (destination, flight),
            ).fetchall()
        return [_entry(row) for row in rows]

    def flights(self, destination: str) -> list[str]:
        """The names of all flights that this destination knows, the latest first."""
        with self._guarded():
            rows = self._db.execute(
                "SELECT flight FROM entries WHERE destination=? AND offset IS NOT NULL"
                " GROUP BY flight ORDER BY max(sent_at) DESC",
                (destination,),
            ).fetchall()
        return [str(flight) for (flight,) in rows]

    def recorded(self, destination: str, frame: Frame, path: Path) -> Frame:
        """Note a frame before it is sent, and return it as noted: with the next sequence number of its flight.

        Noted twice it keeps its number, so a frame that is sent again after a crash is the same frame.
        """
        with self._writing():
            if frame.sequence is None:
                (highest,) = self._db.execute(
                    "SELECT max(sequence) FROM entries WHERE destination=? AND flight=?", (destination, frame.flight)
                ).fetchone()
                frame = msgspec.structs.replace(frame, sequence=0 if highest is None else highest + 1)
            self._db.execute(
                "INSERT OR REPLACE INTO entries (destination, frame_id, correction, flight, sequence, frame, path)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    destination,
                    frame.frame_id,
                    frame.correction,
                    frame.flight,
                    frame.sequence,
                    encode(frame),
                    os.fsencode(path),
                ),
            )
        return frame

    def acknowledged(self, destination: str, frame: Frame, where: RecordPosition, now: datetime) -> None:
        """Note that the transport has acknowledged the frame's record, and the frame as it was sent."""
        with self._writing():
            self._db.execute(
                "UPDATE entries SET frame=?, topic=?, partition=?, offset=?, sent_at=?"
                " WHERE destination=? AND frame_id=? AND correction=?",
                (
                    encode(frame),
                    where.topic,
                    where.partition,
                    where.offset,
                    now.astimezone(UTC).isoformat(),
                    destination,
                    frame.frame_id,
                    frame.correction,
                ),
            )

    def _one(self, query: str, *values: object) -> tuple[object, ...] | None:
        with self._guarded():
            row: tuple[object, ...] | None = self._db.execute(query, values).fetchone()
        return row

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise Broken(
                f"the outbox {self._path} fails: {error}; no photo is lost: repair or replace it and start again"
            ) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction; the lock is taken at its beginning, since it reads before it writes."""
        with self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")


_ENTRY = "frame, path, topic, partition, offset, sent_at"


def _entry(row: tuple[object, ...]) -> Entry:
    frame, path, topic, partition, offset, sent_at = row
    where = None
    if isinstance(partition, int) and isinstance(offset, int):
        where = RecordPosition(topic=str(topic), partition=partition, offset=offset)
    assert isinstance(frame, bytes) and isinstance(path, bytes)
    return Entry(
        frame=decode(frame, Frame),
        path=Path(os.fsdecode(path)),
        acknowledged=where,
        sent_at=datetime.fromisoformat(sent_at) if isinstance(sent_at, str) else None,
    )
