"""What lies under the named paths, and which of it is a photo worth sending."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stream.errors import BadFrame
from stream.photo.header import Header, read_header
from stream.photo.magic import describe, sniff
from stream.uploader.report import Refused

HEAD_BYTES = 512 * 1024
"""Enough for EXIF, XMP and the embedded previews that some cameras put before the picture's size."""
_PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"})
_BLOCK_BYTES = 1024 * 1024
_LATEST_S = 250_000_000_000.0
"""The year 9892; a broken file system's times may lie beyond what a date can say."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file, as the walk saw it."""

    path: Path
    """Absolute, with no symbolic link in it."""
    folder: str
    """The name of the folder that was named, or that the named file lies in."""
    size: int
    mtime_ns: int

    @property
    def state(self) -> tuple[int, int]:
        """Changes whenever the file does."""
        return self.size, self.mtime_ns


@dataclass(frozen=True, slots=True)
class Photo:
    """A file that should be sent."""

    found: Found
    taken: datetime
    """What the photo says, else the file's modification time; on this machine's wall clock, so that the day is the one
    people remember."""
    header: Header | None
    """None: unreadable here. It is sent all the same; the worker says what is wrong and keeps the bytes."""


class Changed(Exception):
    """The file is not what it was when it was hashed."""


class Refusal(Exception):
    """The file need not be sent; the message says why."""


class Unreadable(Refusal):
    """The file cannot be read, or no longer."""


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def readable(path: Path) -> str:
    """A path for people and for JSON: a name that is not UTF-8 gets replacement characters."""
    return os.fsencode(path).decode("utf-8", "replace")


def walk(paths: Iterable[Path]) -> Iterator[Found | Refused]:
    """All files under the paths, in name order, each once; hidden ones only if they are named themselves.

    What cannot be entered or is no file is yielded as refused and the walk goes on.
    """
    seen: set[Path] = set()
    for named in paths:
        try:
            with _reading():
                real = named.resolve(strict=True)
                folder = real.name if real.is_dir() else real.parent.name
        except Unreadable as error:
            yield Refused(readable(named), str(error))
        else:
            yield from _visit(real, folder or "photos", seen)


def _visit(path: Path, folder: str, seen: set[Path]) -> Iterator[Found | Refused]:
    names: list[str] = []
    try:
        with _reading():
            real = path.resolve(strict=True) if path.is_symlink() else path
            if real in seen:
                return
            seen.add(real)
            info = real.stat()
            if stat.S_ISDIR(info.st_mode):
                names = sorted(child.name for child in real.iterdir() if not child.name.startswith("."))
    except Unreadable as error:
        yield Refused(readable(path), str(error))
        return
    if stat.S_ISREG(info.st_mode):
        yield Found(real, folder, info.st_size, info.st_mtime_ns)
    elif not stat.S_ISDIR(info.st_mode):
        yield Refused(readable(path), "neither a file nor a folder")
    for name in names:
        yield from _visit(real / name, folder, seen)


def find(path: Path) -> Found:
    """One file, as it is now.

    Raises:
        Unreadable: there is none.
    """
    with _reading():
        info = path.stat()
    return Found(path, path.parent.name, info.st_size, info.st_mtime_ns)


def look(found: Found) -> Photo | Refused:
    """Open a file and read its beginning: a still picture is a photo, and so is what only pretends to be one."""
    try:
        with _reading(), found.path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        header = header_of(head, found.path)
    except Refusal as error:
        return Refused(readable(found.path), str(error))
    return Photo(found, _taken(found, header), header)


def header_of(head: bytes, path: Path) -> Header | None:
    """What a file that begins like this says of itself; None: nothing, and it should be sent all the same.

    When in doubt it is sent: what no decoder can read is answered with a dead frame that keeps the bytes, while a photo
    that stays on the card is looked at by nobody.

    Raises:
        Refusal: it is no still photo; the message says what can be done.
    """
    try:
        return read_header(head, max_pixels=sys.maxsize)
    except BadFrame as error:
        if error.reason == "video":
            name, stills = readable(Path(path.name)), f"{readable(Path(path.stem))}-%05d.jpg"
            raise Refusal(
                f"{describe(head)}: cut it into stills and upload those, for example with"
                f" ffmpeg -i {shlex.quote(name)} -vf fps=1 -q:v 2 {shlex.quote(stills)}"
            ) from error
        named_photo = path.suffix.lower() in _PHOTO_SUFFIXES and not describe(head).startswith("text")
        if error.reason == "empty" or (error.reason == "not_a_photo" and (sniff(head) == "photo" or not named_photo)):
            raise Refusal(str(error)) from error
        return None


def _taken(found: Found, header: Header | None) -> datetime:
    """On this machine's wall clock; a camera whose clock was never set is not believed."""
    if header is not None and header.captured_at is not None and 1980 < header.captured_at.year < 9999:
        return header.captured_at.astimezone().replace(tzinfo=None)
    return datetime.fromtimestamp(min(max(found.mtime_ns / 1e9, 0.0), _LATEST_S))


def digest(found: Found) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        Changed: it is not, or no longer, in the state in which it was found.
        Unreadable: it cannot be read to its end.
    """
    hashed = hashlib.sha256()
    with _reading(), found.path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hashed.update(block)
        after = os.fstat(file.fileno())
    if (after.st_size, after.st_mtime_ns) != found.state:
        raise Changed
    return hashed.hexdigest()


def read(found: Found, sha256: str) -> bytes:
    """A file's bytes, if they are those of this digest.

    Raises:
        Changed: they are not.
        Unreadable: it cannot be read to its end.
    """
    with _reading():
        data = found.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Changed
    return data
