"""Pixels come out upright, whole and exact, or not at all."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base

from stream.errors import BadFrame
from stream.photo import pixels
from stream.photo.header import read_header
from tests import badphotos

FLIGHT = Path(__file__).parents[2] / "data" / "flight"
Picture = NDArray[np.uint8]


def decode(data: bytes) -> Picture:
    header = read_header(data, max_pixels=10**8)
    return pixels.decode(data, header, np.full(pixels.buffer_bytes(header), 170, dtype=np.uint8))


def by_pillow(data: bytes) -> Picture:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


TURNS: dict[int, Callable[[Picture], Picture]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(320, 240), (17, 33)])
def test_a_photo_is_turned_upright_exactly(orientation: int, size: tuple[int, int]) -> None:
    data = badphotos.rotated_jpeg(orientation, *size)
    found = decode(data)
    assert np.array_equal(found, TURNS[orientation](by_pillow(data)))
    assert found.flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_and_a_png_are_turned_exactly_once(orientation: int) -> None:
    stored = badphotos.pattern(40, 30)
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    for data in (
        badphotos.encoded(Image.fromarray(stored), "PNG", exif=exif),
        badphotos.encoded(Image.fromarray(stored), "TIFF", tiffinfo={Base.Orientation: orientation}),
    ):
        assert np.array_equal(decode(data), TURNS[orientation](stored))


def test_pixels_lie_at_the_start_of_the_given_buffer() -> None:
    for orientation in (1, 3, 6, 7):
        data = badphotos.rotated_jpeg(orientation)
        header = read_header(data, max_pixels=10**8)
        buffer = np.zeros(pixels.buffer_bytes(header) + 1000, dtype=np.uint8)
        found = pixels.decode(data, header, buffer)
        assert found.shape == (header.height, header.width, 3)
        assert np.array_equal(buffer[: found.size], found.ravel())
        assert np.shares_memory(buffer, found)


def test_only_a_photo_on_its_side_needs_a_second_picture() -> None:
    for orientation in range(1, 9):
        header = read_header(badphotos.rotated_jpeg(orientation), max_pixels=10**8)
        assert pixels.buffer_bytes(header) == 320 * 240 * 3 * (2 if orientation >= 5 else 1)


def test_a_buffer_that_is_too_small_is_refused() -> None:
    data = badphotos.jpeg()
    with pytest.raises(ValueError, match="too few"):
        pixels.decode(data, read_header(data, max_pixels=10**8), np.zeros(320 * 240 * 3 - 1, dtype=np.uint8))


def test_a_real_photo_is_what_another_decoder_says() -> None:
    data = (FLIGHT / "damage-10388.jpg").read_bytes()
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(decode(data).astype(int) - theirs).max() <= 3


@pytest.mark.parametrize(
    "data",
    [
        badphotos.progressive_jpeg(),
        badphotos.grey_jpeg(),
        badphotos.cmyk_jpeg(),
        badphotos.ycck_jpeg(),
        badphotos.one_pixel(),
    ],
    ids=["progressive", "grey", "cmyk", "ycck", "one pixel"],
)
def test_odd_jpegs_are_read_right(data: bytes) -> None:
    assert np.abs(decode(data).astype(int) - by_pillow(data)).max() <= 1


@pytest.mark.parametrize("make", [badphotos.cmyk_jpeg, badphotos.ycck_jpeg])
def test_inks_look_like_the_picture_they_were_made_of(make: Callable[[], bytes]) -> None:
    assert np.abs(decode(make()).astype(int) - badphotos.pattern()).mean() < 8


@pytest.mark.parametrize("colour", [True, False])
def test_sixteen_bits_are_scaled_and_not_clipped(colour: bool) -> None:
    truth = badphotos.pattern() if colour else np.repeat(badphotos.pattern()[..., :1], 3, axis=2)
    assert np.array_equal(decode(badphotos.sixteen_bit_png(colour)), truth)


@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_sixteen_bits_are_rounded(kind: str) -> None:
    ramp = np.arange(0, 65536, 7, dtype=np.uint16)[:9362].reshape(-1, 31)
    for picture, error in (
        (ramp, 0),
        (np.repeat(ramp[..., None], 3, axis=2), 1),
    ):  # of colours Pillow drops the low byte
        done, data = cv2.imencode(kind, picture)
        assert done
        found = decode(data.tobytes())
        assert np.abs(found[..., 1].astype(int) - np.rint(ramp / 257).astype(int)).max() <= error


def test_what_is_transparent_comes_out_black() -> None:
    for mode in ("RGBA", "LA"):
        picture = Image.fromarray(badphotos.pattern()).convert(mode)
        alpha = np.full((240, 320), 255, dtype=np.uint8)
        alpha[:100] = 0
        picture.putalpha(Image.fromarray(alpha))
        found = decode(badphotos.encoded(picture, "PNG"))
        assert not found[:100].any()
        assert np.array_equal(found[100:], np.asarray(picture.convert("RGBA"))[100:, :, :3])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_lossless_formats_are_exact(kind: str, mode: str) -> None:
    picture = Image.fromarray(badphotos.pattern()).convert(mode)
    assert np.array_equal(decode(badphotos.encoded(picture, kind)), np.asarray(picture.convert("RGB")))


def test_an_elevation_model_is_no_photo() -> None:
    heights = Image.fromarray(np.linspace(0, 1, 30 * 40, dtype=np.float32).reshape(30, 40))
    with pytest.raises(BadFrame, match="elevation") as caught:
        decode(badphotos.encoded(heights, "TIFF"))
    assert caught.value.reason == "not_a_photo"


REAL = (FLIGHT / "damage-10484.jpg").read_bytes()
REAL_END = REAL.rindex(b"\xff\xd9") + 2
DJI = (FLIGHT / "DJI_0025.JPG").read_bytes()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(REAL) - 1))
@example(REAL_END)
@example(REAL_END - 1)
@example(REAL_END - 2)
def test_a_truncated_photo_is_never_grey_filler(length: int) -> None:
    cut = REAL[:length]
    if length >= REAL_END:  # only what follows the picture is gone
        assert np.array_equal(decode(cut), decode(REAL))
        return
    with pytest.raises(BadFrame) as caught:
        decode(cut)
    assert caught.value.reason in (("truncated", "corrupt") if length > 2 else ("empty", "not_a_photo"))


def test_bytes_after_the_picture_change_nothing() -> None:
    assert np.array_equal(decode(REAL + b"\x00" * 4096 + badphotos.text()), decode(REAL))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_drone_frame_says_truncated(share: float) -> None:
    with pytest.raises(BadFrame, match="ends before its picture") as caught:
        decode(DJI[: int(len(DJI) * share)])
    assert caught.value.reason == "truncated"


OTHERS = {
    "jpeg": badphotos.jpeg(),
    "progressive": badphotos.progressive_jpeg(),
    "grey": badphotos.grey_jpeg(),
    "cmyk": badphotos.cmyk_jpeg(),
    "png": badphotos.png(),
    "16-bit png": badphotos.sixteen_bit_png(),
    "tiff": badphotos.encoded(Image.fromarray(badphotos.pattern()), "TIFF"),
    "tiff lzw": badphotos.encoded(Image.fromarray(badphotos.pattern()), "TIFF", compression="tiff_lzw"),
    "tiff jpeg": badphotos.encoded(Image.fromarray(badphotos.pattern()), "TIFF", compression="jpeg"),
    "webp": badphotos.encoded(Image.fromarray(badphotos.pattern()), "WEBP", quality=80),
    "webp lossless": badphotos.encoded(Image.fromarray(badphotos.pattern()), "WEBP", lossless=True),
    "bmp": badphotos.encoded(Image.fromarray(badphotos.pattern()), "BMP"),
}


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("name", OTHERS)
@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.999_999)
def test_every_format_refuses_to_be_truncated(name: str, share: float) -> None:
    whole = OTHERS[name]
    try:
        found = decode(whole[: int(len(whole) * share)])
    except BadFrame as error:
        assert error.reason in ("empty", "not_a_photo", "truncated", "corrupt")
    else:  # the last bytes of some formats say nothing about pixels
        assert np.array_equal(found, decode(whole))


@pytest.mark.parametrize("make", [badphotos.corrupted_jpeg, badphotos.corrupted_png])
def test_damage_in_the_middle_is_corrupt(make: Callable[[], bytes]) -> None:
    with pytest.raises(BadFrame) as caught:
        decode(make())
    assert caught.value.reason == "corrupt"
    assert "copy it again" in str(caught.value)


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("name", ["jpeg", "progressive", "cmyk", "png", "tiff", "tiff lzw", "tiff jpeg", "webp", "bmp"])
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_anywhere_gives_a_picture_of_the_right_size_or_a_reason(
    name: str, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(OTHERS[name])
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        header = read_header(bytes(data), max_pixels=1_000_000)
        found = pixels.decode(bytes(data), header, np.zeros(pixels.buffer_bytes(header), dtype=np.uint8))
    except BadFrame as error:
        assert str(error)
    else:
        assert found.shape == (header.height, header.width, 3)


def test_a_flipped_bit_in_an_uncompressed_png_is_found_by_its_checksum() -> None:
    data = bytearray(badphotos.encoded(Image.fromarray(badphotos.pattern()), "PNG", compress_level=0))
    data[len(data) // 2] ^= 1
    with pytest.raises(BadFrame, match="checksum of its chunk IDAT") as caught:
        decode(bytes(data))
    assert caught.value.reason == "corrupt"


def test_a_png_without_its_last_chunk_is_truncated() -> None:
    with pytest.raises(BadFrame, match="before its last chunk") as caught:
        decode(badphotos.png()[:-12])
    assert caught.value.reason == "truncated"


def test_a_jpeg_whose_two_headers_disagree_writes_nothing_beyond_its_buffer() -> None:
    data = badphotos.jpeg(64, 48)
    small = read_header(badphotos.jpeg(32, 24), max_pixels=10**8)
    buffer = np.full(64 * 48 * 3, 7, dtype=np.uint8)
    with pytest.raises(BadFrame) as caught:
        pixels.decode(data, small, buffer)
    assert caught.value.reason == "corrupt"
    assert (buffer == 7).all()


def test_decoding_gives_other_threads_the_interpreter() -> None:
    """With thread switches off, the main thread runs during a decode only if the decoder lets it."""
    header = read_header(DJI, max_pixels=10**8)
    buffer = np.zeros(pixels.buffer_bytes(header), dtype=np.uint8)
    ran_meanwhile = 0
    before = sys.getswitchinterval()
    sys.setswitchinterval(600)
    try:
        for _ in range(5):  # once would do, but a busy machine may wake the main thread late
            begun, ended = threading.Event(), threading.Event()

            def work(begun: threading.Event = begun, ended: threading.Event = ended) -> None:
                begun.set()
                pixels.decode(DJI, header, buffer)
                ended.set()

            thread = threading.Thread(target=work)
            thread.start()
            begun.wait()
            ran_meanwhile += not ended.is_set()
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert ran_meanwhile > 0


def test_the_uploaders_side_needs_neither_numpy_nor_cv2() -> None:
    code = "import sys, stream.photo.header; print(sorted({'numpy', 'cv2', 'simplejpeg'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
