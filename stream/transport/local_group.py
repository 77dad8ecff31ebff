"""Shares a group's partitions among processes by file locks, which the kernel frees however a process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from stream.errors import Misuse, Unavailable


def fair_share(partitions: int, members: int, rank: int) -> int:
    """How many partitions the member of this rank (0: the oldest) holds, so that all are held and none has two more
    than another: 4 partitions and 3 members are 2, 1, 1."""
    return partitions // members + (1 if rank < partitions % members else 0)


class Membership:
    """One member's locks in one group; knows nothing of records.

    The trick is `flock`. A lock belongs to an open file description, not to a process and not to a file's contents,
    and the kernel drops it when the last descriptor is closed: by `close`, by an exception, by SIGKILL, by a power cut.
    So there is no heartbeat, no lease that runs out under a long inference, and no stale lock to break. Two members in
    one process exclude each other too, because each opens the files for itself.

        groups/GROUP/3.lock             whoever holds it owns partition 3 of all topics of the group; never removed
        groups/GROUP/members/NAME       locked by its member for as long as it lives; it names the topics

    Ownership is decided by the first kind alone, so two owners are impossible whatever anyone counts. The second kind
    only says how many share: a member file that can be locked by somebody else is that of a dead process, and is
    removed on sight. A new member locks its file and then looks whether the name still leads to it, because another
    may have taken it for dead in between. Names sort by age, so that a newcomer does not move what others hold.

    Nothing here is fsynced: after a power cut nobody is alive, and no lock is meant to survive. What does survive,
    the committed offsets, lies in the log. Only a process that is stopped but not dead keeps its partitions; and a
    child that is forked without exec shares its parent's locks, so start children by exec (`subprocess` does).
    """

    def __init__(self, folder: Path, topics: Sequence[str], partitions: int) -> None:
        self._folder = folder
        self._topics = ",".join(sorted(topics))
        self._partitions = partitions
        self._name = ""
        self._descriptor = -1
        self._locks: dict[int, int] = {}

    @property
    def held(self) -> list[int]:
        """The partitions this member owns, ascending."""
        return sorted(self._locks)

    def join(self) -> None:
        """Become one of the members.

        Raises:
            Misuse: a living member reads other topics: its partition 3 would not be ours.
            Unavailable: the folder cannot be written.
        """
        try:
            (self._folder / "members").mkdir(parents=True, exist_ok=True)
            while not self._enter():
                pass
        except OSError as error:
            raise Unavailable(f"cannot join the group in {self._folder}: {error.strerror}") from error
        for name in self._living():
            # A member that is about to write its topics is seen as empty here, and then sees ours.
            others = (self._folder / "members" / name).read_text()
            if others not in ("", self._topics):
                self.leave()
                raise Misuse(
                    f"group {self._folder.name!r} is read for {others} by a running member, not for {self._topics}:"
                    " give this one another group"
                )

    def _enter(self) -> bool:
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
        path = self._folder / "members" / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        if _lock(descriptor) and _leads_to(path, descriptor):
            os.write(descriptor, self._topics.encode())
            self._name, self._descriptor = name, descriptor
            return True
        os.close(descriptor)
        return False

    def share(self) -> int:
        """How many partitions are this member's, by the members alive now."""
        names = sorted({*self._living(), self._name})
        return fair_share(self._partitions, len(names), names.index(self._name))

    def _living(self) -> list[str]:
        """The other members; files of dead ones are removed."""
        try:
            names = os.listdir(self._folder / "members")  # noqa: PTH208  names only, every 100 ms
        except OSError as error:
            raise Unavailable(f"the group's folder {self._folder} is gone ({error.strerror})") from error
        return [name for name in names if name != self._name and _is_alive(self._folder / "members" / name)]

    def take(self, partition: int) -> bool:
        """Try to own a partition; False: another member owns it."""
        try:
            descriptor = os.open(self._path(partition), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise Unavailable(f"cannot lock {self._path(partition)}: {error.strerror}") from error
        if _lock(descriptor):
            self._locks[partition] = descriptor
            return True
        os.close(descriptor)
        return False

    def owns(self, partition: int) -> bool:
        """Whether the lock is held and is still the one others would ask for (nobody removed the file)."""
        descriptor = self._locks.get(partition)
        return descriptor is not None and _leads_to(self._path(partition), descriptor)

    def release(self, partition: int) -> None:
        """Let another member have it."""
        os.close(self._locks.pop(partition))

    def leave(self) -> None:
        """Release everything and be no member any more; may be repeated."""
        for partition in self.held:
            self.release(partition)
        if self._descriptor >= 0:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / "members" / self._name).unlink()
            os.close(self._descriptor)
            self._descriptor = -1

    def _path(self, partition: int) -> Path:
        return self._folder / f"{partition}.lock"


def _lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _leads_to(path: Path, descriptor: int) -> bool:
    """Whether the name still leads to the open file."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


def _is_alive(path: Path) -> bool:
    """Whether a member holds its file; if not, the file is removed while nobody else can lock it for itself."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False  # it left, or another has just removed it
    try:
        if not _lock(descriptor, fcntl.LOCK_SH):  # shared, so that two who look do not take each other for a member
            return True
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return False
    finally:
        os.close(descriptor)
