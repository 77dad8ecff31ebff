"""The worker's one task group: ingest ▸ decode ▸ infer ▸ deliver, joined by queues that a byte budget bounds.

Why nothing is lost is in commit.py; here frames only move along. A frame is in one place at a time: absent (its bytes
have not come), decoding, in the engine, or being answered; `Line.open` holds it from its first byte to its commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from stream.config import WorkerSection
from stream.patience import patiently
from stream.photo.buffers import BufferPool
from stream.transport.protocol import TopicPartition
from stream.worker.budget import ByteBudget
from stream.worker.commit import Committer, Step
from stream.worker.delivery import Delivery
from stream.worker.inference import Decoding, Inference
from stream.worker.ingest import Ingest
from stream.worker.ledger import Ledger
from stream.worker.work import TRANSPORT_DEADLINE_S, Equipment, Line, OpenWork

log = logging.getLogger(__name__)

REVOKE_BUDGET_S = 20.0
"""How long a partition that goes to another worker waits for its open frames; what is not done then is done there."""


class Worker:
    """Answers every frame of its partitions of `frames` with a result or a dead frame.

    It is the transport's `Listener` for its own group.
    """

    def __init__(self, kit: Equipment, settings: WorkerSection, step: Step = lambda _: None) -> None:
        """`step` is called after each numbered step of commit.py; crash tests end the process there."""
        self._kit = kit
        self._ledger = Ledger()
        self._committer = Committer(kit.transport, self._ledger, kit.journal, step)
        budget = ByteBudget(settings.max_inflight_bytes, kit.metrics.inflight_bytes.set)
        # Idle buffers come on top of the budget: enough to reuse one large photo's, too little to matter.
        self._line = Line(settings, OpenWork(), budget, BufferPool(max_idle_bytes=settings.max_inflight_bytes // 4))
        self._failed = False
        self.consuming = False
        """Whether partitions can be taken: what `/readyz` says."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish and commit what is in flight.

        Raises (in an ExceptionGroup):
            Broken, Unavailable: what is not committed is read again after the restart.
        """
        decoders = self._line.settings.decode_threads
        with ThreadPoolExecutor(decoders, thread_name_prefix="decode") as threads:
            decoding, inference = Decoding(self._kit, self._line, threads), Inference(self._kit, self._line)
            delivery = Delivery(self._kit, self._line, self._committer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ingest(Ingest(self._kit, self._line, self._ledger, threads), stop))
                for _ in range(decoders):
                    group.create_task(decoding.run())
                group.create_task(inference.batch(group))
                group.create_task(inference.collect())
                group.create_task(delivery.run())

    async def _ingest(self, ingest: Ingest, stop: asyncio.Event) -> None:
        """Join the group, take records until `stop`, leave the group when what is in flight is answered."""
        join = partial(self._kit.transport.subscribe, self._line.settings.group, ["frames"], self)
        consumer = await patiently(join, deadline_s=TRANSPORT_DEADLINE_S)
        self._committer.consumer = consumer
        self.consuming = True
        try:
            await ingest.run(consumer, stop)
        except BaseException:
            self._failed = True
            raise
        finally:
            self.consuming = False
            await consumer.close()  # waits in `revoked` for what is in flight
        for _ in range(self._line.settings.decode_threads):
            self._line.to_decode.put_nowait(None)

    async def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """See Listener; there is nothing to prepare."""
        log.info("assigned partitions=%s", sorted(tp.partition for tp in partitions))

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish the open frames of these partitions inside one budget, drop the rest; their next owner does them.

        When a stage has failed nothing can be finished any more; the open frames then stay in the attempt journal,
        where the role decides whether they are to blame.
        """
        leaving, opened = set(partitions), self._line.open
        self._let_go_of_absent(leaving)
        if not self._failed:
            try:
                async with asyncio.timeout(REVOKE_BUDGET_S):
                    await opened.until(
                        lambda: not any(w.record.tp in leaving for w in opened.all - opened.absent.keys())
                    )
            except TimeoutError:
                log.warning("revoked with open frames count=%d", self._ledger.open_in(*leaving))
        self._let_go_of_absent(leaving)  # one may have turned out to be absent meanwhile
        await self._committer.hand_over(partitions)
        for work in opened.all:
            if work.record.tp in leaving and not self._failed:
                self._kit.journal.leave(work.attempt)

    def _let_go_of_absent(self, leaving: Set[TopicPartition]) -> None:
        """Frames whose bytes have not come hold nobody up: their next owner looks for them."""
        opened = self._line.open
        for work in [work for work in opened.absent if work.record.tp in leaving]:
            opened.let_go(work)
            self._kit.journal.leave(work.attempt)
