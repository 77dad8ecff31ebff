"""The worker's one task group: ingest ▸ decode ▸ infer ▸ deliver, joined by queues that a byte budget bounds.

Full queues stop the reading, and that is the back-pressure. Why nothing is lost is in commit.py; this file only moves
frames along. A frame is in exactly one place at a time: absent (its bytes have not come), decoding, in the engine, or
being answered; `_open` holds it from its first byte to its commit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.engines.protocol import Engine, EngineError, Image, Scores, Tile
from models.runner import Runner
from stream.config import WorkerSection
from stream.errors import BadFrame, BlobMissing, Broken, Unavailable
from stream.messages import BlobRef, DeadFrame, Frame, Result, Timings, encode, envelope
from stream.metrics import Metrics
from stream.patience import patiently
from stream.photo import pixels, visibility
from stream.photo.buffers import BufferPool
from stream.photo.header import Header, ground_resolution, read_header
from stream.transport.protocol import Message, Record, TopicPartition, Transport
from stream.worker import intake
from stream.worker.assembly import Assembler, Spot
from stream.worker.attempts import POISON_AFTER, SUSPECT_AFTER, AttemptJournal
from stream.worker.batching import Batcher, TileBatch
from stream.worker.breaker import Breaker
from stream.worker.budget import ByteBudget
from stream.worker.commit import Committer, Step
from stream.worker.judge import Judge, Sight
from stream.worker.ledger import Entry, Ledger
from stream.worker.tiling import Tiling, pad, tile

log = logging.getLogger(__name__)
T = TypeVar("T")

REVOKE_BUDGET_S = 20.0
"""How long a partition that goes to another worker waits for its open frames; what is not done then is done there."""
TRANSPORT_DEADLINE_S = 120.0
"""How long the transport may be away before the worker stops and the supervisor takes over."""
POLL_S = 0.2
ABSENT_PAUSE_S = 1.0
"""Between two looks for a blob that is not there yet."""
LAG_EVERY_S = 5.0
BATCHES_AHEAD = 2
"""One in the engine, one waiting: the engine never waits for the event loop."""


@dataclass(eq=False, slots=True)
class Work:
    """One frame on its way through the worker."""

    record: Record
    entry: Entry
    attempt: str
    first_try: datetime
    taken: float
    crashes: int = 0
    frame: Frame | None = None
    data: bytes = b""
    header: Header | None = None
    reserved: int = 0
    buffer: NDArray[np.uint8] | None = None
    tiling: Tiling | None = None
    sight: Sight | None = None
    admission: Future[Image] | None = None
    """Its admission to the engine; the runner's thread resolves it before the first tile is looked at."""
    ready: float = 0.0
    """When it was decoded."""
    first_batch: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scored:
    """A frame whose tiles have all come back."""

    scores: NDArray[np.float32]


Outcome = Scored | BadFrame


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


