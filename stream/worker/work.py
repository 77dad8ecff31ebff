"""One frame on its way through the worker, and the joints between the stages that it passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from models.engines.protocol import Scores
from models.runner import Admission, Runner
from stream.config import WorkerSection
from stream.errors import BadFrame
from stream.messages import Frame
from stream.metrics import Metrics
from stream.photo.buffers import BufferPool
from stream.photo.header import Header
from stream.transport.protocol import Record, Transport
from stream.worker.assembly import Spot
from stream.worker.attempts import AttemptJournal
from stream.worker.batching import TileBatch
from stream.worker.budget import ByteBudget
from stream.worker.judge import Judge, Sight
from stream.worker.ledger import Entry
from stream.worker.tiling import Tiling

TRANSPORT_DEADLINE_S = 120.0
"""How long the transport may be away before the worker stops and the supervisor takes over."""
BATCHES_AHEAD = 2
"""One in the engine, one waiting: the engine never waits for the event loop."""
FRAMES_AHEAD = 1
"""Decoded and waiting, beside one that each decoder holds until there is room. More would fill the byte budget with
pixels: memory touched for the first time cost up to three times what decoding into it did (benchmarks/README.md)."""


@dataclass(eq=False, slots=True)
class Work:
    """One frame; each stage fills in what it finds out. Times are of the monotonic clock, in seconds."""

    record: Record
    entry: Entry
    attempt: str
    """Its key in the attempt journal."""
    first_try: datetime
    taken: float
    data: bytes
    crashes: int = 0
    frame: Frame | None = None
    header: Header | None = None
    reserved: int = 0
    """Bytes it holds of the budget."""
    buffer: NDArray[np.uint8] | None = None
    tiling: Tiling | None = None
    sight: Sight | None = None
    photo: Admission | None = None
    """The engine's hold on its pixels."""
    decoded: float = 0.0
    first_batch: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> how long it took."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A frame whose tiles have all come back: float32 [rows, cols, classes]."""

    scores: NDArray[np.float32]


Outcome = Scored | BadFrame


class OpenWork:
    """The frames between their first byte and their commit, and those among them whose bytes have not come."""

    def __init__(self) -> None:
        self.all: set[Work] = set()
        self.absent: dict[Work, float] = {}
        """Work whose blob is missing -> when to look again."""
        self._changed = asyncio.Condition()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the open frames holds; it is looked at whenever one is answered or absent."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def answered(self, work: Work) -> None:
        """This frame is done with."""
        async with self._changed:
            self.all.discard(work)
            self._changed.notify_all()

    async def miss(self, work: Work, due: float) -> None:
        """Its bytes have not come; they are looked for again at `due`."""
        async with self._changed:
            self.absent[work] = due
            self._changed.notify_all()

    def let_go(self, work: Work) -> None:
        """Forget a frame whose bytes have not come; it is not committed, so it is read again."""
        self.absent.pop(work, None)
        self.all.discard(work)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a worker works with; the role (role.py) opens and closes it."""

    transport: Transport
    runner: Runner
    judge: Judge
    journal: AttemptJournal
    metrics: Metrics
    source: str
    """Names this worker in `ce_source`."""


@dataclass(slots=True)
class Line:
    """What joins the stages. The byte budget bounds what is in all of them; two queues have a bound of their own, so
    that no more is decoded, or cut into batches, than keeps the engine busy."""

    settings: WorkerSection
    open: OpenWork
    budget: ByteBudget
    pool: BufferPool
    upstream: int = 0
    """Frames on their way to the batcher; with none, a tail of tiles has nothing to wait for."""
    to_decode: asyncio.Queue[Work | None] = field(default_factory=asyncio.Queue)
    to_infer: asyncio.Queue[Work | None] = field(default_factory=lambda: asyncio.Queue(FRAMES_AHEAD))
    to_collect: asyncio.Queue[tuple[TileBatch[Spot[Work]], Future[Scores]] | None] = field(
        default_factory=lambda: asyncio.Queue(BATCHES_AHEAD)
    )
    to_answer: asyncio.Queue[tuple[Work, Outcome] | None] = field(default_factory=asyncio.Queue)

    def give_up(self, work: Work, error: BadFrame) -> None:
        """This frame gets no result but a reason."""
        self.to_answer.put_nowait((work, error))
