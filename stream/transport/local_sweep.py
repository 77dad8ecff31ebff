"""What retention asks of the log's file and does to it; what may go is decided in retention.py."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

REMOVE_AT_ONCE = 500
"""Records removed in one commit: a worker's send waits for no more than that."""
_FREE_PAGES_AT_ONCE = 2_000
_SCAN_AT_ONCE = 1_000
DIGEST = re.compile(r"(?=([0-9a-f]{64}))")  # overlapping: a digest may follow other hexadecimal digits


@dataclass(frozen=True, slots=True)
class PartitionAge:
    """One partition as retention sees it."""

    partition: int
    first_young: int
    """The offset of the first record that is not too old; the end if all are."""
    end: int
    commits: Mapping[str, int]
    """By group, for every group that reads the topic: joining one notes 0 for every partition."""


def ages(db: sqlite3.Connection, topic: int, cutoff: float) -> list[PartitionAge]:
    """Look at the partitions of a topic; records accepted before `cutoff` (seconds since 1970) are too old."""
    heads = db.execute("SELECT partition, next_offset FROM head WHERE topic=? ORDER BY partition", (topic,)).fetchall()
    found = []
    for partition, end in heads:
        young = db.execute(
            "SELECT offset FROM record WHERE topic=? AND partition=? AND timestamp>=? ORDER BY offset LIMIT 1",
            (topic, partition, cutoff),
        ).fetchone()
        rows = db.execute("SELECT reader, offset FROM committed WHERE topic=? AND partition=?", (topic, partition))
        found.append(PartitionAge(partition, young[0] if young else end, end, dict(rows.fetchall())))
    return found


def topics(db: sqlite3.Connection) -> list[tuple[str, int, int]]:
    """(stored name, topic number, partitions) of all topics in the file, whoever made them and when."""
    return db.execute("SELECT name, id, partitions FROM topic ORDER BY id").fetchall()


def count(db: sqlite3.Connection, at: tuple[int, int], first: int, below: int) -> tuple[int, int]:
    """(records, bytes of their values) of a (topic number, partition) from one offset to below another."""
    row = db.execute(
        "SELECT count(*), coalesce(sum(length(value)), 0) FROM record"
        " WHERE topic=? AND partition=? AND offset>=? AND offset<?",
        (*at, first, below),
    ).fetchone()
    return int(row[0]), int(row[1])


def remove(db: sqlite3.Connection, at: tuple[int, int], below: int) -> int:
    """Remove the oldest records below an offset, a handful at a time; how many were removed."""
    return db.execute(
        "DELETE FROM record WHERE rowid IN"
        " (SELECT rowid FROM record WHERE topic=? AND partition=? AND offset<? ORDER BY offset LIMIT ?)",
        (*at, below, REMOVE_AT_ONCE),
    ).rowcount


def superseded(db: sqlite3.Connection, at: tuple[int, int], below: int) -> tuple[list[int], int]:
    """The records below an offset whose key has a later one in the partition: (row numbers, bytes of their values)."""
    rows = db.execute(
        "SELECT rowid, length(value) FROM record WHERE topic=?1 AND partition=?2 AND offset<?3 AND offset NOT IN"
        " (SELECT max(offset) FROM record WHERE topic=?1 AND partition=?2 GROUP BY key)",
        (*at, below),
    ).fetchall()
    return [row[0] for row in rows], sum(row[1] for row in rows)


def remove_rows(db: sqlite3.Connection, rows: list[int]) -> None:
    """Remove by row number."""
    db.executemany("DELETE FROM record WHERE rowid=?", [(row,) for row in rows])


def named_digests(db: sqlite3.Connection, topic: int, at: tuple[int, int]) -> tuple[set[str], int | None]:
    """Every digest a topic's records name, from (partition, offset) on: (digests, next offset or None at the end).

    Any 64 hexadecimal digits in headers or a JSON value count, so that a record nobody can decode keeps its bytes too.
    """
    rows = db.execute(
        "SELECT offset, headers, CASE WHEN substr(value, 1, 1) = x'7b' THEN value END FROM record"
        " WHERE topic=? AND partition=? AND offset>=? ORDER BY offset LIMIT ?",
        (topic, *at, _SCAN_AT_ONCE),
    )
    digests: set[str] = set()
    last = None
    for offset, headers, value in rows:
        digests.update(DIGEST.findall(headers))
        digests.update(DIGEST.findall(value.decode(errors="replace")) if value is not None else ())
        last = offset
    return digests, None if last is None else last + 1


def file_bytes(db: sqlite3.Connection) -> int:
    """The size of the file without its write-ahead log."""
    return int(db.execute("PRAGMA page_count").fetchone()[0] * db.execute("PRAGMA page_size").fetchone()[0])


def give_back(db: sqlite3.Connection) -> bool:
    """Return some free pages to the disk; whether there are more."""
    db.execute(f"PRAGMA incremental_vacuum({_FREE_PAGES_AT_ONCE})").fetchall()
    return bool(db.execute("PRAGMA freelist_count").fetchone()[0])


def checkpoint(db: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file and cut both to size; with a long reader, as far as it goes."""
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
