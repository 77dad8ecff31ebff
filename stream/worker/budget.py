"""The byte budget bounds what is in flight; waiting for room in it is the back-pressure of the whole line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class ByteBudget:
    """A semaphore in bytes, first come, first served.

    One holder is always admitted when nothing is held, however large: a frame bigger than the budget is worked on
    alone instead of never.
    """

    def __init__(self, limit: int, observe: Callable[[int], None]) -> None:
        if limit < 1:
            raise ValueError(f"the budget must be at least 1 byte, got {limit}")
        self._limit = limit
        self._observe = observe
        self._held = 0
        self._changed = asyncio.Condition()

    @property
    def held(self) -> int:
        """Bytes in flight now."""
        return self._held

    async def acquire(self, size: int) -> None:
        """Wait until `size` bytes fit, then hold them. Called from one task, so order is arrival order."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._held == 0 or self._held + size <= self._limit)
            self._set(self._held + size)

    async def release(self, size: int) -> None:
        """Give back what `acquire` took."""
        async with self._changed:
            self._set(self._held - size)
            self._changed.notify_all()

    def _set(self, held: int) -> None:
        self._held = held
        self._observe(held)
