"""The embedded log's one SQLite file, spoken to without asyncio: one `Store` is one connection, used by one thread."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

from stream.errors import Broken, DiskLow, Misuse, SpanwatchError, Unavailable
from stream.transport.protocol import Record, TopicPartition

FORMAT = 1
"""The file's layout, in `PRAGMA user_version`."""
BUSY_TIMEOUT_S = 15.0
"""How long a write waits for the writers of other processes: each holds the log for one fsync."""
PAGE_BYTES = 16 * 1024 * 1024
"""A page of records ends when it holds this much, so that a thousand large values are never in memory at once."""

_SCHEMA = """
CREATE TABLE log (id TEXT NOT NULL);
CREATE TABLE topic (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL);
CREATE TABLE head (
    topic INTEGER NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE record (
    topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    timestamp REAL NOT NULL, key TEXT NOT NULL, headers TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (topic, partition, offset)
);
CREATE TABLE committed (
    reader TEXT NOT NULL, topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (reader, topic, partition)
) WITHOUT ROWID;
"""

Step = Callable[[sqlite3.Connection], object]
"""One change inside a transaction. It may refuse with a `SpanwatchError`, but only before it has written anything."""
Version = tuple[int, int]
"""Differs after any commit by anyone."""


@dataclass(frozen=True, slots=True)
class StoredTopic:
    """A topic's row: its number in the file and its partition count."""

    id: int
    partitions: int


def translate(error: sqlite3.Error, path: Path) -> SpanwatchError:
    """Say what an SQLite error means for the caller: wait, make room, or stop."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte; the rest is detail
    if code == sqlite3.SQLITE_FULL:
        return DiskLow(f"the disk of {path} is full: free some space or run `spanwatch gc`")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(f"the log {path} is held by another process for too long ({error})")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        with contextlib.suppress(OSError):
            if shutil.disk_usage(path.parent).free < 1024 * 1024:
                return DiskLow(f"the disk of {path} is full ({error}): free some space or run `spanwatch gc`")
        return Unavailable(f"cannot use the log {path} ({error}): is its disk mounted and writable?")
    return Broken(f"the log {path} is damaged or not a spanwatch log ({error})")


class Store:
    """One connection to the log. A failed connection is opened anew by the next call, never the file created anew."""

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._db: sqlite3.Connection | None = None
        self._log_id: str | None = None
        self._inode: tuple[int, int] | None = None
        self._generation = 0

    def create(self, partitions: Mapping[str, int]) -> dict[str, StoredTopic]:
        """Make the file if it is not there and the topics it lacks; return all of them. One process at a time.

        Raises:
            Misuse: a topic has another partition count than asked for, or a newer spanwatch wrote the file.
        """
        with translated(self._path), closing(sqlite3.connect(self._path, isolation_level=None)) as db:
            self._settle(db)
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found > FORMAT:
                raise Misuse(f"{self._path} has layout {found}, this spanwatch knows {FORMAT}: update spanwatch")
            if found == 0:
                db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only possible before the first table
                db.execute("PRAGMA journal_mode=WAL")
                log_id = f"INSERT INTO log VALUES ('{uuid.uuid4().hex}');"
                db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {log_id} PRAGMA user_version={FORMAT}; COMMIT;")
            return self._add_topics(db, partitions)

    def _add_topics(self, db: sqlite3.Connection, partitions: Mapping[str, int]) -> dict[str, StoredTopic]:
        db.execute("BEGIN IMMEDIATE")
        for name, count in partitions.items():
            db.execute("INSERT OR IGNORE INTO topic (name, partitions) VALUES (?, ?)", (name, count))
        stored = {name: StoredTopic(id, count) for id, name, count in db.execute("SELECT * FROM topic")}
        for name, count in partitions.items():
            topic = stored[name]
            if topic.partitions != count:
                raise Misuse(
                    f"{self._path} was made with {topic.partitions} partitions of {name!r}, the configuration says"
                    f" {count}: set partitions = {topic.partitions} under [local], or open another folder"
                )
            rows = [(topic.id, partition) for partition in range(count)]
            db.executemany("INSERT OR IGNORE INTO head VALUES (?, ?, 0)", rows)
        db.execute("COMMIT")
        return stored

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """One use of the connection; whatever goes wrong is rolled back and leaves as one of our errors."""
        with translated(self._path):
            db = self._connect()
            try:
                yield db
            except BaseException as error:
                if db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):  # SQLite has rolled some failures back by itself
                        db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    self.close()
                raise

    def transact(self, steps: Sequence[Step]) -> list[object]:
        """Apply steps in one durable commit: a step's answer, or the error it refused with, in their order."""
        with self.connection() as db:
            db.execute("BEGIN IMMEDIATE")
            answers: list[object] = []
            for step in steps:
                try:
                    answers.append(step(db))
                except SpanwatchError as refusal:
                    answers.append(refusal)
            db.execute("COMMIT")
        return answers

    def version(self) -> Version:
        """Changes with every commit of another connection; costs a look into shared memory."""
        with self.connection() as db:
            return self._generation, db.execute("PRAGMA data_version").fetchone()[0]

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    def _connect(self) -> sqlite3.Connection:
        """The open connection, after a look that the file is still the one at this path (a write to a deleted file
        would be acknowledged and lost)."""
        try:
            status = self._path.stat()
        except OSError as error:
            raise Unavailable(f"the log {self._path} is gone ({error.strerror}): is its disk mounted?") from error
        inode = (status.st_dev, status.st_ino)
        if self._db is not None and inode == self._inode:
            return self._db
        self.close()
        db = sqlite3.connect(f"file:{quote(str(self._path))}?mode=rw", uri=True, isolation_level=None)
        try:
            self._settle(db)
            log_id = db.execute("SELECT id FROM log").fetchone()[0]
            if self._log_id not in (None, log_id):
                raise Broken(f"the log {self._path} was replaced by another while it was in use: start again")
        except BaseException:
            db.close()
            raise
        self._db, self._inode, self._log_id = db, inode, log_id
        self._generation += 1
        return db

    def _settle(self, db: sqlite3.Connection) -> None:
        db.execute(f"PRAGMA busy_timeout={int(self._busy_timeout_s * 1000)}")
        db.execute("PRAGMA synchronous=FULL")  # the commit fsyncs the write-ahead log before it returns
        db.execute(f"PRAGMA journal_size_limit={64 * 1024 * 1024}")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Within: SQLite's errors leave as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error


