"""Ingest takes records from the log and hands on frames: bytes fetched, digest checked, header read, room found."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Executor
from datetime import UTC, datetime
from functools import partial
from math import inf

from stream.errors import BadFrame, BlobMissing
from stream.messages import Frame
from stream.patience import patiently
from stream.photo import pixels
from stream.photo.header import Header, read_header
from stream.transport.protocol import Consumer, Record
from stream.worker import intake
from stream.worker.attempts import POISON_AFTER, SUSPECT_AFTER
from stream.worker.ledger import Ledger
from stream.worker.work import TRANSPORT_DEADLINE_S, Equipment, Line, Work

log = logging.getLogger(__name__)

POLL_S = 0.2
ABSENT_PAUSE_S = 1.0
"""Between two looks for a blob that is not there yet."""
LAG_EVERY_S = 5.0


class Ingest:
    """The first stage; it stops reading when the budget is full, and that is the back-pressure."""

    def __init__(self, kit: Equipment, line: Line, ledger: Ledger, threads: Executor) -> None:
        self._kit = kit
        self._line = line
        self._ledger = ledger
        self._threads = threads

    async def run(self, consumer: Consumer, stop: asyncio.Event) -> None:
        """Take records until `stop` is set."""
        lag_due = 0.0
        while not stop.is_set():
            if time.monotonic() >= lag_due:
                await self._measure_lag(consumer)
                lag_due = time.monotonic() + LAG_EVERY_S
            await self._look_for_absent()
            poll = partial(consumer.poll, max_records=1, timeout_s=POLL_S)
            for record in await patiently(poll, deadline_s=TRANSPORT_DEADLINE_S):
                await self._take(record)

    async def _take(self, record: Record) -> None:
        work = Work(
            record=record,
            entry=self._ledger.open(record.tp, record.offset),
            attempt=intake.attempt_key(record),
            first_try=datetime.now(UTC),
            taken=time.monotonic(),
            data=record.value,
        )
        self._line.open.all.add(work)
        work.crashes = self._kit.journal.crashes(work.attempt)
        if work.crashes >= POISON_AFTER:
            await self._fetch_to_keep(work)
            self._line.give_up(
                work, BadFrame("poison", f"it was worked on in {work.crashes} crashes of a worker, the last time alone")
            )
        else:
            await self._start(work)

    async def _start(self, work: Work) -> None:
        """Admit a frame; one of two crashes is worked on alone, so that a third one names the culprit."""
        if work.crashes < SUSPECT_AFTER:
            await self._admit(work)
            return
        log.warning("suspect frame runs alone frame=%s crashes=%d", work.record.key, work.crashes)
        opened = self._line.open
        await opened.until(lambda: opened.all - opened.absent.keys() == {work})
        await self._admit(work)
        await opened.until(lambda: work not in opened.all or work in opened.absent)

    async def _admit(self, work: Work) -> None:
        """Fetch and check the bytes, wait for room, hand over to the decoders."""
        try:
            work.frame = intake.read_frame(work.record)
            if not await self._fetch(work, work.frame):
                return
            examine = partial(_examine, work.frame, work.data, self._line.settings.max_pixels)
            # Before a byte of it is looked at: if that ends the process, the journal knows the frame.
            self._kit.journal.enter(work.attempt)
            work.header = await asyncio.get_running_loop().run_in_executor(self._threads, examine)
            self._kit.journal.leave(work.attempt)
        except BadFrame as error:
            self._line.give_up(work, error)
            return
        work.seconds["fetch"] = time.monotonic() - work.taken
        size = len(work.data) + pixels.buffer_bytes(work.header)
        self._line.upstream += 1
        await self._line.budget.acquire(size)
        work.reserved = size
        self._line.to_decode.put_nowait(work)

    async def _fetch(self, work: Work, frame: Frame) -> bool:
        """Get the photo's bytes; False: they are absent and looked for again, without holding up the frames behind."""
        if work.data or frame.blob is None:
            return True
        get = partial(self._kit.transport.blobs.get, frame.blob)
        try:
            work.data = await patiently(get, deadline_s=TRANSPORT_DEADLINE_S, final=(BlobMissing,))
        except BlobMissing as error:
            waited = time.monotonic() - work.taken
            if waited >= self._line.settings.blob_deadline_s:
                raise BadFrame("blob_missing", f"{error}; looked for it for {waited:.0f} s") from error
            await self._line.open.miss(work, time.monotonic() + ABSENT_PAUSE_S)
            return False
        return True

    async def _look_for_absent(self) -> None:
        now = time.monotonic()
        absent = self._line.open.absent
        for work in [work for work, due in absent.items() if due <= now]:
            if absent.pop(work, None) is not None:  # else its partition went while the one before was looked for
                await self._start(work)

    async def _fetch_to_keep(self, work: Work) -> None:
        """Bytes of a poisoned frame, to be kept with its dead-frame record; nothing looks into them."""
        try:
            await self._fetch(work, intake.read_frame(work.record))
        except BadFrame as error:
            log.info("poisoned frame has no readable bytes frame=%s error=%s", work.record.key, error)
        self._line.open.absent.pop(work, None)

    async def _measure_lag(self, consumer: Consumer) -> None:
        """Say how far behind each partition is: records of all, and of those held here the age of the oldest."""
        metrics = self._kit.metrics
        lag = partial(self._kit.transport.lag, self._line.settings.group, "frames")
        for partition, records in (await patiently(lag, deadline_s=TRANSPORT_DEADLINE_S)).items():
            metrics.lag_records.labels("frames", partition).set(records)
        metrics.lag_seconds.clear()  # a partition that has gone to another worker is no longer ours to speak of
        oldest = {tp.partition: time.time() for tp in consumer.assignment}
        for work in self._line.open.all:
            oldest[work.record.partition] = min(oldest.get(work.record.partition, inf), work.record.timestamp)
        for partition, accepted in oldest.items():
            metrics.lag_seconds.labels("frames", partition).set(max(0.0, time.time() - accepted))


def _examine(frame: Frame, data: bytes, max_pixels: int) -> Header:
    """In a thread: are these the announced bytes, and what do they say of themselves?"""
    intake.verify(frame, data)
    return read_header(data, max_pixels=max_pixels)
