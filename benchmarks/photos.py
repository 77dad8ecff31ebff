"""The photos that scenarios send: the sample flight over and over, each time as another frame, or one large one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from models.engines.protocol import HostImage, Tile
from stream.errors import Misuse
from stream.messages import HEADER_FRAME, Frame, encode
from stream.photo import pixels
from stream.photo.header import read_header
from stream.transport.protocol import Message, Transport
from stream.worker.tiling import pad, tile

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff"}


def find(folder: Path, pattern: str = "*") -> list[Path]:
    """The photos under a folder whose names match, in order.

    Raises:
        Misuse: there are none.
    """
    found = sorted(path for path in folder.rglob(pattern) if path.suffix.lower() in SUFFIXES)
    if not found:
        raise Misuse(f"no photos {pattern} under {folder}: name another folder with --photos")
    return found


def another(data: bytes, number: int) -> bytes:
    """The same picture as another frame: its bytes go on behind the picture's end, where no decoder looks."""
    return data + number.to_bytes(8, "big")


def series(paths: Sequence[Path], frames: int, first: int = 0) -> Iterator[bytes]:
    """So many frames, the photos in turn; frames of different numbers have different ids."""
    kept = {path: path.read_bytes() for path in paths}
    for number in range(first, first + frames):
        yield another(kept[paths[number % len(paths)]], number)


def write(paths: Sequence[Path], frames: int, folder: Path, first: int = 0) -> list[tuple[Path, str]]:
    """Lay a series down as files; path and frame id of each."""
    folder.mkdir(parents=True, exist_ok=True)
    laid = []
    for number, data in enumerate(series(paths, frames, first), first):
        path = folder / f"frame-{number:06}.jpg"
        path.write_bytes(data)
        laid.append((path, sha256(data).hexdigest()))
    return laid


async def send(transport: Transport, data: bytes) -> str:
    """Put one frame into the log, inline or by reference as the transport is set; its id."""
    frame_id = sha256(data).hexdigest()
    inline = len(data) <= transport.max_inline_bytes
    blob = None if inline else await transport.blobs.put(data)
    frame = Frame(frame_id=frame_id, asset="bench", blob=blob, size_bytes=len(data))
    headers = {HEADER_FRAME: encode(frame).decode()}
    await transport.send(Message(topic="frames", key=frame_id, value=data if inline else b"", headers=headers))
    return frame_id


def tiles(paths: Sequence[Path]) -> list[Tile]:
    """All tiles of the largest photo, decoded, as the engine sees them in the line."""
    data = max(paths, key=lambda path: path.stat().st_size).read_bytes()
    header = read_header(data, max_pixels=200_000_000)
    image = HostImage(pad(pixels.decode(data, header, np.empty(pixels.buffer_bytes(header), np.uint8)), 256))
    grid = tile(image.width, image.height, 256)
    return [Tile(image, int(y), int(x)) for y in grid.ys for x in grid.xs]


def large(width: int, height: int, size_bytes: int) -> bytes:
    """A JPEG of that many pixels and exactly that many bytes: a noisy picture, and bytes behind its end.

    Raises:
        Misuse: the picture alone is larger than that.
    """
    noise = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Picture.fromarray(noise).resize((width, height), Picture.Resampling.BILINEAR).save(file, "JPEG", quality=95)
    data = file.getvalue()
    if len(data) > size_bytes:
        raise Misuse(f"a picture of {width} x {height} takes {len(data):,} bytes: ask for more than {size_bytes:,}")
    return data + bytes(size_bytes - len(data))
