"""Photos on the card: sent up piece by piece, kept until they are evicted, their places used again."""

from __future__ import annotations

from collections import deque

import numpy as np

from models.engines.gpu.device import Device, Event, OutOfDeviceMemory, Stream
from models.engines.gpu.gather import PlacedImage
from models.engines.protocol import EngineError, Image, Pixels

STAGE_BYTES = 8 << 20
"""A photo goes up in pieces of this size: while one crosses the bus, the next is copied to page-locked memory."""
STAGES = 3
SPARE = 4
"""Places of photos that are kept for the next ones: asking the driver for memory stops the card."""


class DeviceImage(PlacedImage):
    """A photo that is on the card once `uploaded` has passed."""

    __slots__ = ("uploaded",)

    def __init__(self, pixels: Pixels, address: int, uploaded: Event) -> None:
        super().__init__(pixels.shape[0], pixels.shape[1], address)
        self.uploaded = uploaded

    @property
    def size(self) -> int:
        """In bytes."""
        return self.height * self.width * 3


class Photos:
    """The photos of one engine; they go up on a stream of their own."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stream = device.stream()
        self._stages = deque((device.pinned(STAGE_BYTES), device.event()) for _ in range(STAGES))
        self._here: set[DeviceImage] = set()
        self._spare: deque[tuple[int, int]] = deque()

    @property
    def stream(self) -> Stream:
        """On which they go up."""
        return self._stream

    def send(self, pixels: Pixels) -> DeviceImage:
        """Send one up; returns as soon as its last piece is in page-locked memory.

        Raises OutOfDeviceMemory if there is no room beside those that are here.
        """
        image = DeviceImage(pixels, self._place(pixels.nbytes), self._device.event())
        source = np.ascontiguousarray(pixels).reshape(-1)
        for start in range(0, source.size, STAGE_BYTES):
            memory, free = self._stages[0]
            self._stages.rotate(-1)
            free.synchronize()
            piece = memory[: min(STAGE_BYTES, source.size - start)]
            piece[:] = source[start : start + piece.size]
            self._stream.upload(piece, image.address + start)
            self._stream.record(free)
        self._stream.record(image.uploaded)
        self._here.add(image)
        return image

    def find(self, image: Image) -> DeviceImage:
        """The photo, as what it is here; raises EngineError for one that is not."""
        if not isinstance(image, DeviceImage) or image not in self._here:
            raise EngineError("the tile's image is not on this card: admitted by another engine, or evicted")
        return image

    def evict(self, image: Image) -> None:
        """Keep its place for the next photo of that size; one that is not here is no matter."""
        if isinstance(image, DeviceImage) and image in self._here:
            self._here.discard(image)
            self._spare.append((image.size, image.address))
            if len(self._spare) > SPARE:
                self._device.free(self._spare.popleft()[1])

    def close(self) -> None:
        """Give all places back; nothing that is queued may still read them."""
        for memory, _ in self._stages:
            self._device.unpin(memory)
        for image in self._here:
            self._device.free(image.address)
        self._here.clear()
        self._free_spare()

    def _place(self, size: int) -> int:
        """Where a photo of so many bytes goes: the place of an evicted one of the same size, else a new one."""
        for number, (spare, address) in enumerate(self._spare):
            if spare == size:
                del self._spare[number]
                return address
        try:
            return self._device.allocate(size)
        except OutOfDeviceMemory:
            self._free_spare()
        try:
            return self._device.allocate(size)
        except OutOfDeviceMemory as error:
            raise OutOfDeviceMemory(
                f"no room for a photo of {size / 1e6:.0f} MB beside {len(self._here)} others on "
                f"{self._device.card.name}: let fewer bytes be in flight, or give the engine smaller buckets ({error})"
            ) from error

    def _free_spare(self) -> None:
        while self._spare:
            self._device.free(self._spare.popleft()[1])
