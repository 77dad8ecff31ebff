"""What the GPU engine asks of a card: memory, streams that work in order, and events for which one waits in another.

An address is a number, as CUDA and TensorRT pass it. Nothing here knows of tiles but `Stream.gather`, the one kernel.
`cuda_bindings.py` is NVIDIA's own package; `numpy_device.py` is for tests, and runs streams in any order that their
events allow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.engines.protocol import EngineError

Bytes = NDArray[np.uint8]


class DeviceError(EngineError):
    """The card refused a call; the message names the call and what the driver said."""


class NotHere(DeviceError):
    """What this card or this library has never been able to do; another precision may do."""


class OutOfDeviceMemory(DeviceError):
    """The card has no room for what was asked; what it holds is untouched."""


class DeviceLost(DeviceError):
    """An error that sticks: whatever is asked of the card from now on fails as well. Only a new process helps."""


class Card(NamedTuple):
    """Which card this is; a plan made for one is not loaded on another."""

    name: str
    capability: tuple[int, int]
    driver: str
    memory: int
    """Bytes in all."""


class Event(Protocol):
    """A mark in a stream; before it was recorded for the first time it counts as passed."""

    def synchronize(self) -> None:
        """Wait on the host, without the GIL, until the work before the mark is done; raises what that work raised."""


class Graph(Protocol):
    """Work of a stream that was captured once and is launched as one."""

    def launch(self) -> None:
        """Queue all of it, with the addresses it was captured with."""


class Stream(Protocol):
    """A queue of work on the card: in order within itself, in any order against other streams.

    Rule: what a queued copy reads or writes stays as it is until an event behind it has passed. Trap: every call
    returns at once, and the copy happens later; a host buffer filled again too early sends the wrong bytes.
    """

    @property
    def handle(self) -> int:
        """What CUDA calls it: a `cudaStream_t` as a number."""

    def upload(self, source: Bytes, target: int) -> None:
        """Copy page-locked bytes to the card."""

    def download(self, source: int, target: Bytes) -> None:
        """Copy from the card to page-locked bytes."""

    def gather(self, table: int, tiles: int, side: int, target: int) -> None:
        """Cut tiles out of photos: uint8[tiles, side, side, 3] at `target`, as `gather.py` says of the table."""

    def record(self, event: Event) -> None:
        """Set the mark behind all that was queued so far."""

    def wait(self, event: Event) -> None:
        """What is queued from now on starts after the mark, as it was last set."""

    def capture(self, work: Callable[[], None]) -> Graph:
        """Capture what `work` queues here, instead of running it; raises DeviceError if it holds what cannot be."""


class Device(Protocol):
    """One card, used by one thread."""

    @property
    def card(self) -> Card:
        """Which one."""

    def allocate(self, size: int) -> int:
        """Address of `size` bytes on the card; raises OutOfDeviceMemory."""

    def free(self, address: int) -> None:
        """Give back what `allocate` gave; nothing queued may still use it."""

    def pinned(self, size: int) -> Bytes:
        """`size` bytes of page-locked host memory; raises OutOfDeviceMemory. It lives until `unpin`."""

    def unpin(self, memory: Bytes) -> None:
        """Give back what `pinned` gave; nothing queued may still use it."""

    def stream(self) -> Stream:
        """A new stream, which waits for no other unless told to."""

    def event(self) -> Event:
        """A new event."""

    def free_memory(self) -> int:
        """Bytes that are free on the card now."""

    def close(self) -> None:
        """Wait for everything and give all of it back. Closing twice is allowed."""
