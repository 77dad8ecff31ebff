"""The blob folder: whole files under their digests, references in place, and a sweep that spares what is in use."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import time
from pathlib import Path

import pytest

from stream.errors import BadFrame, BlobMissing, DiskLow, Misuse, Unavailable
from stream.messages import BlobRef
from stream.transport import blob_folder
from stream.transport.blobs import CHUNK_BYTES, FolderBlobs, in_place_ref

LATER_S = 7200.0


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def ref(url: str) -> BlobRef:
    return BlobRef(sha256="0" * 64, size_bytes=1, url=url)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_blob_lies_under_its_digest_and_nothing_else_is_left(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs", 0)
    asyncio.run(blobs.put(b"photo"))
    sha256 = digest(b"photo")
    assert files(tmp_path / "blobs") == [f"{sha256[:2]}/{sha256}"]


def test_putting_again_writes_nothing_and_renews_the_time(tmp_path: Path) -> None:
    async def main() -> None:
        blobs = FolderBlobs(tmp_path / "blobs", 0)
        stored = await blobs.put(b"photo")
        (path,) = [tmp_path / "blobs" / name for name in files(tmp_path / "blobs")]
        os.utime(path, (1.0, 1.0))
        inode = path.stat().st_ino
        assert await blobs.put(b"photo") == stored
        assert path.stat().st_ino == inode
        assert path.stat().st_mtime > 1.0

    asyncio.run(main())


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 7])
def test_a_file_of_any_length_is_stored_whole(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(data)
    blobs = FolderBlobs(tmp_path / "blobs", 0)
    stored = asyncio.run(blobs.put(photo))
    assert (stored.sha256, stored.size_bytes) == (digest(data), size)
    assert asyncio.run(blobs.get(stored)) == data


def test_a_source_that_changes_while_it_is_read_gets_the_digest_of_what_was_stored(tmp_path: Path) -> None:
    """A file that grows between the two readings: hashed short, stored long."""
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"a" * 100)

    class Growing(type(photo)):  # type: ignore[misc]
        """A real path whose file another process lengthens once it has been hashed."""

        def open(self, mode: str = "r") -> object:
            return _GrowsAtRewind(Path(self))

    stored = asyncio.run(FolderBlobs(tmp_path / "blobs", 0).put(Growing(photo)))
    assert stored.sha256 == digest(b"a" * 100 + b"more")
    assert stored.size_bytes == 104
    assert asyncio.run(FolderBlobs(tmp_path / "blobs", 0).get(stored)) == b"a" * 100 + b"more"


class _GrowsAtRewind:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")

    def __enter__(self) -> _GrowsAtRewind:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        with self._path.open("ab") as writer:
            writer.write(b"more")
        return self._file.seek(offset)


def test_low_disk_refuses_with_the_numbers_and_stores_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        roomy, tight = FolderBlobs(tmp_path / "blobs", 0), FolderBlobs(tmp_path / "blobs", 2**62)
        stored = await roomy.put(b"already here")
        with pytest.raises(DiskLow, match=r"bytes free; 3 more .*4,611,686,018,427,387,904 .*`spanwatch gc`"):
            await tight.put(b"new")
        assert await tight.put(b"already here") == stored
        assert len(files(tmp_path / "blobs")) == 1

    asyncio.run(main())


def test_a_photo_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs", 0)
    for path in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(Unavailable, match="cannot read"):
            asyncio.run(blobs.put(path))
        with pytest.raises(Unavailable, match="cannot read"):
            in_place_ref(path)


def test_a_store_whose_folder_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot use the blob store"):
        asyncio.run(FolderBlobs(tmp_path / "file" / "blobs", 0).put(b"photo"))


@pytest.mark.parametrize("name", ["photo.jpg", "Flug 7 #1 50%?.JPG", "Träger–🌉.jpg", "new\nline.jpg"])
def test_a_photo_is_referred_to_in_place_whatever_its_name(tmp_path: Path, name: str) -> None:
    photo = tmp_path / name
    photo.write_bytes(b"photo")
    made = in_place_ref(photo)
    assert (made.sha256, made.size_bytes) == (digest(b"photo"), 5)
    assert made.url.startswith("file:///") and made.url.isascii() and " " not in made.url
    assert asyncio.run(FolderBlobs(tmp_path / "blobs", 0).get(made)) == b"photo"
    photo.unlink()
    with pytest.raises(BlobMissing, match="in place"):
        asyncio.run(FolderBlobs(tmp_path / "blobs", 0).get(made))


def test_a_file_name_that_is_not_utf8_is_referred_to_in_place(tmp_path: Path) -> None:
    photo = Path(os.fsdecode(os.fsencode(tmp_path) + b"/br\xfccke.jpg"))
    photo.write_bytes(b"photo")
    assert asyncio.run(FolderBlobs(tmp_path / "blobs", 0).get(in_place_ref(photo))) == b"photo"


@pytest.mark.parametrize("url", ["file:///dev/null", "file:///tmp", "file:///" + "x" * 5000, "file:///dev/null/x"])
def test_what_is_in_place_but_no_file_is_missing(tmp_path: Path, url: str) -> None:
    with pytest.raises(BlobMissing):
        asyncio.run(FolderBlobs(tmp_path, 0).get(ref(url)))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "blob:",
        "blob:../../etc/passwd",
        "blob:" + "A" * 64,
        "file://host/photo.jpg",
        "file:photo.jpg",
        "file:///a%00b",
        "https://example.org/photo.jpg",
        "file://[",
    ],
)
def test_a_reference_of_no_known_kind_is_a_bad_frame(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadFrame, match="neither blob:SHA256 nor file:///PATH") as caught:
        asyncio.run(FolderBlobs(tmp_path, 0).get(ref(url)))
    assert caught.value.reason == "bad_header"


@pytest.mark.parametrize("name", ["", "../x", "a" * 63, "G" * 64])
def test_what_is_no_digest_is_refused(tmp_path: Path, name: str) -> None:
    blobs = FolderBlobs(tmp_path, 0)
    for call in (blobs.exists, blobs.delete):
        with pytest.raises(Misuse, match="SHA-256"):
            asyncio.run(call(name))


def test_a_sweep_removes_only_what_is_old_and_not_named(tmp_path: Path) -> None:
    async def main() -> None:
        blobs = FolderBlobs(tmp_path / "blobs", 0)
        named, old, young = [await blobs.put(data) for data in (b"named", b"old one", b"young")]
        for entry in (named, old):
            os.utime(tmp_path / "blobs" / entry.sha256[:2] / entry.sha256, (1.0, 1.0))
        for dry_run in (True, False):
            swept = await blobs.sweep({named.sha256}, before=time.time() - 60, dry_run=dry_run)
            assert (swept.blobs, swept.blob_bytes, swept.leftovers) == (1, 7, 0)
            assert await blobs.exists(old.sha256) == dry_run
        assert {entry.sha256 for entry in await blobs.list()} == {named.sha256, young.sha256}

    asyncio.run(main())


def test_a_blob_that_is_put_again_between_the_listing_and_the_removal_stays(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs", 0)
    stored = asyncio.run(blobs.put(b"photo"))
    path = tmp_path / "blobs" / stored.sha256[:2] / stored.sha256
    assert not blob_folder.remove_old(path, before=path.stat().st_mtime)
    assert path.exists()
    assert blob_folder.remove_old(path, before=path.stat().st_mtime + 1)
    assert not blob_folder.remove_old(path, before=time.time() + LATER_S)


def test_a_sweep_removes_unfinished_files_of_the_dead_and_not_of_the_living(tmp_path: Path) -> None:
    shard = tmp_path / "blobs" / "ab"
    shard.mkdir(parents=True)
    dead, alive, fresh = [shard / f".new-{name}" for name in ("1-dead", "2-alive", "3-fresh")]
    for path in (dead, alive, fresh):
        path.write_bytes(b"half a pho")
    for path in (dead, alive):
        os.utime(path, (1.0, 1.0))
    with alive.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        swept = asyncio.run(FolderBlobs(tmp_path / "blobs", 0).sweep(set(), before=time.time() - 60))
    assert swept.leftovers == 1
    assert sorted(shard.iterdir()) == sorted([alive, fresh])


def test_a_store_that_was_never_used_is_empty(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs", 0)
    assert asyncio.run(blobs.list()) == []
    assert asyncio.run(blobs.sweep(set(), before=time.time() + LATER_S)).blobs == 0
