"""A card of NVIDIA's by way of pycuda, for who has that installed: the only door to it.

Not run yet: pycuda is built from source with NVIDIA's toolkit, which the machine this was written on lacks.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from models.engines.gpu.device import Bytes, Card, DeviceError, DeviceLost, Event, Graph, OutOfDeviceMemory, Stream
from models.engines.gpu.driver import driver_obstacle
from models.engines.gpu.gather import SOURCE, THREADS, blocks

STICKY = ("illegal memory access", "illegal instruction", "misaligned address", "unspecified launch failure")
"""What the driver says of errors after which the process can do nothing with the card any more."""


class _Calls:
    """The library, with the card's context current in whichever thread asks, and its errors as ours."""

    def __init__(self, index: int) -> None:
        try:
            self.driver = importlib.import_module("pycuda.driver")
        except ImportError as error:
            raise DeviceError(f"pycuda is not installed here ({error})") from error
        self._context: Any = None
        self._here = threading.local()
        with self.errors():
            self.driver.init()
            self.card = self.driver.Device(index)
            self._context = self.card.retain_primary_context()  # the one that TensorRT and torch use

    @contextmanager
    def __call__(self) -> Iterator[Any]:
        """In here the library can be called."""
        with self.errors():
            if not getattr(self._here, "pushed", False):
                self._context.push()
                self._here.pushed = True
            yield self.driver

    @contextmanager
    def errors(self) -> Iterator[None]:
        """In here, an error of pycuda's is one of ours, with the driver's words."""
        try:
            yield
        except self.driver.MemoryError as error:
            raise OutOfDeviceMemory(str(error)) from error
        except self.driver.Error as error:
            words = str(error)
            if any(one in words for one in STICKY):
                raise DeviceLost(f"{words}: the process must end") from error
            raise DeviceError(words) from error


class PycudaEvent:
    """See `Event`."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        with calls() as driver:
            self.event = driver.Event(driver.event_flags.DISABLE_TIMING | driver.event_flags.BLOCKING_SYNC)

    def synchronize(self) -> None:
        """pycuda gives the GIL away inside."""
        with self._calls():
            self.event.synchronize()


class PycudaStream:
    """See `Stream`."""

    def __init__(self, calls: _Calls, kernel: Any) -> None:
        self._calls, self._kernel = calls, kernel
        with calls() as driver:
            self._stream = driver.Stream(driver.stream_flags.NON_BLOCKING)

    @property
    def handle(self) -> int:
        """As a number."""
        return int(self._stream.handle)

    def upload(self, source: Bytes, target: int) -> None:
        """Asynchronous because the source is page-locked."""
        with self._calls() as driver:
            driver.memcpy_htod_async(target, source, self._stream)

    def download(self, source: int, target: Bytes) -> None:
        """Asynchronous because the target is page-locked."""
        with self._calls() as driver:
            driver.memcpy_dtoh_async(target, source, self._stream)

    def gather(self, table: int, tiles: int, side: int, target: int) -> None:
        """One launch of the kernel in `gather.py`."""
        with self._calls():
            grid, block = blocks(tiles, side), (THREADS, 1, 1)
            self._kernel.prepared_async_call(grid, block, self._stream, table, side, target)

    def record(self, event: Event) -> None:
        """An event of this device."""
        assert isinstance(event, PycudaEvent)
        with self._calls():
            event.event.record(self._stream)

    def wait(self, event: Event) -> None:
        """On the card; the host goes on."""
        assert isinstance(event, PycudaEvent)
        with self._calls():
            self._stream.wait_for_event(event.event)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Always raises DeviceError."""
        raise DeviceError("pycuda captures no graphs: every batch is launched piece by piece")


class PycudaDevice:
    """Card number `index`; see `Device` for the promises. Raises DeviceError where there is none."""

    def __init__(self, index: int = 0) -> None:
        if obstacle := driver_obstacle():
            raise DeviceError(obstacle)
        self._calls = _Calls(index)
        with self._calls() as driver:
            card, version = self._calls.card, driver.get_driver_version()
            self._card = Card(
                name=card.name(),
                capability=card.compute_capability(),
                driver=f"{version // 1000}.{version % 1000 // 10}",
                memory=card.total_memory(),
            )
            compiler = importlib.import_module("pycuda.compiler")
            self._kernel = compiler.SourceModule(SOURCE, no_extern_c=True).get_function("gather")
            self._kernel.prepare("PIP")
        self._blocks: dict[int, Any] = {}
        self._pinned: dict[int, Bytes] = {}

    @property
    def card(self) -> Card:
        """As the driver names it."""
        return self._card

    def allocate(self, size: int) -> int:
        """Aligned to 256 bytes, as CUDA promises."""
        with self._calls() as driver:
            block = driver.mem_alloc(size)
        self._blocks[int(block)] = block
        return int(block)

    def free(self, address: int) -> None:
        """The driver waits for the card before it does."""
        with self._calls():
            self._blocks.pop(address).free()

    def pinned(self, size: int) -> Bytes:
        """Freed by `unpin`, not by the last reference."""
        with self._calls() as driver:
            memory: Bytes = driver.pagelocked_empty(size, np.uint8)
        self._pinned[memory.ctypes.data] = memory
        return memory

    def unpin(self, memory: Bytes) -> None:
        """The array must not be touched afterwards."""
        with self._calls():
            self._pinned.pop(memory.ctypes.data).base.free()  # type: ignore[union-attr]

    def stream(self) -> Stream:
        """Apart from the default stream, for which others wait."""
        return PycudaStream(self._calls, self._kernel)

    def event(self) -> Event:
        """Without timing."""
        return PycudaEvent(self._calls)

    def free_memory(self) -> int:
        """As the driver says, whoever uses the rest."""
        with self._calls() as driver:
            return int(driver.mem_get_info()[0])

    def close(self) -> None:
        """The context stays: torch or a second engine may live in it."""
        with self._calls() as driver:
            driver.Context.synchronize()
            for address in list(self._blocks):
                self.free(address)
            for memory in list(self._pinned.values()):
                self.unpin(memory)
