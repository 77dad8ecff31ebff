"""Delivery writes a frame's answer: a result from its scores, or a dead-frame record with its bytes kept."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from functools import partial

from stream.errors import BadFrame
from stream.messages import BlobRef, DeadFrame, Result, Timings, encode, envelope
from stream.patience import patiently
from stream.transport.protocol import Message
from stream.worker import intake
from stream.worker.breaker import Breaker
from stream.worker.commit import Committer
from stream.worker.work import TRANSPORT_DEADLINE_S, Equipment, Line, Outcome, Scored, Work

log = logging.getLogger(__name__)


class Delivery:
    """The last stage: answers frames one after another through the committer, and gives back what they held."""

    def __init__(self, kit: Equipment, line: Line, committer: Committer) -> None:
        self._kit = kit
        self._line = line
        self._committer = committer
        self._breaker = Breaker(line.settings.breaker_run, line.settings.breaker_window)

    async def run(self) -> None:
        """Answer until told that nothing more comes.

        Raises:
            BreakerTripped: after the frame that tripped it has been answered and committed.
        """
        while (item := await self._line.to_answer.get()) is not None:
            work, outcome = item
            output = await self._dead(work, outcome) if isinstance(outcome, BadFrame) else self._result(work, outcome)
            answered = await self._committer.answer(work.entry, work.attempt, [output])
            await self._free(work)
            if answered:
                self._count(work, outcome)
                self._breaker.note(dead=isinstance(outcome, BadFrame))

    def _result(self, work: Work, outcome: Scored) -> Message:
        assert work.frame and work.header and work.tiling and work.sight
        now = time.monotonic()
        work.seconds |= {
            "queue": work.first_batch - work.decoded,
            "infer": now - work.first_batch,
            "total": now - work.taken,
        }
        frame = intake.with_facts(work.frame, work.header)
        timings = Timings(**{stage: round(seconds, 4) for stage, seconds in work.seconds.items()})
        result = self._kit.judge.result(frame, work.tiling, outcome.scores, work.sight, timings)
        headers = envelope(Result, result.result_id, self._kit.source, datetime.now(UTC))
        return Message(topic="results", key=frame.asset, value=encode(result), headers=headers)

    async def _dead(self, work: Work, error: BadFrame) -> Message:
        """Keep the bytes, then say why: the record must never name bytes that are not there."""
        kept = await patiently(partial(self._keep, work), deadline_s=TRANSPORT_DEADLINE_S)
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
        if work.photo is not None:
            self._kit.runner.evict(work.photo)
        if work.buffer is not None:
            self._line.pool.give(work.buffer)
        if work.reserved:
            await self._line.budget.release(work.reserved)
        await self._line.open.answered(work)
