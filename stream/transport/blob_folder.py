"""What lies in a blob folder: lists it, and sweeps out what nobody names and what dead processes left unfinished."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DIGEST = re.compile(r"[0-9a-f]{64}")
"""The name of a blob."""
TEMPORARY = ".new-"
"""How the name of an unfinished file begins. It is locked for as long as its process writes it."""


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """One stored blob."""

    sha256: str
    size_bytes: int
    modified: float
    """Seconds since 1970 of its latest `put`."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed, or would remove."""

    blobs: int
    blob_bytes: int
    leftovers: int
    """Unfinished files of processes that died while storing."""


def entries(folder: Path) -> list[BlobEntry]:
    """All blobs of a folder, in no order; a folder that is not there has none."""
    found = []
    for path in _files(folder):
        status = _status(path) if DIGEST.fullmatch(path.name) else None
        if status is not None:
            found.append(BlobEntry(path.name, status.st_size, status.st_mtime))
    return found


def sweep(folder: Path, keep: Set[str], *, before: float, dry_run: bool) -> Swept:
    """Remove blobs that are not in `keep` and unfinished files of the dead, if last written before `before`."""
    blobs = size = 0
    for entry in entries(folder):
        if entry.sha256 in keep or entry.modified >= before:
            continue
        if dry_run or remove_old(folder / entry.sha256[:2] / entry.sha256, before):
            blobs += 1
            size += entry.size_bytes
    left = [path for path in _files(folder) if path.name.startswith(TEMPORARY) and _is_leftover(path, before)]
    for path in left if not dry_run else []:
        path.unlink(missing_ok=True)
    return Swept(blobs, size, len(left))


@contextmanager
def locked_folder(folder: Path, how: int) -> Iterator[None]:
    """Hold the `flock` of a folder; waits for it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for shard in sorted(folder.iterdir()):
            if shard.is_dir():
                yield from list(shard.iterdir())


def remove_old(path: Path, before: float) -> bool:
    """Remove unless it was put again since it was listed."""
    with locked_folder(path.parent, fcntl.LOCK_EX):
        status = _status(path)
        if status is None or status.st_mtime >= before:
            return False
        path.unlink()
        return True


def _is_leftover(path: Path, before: float) -> bool:
    """Whether an unfinished file is old and its process is gone: a lock, unlike a process id, means the same in every
    container that shares the folder."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mtime >= before:
                return False
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except (FileNotFoundError, BlockingIOError):
        return False  # it was finished meanwhile, or its process lives


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
