"""Memory for decoded frames, used again: a fresh buffer costs page faults, one that was used before does not.

Touching a fresh 50 MB buffer (16 MP RGB) for the first time took 5 ms against 40 ms for decoding into it (the same
photo and box as in pixels.py), and the interpreter gives memory of this size back to the system each time it is freed.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
from numpy.typing import NDArray

STEP_BYTES = 1024 * 1024
"""Sizes are rounded up to whole MiB, so that photos that differ by a few lines share buffers."""


class BufferPool:
    """Lends uint8 buffers and keeps what comes back, up to `max_idle_bytes`; safe to use from several threads.

    What is lent is the borrower's: the pool bounds only what lies idle, so resident memory stays below what the frames
    in flight need plus `max_idle_bytes`. A buffer that is never given back is freed like any array.
    """

    def __init__(self, *, max_idle_bytes: int) -> None:
        if max_idle_bytes < 0:
            raise ValueError(f"max_idle_bytes must not be negative, got {max_idle_bytes}")
        self._max_idle_bytes = max_idle_bytes
        self._lock = threading.Lock()
        self._idle: list[NDArray[np.uint8]] = []  # the one given back last stands last
        self._lent: weakref.WeakValueDictionary[int, NDArray[np.uint8]] = weakref.WeakValueDictionary()

    @property
    def idle_bytes(self) -> int:
        """Bytes kept for later."""
        with self._lock:
            return self._sum()

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """Lend a buffer of `nbytes` bytes, rounded up to whole MiB: uint8[n], contiguous, of any content."""
        if nbytes < 1:
            raise ValueError(f"a buffer has at least one byte, got {nbytes}")
        size = -(-nbytes // STEP_BYTES) * STEP_BYTES
        with self._lock:
            for index in range(len(self._idle) - 1, -1, -1):  # the last given back is the likeliest still in the cache
                if self._idle[index].nbytes == size:
                    return self._lend(self._idle.pop(index))
        buffer: NDArray[np.uint8] = np.empty(size, dtype=np.uint8)
        with self._lock:
            return self._lend(buffer)

    def give(self, buffer: NDArray[np.uint8]) -> None:
        """Take back what `take` lent, once nobody reads it. The trap is a view: it shows the next photo from then on.

        The oldest idle buffers are freed until the rest fits, so a pool forgets the sizes of an earlier flight.

        Raises:
            ValueError: this pool did not lend it, or it was given back before: two photos would share it.
        """
        with self._lock:
            if self._lent.pop(id(buffer), None) is not buffer:
                raise ValueError(
                    "this buffer is not lent by this pool: give back what `take` returned, once, not a view"
                )
            self._idle.append(buffer)
            while self._sum() > self._max_idle_bytes:
                self._idle.pop(0)

    def _lend(self, buffer: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self._lent[id(buffer)] = buffer
        return buffer

    def _sum(self) -> int:
        return sum(buffer.nbytes for buffer in self._idle)