class Worker:
    """Answers every frame of its partitions of `frames` with a result or a dead frame.

    Args:
        step: see commit.Step; for crash tests.
    """

    def __init__(self, equipment: Equipment, settings: WorkerSection, step: Step = lambda _: None) -> None:
        self._kit = equipment
        self._settings = settings
        self._ledger = Ledger()
        self._committer = Committer(equipment.transport, self._ledger, equipment.journal, step)
        self._breaker = Breaker(settings.breaker_run, settings.breaker_window)
        self._budget = ByteBudget(settings.max_inflight_bytes, equipment.metrics.inflight_bytes.set)
        # Idle buffers come on top of the budget: enough to reuse one large photo's, too little to matter.
        self._pool = BufferPool(max_idle_bytes=settings.max_inflight_bytes // 4)
        self._batcher: Batcher[Spot[Work]] = Batcher(settings.batch_tiles, settings.max_wait_ms / 1000)
        self._assembler: Assembler[Work] = Assembler(len(equipment.judge.rules))
        self._open: set[Work] = set()
        self._absent: dict[Work, float] = {}
        self._upstream = 0
        """Frames between being taken and reaching the batcher."""
        self._settled = asyncio.Condition()
        self._decoding: asyncio.Queue[Work | None] = asyncio.Queue()
        self._decoded: asyncio.Queue[Work | None] = asyncio.Queue()
        self._batches: asyncio.Queue[tuple[TileBatch[Spot[Work]], Future[Scores]] | None] = asyncio.Queue(BATCHES_AHEAD)
        self._answers: asyncio.Queue[tuple[Work, Outcome] | None] = asyncio.Queue()
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        self._failed = False
        self.consuming = False
        """Whether partitions can be taken: what `/readyz` says."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish and commit what is in flight.

        Raises (in an ExceptionGroup):
            Broken, Unavailable: what is not committed is read again after the restart.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ingest(stop))
                for _ in range(self._settings.decode_threads):
                    group.create_task(self._decode())
                group.create_task(self._infer(group))
                group.create_task(self._collect())
                group.create_task(self._deliver())
        finally:
            self._threads.shutdown()

    # ---- ingest: record ▸ bytes ▸ header ▸ room in the budget

    async def _ingest(self, stop: asyncio.Event) -> None:
        consumer = await self._patiently(lambda: self._kit.transport.subscribe(self._settings.group, ["frames"], self))
        self._committer.consumer = consumer
        self.consuming = True
        lag_due = 0.0
        try:
            while not stop.is_set():
                if time.monotonic() >= lag_due:
                    await self._measure_lag()
                    lag_due = time.monotonic() + LAG_EVERY_S
                await self._look_for_absent()
                records = await self._patiently(lambda: consumer.poll(max_records=1, timeout_s=POLL_S))
                for record in records:
                    await self._take(record)
        except BaseException:
            self._failed = True
            raise
        finally:
            self.consuming = False
            for work in list(self._absent):
                self._let_go(work)
            await consumer.close()  # waits in `revoked` for what is in flight
        for _ in range(self._settings.decode_threads):
            self._decoding.put_nowait(None)

    async def _take(self, record: Record) -> None:
        work = Work(
            record=record,
            entry=self._ledger.open(record.tp, record.offset),
            attempt=intake.attempt_key(record),
            first_try=datetime.now(UTC),
            taken=time.monotonic(),
            data=record.value,
        )
        self._open.add(work)
        self._kit.metrics.lag_seconds.labels(record.topic, record.partition).set(time.time() - record.timestamp)
        work.crashes = self._kit.journal.begin(work.attempt)
        if work.crashes >= POISON_AFTER:
            await self._fetch_for_keeping(work)
            detail = f"it was open in {work.crashes} crashes of a worker, the last time alone"
            self._answers.put_nowait((work, BadFrame("poison", detail)))
        else:
            await self._start(work)

    async def _start(self, work: Work) -> None:
        """Admit a frame; one that was open in two crashes is worked on alone, so that a third one names the culprit."""
        if work.crashes < SUSPECT_AFTER:
            await self._admit(work)
            return
        log.warning("suspect frame runs alone frame=%s crashes=%d", work.record.key, work.crashes)
        await self._until(lambda: self._open - self._absent.keys() == {work})
        await self._admit(work)
        await self._until(lambda: work not in self._open or work in self._absent)

    async def _admit(self, work: Work) -> None:
        """Fetch and check the bytes, wait for room, hand over to the decoders."""
        self._upstream += 1
        try:
            work.frame = intake.read_frame(work.record)
            if not await self._fetch(work, work.frame):
                self._upstream -= 1
                return
            work.header = await self._in_thread(partial(_examine, work.frame, work.data, self._settings.max_pixels))
        except BadFrame as error:
            self._upstream -= 1
            self._answers.put_nowait((work, error))
            return
        work.seconds["fetch"] = time.monotonic() - work.taken
        size = len(work.data) + pixels.buffer_bytes(work.header)
        await self._budget.acquire(size)
        work.reserved = size
        self._decoding.put_nowait(work)

    async def _fetch(self, work: Work, frame: Frame) -> bool:
        """Get the photo's bytes; False: they are absent and looked for again, without holding up the frames behind."""
        blob = frame.blob
        if work.data or blob is None:
            return True
        try:
            work.data = await self._patiently(lambda: self._kit.transport.blobs.get(blob), final=(BlobMissing,))
        except BlobMissing as error:
            waited = time.monotonic() - work.taken
            if waited >= self._settings.blob_deadline_s:
                raise BadFrame("blob_missing", f"{error}; looked for it for {waited:.0f} s") from error
            self._absent[work] = time.monotonic() + ABSENT_PAUSE_S
            return False
        return True

    async def _look_for_absent(self) -> None:
        now = time.monotonic()
        for work in [work for work, due in self._absent.items() if due <= now]:
            del self._absent[work]
            await self._start(work)

    async def _fetch_for_keeping(self, work: Work) -> None:
        """Bytes of a poisoned frame, to be kept with its dead-frame record; nothing looks into them."""
        try:
            await self._fetch(work, intake.read_frame(work.record))
        except BadFrame as error:
            log.info("poisoned frame has no readable bytes frame=%s error=%s", work.record.key, error)
        self._absent.pop(work, None)

    # ---- decode

    async def _decode(self) -> None:
        while (work := await self._decoding.get()) is not None:
            started = time.monotonic()
            try:
                image = await self._in_thread(partial(self._to_pixels, work))
            except BadFrame as error:
                self._upstream -= 1
                self._answers.put_nowait((work, error))
                continue
            work.ready = time.monotonic()
            work.seconds["decode"] = work.ready - started
            work.admission = self._kit.runner.admit(image)
            self._decoded.put_nowait(work)
        self._decoded.put_nowait(None)

    def _to_pixels(self, work: Work) -> NDArray[np.uint8]:
        """In a decoder thread: pixels, tiling, and what can be seen in them."""
        header = work.header
        assert header is not None
        work.buffer = self._pool.take(pixels.buffer_bytes(header))
        image = pad(pixels.decode(work.data, header, work.buffer), self._kit.runner.engine.tile_size)
        tiling = tile(header.width, header.height, self._kit.runner.engine.tile_size, self._settings.overlap_px)
        seen = visibility.inspect(image, tiling.ys, tiling.xs, tiling.grid.tile_px)
        work.tiling = tiling
        work.sight = Sight(dark=seen.dark, blurred=seen.blurred, mm_per_px=ground_resolution(header))
        return image

    # ---- infer: tiles ▸ batches ▸ engine

    async def _infer(self, group: asyncio.TaskGroup) -> None:
        ends = self._settings.decode_threads
        getting = group.create_task(self._decoded.get())
        while ends:
            while (batch := self._batcher.full(time.monotonic())) is not None:
                await self._submit(batch)
            # A tail waits only while more tiles are on their way: with none, waiting would be latency for nothing.
            # The read is waited for with a timeout, never cancelled: no frame is lost between the queue and us.
            tail = len(self._batcher) > 0 and self._upstream == 0
            await asyncio.wait({getting}, timeout=0 if tail else self._batcher.until_next(time.monotonic()))
            if getting.done():
                if (work := getting.result()) is None:
                    ends -= 1
                else:
                    self._to_tiles(work)
                getting = group.create_task(self._decoded.get())
            elif (batch := (self._batcher.flush if tail else self._batcher.due)(time.monotonic())) is not None:
                await self._submit(batch)
        getting.cancel()  # every decoder has said that it is done: nothing can be in the queue
        await self._batches.put(None)

    def _to_tiles(self, work: Work) -> None:
        assert work.tiling is not None
        grid = work.tiling.grid
        self._assembler.expect(work, grid.rows, grid.cols)
        spots = (Spot(work, row, col) for row in range(grid.rows) for col in range(grid.cols))
        self._batcher.add(spots, time.monotonic())
        self._upstream -= 1

    async def _submit(self, batch: TileBatch[Spot[Work]]) -> None:
        now = time.monotonic()
        tiles = []
        for work, row, col in batch.tiles:
            assert work.admission is not None and work.tiling is not None
            work.first_batch = work.first_batch or now
            tiles.append((work.admission, int(work.tiling.ys[row]), int(work.tiling.xs[col])))
        metrics = self._kit.metrics
        metrics.batch_tiles.observe(len(tiles))
        metrics.batch_wait_seconds.observe(batch.first_wait_s)
        metrics.batch_released.labels(batch.released).inc()
        await self._batches.put((batch, self._kit.runner.call(partial(_infer_admitted, tiles))))

    async def _collect(self) -> None:
        while (item := await self._batches.get()) is not None:
            batch, future = item
            try:
                scores = await asyncio.wrap_future(future)
                whole = self._assembler.place(batch.tiles, scores.probabilities)
            except (EngineError, ValueError) as error:
                names = sorted({spot.frame.record.key[:12] for spot in batch.tiles})
                raise Broken(f"the engine failed on frames {', '.join(names)}: {error}") from error
            for work, sheet in whole:
                self._answers.put_nowait((work, Scored(sheet)))
        self._answers.put_nowait(None)

    # ---- deliver: scores ▸ result ▸ commit

    async def _deliver(self) -> None:
        while (item := await self._answers.get()) is not None:
            work, outcome = item
            dead = isinstance(outcome, BadFrame)
            output = await self._dead(work, outcome) if isinstance(outcome, BadFrame) else self._result(work, outcome)
            answered = await self._committer.answer(work.entry, work.attempt, [output])
            await self._free(work)
            if answered:
                self._count(work, outcome)
                self._breaker.note(dead=dead)

    def _result(self, work: Work, outcome: Scored) -> Message:
        assert work.frame and work.header and work.tiling and work.sight
        now = time.monotonic()
        work.seconds["queue"] = work.first_batch - work.ready
        work.seconds["infer"] = now - work.first_batch
        timings = Timings(total=round(now - work.taken, 4), **{k: round(v, 4) for k, v in work.seconds.items()})
        frame = intake.with_facts(work.frame, work.header)
        result = self._kit.judge.result(frame, work.tiling, outcome.scores, work.sight, timings)
        headers = envelope(Result, result.result_id, self._kit.source, datetime.now(UTC))
        return Message(topic="results", key=frame.asset, value=encode(result), headers=headers)

    async def _dead(self, work: Work, error: BadFrame) -> Message:
        """Keep the bytes, then say why: the record must never name bytes that are not there."""
        kept = await self._patiently(partial(self._keep, work))
        dead = intake.dead_frame(work.record, error.reason, str(error), kept, (work.first_try, datetime.now(UTC)))
        log.warning("dead frame reason=%s frame=%s detail=%s", error.reason, work.record.key, error)
        headers = envelope(DeadFrame, dead.frame_id, self._kit.source, dead.last_try)
        return Message(topic="dead-frames", key=dead.frame_id, value=encode(dead), headers=headers)

    async def _keep(self, work: Work) -> BlobRef | None:
        """The bytes in the blob store: put there now, or there already though nothing has looked at them."""
        blobs = self._kit.transport.blobs
        if work.data:
            return await blobs.put(work.data)
        named = intake.named_blob(work.record)
        return named if named is not None and await blobs.exists(named.sha256) else None

    def _count(self, work: Work, outcome: Outcome) -> None:
        metrics = self._kit.metrics
        if isinstance(outcome, BadFrame):
            metrics.frames.labels("dead").inc()
            metrics.dead_frames.labels(outcome.reason).inc()
            return
        metrics.frames.labels("result").inc()
        metrics.frame_seconds.observe(time.monotonic() - work.taken)
        for stage, seconds in work.seconds.items():
            metrics.stage_seconds.labels(stage).observe(seconds)

    async def _free(self, work: Work) -> None:
        """Give back what an answered or dropped frame held, and tell whoever waits for that."""
        if work.admission is not None:
            self._kit.runner.call(partial(_evict_admitted, work.admission))
        if work.buffer is not None:
            self._pool.give(work.buffer)
        if work.reserved:
            await self._budget.release(work.reserved)
        async with self._settled:
            self._open.discard(work)
            self._settled.notify_all()

    # ---- partitions come and go (stream.transport.protocol.Listener)

    async def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        log.info("assigned partitions=%s", sorted(tp.partition for tp in partitions))

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish the open frames of these partitions inside one budget, drop the rest; their next owner does them."""
        leaving = set(partitions)
        for work in [work for work in self._absent if work.record.tp in leaving]:
            self._let_go(work)
        if not self._failed:
            try:
                async with asyncio.timeout(REVOKE_BUDGET_S):
                    await self._until(lambda: not any(work.record.tp in leaving for work in self._open))
            except TimeoutError:
                log.warning("revoked with open frames count=%d", self._ledger.open_in(*leaving))
        await self._committer.hand_over(partitions)
        for work in self._open:
            if work.record.tp in leaving and not self._failed:
                self._kit.journal.let_go(work.attempt)

    def _let_go(self, work: Work) -> None:
        """Forget a frame whose bytes have not come; it is not committed, so it is read again."""
        self._absent.pop(work, None)
        self._open.discard(work)
        self._kit.journal.let_go(work.attempt)

    # ---- small helpers

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._settled:
            await self._settled.wait_for(condition)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _patiently(self, call: Callable[[], Awaitable[T]], final: tuple[type[Unavailable], ...] = ()) -> T:
        return await patiently(call, deadline_s=TRANSPORT_DEADLINE_S, final=final)

    async def _measure_lag(self) -> None:
        lag = await self._patiently(lambda: self._kit.transport.lag(self._settings.group, "frames"))
        for partition, records in lag.items():
            self._kit.metrics.lag_records.labels("frames", partition).set(records)


def _examine(frame: Frame, data: bytes, max_pixels: int) -> Header:
    """In a thread: are these the announced bytes, and what do they say of themselves?"""
    intake.verify(frame, data)
    return read_header(data, max_pixels=max_pixels)


def _infer_admitted(tiles: Sequence[tuple[Future[Image], int, int]], engine: Engine) -> Scores:
    """In the engine's thread, behind the admissions of these tiles' images: their futures are done."""
    return engine.infer([Tile(admission.result(), y, x) for admission, y, x in tiles])


def _evict_admitted(admission: Future[Image], engine: Engine) -> None:
    engine.evict(admission.result())
