"""What is found under a path, and what of it is a photo."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from stream.uploader.report import Flight, Refused
from stream.uploader.scan import (
    HEAD_BYTES,
    Changed,
    Found,
    Photo,
    Refusal,
    Unreadable,
    digest,
    find,
    header_of,
    look,
    walk,
)

MP4 = b"\0\0\0\x18ftypmp42" + bytes(64)


def photo(path: Path, *, captured: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (64, 48), (120, len(path.name) % 256, 90))
    exif = image.getexif()
    if captured is not None:
        exif.get_ifd(0x8769)[0x9003] = captured
    image.save(path, exif=exif)
    return path


def names(items: list[Found | Refused], root: Path) -> list[str]:
    return [str(Path(item.path).relative_to(root)) for item in items]


def test_folders_are_walked_in_depth_and_in_name_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.jpg", "a.jpg", "c.jpg", ".hidden.jpg", ".Trash/x.jpg", "b/._1.jpg"):
        photo(tmp_path / name)
    assert names(list(walk([tmp_path])), tmp_path) == ["a.jpg", "b/1.jpg", "b/2.jpg", "c.jpg"]


def test_a_hidden_file_that_is_named_is_meant(tmp_path: Path) -> None:
    hidden = photo(tmp_path / ".hidden.jpg")
    assert names(list(walk([hidden])), tmp_path) == [".hidden.jpg"]


def test_each_file_is_found_once_however_it_is_reached(tmp_path: Path) -> None:
    photo(tmp_path / "card/pier.jpg")
    (tmp_path / "card/again.jpg").symlink_to(tmp_path / "card/pier.jpg")
    (tmp_path / "card/loop").symlink_to(tmp_path / "card")
    (tmp_path / "link").symlink_to(tmp_path / "card")
    found = list(walk([tmp_path / "card", tmp_path / "link", tmp_path / "card/pier.jpg", tmp_path]))
    assert names(found, tmp_path) == ["card/pier.jpg"]


def test_a_link_out_of_the_folder_is_followed(tmp_path: Path) -> None:
    photo(tmp_path / "elsewhere/pier.jpg")
    (tmp_path / "card").mkdir()
    (tmp_path / "card/more").symlink_to(tmp_path / "elsewhere")
    assert names(list(walk([tmp_path / "card"])), tmp_path) == ["elsewhere/pier.jpg"]


def test_what_is_no_file_is_refused_and_the_walk_goes_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a_pipe")
    (tmp_path / "b_broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "c_loop").symlink_to(tmp_path / "c_loop")
    photo(tmp_path / "d.jpg")
    items = list(walk([tmp_path / "missing", tmp_path]))
    assert names(items, tmp_path) == ["missing", "a_pipe", "b_broken", "c_loop", "d.jpg"]
    assert [isinstance(item, Refused) for item in items] == [True, True, True, True, False]
    assert "No such file" in next(item.reason for item in items if isinstance(item, Refused))


def test_the_folder_of_a_file_is_the_one_that_was_named(tmp_path: Path) -> None:
    photo(tmp_path / "DCIM/100MEDIA/1.jpg")
    for named in (tmp_path / "DCIM", tmp_path / "DCIM/100MEDIA/1.jpg"):
        (found,) = walk([named])
        assert isinstance(found, Found)
        assert found.folder == ("DCIM" if named.is_dir() else "100MEDIA")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jpg", b"", "no bytes"),
        ("notes.txt", b"battery 3 was weak\n", "text"),
        ("lies.jpg", b"this is text all the same\n", "text"),
        ("DJI_0001.MP4", MP4, "ffmpeg -i DJI_0001.MP4 -vf fps=1"),
        ("pier 1.jpg", MP4, "ffmpeg -i 'pier 1.jpg'"),
        ("Thumbs.db", bytes(range(256)) * 4, "export it as one"),
        ("pier.heic", b"\0\0\0\x18ftypheic" + bytes(64), "HEIC"),
    ],
)
def test_what_is_no_still_photo_is_refused_with_what_to_do(name: str, data: bytes, says: str) -> None:
    with pytest.raises(Refusal) as refusal:
        header_of(data, Path(name))
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [("zeros.jpg", bytes(4096)), ("erased.JPG", b"\xff" * 4096), ("cut.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF")],
)
def test_when_in_doubt_it_is_sent(name: str, data: bytes) -> None:
    assert header_of(data, Path(name)) is None


def test_a_raw_photo_is_refused_even_by_its_first_bytes(tmp_path: Path) -> None:
    raw = tmp_path / "raw.dng"
    Image.new("RGB", (64, 48)).save(raw, format="TIFF", tiffinfo={254: 1})
    with pytest.raises(Refusal, match="raw photo"):
        header_of(raw.read_bytes(), raw)


def test_a_large_photo_is_known_by_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    Image.effect_noise((2000, 1500), 100).save(path, quality=95)
    assert path.stat().st_size > 2 * HEAD_BYTES
    looked = look(find(path))
    assert isinstance(looked, Photo) and looked.header is not None
    assert (looked.header.width, looked.header.height) == (2000, 1500)


def test_the_time_is_the_cameras_else_the_files(tmp_path: Path) -> None:
    os.utime(photo(tmp_path / "1.jpg", captured="2024:05:17 09:30:00"), (0, 0))
    os.utime(photo(tmp_path / "2.jpg"), (1_600_000_000, 1_600_000_000))
    os.utime(photo(tmp_path / "3.jpg", captured="0001:01:01 00:00:00"), (1_600_000_000, 1_600_000_000))
    looked = [look(find(tmp_path / f"{n}.jpg")) for n in (1, 2, 3)]
    of_the_file = datetime.fromtimestamp(1_600_000_000)
    of_the_camera = datetime(2024, 5, 17, 9, 30, tzinfo=UTC).astimezone().replace(tzinfo=None)
    assert [item.taken for item in looked if isinstance(item, Photo)] == [of_the_camera, of_the_file, of_the_file]


def test_a_flight_without_a_name_is_called_after_folder_and_day() -> None:
    day = datetime(2024, 5, 17, 9, 30)
    assert Flight(asset="bridge-3").name("DCIM", day) == "DCIM-2024-05-17"
    assert Flight(asset="bridge-3", flight="monday").name("DCIM", day) == "monday"


@pytest.mark.parametrize("bad", ["", "  ", "bridge\n3", "a\x1fb"])
def test_a_name_that_nobody_can_read_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="no name for the asset"):
        Flight(asset=bad)


def test_a_digest_is_only_of_the_state_that_was_found(tmp_path: Path) -> None:
    path = photo(tmp_path / "pier.jpg")
    found = find(path)
    assert len(digest(found)) == 64
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(Changed):
        digest(found)
    path.unlink()
    with pytest.raises(Unreadable, match="No such file"):
        digest(found)
