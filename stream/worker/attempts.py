"""The attempt journal remembers which frames a worker had its hands on when it died, so that poison is set aside.

A frame that was being worked on in two crashes runs alone in the third start; if it brings the process down again, it
is dead as `poison`. Without this, one photo that crashes a decoder would stop its partition for ever. A frame is being
worked on while its header is read, while it is decoded, and from its first tile in the engine to its answer; one that
only waits its turn in a queue is beyond suspicion, however often the worker is killed.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from pathlib import Path

SUSPECT_AFTER = 2
"""Worked on in so many crashes: the frame runs alone."""
POISON_AFTER = 3
"""Worked on in so many crashes: the frame is dead."""


class AttemptJournal:
    """A small SQLite file shared by the workers of one box.

    Each worker holds a `flock` on a file of its own; the kernel frees it at any death, so a frame whose owner's lock
    can be taken was worked on in a crash. The journal has to survive the process, not the power: losing it after a
    power cut only grants a frame new attempts. Hence `synchronous=NORMAL`, which costs no fsync per frame.
    """

    def __init__(self, folder: Path) -> None:
        self._owners = folder / "owners"
        self._owners.mkdir(parents=True, exist_ok=True)
        self._owner = uuid.uuid4().hex
        # Locked before it can be seen under its name: nobody takes a worker that is just starting for a dead one.
        hidden = self._owners / f".{self._owner}"
        self._lock = os.open(hidden, os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        hidden.rename(self._owners / self._owner)
        self._sweep()
        self._db = sqlite3.connect(folder / "attempts.sqlite", isolation_level=None, timeout=30.0)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS attempts (frame TEXT PRIMARY KEY, crashes INTEGER NOT NULL, owner TEXT) STRICT"
        )

    def crashes(self, frame: str) -> int:
        """How many crashes the frame was being worked on in."""
        row = self._db.execute("SELECT crashes, owner FROM attempts WHERE frame = ?", (frame,)).fetchone()
        if row is None:
            return 0
        crashes, owner = row
        if owner is not None and owner != self._owner and self._is_dead(owner):
            crashes += 1
            self._db.execute("UPDATE attempts SET crashes = ?, owner = NULL WHERE frame = ?", (crashes, frame))
        return int(crashes)

    def enter(self, frame: str) -> None:
        """Note that work on the frame begins: if the process ends before `leave` or `finish`, it counts."""
        self._db.execute(
            "INSERT INTO attempts VALUES (?, 0, ?) ON CONFLICT (frame) DO UPDATE SET owner = excluded.owner",
            (frame, self._owner),
        )

    def leave(self, frame: str) -> None:
        """Note that the frame waits again, or goes to another worker, without an answer and without blame."""
        self._db.execute("UPDATE attempts SET owner = NULL WHERE frame = ? AND owner = ?", (frame, self._owner))

    def finish(self, frame: str) -> None:
        """Forget the frame: it has its answer."""
        self._db.execute("DELETE FROM attempts WHERE frame = ?", (frame,))

    def close(self, *, blame: bool) -> None:
        """Release the lock. `blame`: we stop because something broke, so the frames still open are under suspicion."""
        if not blame:
            self._db.execute("UPDATE attempts SET owner = NULL WHERE owner = ?", (self._owner,))
        self._db.close()
        (self._owners / self._owner).unlink(missing_ok=True)
        os.close(self._lock)

    def _sweep(self) -> None:
        """Remove the lock files of the dead: their absence says the same."""
        for path in self._owners.iterdir():
            if not path.name.startswith(".") and path.name != self._owner and self._is_dead(path.name):
                path.unlink(missing_ok=True)

    def _is_dead(self, owner: str) -> bool:
        try:
            handle = os.open(self._owners / owner, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True
