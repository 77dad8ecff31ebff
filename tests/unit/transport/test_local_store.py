"""The log's file: real SQLite errors become the right one of ours, and a newer file is left alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from stream.errors import Broken, DiskLow, Misuse, Unavailable
from stream.transport import local_store
from stream.transport.local_store import Store, translate
from stream.transport.protocol import TopicPartition


def full(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "db")) as db:
        db.execute("CREATE TABLE t (v BLOB)")
        db.execute("PRAGMA max_page_count=3")
        db.execute("INSERT INTO t VALUES (zeroblob(100000))")


def busy(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "db")) as first, closing(sqlite3.connect(folder / "db", timeout=0)) as second:
        first.execute("BEGIN IMMEDIATE")
        second.execute("BEGIN IMMEDIATE")


def not_there(folder: Path) -> None:
    sqlite3.connect(f"file:{folder}/none/db?mode=rw", uri=True)


def read_only(folder: Path) -> None:
    sqlite3.connect(folder / "db").close()
    (folder / "db").touch()
    with closing(sqlite3.connect(f"file:{folder}/db?mode=ro", uri=True)) as db:
        db.execute("CREATE TABLE t (v)")


def no_database(folder: Path) -> None:
    (folder / "db").write_bytes(b"a letter home" * 200)
    with closing(sqlite3.connect(folder / "db")) as db:
        db.execute("SELECT * FROM sqlite_master")


@pytest.mark.parametrize(
    ("fail", "kind"),
    [(full, DiskLow), (busy, Unavailable), (not_there, Unavailable), (read_only, Unavailable), (no_database, Broken)],
)
def test_an_error_says_what_to_do_next(fail: Callable[[Path], None], kind: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error) as caught:
        fail(tmp_path)
    assert type(translate(caught.value, tmp_path / "db")) is kind


def test_a_log_that_another_process_holds_for_too_long_is_unavailable_and_then_works_again(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    Store(path).create({"frames": 1})
    store = Store(path, busy_timeout_s=0.05)
    append = partial(local_store.append, at=(1, 0), key="k", headers="{}", value=b"")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="held by another process"):
            store.transact([append])
        other.execute("ROLLBACK")
    assert store.transact([append]) == [0]
    store.close()


def test_a_refused_step_does_not_harm_those_that_share_its_commit(tmp_path: Path) -> None:
    store = Store(tmp_path / "log.sqlite")
    topic = store.create({"frames": 1})["frames"]
    append = partial(local_store.append, at=(topic.id, 0), key="k", headers="{}", value=b"")
    beyond = partial(local_store.commit, reader="worker", offsets=[(topic.id, 0, 9)])
    first, refusal, second = store.transact([append, beyond, append])
    assert (first, second) == (0, 1)
    assert isinstance(refusal, Broken)
    with store.connection() as db:
        assert local_store.ends(db, topic.id) == {0: 2}
        assert local_store.commits(db, topic.id, "worker") == {}
    store.close()


def test_a_failed_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    def bug(_: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    store = Store(tmp_path / "log.sqlite")
    topic = store.create({"frames": 1})["frames"]
    append = partial(local_store.append, at=(topic.id, 0), key="k", headers="{}", value=b"")
    with pytest.raises(ZeroDivisionError):
        store.transact([append, bug])
    assert store.transact([append]) == [0]
    store.close()


def test_a_file_of_a_newer_spanwatch_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "log.sqlite").create({"frames": 1})
    with closing(sqlite3.connect(tmp_path / "log.sqlite")) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(Misuse, match="update spanwatch"):
        Store(tmp_path / "log.sqlite").create({"frames": 1})


def test_a_topic_that_a_newer_release_adds_is_made_in_an_old_log(tmp_path: Path) -> None:
    Store(tmp_path / "log.sqlite").create({"frames": 2})
    made = Store(tmp_path / "log.sqlite").create({"frames": 2, "labels": 3})
    assert (made["frames"].partitions, made["labels"].partitions) == (2, 3)


def test_commits_are_synced_to_the_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "log.sqlite")
    store.create({"frames": 1})
    with store.connection() as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    store.close()


def test_a_page_ends_when_it_is_large_and_has_one_record_at_least(tmp_path: Path) -> None:
    store = Store(tmp_path / "log.sqlite")
    topic = store.create({"frames": 1})["frames"]
    large = b"v" * (local_store.PAGE_BYTES + 1)
    for value in (large, b"small"):
        store.transact([partial(local_store.append, at=(topic.id, 0), key="", headers="{}", value=value)])
    with store.connection() as db:
        page = local_store.page(db, TopicPartition("frames", 0), topic.id, (0, None), 10)
        assert [record.offset for record in page] == [0]
    store.close()
