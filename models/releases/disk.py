"""Folders that other processes read: changed whole or not at all, also after a kill or a power cut, and summed up."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from models.release import SIGNATURE_FILE, ReleaseError

LOCK = ".lock"
ASIDE = ".writing-"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time in here, per folder; the lock goes with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def aside(folder: Path, held: bool = False) -> Iterator[Path]:
    """An empty folder inside `folder` to write in, with a name that no reader looks at; gone at the end of the block.

    What killed writers left behind is removed first. A writer holds a lock on its folder: who lives is known.
    `held`: the caller holds the folder's lock already.
    """
    with contextlib.nullcontext() if held else locked(folder):
        for left in folder.glob(f"{ASIDE}*"):
            with contextlib.suppress(FileNotFoundError):  # its writer ends at this moment, which takes no lock
                _remove_unless_held(left)
        path = Path(tempfile.mkdtemp(dir=folder, prefix=ASIDE))
        handle = os.open(path, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        shutil.rmtree(path)
        os.close(handle)


def settle(folder: Path, final: Path) -> None:
    """Give a finished folder of files its name: on the disk first, then there all at once, readable by everybody.

    Raises OSError if there is something of that name.
    """
    for path in folder.iterdir():
        path.chmod(0o644)
        sync(path)
    sync(folder)
    folder.rename(final)
    sync(final.parent)


def sync(path: Path) -> None:
    """One file or folder on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, content: bytes) -> None:
    """A reader sees the old file or the new one; call it with the folder locked."""
    new = path.with_name(f"{ASIDE}{path.name}")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Add one line, after cutting off what a killed writer left of its own; call it with the folder locked."""
    with path.open("a+b") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def digests(folder: Path) -> dict[str, str]:
    """name -> sha256 of every file but `model.sig`, sorted; raises ReleaseError for anything that is no plain file."""
    found = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.is_symlink() or not path.is_file():
                raise ReleaseError(f"{path}: a release is a folder of plain files")
            if path.name != SIGNATURE_FILE:
                with path.open("rb") as file:
                    found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ReleaseError(f"{error.filename or folder}: {error.strerror}") from error
    return found


def _remove_unless_held(path: Path) -> None:
    if not path.is_dir():
        path.unlink()
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(path)
    finally:
        os.close(handle)