def append(db: sqlite3.Connection, at: tuple[int, int], key: str, headers: str, value: bytes) -> int:
    """Give a record the next offset of its (topic number, partition); offsets are never used twice."""
    (offset,) = db.execute("SELECT next_offset FROM head WHERE topic=? AND partition=?", at).fetchone()
    db.execute("UPDATE head SET next_offset=? WHERE topic=? AND partition=?", (offset + 1, *at))
    db.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", (*at, offset, time.time(), key, headers, value))
    return int(offset)


def commit(db: sqlite3.Connection, reader: str, offsets: Sequence[tuple[int, int, int]]) -> None:
    """Raise a group's (topic number, partition, offset); a lower one than it has is ignored.

    Raises:
        Broken: an offset lies beyond the end: records that do not exist yet would never be read.
    """
    for topic, partition, offset in offsets:
        (end,) = db.execute("SELECT next_offset FROM head WHERE topic=? AND partition=?", (topic, partition)).fetchone()
        if not 0 <= offset <= end:
            raise Broken(f"group {reader!r} commits offset {offset} of partition {partition}, which ends at {end}")
    db.executemany(
        "INSERT INTO committed VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET offset = max(offset, excluded.offset)",
        [(reader, *row) for row in offsets],
    )


def page(
    db: sqlite3.Connection, tp: TopicPartition, topic: int, span: tuple[int, int | None], limit: int
) -> list[Record]:
    """The next records of one partition from the first offset of `span` to below the second (None: to the end).

    At most `limit`, and fewer when they are large; at least one if there is one.
    """
    first, below = span
    rows = db.execute(
        "SELECT offset, timestamp, key, headers, value FROM record"
        " WHERE topic=? AND partition=? AND offset>=? AND offset<? ORDER BY offset LIMIT ?",
        (topic, tp.partition, first, below if below is not None else 2**62, limit),
    )
    records: list[Record] = []
    size = 0
    for offset, timestamp, key, headers, value in rows:
        records.append(
            Record(
                topic=tp.topic,
                partition=tp.partition,
                offset=offset,
                key=key,
                value=value,
                headers=msgspec.json.decode(headers, type=dict[str, str]),
                timestamp=timestamp,
            )
        )
        size += len(value) + len(headers)
        if size >= PAGE_BYTES:
            break
    rows.close()
    return records


def ends(db: sqlite3.Connection, topic: int) -> dict[int, int]:
    """Per partition, the offset the next record will get."""
    return dict(db.execute("SELECT partition, next_offset FROM head WHERE topic=?", (topic,)).fetchall())


def commits(db: sqlite3.Connection, topic: int, reader: str) -> dict[int, int]:
    """Per partition, what a group has committed; partitions of which it knows nothing are absent."""
    rows = db.execute("SELECT partition, offset FROM committed WHERE topic=? AND reader=?", (topic, reader))
    return dict(rows.fetchall())


def pending(db: sqlite3.Connection, topic: int, reader: str) -> dict[int, int]:
    """Per partition, how many offsets from the group's commit, or the earliest record, to the end."""
    rows = db.execute("SELECT partition, min(offset) FROM record WHERE topic=? GROUP BY partition", (topic,))
    earliest: dict[int, int] = dict(rows.fetchall())
    done = commits(db, topic, reader)
    return {n: max(0, end - max(done.get(n, 0), earliest.get(n, end))) for n, end in ends(db, topic).items()}
