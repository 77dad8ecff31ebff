"""From a photo's bytes to upright RGB pixels, or to a reason why not; a decoder that warns has not decoded.

The one door to the JPEG decoder. simplejpeg was chosen over PyTurboJPEG and cv2. Milliseconds on one core of a shared
AMD EPYC, best of 30 or more, photos of tests/data/flight:

                                             simplejpeg        PyTurboJPEG 1.x   cv2.imdecode
                                             reused    new     new               new buffer
    deck-7036.jpg  4608 x 3584  4:2:0        39.7      45.1    43.9              75.6
    IMG_9391.jpg   4000 x 3000  4:2:2        45.0      48.2    49.9              72.1
    DJI_0025.JPG   4000 x 2250  4:2:0        33.8      34.7    31.0              39.6

    python -m timeit -n 1 -r 30 -s "import simplejpeg; data = open(PHOTO, 'rb').read(); used = bytearray(50_000_000)" \
        "simplejpeg.decode_jpeg(data, 'RGB', buffer=used, strict=True)"

Both bindings run the same library. PyTurboJPEG does not bring it along, and its version 2 refuses the libturbojpeg 2.1
that Debian 12 has; cv2 prints libjpeg's warnings and hands out grey filler as if it were the picture.

simplejpeg releases the GIL: two decodes of the deck take 80.2 ms one after the other and 42.9 ms in two threads, 1.87
times as fast (best of many on two shared cores; numpy.sort, which is known to release it, 1.77). So decoding runs in
threads; tests/unit/photo checks the release without a clock.
"""

from __future__ import annotations

import io
import struct
import zlib
from importlib.metadata import version

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from stream.errors import BadFrame
from stream.photo.exif import NONSENSE
from stream.photo.header import FORMATS, Header
from stream.photo.magic import JPEG, PNG

Pixels = NDArray[np.uint8]

_COPY_AGAIN = "copy it again from the camera"
_FLIPS = {2: 1, 3: -1, 4: 0}  # EXIF to cv2.flip: left-right, both, upside down
_PLAIN_MODES = frozenset({"1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB"})
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


def describe() -> str:
    """What decodes here, for a person."""
    return f"JPEG by simplejpeg {version('simplejpeg')}, others by Pillow {version('pillow')}, OpenCV {cv2.__version__}"


def buffer_bytes(header: Header) -> int:
    """What `decode` needs: 3 bytes a pixel, and as much again for a photo that has to be turned by 90 degrees."""
    return header.width * header.height * 3 * (2 if header.orientation >= 5 else 1)


def decode(data: bytes, header: Header, into: Pixels) -> Pixels:
    """Decode a photo, turned upright.

    Args:
        data: the whole file.
        header: what `read_header` said of it.
        into: uint8[n] with n >= buffer_bytes(header), contiguous.

    Returns:
        uint8 RGB [height, width, 3], contiguous, a view at the start of `into`. Transparency is laid over black, so
        that what holds no picture is too dark to be called clean. 16 bits a channel are scaled to 8.

    Raises:
        BadFrame: `truncated` or `corrupt`; `not_a_photo` for figures that are no picture (32-bit or floating point).
        ValueError: `into` is too small.
    """
    if into.nbytes < buffer_bytes(header):
        raise ValueError(f"{into.nbytes} bytes are too few: this photo needs {buffer_bytes(header)}")
    size = header.width * header.height * 3
    out = into[:size].reshape(header.height, header.width, 3)
    if not data.startswith(JPEG):
        picture = _decode_other(data, header)
        # Pillow turns a TIFF by itself, and no other format.
        _turn(picture, 1 if header.facts.format == "TIFF" else header.orientation, out)
        return out
    raw = into[size : 2 * size] if header.orientation >= 5 else into[:size]
    stored = raw.reshape(header.stored_height, header.stored_width, 3)
    _decode_jpeg(data, stored)
    _turn(stored, header.orientation, out)
    return out


def _turn(stored: Pixels, orientation: int, out: Pixels) -> None:
    """Write `stored` upright into `out`, which is the same memory for a JPEG that keeps its shape (1 to 4).

    Raises:
        BadFrame: `corrupt`, the shapes do not fit.
    """
    shape = stored.shape if orientation < 5 else (stored.shape[1], stored.shape[0], 3)
    if shape != out.shape:
        raise BadFrame(
            "corrupt", f"the header says {out.shape[1::-1]} pixels, the picture has {shape[1::-1]}; {_COPY_AGAIN}"
        )
    if orientation in _FLIPS:
        cv2.flip(stored, _FLIPS[orientation], dst=out)
    elif orientation == 6:
        cv2.rotate(stored, cv2.ROTATE_90_CLOCKWISE, dst=out)
    elif orientation == 8:
        cv2.rotate(stored, cv2.ROTATE_90_COUNTERCLOCKWISE, dst=out)
    elif orientation in (5, 7):
        cv2.transpose(stored, dst=out)
        if orientation == 7:
            cv2.flip(out, -1, dst=out)
    elif stored is not out and not np.shares_memory(stored, out):
        np.copyto(out, stored)


def _decode_jpeg(data: bytes, out: Pixels) -> None:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        if (height, width) != out.shape[:2]:
            raise BadFrame(
                "corrupt", f"the JPEG holds two sizes, {out.shape[1::-1]} and {(width, height)}; {_COPY_AGAIN}"
            )
        # Grey, CMYK and YCCK come out as RGB too: the decoder takes ink as Adobe stores it, upside down.
        simplejpeg.decode_jpeg(data, "RGB", buffer=out, strict=True)
    except ValueError as error:
        # libjpeg's word for "the bytes ran out"; a segment that ends early inside the file is called otherwise.
        cut = "premature end of jpeg file" in str(error).lower()
        message = f"the JPEG {'ends before its picture does' if cut else 'is damaged'} ({error}); {_COPY_AGAIN}"
        raise BadFrame("truncated" if cut else "corrupt", message) from error


def _decode_other(data: bytes, header: Header) -> Pixels:
    """PNG, TIFF, WebP, BMP by Pillow, which refuses what is cut off; uint8 RGB [H, W, 3]."""
    if data.startswith(PNG):
        _check_png(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            return _eight_bits(image)
    except NONSENSE as error:
        cut = "truncated" in str(error).lower()
        what = "ends before its picture does" if cut else "is damaged"
        message = f"the {header.facts.format} {what} ({error}); {_COPY_AGAIN}"
        raise BadFrame("truncated" if cut else "corrupt", message) from error


def _check_png(data: bytes) -> None:
    """Every chunk whole and its checksum right, up to IEND: Pillow skips the checksums of the picture's own chunks."""
    at = len(PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            name = kind.decode("ascii", "replace")
            raise BadFrame("corrupt", f"the PNG is damaged: the checksum of its chunk {name} is wrong; {_COPY_AGAIN}")
        if kind == b"IEND":
            return
        at = end
    raise BadFrame("truncated", f"the PNG ends after {len(data)} bytes, before its last chunk; {_COPY_AGAIN}")


def _eight_bits(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16"):
        return _from_sixteen(np.asarray(image))
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        laid = image.convert("RGBA")
        black = Image.new("RGBA", laid.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, laid).convert("RGB"))
    if image.mode in _PLAIN_MODES:
        return np.asarray(image.convert("RGB"))
    raise BadFrame(
        "not_a_photo",
        f"its pixels are figures of kind {image.mode}, as in an elevation model, not colours; export it with 8 bits",
    )


def _from_sixteen(grey: NDArray[np.uint16]) -> Pixels:
    scaled = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(scaled[..., None], 3, axis=2)
