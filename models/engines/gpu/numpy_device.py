"""A card made of numpy arrays, for tests: streams run late, in any order that their events allow, and misuse raises."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from models.engines.gpu.device import Bytes, Card, DeviceError, DeviceLost, Event, Graph, OutOfDeviceMemory, Stream
from models.engines.gpu.gather import ENTRY

FIRST_ADDRESS = 0x7F00_0000_0000
ALIGNMENT = 512


@dataclass
class Troubles:
    """What goes wrong with the card, and when."""

    memory: int = 1 << 30
    """Bytes it has."""
    lost_at: int | None = None
    """The piece of work, counted from 0, that breaks the card for good."""
    captures: bool = True
    """Whether work can be captured as a graph."""


@dataclass
class _Work:
    """One piece of queued work; `ready` says whether it may start."""

    run: Callable[[], None]
    ready: Callable[[], bool] = lambda: True


class NumpyEvent:
    """Counts how often it was set and how often that was reached."""

    def __init__(self, device: NumpyDevice) -> None:
        self._device = device
        self.recorded = 0
        self.reached = 0

    def synchronize(self) -> None:
        """Run queued work, stream by stream in random order, until the mark is reached."""
        wanted = self.recorded
        self._device.run_until(lambda: self.reached >= wanted)


class NumpyGraph:
    """The captured work, run piece by piece behind whatever is queued when it is launched."""

    def __init__(self, stream: NumpyStream, work: list[_Work]) -> None:
        self._stream = stream
        self._work = work

    def launch(self) -> None:
        """Queue all of it."""
        for one in self._work:
            self._stream.enqueue(one.run)


class NumpyStream:
    """A queue; nothing in it runs before somebody waits for something."""

    def __init__(self, device: NumpyDevice, handle: int) -> None:
        self._device = device
        self._handle = handle
        self._captured: list[_Work] | None = None
        self.queue: deque[_Work] = deque()

    @property
    def handle(self) -> int:
        """Counted from 1."""
        return self._handle

    def enqueue(self, run: Callable[[], None], ready: Callable[[], bool] = lambda: True) -> None:
        """Queue anything: the door for a fake network."""
        with self._device.lock:
            self._device.check()
            (self.queue if self._captured is None else self._captured).append(_Work(run, ready))

    def upload(self, source: Bytes, target: int) -> None:
        """The source is read when the copy runs, not now."""
        self._device.check_pinned(source)

        def run() -> None:
            self._device.view(target, source.nbytes)[:] = source.reshape(-1)

        self.enqueue(run)

    def download(self, source: int, target: Bytes) -> None:
        """The target is written when the copy runs, not now."""
        self._device.check_pinned(target)

        def run() -> None:
            target.reshape(-1)[:] = self._device.view(source, target.nbytes)

        self.enqueue(run)

    def gather(self, table: int, tiles: int, side: int, target: int) -> None:
        """The kernel's arithmetic, row by row of each tile; a row outside an allocation raises."""

        def run() -> None:
            entries = self._device.view(table, tiles * ENTRY.itemsize).view(ENTRY)
            out = self._device.view(target, tiles * side * side * 3).reshape(tiles, side, side * 3)
            for tile, (source, pitch) in zip(out, entries, strict=True):
                for number, row in enumerate(tile):
                    row[:] = self._device.view(int(source) + number * int(pitch), side * 3)

        self.enqueue(run)

    def record(self, event: Event) -> None:
        """An event of this device."""
        assert isinstance(event, NumpyEvent)
        if self._captured is not None:
            raise DeviceError("an event in a captured piece of work is not made here")
        with self._device.lock:
            event.recorded += 1
            number = event.recorded

        def run() -> None:
            event.reached = max(event.reached, number)

        self.enqueue(run)

    def wait(self, event: Event) -> None:
        """Holds this queue up until the event, as last set, is reached."""
        assert isinstance(event, NumpyEvent)
        wanted = event.recorded
        self.enqueue(lambda: None, lambda: event.reached >= wanted)

    def capture(self, work: Callable[[], None]) -> Graph:
        """What `work` enqueues is kept instead of queued."""
        if not self._device.troubles.captures:
            raise DeviceError("operation not permitted when the stream is capturing")
        self._captured = []
        try:
            work()
            return NumpyGraph(self, self._captured)
        finally:
            self._captured = None


