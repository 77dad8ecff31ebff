"""The batcher gathers tiles of any frames into micro-batches and says when one is due, and why."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

Released = Literal["count", "age", "flush"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TileBatch(Generic[T]):
    """Tiles that go through the engine together."""

    tiles: tuple[T, ...]
    first_wait_s: float
    """How long the oldest of them waited."""
    released: Released


@dataclass(slots=True)
class Batcher(Generic[T]):
    """A policy with no thread and no clock: tiles go in, due batches come out, in order, none lost, none twice.

    A batch is due by count when `max_tiles` wait, by age when the oldest has waited `max_wait_s`, or by `flush`
    (the frames before a release boundary, and a tail when no more tiles are on their way).
    """

    max_tiles: int
    max_wait_s: float
    _waiting: deque[tuple[float, T]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        if self.max_tiles < 1 or self.max_wait_s < 0:
            raise ValueError(f"need max_tiles >= 1 and max_wait_s >= 0, got {self.max_tiles}, {self.max_wait_s}")

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, tiles: Iterable[T], now: float) -> None:
        """Queue tiles that arrived at `now` (seconds on any clock that does not run backwards)."""
        self._waiting.extend((now, tile) for tile in tiles)

    def full(self, now: float) -> TileBatch[T] | None:
        """Take the next batch if one is due by count; call until None."""
        return self._take("count", now) if len(self._waiting) >= self.max_tiles else None

    def due(self, now: float) -> TileBatch[T] | None:
        """Take the next batch if one is due by count or by age; call until None."""
        old = bool(self._waiting) and now - self._waiting[0][0] >= self.max_wait_s
        return self.full(now) or (self._take("age", now) if old else None)

    def flush(self, now: float) -> TileBatch[T] | None:
        """Take the next batch whether due or not; call until None to empty it."""
        return self.full(now) or (self._take("flush", now) if self._waiting else None)

    def until_next(self, now: float) -> float | None:
        """Seconds until `due` could answer if nothing is added; None: never. The driver may sleep that long."""
        if not self._waiting:
            return None
        if len(self._waiting) >= self.max_tiles:
            return 0.0
        return max(0.0, self._waiting[0][0] + self.max_wait_s - now)

    def _take(self, released: Released, now: float) -> TileBatch[T]:
        first = self._waiting[0][0]
        count = min(self.max_tiles, len(self._waiting))
        tiles = tuple(self._waiting.popleft()[1] for _ in range(count))
        return TileBatch(tiles, now - first, released)
