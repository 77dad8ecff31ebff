"""Decode, batch, infer, collect: from a photo's bytes to the scores of all its tiles."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from models.engines.protocol import EngineError
from models.runner import AdmittedTile
from stream.errors import BadFrame, Broken
from stream.photo import pixels, visibility
from stream.photo.header import ground_resolution
from stream.worker.assembly import Assembler, Spot
from stream.worker.batching import Batcher, TileBatch
from stream.worker.judge import Sight
from stream.worker.tiling import pad, tile
from stream.worker.work import Equipment, Line, Scored, Work


class Decoding:
    """The stage that turns bytes into pixels, in threads: the decoder releases the interpreter's lock."""

    def __init__(self, kit: Equipment, line: Line, threads: Executor) -> None:
        self._kit = kit
        self._line = line
        self._threads = threads

    async def run(self) -> None:
        """Decode until told that nothing more comes; several may run side by side."""
        loop = asyncio.get_running_loop()
        while (work := await self._line.to_decode.get()) is not None:
            started = time.monotonic()
            self._kit.journal.enter(work.attempt)
            try:
                image = await loop.run_in_executor(self._threads, self._to_pixels, work)
            except BadFrame as error:
                self._line.upstream -= 1
                self._line.give_up(work, error)
                continue
            self._kit.journal.leave(work.attempt)
            work.decoded = time.monotonic()
            work.seconds["decode"] = work.decoded - started
            work.photo = self._kit.runner.admit(image)
            await self._line.to_infer.put(work)
        await self._line.to_infer.put(None)

    def _to_pixels(self, work: Work) -> NDArray[np.uint8]:
        """In a decoder thread: pixels, tiling, and what can be seen in them."""
        header, tile_px = work.header, self._kit.runner.engine.tile_size
        assert header is not None
        work.buffer = self._line.pool.take(pixels.buffer_bytes(header))
        image = pad(pixels.decode(work.data, header, work.buffer), tile_px)
        work.tiling = tile(header.width, header.height, tile_px, self._line.settings.overlap_px)
        seen = visibility.inspect(image, work.tiling.ys, work.tiling.xs, tile_px)
        work.sight = Sight(dark=seen.dark, blurred=seen.blurred, mm_per_px=ground_resolution(header))
        return image


class Inference:
    """The stage that keeps the engine fed with micro-batches across frames and puts the scores back together."""

    def __init__(self, kit: Equipment, line: Line) -> None:
        self._kit = kit
        self._line = line
        self._batcher: Batcher[Spot[Work]] = Batcher(line.settings.batch_tiles, line.settings.max_wait_ms / 1000)
        self._assembler: Assembler[Work] = Assembler(len(kit.judge.rules))

    async def batch(self, group: asyncio.TaskGroup) -> None:
        """Fill batches until all decoders have ended; then flush."""
        ends, source = self._line.settings.decode_threads, self._line.to_infer
        getting = group.create_task(source.get())
        while ends:
            while (batch := self._batcher.full(time.monotonic())) is not None:
                await self._submit(batch)
            # A tail waits only while more tiles are on their way: with none, waiting would be latency for nothing.
            # The read is waited for with a timeout, never cancelled: no frame is lost between the queue and us.
            tail = len(self._batcher) > 0 and self._line.upstream == 0
            await asyncio.wait({getting}, timeout=0 if tail else self._batcher.until_next(time.monotonic()))
            if getting.done():
                if (work := getting.result()) is None:
                    ends -= 1
                else:
                    self._cut(work)
                getting = group.create_task(source.get())
            elif (batch := (self._batcher.flush if tail else self._batcher.due)(time.monotonic())) is not None:
                await self._submit(batch)
        getting.cancel()  # every decoder has said that it is done: nothing can be in the queue
        while (batch := self._batcher.flush(time.monotonic())) is not None:
            await self._submit(batch)
        await self._line.to_collect.put(None)

    async def collect(self) -> None:
        """Take scores in the order of the batches; hand on the frames that they complete.

        Raises:
            Broken: the engine failed, or a score is not finite.
        """
        while (item := await self._line.to_collect.get()) is not None:
            batch, future = item
            try:
                scores = await asyncio.wrap_future(future)
                whole = self._assembler.place(batch.tiles, scores.probabilities)
            except (EngineError, ValueError) as error:
                names = sorted({spot.frame.record.key[:12] for spot in batch.tiles})
                raise Broken(f"the engine failed on frames {', '.join(names)}: {error}") from error
            for work, sheet in whole:
                self._line.to_answer.put_nowait((work, Scored(sheet)))
        self._line.to_answer.put_nowait(None)

    def _cut(self, work: Work) -> None:
        """Queue a frame's tiles; a tile is a place in the image, never a copy."""
        assert work.tiling is not None
        grid = work.tiling.grid
        self._assembler.expect(work, grid.rows, grid.cols)
        spots = (Spot(work, row, col) for row in range(grid.rows) for col in range(grid.cols))
        self._batcher.add(spots, time.monotonic())
        self._line.upstream -= 1

    async def _submit(self, batch: TileBatch[Spot[Work]]) -> None:
        now = time.monotonic()
        tiles = []
        for work, row, col in batch.tiles:
            assert work.photo is not None and work.tiling is not None
            if not work.first_batch:
                work.first_batch = now
                self._kit.journal.enter(work.attempt)
            tiles.append(AdmittedTile(work.photo, int(work.tiling.ys[row]), int(work.tiling.xs[col])))
        metrics = self._kit.metrics
        metrics.batch_tiles.observe(len(tiles))
        metrics.batch_wait_seconds.observe(batch.first_wait_s)
        metrics.batch_released.labels(batch.released).inc()
        await self._line.to_collect.put((batch, self._kit.runner.infer(tiles)))
