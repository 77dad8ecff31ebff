"""The one place that commits: outputs first, then the ledger, then the offset; read here why no frame is lost.

Promise 2, in the numbers used below:

    (1) every output of the frame (its result, or its dead-frame record) is acknowledged by the transport
    (2) the frame is closed in the ledger, and its attempt in the journal
    (3) the offset of the contiguous finished head of its partition is committed

A crash before (1) repeats the frame. A crash between (1) and (3) repeats it too, and writes the same ids again, which
changes nothing for a reader. No crash loses it, because (3) never runs ahead of (1), and never past an open frame.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from stream.errors import PartitionLost
from stream.patience import patiently
from stream.transport.protocol import Consumer, Message, TopicPartition, Transport
from stream.worker.attempts import AttemptJournal
from stream.worker.ledger import Entry, Ledger

log = logging.getLogger(__name__)

OUTPUT_DEADLINE_S = 120.0
"""How long an output is offered again before the worker stops and the supervisor takes over."""

Step = Callable[[int], None]
"""Called with 1, 2 or 3 right after that step; crash tests end the process there."""


class Committer:
    """Answers frames in the order of promise 2."""

    def __init__(
        self, transport: Transport, ledger: Ledger, journal: AttemptJournal, step: Step = lambda _: None
    ) -> None:
        self._transport = transport
        self._ledger = ledger
        self._journal = journal
        self._step = step
        self._closing = asyncio.Lock()
        self.consumer: Consumer | None = None
        """Set once the group has been joined."""

    async def answer(self, entry: Entry, attempt: str, outputs: Sequence[Message]) -> bool:
        """Write a frame's outputs and commit what that allows; False: its partition has gone to another worker.

        Args:
            attempt: the frame's key in the attempt journal.

        Raises:
            Unavailable: the transport stayed away past the deadline.
            Broken: the transport refuses an output.
        """
        if not self._ledger.holds(entry):
            return False
        # (1) outputs acknowledged by the transport
        for output in outputs:
            await patiently(partial(self._transport.send, output), deadline_s=OUTPUT_DEADLINE_S)
        self._step(1)
        async with self._closing:
            # (2) frame closed in the ledger; a partition revoked meanwhile is not ours to close or commit
            if not self._ledger.holds(entry):
                return False
            moved = self._ledger.close(entry)
            self._journal.finish(attempt)
            self._step(2)
            # (3) offset of the contiguous finished head committed
            try:
                if moved:
                    await self._commit_head(entry.tp)
            except PartitionLost as error:
                # The group has gone on without us (a long outage, a suspended machine): the next owner reads it again.
                log.warning(
                    "partition lost, dropping its frames open=%d error=%s", self._ledger.open_in(entry.tp), error
                )
                self._ledger.drop(entry.tp)
                return False
            self._step(3)
        return True

    async def hand_over(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget partitions that go to another worker; an answer between (2) and (3) gets its commit first."""
        async with self._closing:
            for tp in partitions:
                self._ledger.drop(tp)

    async def _commit_head(self, tp: TopicPartition) -> None:
        head = self._ledger.head(tp)
        if head is None or self.consumer is None:
            raise AssertionError("a frame was closed before the group was joined")
        await patiently(partial(self.consumer.commit, {tp: head}), deadline_s=OUTPUT_DEADLINE_S)
