"""Photos that go wrong, and odd ones that must not: each function returns the bytes of one file."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base

SCAN = b"\xff\xda"


def pattern(width: int = 320, height: int = 240, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 RGB [height, width, 3] with a ramp, an edge and grain, different in every corner."""
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) % 256], axis=-1)
    ramp[: height // 3, : width // 2, 0] = 230
    grain = np.random.default_rng(seed).integers(-12, 13, ramp.shape)
    return np.clip(ramp + grain, 0, 255).astype(np.uint8)


def encoded(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def jpeg(width: int = 320, height: int = 240, quality: int = 90) -> bytes:
    """A sound photo."""
    return encoded(Image.fromarray(pattern(width, height)), quality=quality)


def progressive_jpeg() -> bytes:
    return encoded(Image.fromarray(pattern()), quality=90, progressive=True)


def grey_jpeg() -> bytes:
    return encoded(Image.fromarray(pattern()).convert("L"), quality=90)


def cmyk_jpeg() -> bytes:
    """As print shops write them: four inks, upside down, with an Adobe marker."""
    return encoded(Image.fromarray(pattern()).convert("CMYK"), quality=95)


def ycck_jpeg() -> bytes:
    """The same, with the inks turned into brightness and colour as Photoshop does."""
    inks = 255 - np.asarray(Image.fromarray(pattern()).convert("CMYK"))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(inks), quality=95, colorspace="CMYK")


def rotated_jpeg(orientation: int, width: int = 320, height: int = 240) -> bytes:
    """A photo whose EXIF says how it must be turned (1 to 8)."""
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    return encoded(Image.fromarray(pattern(width, height)), quality=95, exif=exif)


def png(width: int = 320, height: int = 240) -> bytes:
    return encoded(Image.fromarray(pattern(width, height)), "PNG")


def sixteen_bit_png(colour: bool = True) -> bytes:
    """`pattern` with 16 bits a channel: each value times 257, so that scaling to 8 bits gives it back."""
    wide = pattern().astype(np.uint16) * 257
    done, data = cv2.imencode(".png", np.ascontiguousarray(wide[..., ::-1]) if colour else wide[..., 0])
    assert done
    return data.tobytes()


def one_pixel() -> bytes:
    return encoded(Image.new("RGB", (1, 1), (120, 130, 140)))


def empty() -> bytes:
    return b""


def text() -> bytes:
    return "Flight log of 12 May\nwind 3 m/s, pilot Zoë\n".encode()


def video() -> bytes:
    """The beginning of an MP4 file."""
    return struct.pack(">I", 24) + b"ftypisom" + struct.pack(">I", 512) + b"isomavc1" + struct.pack(">I", 8) + b"mdat"


def truncated_jpeg(share: float = 0.5) -> bytes:
    """As a broken upload leaves it: only the first part of the file."""
    whole = jpeg()
    return whole[: int(len(whole) * share)]


def corrupted_jpeg() -> bytes:
    """A restart marker where the picture data goes on: every decoder notices."""
    damaged = bytearray(jpeg())
    middle = (damaged.index(SCAN) + len(damaged)) // 2
    damaged[middle : middle + 4] = b"\xff\xd0\xff\xd0"
    return bytes(damaged)


def corrupted_png() -> bytes:
    """One flipped bit in the compressed pixels: the checksum tells."""
    damaged = bytearray(png())
    damaged[len(damaged) // 2] ^= 0x10
    return bytes(damaged)


def giant_png(width: int = 30_000, height: int = 30_000) -> bytes:
    """A few bytes that claim to be an enormous picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    body = (
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def giant_jpeg(width: int = 30_000, height: int = 30_000) -> bytes:
    """A small JPEG whose frame header says it is enormous."""
    data = bytearray(jpeg(16, 16))
    frame = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, frame + 5, height, width)
    return bytes(data)


def raw_dng() -> bytes:
    """A TIFF that is a raw photo with a preview in front, as DJI writes beside its JPEGs."""
    preview = Image.fromarray(pattern(64, 48))
    return encoded(preview, "TIFF", tiffinfo={Base.DNGVersion: b"\x01\x04\x00\x00", Base.NewSubfileType: 1})