@dataclass
class NumpyDevice:
    """See models/engines/gpu/device.py for the promises.

    `seed` decides in which order streams run. What `allocate` gives is full of 0xFF, which is NaN as float32; pinned
    memory too: a score that was read too early is not a number. One lock is held around each step: two engines may use
    a card from two threads.
    """

    seed: int = 0
    troubles: Troubles = field(default_factory=Troubles)
    card: Card = field(default=Card("numpy", (9, 0), "none", 1 << 30))

    def __post_init__(self) -> None:
        self.card = self.card._replace(memory=self.troubles.memory)
        self.lock = threading.RLock()
        self.blocks: dict[int, Bytes] = {}
        self.streams: list[NumpyStream] = []
        self._pinned: list[Bytes] = []
        self._random = random.Random(self.seed)
        self._next = FIRST_ADDRESS
        self.done = 0
        self._lost = False

    def allocate(self, size: int) -> int:
        """A new address every time, so that whoever uses a freed one is found out."""
        with self.lock:
            self.check()
            if size > self.free_memory():
                raise OutOfDeviceMemory(f"{size} bytes asked for, {self.free_memory()} are free")
            address = self._next
            self.blocks[address] = np.full(size, 0xFF, dtype=np.uint8)
            self._next += -(-size // ALIGNMENT) * ALIGNMENT + ALIGNMENT
            return address

    def free(self, address: int) -> None:
        """Raises DeviceError for an address that is not allocated."""
        with self.lock:
            freed = self.blocks.pop(address, None)
        if freed is None:
            raise DeviceError(f"free of 0x{address:x}, which is not allocated")

    def pinned(self, size: int) -> Bytes:
        """Ordinary memory that this device remembers."""
        memory = np.full(size, 0xFF, dtype=np.uint8)
        with self.lock:
            self.check()
            self._pinned.append(memory)
        return memory

    def unpin(self, memory: Bytes) -> None:
        """Forget it."""
        with self.lock:
            self._pinned = [one for one in self._pinned if one is not memory]

    @property
    def pinned_blocks(self) -> int:
        """How many nobody has given back."""
        return len(self._pinned)

    def stream(self) -> Stream:
        """Counted from 1."""
        with self.lock:
            self.streams.append(NumpyStream(self, len(self.streams) + 1))
            return self.streams[-1]

    def event(self) -> Event:
        """Not recorded yet."""
        return NumpyEvent(self)

    def free_memory(self) -> int:
        """Of `Troubles.memory`."""
        return self.troubles.memory - sum(block.nbytes for block in self.blocks.values())

    def close(self) -> None:
        """Run what is queued, forget everything."""
        if not self._lost:
            self.run_until(lambda: not any(stream.queue for stream in self.streams))
        self.blocks.clear()
        self._pinned.clear()

    def view(self, address: int, size: int) -> Bytes:
        """The bytes themselves; raises DeviceError unless they lie inside one allocation, as a card's checker would."""
        for start, block in self.blocks.items():
            if start <= address and address + size <= start + block.nbytes:
                return block[address - start : address - start + size]
        raise DeviceError(f"{size} bytes at 0x{address:x} are not allocated")

    def check(self) -> None:
        """Raise DeviceLost if the card is broken for good."""
        if self._lost:
            raise DeviceLost("the card was lost earlier")

    def check_pinned(self, memory: Bytes) -> None:
        """Raise DeviceError unless the bytes are part of what `pinned` gave: a copy of others is not asynchronous."""
        if not any(np.shares_memory(memory, one) for one in self._pinned):
            raise DeviceError("a copy from or to memory that is not page-locked")

    def run_until(self, reached: Callable[[], bool]) -> None:
        """Run the queues' heads in random order; raises DeviceError if nothing can run any more."""
        while True:
            with self.lock:
                if reached():
                    return
                self.check()
                ready = [one for one in self.streams if one.queue and one.queue[0].ready()]
                if not ready:
                    raise DeviceError("nothing that is queued can run: an event is waited for that nobody sets")
                with self._counted():
                    self._random.choice(ready).queue.popleft().run()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self.done == self.troubles.lost_at:
            self._lost = True
            raise DeviceLost("an illegal memory access was encountered")
        self.done += 1
        yield
