"""Keeps photos in a folder, each under the SHA-256 of its bytes, so that a record only carries a reference."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from stream.errors import BadFrame, BlobMissing, DiskLow, Misuse, Unavailable
from stream.messages import BlobRef
from stream.transport import blob_folder
from stream.transport.blob_folder import DIGEST, TEMPORARY, BlobEntry, Swept, locked_folder
from stream.transport.durable import fsync_folder, make_folder

CHUNK_BYTES = 1024 * 1024
"""Copies and hashes go by this much: no photo is whole in memory."""


class FolderBlobs:
    """The `BlobStore` in a folder: `FOLDER/ab/SHA256`.

    What is on the disk when: bytes go into a temporary file of the same folder ▸ the file is fsynced ▸ it is renamed to
    its digest ▸ the folder is fsynced, and its parent the first time this process uses it. Then `put` returns. A name
    that is a digest is therefore always whole, and a put that died leaves only a temporary file.

    Content that is already there is found by hashing and not written again; its time is renewed, which is what keeps
    it from a sweep that is under way. Putting and sweeping exclude each other by `flock` on the folder `ab`, held for
    the renewal, the rename and the removal only, never while bytes are copied.
    """

    def __init__(self, folder: Path, min_free_bytes: int) -> None:
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._durable: set[Path] = set()

    async def put(self, data: bytes | Path) -> BlobRef:
        """Store bytes, or a file's bytes; the reference is of what was stored, even if the file changes meanwhile.

        Raises:
            DiskLow: less than `min_free_bytes` would be left.
            Unavailable: the file cannot be read, or the store cannot be written.
        """
        return await asyncio.to_thread(self._put, data)

    async def get(self, ref: BlobRef) -> bytes:
        """Read the bytes of a `blob:` or a `file:///` reference. The caller compares the digest.

        Raises:
            BlobMissing: they are not there (yet), or the file in place cannot be read.
            BadFrame: `bad_header`: it is neither kind of reference, so no waiting helps.
            Unavailable: the store cannot be read.
        """
        return await asyncio.to_thread(self._get, ref)

    async def exists(self, sha256: str) -> bool:
        """Whether these bytes are stored."""
        return await asyncio.to_thread(self._path(sha256).is_file)

    async def delete(self, sha256: str) -> None:
        """Remove; absent is fine."""
        with self._translated():
            await asyncio.to_thread(self._path(sha256).unlink, missing_ok=True)

    async def list(self) -> list[BlobEntry]:
        """All blobs, in no order."""
        with self._translated():
            return await asyncio.to_thread(blob_folder.entries, self._folder)

    async def sweep(self, keep: Set[str], *, before: float, dry_run: bool = False) -> Swept:
        """Remove blobs that are not in `keep` and were last put before `before` (seconds since 1970), and leftovers.

        The bytes of a record are put before the record is sent: `keep` must be gathered after the time `before`.
        """
        with self._translated():
            return await asyncio.to_thread(blob_folder.sweep, self._folder, keep, before=before, dry_run=dry_run)

    def _path(self, sha256: str) -> Path:
        if not DIGEST.fullmatch(sha256):
            raise Misuse(f"{sha256!r} is not the hexadecimal SHA-256 of a blob")
        return self._folder / sha256[:2] / sha256

    def _put(self, data: bytes | Path) -> BlobRef:
        with _opened(data) as source:
            sha256, size = _digest(source)
            if self._renew(sha256):
                return _ref(sha256, size)
            source.seek(0)
            self._reserve(size)
            with self._translated():
                return self._store(source, self._shard(sha256))

    def _renew(self, sha256: str) -> bool:
        """Whether the content is stored; its time is renewed and its name made durable, whoever stored it."""
        path = self._path(sha256)
        with self._translated():
            if not path.is_file():
                return False
            with locked_folder(self._shard(sha256), fcntl.LOCK_SH):
                try:
                    os.utime(path)
                except FileNotFoundError:
                    return False  # swept since the look
                fsync_folder(path.parent)
        return True

    def _reserve(self, size: int) -> None:
        with self._translated():
            make_folder(self._folder)
            free = shutil.disk_usage(self._folder).free
        if free - size < self._min_free_bytes:
            raise DiskLow(
                f"{self._folder} has {free:,} bytes free; {size:,} more would leave less than the reserve of"
                f" {self._min_free_bytes:,} (min_free_bytes under [local]): free some space or run `spanwatch gc`"
            )

    def _store(self, source: BinaryIO, shard: Path) -> BlobRef:
        """Copy, hashing what is written: a source that changes meanwhile gets the digest of the copy."""
        temporary = shard / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"
        with temporary.open("xb") as target:
            fcntl.flock(target, fcntl.LOCK_EX)  # says that its process lives; see `blob_folder.sweep`
            try:
                sha256, size = _digest(source, target)
                target.flush()
                os.fsync(target.fileno())
                path = self._shard(sha256) / sha256
                with locked_folder(path.parent, fcntl.LOCK_SH):
                    temporary.rename(path)
                    fsync_folder(path.parent)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return _ref(sha256, size)

    def _shard(self, sha256: str) -> Path:
        shard = self._folder / sha256[:2]
        if shard not in self._durable or not shard.is_dir():
            make_folder(self._folder)
            make_folder(shard)
            self._durable.add(shard)
        return shard

    def _get(self, ref: BlobRef) -> bytes:
        scheme, _, rest = ref.url.partition(":")
        if scheme == "blob" and DIGEST.fullmatch(rest):
            with self._translated():
                try:
                    return self._path(rest).read_bytes()
                except FileNotFoundError as error:
                    raise BlobMissing(f"the blob store {self._folder} does not have {rest}") from error
        path = _path_in_place(ref.url)
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise BlobMissing(f"{path} is not a file")
            return path.read_bytes()
        except OSError as error:
            raise BlobMissing(f"the photo referred to in place, {path}: {error.strerror}") from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskLow(f"the disk of {self._folder} is full: free some space or run `spanwatch gc`") from error
            raise Unavailable(f"cannot use the blob store {self._folder}: {error.strerror}; is it mounted?") from error


def in_place_ref(path: Path) -> BlobRef:
    """Name a photo where it lies, by hashing it: nothing is copied, and it must stay there until it is answered.

    Raises:
        Unavailable: the file cannot be read.
    """
    with _opened(path) as source:
        sha256, size = _digest(source)
    return BlobRef(sha256=sha256, size_bytes=size, url=path.resolve().as_uri())


def _ref(sha256: str, size: int) -> BlobRef:
    return BlobRef(sha256=sha256, size_bytes=size, url=f"blob:{sha256}")


def _path_in_place(url: str) -> Path:
    rest = url.removeprefix("file://")
    path = os.fsdecode(unquote_to_bytes(rest.encode(errors="surrogatepass")))
    if rest == url or not path.startswith("/") or "\0" in path:
        raise BadFrame("bad_header", f"the blob reference {url!r} is neither blob:SHA256 nor file:///PATH")
    return Path(path)


@contextmanager
def _opened(data: bytes | Path) -> Iterator[BinaryIO]:
    if isinstance(data, bytes):
        yield io.BytesIO(data)
        return
    try:
        source = data.open("rb")
    except OSError as error:
        raise Unavailable(f"cannot read {data}: {error.strerror}") from error
    with source:
        yield source


def _digest(source: BinaryIO, target: BinaryIO | None = None) -> tuple[str, int]:
    """Hash to the end, copying if there is a target: (digest, bytes)."""
    digest, size = hashlib.sha256(), 0
    while chunk := _read(source):
        digest.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest(), size


def _read(source: BinaryIO) -> bytes:
    try:
        return source.read(CHUNK_BYTES)
    except OSError as error:
        raise Unavailable(f"cannot read the file to be stored: {error.strerror}") from error
