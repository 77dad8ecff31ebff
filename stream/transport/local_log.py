"""Puts the log's file behind two threads, so that the event loop never waits for a disk; sends share a commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from stream.errors import Broken, Misuse
from stream.transport.local_store import Store, StoredTopic

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """One change that waits for the next commit, and the one who waits for it."""

    step: Callable[[sqlite3.Connection], Any]
    done: Future[Any]


class Log:
    """The log of one process: one thread and connection that read, one that write.

    Two, because a write ends in an fsync of some milliseconds and a read takes microseconds: behind one thread every
    poll would wait for the sends before it. Changes that arrive while the disk is busy share the next commit, so ten
    concurrent sends cost about one fsync and not ten; each is answered only after the commit that holds it.
    """

    def __init__(self, reader: Store, writer: Store, topics: dict[str, StoredTopic]) -> None:
        self.topics = topics
        """Stored names (with their prefix) of all topics in the file."""
        self._reader = reader
        self._writer = writer
        self._waiting: deque[Change] = deque()
        self._read_thread = ThreadPoolExecutor(1, thread_name_prefix="log-read")
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="log-write")
        self._closed = False

    def submit(self, query: Callable[[Store], T]) -> Future[T]:
        """Ask the reading connection, now, in the order of the calls.

        Raises:
            Misuse: the transport was closed.
        """
        self._refuse_closed()
        return self._read_thread.submit(query, self._reader)

    async def read(self, query: Callable[[Store], T]) -> T:
        """Ask the reading connection and wait for the answer."""
        return await asyncio.wrap_future(self.submit(query))

    async def query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run one query on the reading connection and wait for the answer."""
        return await self.read(lambda store: _query(store, query))

    async def write(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """Make one change; returns once it is on the disk. Cancelled, it is either made or not.

        Raises:
            Misuse: the transport was closed.
        """
        self._refuse_closed()
        change = Change(step, Future())
        self._waiting.append(change)
        # One errand a change: the first takes all that wait, the others find nothing to do.
        self._write_thread.submit(self._commit_waiting)
        answer: T = await asyncio.wrap_future(change.done)
        return answer

    async def maintain(self, errand: Callable[[sqlite3.Connection], T]) -> T:
        """Run what cannot be inside a transaction (giving pages back to the disk) on the writing connection."""
        self._refuse_closed()
        return await asyncio.wrap_future(self._write_thread.submit(_query, self._writer, errand))

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Misuse("this transport was closed: open another one")

    def _commit_waiting(self) -> None:
        changes = []
        while self._waiting:
            change = self._waiting.popleft()
            if change.done.set_running_or_notify_cancel():
                changes.append(change)
        if not changes:
            return
        try:
            answers = self._writer.transact([change.step for change in changes])
        except BaseException as error:
            for change in changes:
                change.done.set_exception(error)
            return
        for change, answer in zip(changes, answers, strict=True):
            if isinstance(answer, BaseException):
                change.done.set_exception(answer)
            else:
                change.done.set_result(answer)

    def topic(self, stored: str) -> StoredTopic:
        """The row of a topic by its stored name."""
        try:
            return self.topics[stored]
        except KeyError as error:
            raise Broken(f"the log has no topic {stored!r}, although it was opened with it") from error

    async def close(self) -> None:
        """Finish what was begun, close both connections and end both threads."""
        if self._closed:
            return
        self._closed = True
        for thread, store in ((self._write_thread, self._writer), (self._read_thread, self._reader)):
            await asyncio.wrap_future(thread.submit(store.close))
            thread.shutdown()


def _query(store: Store, query: Callable[[sqlite3.Connection], T]) -> T:
    with store.connection() as db:
        return query(db)
