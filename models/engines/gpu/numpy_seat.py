"""A second user of the card of numpy, as one engine beside another is: each gives back what it has taken."""

from __future__ import annotations

from models.engines.gpu.device import Bytes, Card, DeviceError, Event, Stream
from models.engines.gpu.numpy_device import NumpyDevice


class NumpySeat:
    """See models/engines/gpu/device.py for the promises.

    `left` counts what was still taken when it closed.
    """

    def __init__(self, device: NumpyDevice) -> None:
        self._device = device
        self._blocks: set[int] = set()
        self._pinned: list[Bytes] = []
        self.left = 0

    @property
    def card(self) -> Card:
        """The one card."""
        return self._device.card

    def allocate(self, size: int) -> int:
        """Of the card's memory."""
        address = self._device.allocate(size)
        self._blocks.add(address)
        return address

    def free(self, address: int) -> None:
        """Raises DeviceError for an address that this one did not allocate."""
        if address not in self._blocks:
            raise DeviceError(f"free of 0x{address:x}, which is not this one's")
        self._blocks.discard(address)
        self._device.free(address)

    def pinned(self, size: int) -> Bytes:
        """Page-locked for everybody."""
        self._pinned.append(self._device.pinned(size))
        return self._pinned[-1]

    def unpin(self, memory: Bytes) -> None:
        """Its own."""
        self._pinned = [one for one in self._pinned if one is not memory]
        self._device.unpin(memory)

    def stream(self) -> Stream:
        """Beside those of the others."""
        return self._device.stream()

    def event(self) -> Event:
        """For any stream of the card."""
        return self._device.event()

    def free_memory(self) -> int:
        """Of the card."""
        return self._device.free_memory()

    def close(self) -> None:
        """Run what is queued, give back what is left."""
        self.left += len(self._blocks) + len(self._pinned)
        self._device.check()
        self._device.run_until(lambda: not any(stream.queue for stream in self._device.streams))
        for address in list(self._blocks):
            self.free(address)
        for memory in list(self._pinned):
            self.unpin(memory)
