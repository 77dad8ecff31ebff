"""One photo's way to the transport, in an order of writes that loses nothing, through any outage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from stream.errors import Unavailable
from stream.messages import HEADER_FRAME, BlobRef, Frame, RecordPosition, encode, envelope
from stream.patience import patiently
from stream.transport.protocol import Message, Transport
from stream.uploader import scan
from stream.uploader.destination import Destination
from stream.uploader.outbox import Entry, Outbox
from stream.uploader.pace import Pace
from stream.uploader.report import Options, Sent, span
from stream.uploader.scan import Changed, Found, readable

T = TypeVar("T")


OnWait = Callable[[str | None, float | None], None]
"""Hears what it waits for, or None, and `Progress.away_s`."""


class Stopped(Exception):
    """It was told to stop while it waited."""


class Delivery:
    """Delivers frames to one destination.

    The order of writes:
      (1) the photo is hashed and recorded in the outbox;
      (2) its bytes are acknowledged by the blob store (or travel inside the record of step 3, or stay in place);
      (3) its frame record is acknowledged by the transport;
      (4) the outbox marks it.
    Killed anywhere before (4), the next run starts again at (1), and every step may be repeated: the same record, the
    same blob. A death between (3) and (4) puts the same frame into the log twice, with the same frame_id and
    correction, which is harmless: the ids of all that follows come from those two.
    """

    def __init__(self, to: Destination, outbox: Outbox, options: Options, on_wait: OnWait) -> None:
        self.destination = to.name
        self._to = to
        self._outbox = outbox
        self._options = options
        self._on_wait = on_wait
        self._pace = Pace(options.max_bytes_per_s, now=time.monotonic()) if options.max_bytes_per_s else None
        self._stopped = asyncio.Event()
        self._pause: asyncio.Timeout | None = None

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """End every wait; what is being sent is sent to its end. Call it from the event loop's thread."""
        self._stopped.set()
        if self._pause is not None:
            self._pause.reschedule(asyncio.get_running_loop().time())

    async def deliver(self, frame: Frame, found: Found) -> Sent:
        """Bring one frame to its acknowledgement.

        Raises:
            Changed: the file is not what was hashed; nothing was sent that names it.
            Stopped: `stop` was called during an outage or a pause.
            Unavailable: the transport was away for longer than the deadline.
            Unreadable: the file cannot be read (any more).
        """
        frame = self._outbox.recorded(self.destination, frame, found.path)  # (1)
        if self._pace is not None and not self._options.in_place:
            await self.rest(self._pace.wait_s(time.monotonic()), "the bandwidth limit")
            self._pace.sent(found.size, time.monotonic())
        # An outage between (2) and (3) begins again at (2): the store that comes back need not be the one that took the
        # bytes, say when they fell into the empty folder that a disk is to be mounted on. Known bytes are not copied.
        frame, where = await self.insist(lambda: self._attempt(frame, found))
        self._outbox.acknowledged(self.destination, frame, where, datetime.now(UTC))  # (4)
        return Sent(
            readable(found.path),
            frame.frame_id,
            frame.flight,
            found.size,
            partition=where.partition,
            offset=where.offset,
        )

    async def _attempt(self, frame: Frame, found: Found) -> tuple[Frame, RecordPosition]:
        transport = await self._to.transport()
        frame, value = await self._payload(transport, frame, found)  # (2)
        headers = envelope(Frame, frame.frame_id, self._options.source, datetime.now(UTC))
        headers[HEADER_FRAME] = encode(frame).decode()
        message = Message(topic="frames", key=frame.frame_id, value=value, headers=headers)
        tp, offset = await transport.send(message)  # (3)
        return frame, RecordPosition(topic=tp.topic, partition=tp.partition, offset=offset)

    async def _payload(self, transport: Transport, frame: Frame, found: Found) -> tuple[Frame, bytes]:
        """The frame with the name of its bytes, or the bytes to send inline."""
        if frame.blob is not None and _stored(frame.blob) and await transport.blobs.exists(frame.frame_id):
            return frame, b""
        if self._options.in_place or (frame.blob is not None and not _stored(frame.blob)):
            if scan.find(found.path).state != found.state:
                raise Changed
            ref = BlobRef(sha256=frame.frame_id, size_bytes=found.size, url=found.path.as_uri())
            return msgspec.structs.replace(frame, blob=ref), b""
        if found.size > transport.max_inline_bytes:
            ref = await self._put(transport, found)
            if ref.sha256 != frame.frame_id:
                raise Changed
            return msgspec.structs.replace(frame, blob=ref), b""
        data = await asyncio.to_thread(scan.read, found, frame.frame_id)
        return msgspec.structs.replace(frame, blob=None), data

    async def _put(self, transport: Transport, found: Found) -> BlobRef:
        try:
            return await transport.blobs.put(found.path)
        except (OSError, Unavailable):
            # No patience with a card that was pulled out or has gone bad: reading it once more raises what it is.
            await asyncio.to_thread(scan.digest, found)
            raise

    async def has(self, frame: Frame) -> bool:
        """Whether the destination has the frame's bytes in its blob store."""
        if frame.blob is None or not _stored(frame.blob):
            return False
        return await self.insist(lambda: self._holds(frame.frame_id))

    async def _holds(self, sha256: str) -> bool:
        transport = await self._to.transport()
        return await transport.blobs.exists(sha256)

    async def keeps(self, entry: Entry) -> bool:
        """Whether an acknowledged frame is still where it was sent to, as far as that can be told."""
        if entry.sent_at is None or entry.frame.blob is None or not _stored(entry.frame.blob):
            return True
        age = datetime.now(UTC) - entry.sent_at
        return age.total_seconds() > self._options.recheck_s or await self.has(entry.frame)

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await a call through any outage."""
        begun, away_s = time.monotonic(), 0.0

        async def attempt() -> T:
            self._pause = None
            return await call()

        def pausing(error: BaseException, pause_s: float) -> None:
            nonlocal away_s
            away_s = time.monotonic() - begun
            so_far = f", for {span(away_s)} so far" if away_s >= 1 else ""
            self._on_wait(f"{self.destination}{so_far} (next try in {pause_s:.0f} s): {error}", away_s)
            self._pause = until
            if self.stopped:
                self.stop()

        try:
            async with asyncio.timeout(None) as until:
                answer = await patiently(attempt, deadline_s=self._options.deadline_s, on_wait=pausing)
        except TimeoutError:
            if until.expired():
                raise Stopped from None
            raise
        else:
            if away_s:
                self._on_wait(None, 0.0)
        finally:
            self._pause = None
            self._on_wait(None, None)
        return answer

    async def rest(self, pause_s: float, why: str | None) -> None:
        """Wait, unless it is told to stop."""
        if pause_s > 0:
            self._on_wait(why, None)
            try:
                await asyncio.wait_for(self._stopped.wait(), pause_s)
            except TimeoutError:
                self._on_wait(None, None)
            else:
                raise Stopped


def _stored(blob: BlobRef) -> bool:
    """In the transport's own store, and not a file somewhere."""
    return blob.url.startswith("blob:")
