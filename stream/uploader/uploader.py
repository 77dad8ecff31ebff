"""The drone's side as a class: photos in, acknowledged frames out, with a report; `spanwatch upload` only wires it."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from stream.errors import Misuse, SpanwatchError
from stream.messages import Frame, PhotoFacts
from stream.transport.protocol import Transport
from stream.uploader import scan
from stream.uploader.delivery import Delivery, Stopped
from stream.uploader.destination import Destination
from stream.uploader.outbox import Entry, Outbox
from stream.uploader.passes import Elsewhere, next_pass
from stream.uploader.report import Flight, Options, Progress, Refused, Report
from stream.uploader.scan import Changed, Found, Photo, Unreadable, readable
from stream.uploader.settle import Watch

_TRIES_AT_A_CHANGING_FILE = 5


class Uploader:
    """Sends photos to a transport, each once, and never changes or deletes one.

    An upload that was cancelled, killed or cut off goes on with the next call: what was acknowledged is in the outbox.
    `Delivery` says in which order it writes, and what a death in between leaves. One call at a time.

    >>> import asyncio, tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from stream.config import Config
    >>> from stream.transport import open_transport
    >>> from stream.uploader import Flight, Outbox, Uploader
    >>> async def ground_station(folder: Path) -> None:
    ...     Image.new("RGB", (64, 48)).save(folder / "pier.jpg")
    ...     transport = await open_transport(Config(transport=f"local:{folder}/log"))
    ...     with Outbox(folder / "outbox.sqlite") as outbox:
    ...         uploader = Uploader(transport, outbox, Flight(asset="bridge-3", drone="M3E", flight="monday"))
    ...         first = await uploader.upload([folder / "pier.jpg"])
    ...         again = await uploader.upload([folder / "pier.jpg"])
    ...     await transport.close()
    ...     print(len(first.sent), len(again.sent), len(again.already_there))
    >>> with tempfile.TemporaryDirectory() as name:
    ...     asyncio.run(ground_station(Path(name)))
    1 0 1
    """

    def __init__(
        self,
        to: Transport | Destination,
        outbox: Outbox,
        flight: Flight,
        options: Options | None = None,
        on_progress: Callable[[Progress], None] = lambda event: None,
    ) -> None:
        """
        Args:
            to: opened by the caller, or a `Destination`, which may be away yet; the caller closes it.
            on_progress: called from the event loop, often; it should return at once.
        """
        destination = to if isinstance(to, Destination) else Destination.of(to)
        self._outbox = outbox
        self._flight = flight
        self._options = options or Options()
        self._on_progress = on_progress
        self._delivery = Delivery(destination, outbox, self._options, self._waiting)
        self._parts: list[Report] = []
        self._progress = Progress(done_files=0, total_files=0, done_bytes=0, total_bytes=0)

    @property
    def destination(self) -> str:
        """The transport's URL, as the outbox knows it."""
        return self._delivery.destination

    @property
    def report(self) -> Report:
        """Everything since it was made; also what a call that raised had done before."""
        return Report.of(self._parts)

    def stop(self) -> None:
        """Stop after the photo that is being sent; at once while it waits. Call it from the event loop's thread."""
        self._delivery.stop()

    async def upload(self, paths: Sequence[Path]) -> Report:
        """Send all photos under the paths: folders in depth, hidden files left out, numbered by the time of capture.

        Raises:
            Unavailable: the transport was away for longer than `deadline_s`.
            Broken: the outbox cannot be written.
        """
        begin = len(self._parts)
        await self._take(await asyncio.to_thread(lambda: list(scan.walk(paths))))
        return Report.of(self._parts[begin:])

    async def watch(self, paths: Sequence[Path]) -> Report:
        """Send what comes to lie under the paths, each file once it has settled, until `stop` is called.

        A path that is not there is waited for: a card that is yet to be put in. Raises as `upload` does.
        """
        begin = len(self._parts)
        watch = Watch(paths, self._options.settle_s)
        while not self._delivery.stopped:
            await self._take(await asyncio.to_thread(watch.look, time.monotonic()))
            missing = ", ".join(readable(path) for path in watch.missing)
            with contextlib.suppress(Stopped):
                await self._delivery.rest(self._options.poll_s, f"{missing} to appear" if missing else "new photos")
        return Report.of(self._parts[begin:])

    async def correct(self, flight: str) -> Report:
        """Move a flight that was sent: every frame goes out once more as this uploader's asset (and flight, and drone).

        The bytes are not sent again where the destination still has them; else they are read where they were last.

        Raises:
            Misuse: the destination has acknowledged no such flight.
        """
        entries = self._outbox.flight(self.destination, flight)
        if not entries:
            raise Misuse(self._no_flight(flight))
        begin = len(self._parts)
        self._expect([entry.frame.size_bytes or 0 for entry in entries])
        for entry in entries:
            await self._attempt(entry.path, entry.frame.size_bytes or 0, partial(self._correct, entry))
        return Report.of(self._parts[begin:])

    async def _take(self, items: Sequence[Found | Refused]) -> None:
        self._expect([item.size if isinstance(item, Found) else 0 for item in items])
        photos: list[Photo] = []
        for item in items:
            if isinstance(item, Refused):
                self._done(Report(refused=(item,)), 0)
            elif (looked := await self._survey(item)) is not None:
                photos.append(looked)
        # A stable sort: photos of the same second stay in name order.
        for photo in sorted(photos, key=lambda photo: photo.taken):
            await self._attempt(photo.found.path, photo.found.size, partial(self._send, photo))

    async def _survey(self, found: Found) -> Photo | None:
        """The photo, if there is anything to send; what the outbox knows at this path is not even opened."""
        name = readable(found.path)
        sha256 = self._outbox.sha256_at(found.path, *found.state)
        latest = self._latest(sha256) if sha256 is not None else None
        try:
            if latest is not None and await self._is_there(latest):
                self._done(Report(already_there=(name,)), found.size)
                return None
        except Stopped:
            self._done(Report(left=(name,)), found.size)
            return None
        looked = await asyncio.to_thread(scan.look, found)
        if isinstance(looked, Photo):
            return looked
        self._done(Report(refused=(looked,)), found.size)
        return None

    async def _is_there(self, latest: Entry) -> bool:
        """Whether the destination has acknowledged this frame as what it should be, and still has it."""
        if latest.acknowledged is None or self._options.again:
            return False
        same = latest.frame.asset == self._flight.asset and self._flight.flight in (None, latest.frame.flight)
        return same and await self._delivery.keeps(latest)

    async def _send(self, photo: Photo) -> Report:
        name = readable(photo.found.path)
        for _ in range(_TRIES_AT_A_CHANGING_FILE):
            try:
                return await self._send_as_found(photo)
            except Elsewhere as error:
                return Report(refused=(Refused(name, self._how_to_move(error.known)),))
            except Changed:
                looked = await asyncio.to_thread(_look_again, photo)
                if isinstance(looked, Refused):
                    return Report(refused=(looked,))
                photo = looked
        return Report(refused=(Refused(name, "it keeps changing: upload it when it has been written to its end"),))

    async def _send_as_found(self, photo: Photo) -> Report:
        sha256 = await self._digest(photo.found)
        latest = self._latest(sha256)
        frame = next_pass(latest, self._frame(photo, sha256, latest))
        if frame is None and latest is not None and not await self._is_there(latest):
            frame = msgspec.structs.replace(latest.frame, blob=None)
        if frame is None:
            return Report(already_there=(readable(photo.found.path),))
        return Report(sent=(await self._delivery.deliver(frame, photo.found),))

    async def _correct(self, entry: Entry) -> Report:
        """`entry` is the frame's latest acknowledged pass; a later one may have been begun."""
        name = readable(entry.path)
        sender = self._flight
        wish = msgspec.structs.replace(
            entry.frame,
            asset=sender.asset,
            flight=entry.frame.flight if sender.flight is None else sender.flight,
            drone=entry.frame.drone if sender.drone is None else sender.drone,
        )
        frame = next_pass(self._latest(entry.frame.frame_id), wish, correcting=True)
        if frame is None:
            return Report(already_there=(name,))
        found = Found(entry.path, entry.path.parent.name, entry.frame.size_bytes or 0, 0)
        try:
            if not await self._delivery.has(frame):
                found = scan.find(entry.path)
                if await self._digest(found) != frame.frame_id:
                    raise Changed
            return Report(sent=(await self._delivery.deliver(frame, found),))
        except Changed:
            return Report(refused=(Refused(name, "another photo lies there now: bring the one of this flight back"),))

    def _latest(self, sha256: str) -> Entry | None:
        return self._outbox.latest(self.destination, sha256)

    async def _digest(self, found: Found) -> str:
        sha256 = self._outbox.sha256_at(found.path, *found.state)
        if sha256 is None:
            sha256 = await asyncio.to_thread(scan.digest, found)
            self._outbox.hashed(found.path, *found.state, sha256)
        return sha256

    def _frame(self, photo: Photo, sha256: str, latest: Entry | None) -> Frame:
        """The photo as it should be sent; without a flight of its own to ask for, it stays in the one it is in."""
        found, header = photo.found, photo.header
        flight = self._flight.name(found.folder, photo.taken)
        if self._flight.flight is None and latest is not None:
            flight = latest.frame.flight
        return Frame(
            frame_id=sha256,
            asset=self._flight.asset,
            drone=self._flight.drone if self._flight.drone is not None else "unknown",
            flight=flight,
            name=readable(Path(found.path.name)),
            size_bytes=found.size,
            captured_at=header.captured_at if header is not None else None,
            width=header.width if header is not None else None,
            height=header.height if header is not None else None,
            position=header.position if header is not None else None,
            photo=header.facts if header is not None else PhotoFacts(),
        )

    def _how_to_move(self, known: Frame) -> str:
        wanted = f"--asset {shlex.quote(self._flight.asset)}"
        if self._flight.flight is not None:
            wanted += f" --flight {shlex.quote(self._flight.flight)}"
        return (
            f"already there as asset {known.asset!r} of flight {known.flight!r};"
            f" to move that flight: spanwatch upload correct {shlex.quote(known.flight)} {wanted}"
        )

    def _no_flight(self, flight: str) -> str:
        known = self._outbox.flights(self.destination)
        listed = f"it knows {', '.join(known[:10])}" if known else "it knows none"
        return f"nothing has been sent as flight {flight!r} to {self.destination} from this outbox; {listed}"

    async def _attempt(self, path: Path, size_bytes: int, step: Callable[[], Awaitable[Report]]) -> None:
        """One photo, whatever becomes of it."""
        name = readable(path)
        outcome = Report(left=(name,))
        if not self._delivery.stopped:
            self._say(current=name)
            try:
                outcome = await step()
            except Unreadable as error:
                outcome = Report(refused=(Refused(name, str(error)),))
            except Stopped:
                pass  # it is left, and the next upload begins with it
            except SpanwatchError:
                self._done(outcome, size_bytes)  # it is left as well, and the caller hears why
                raise
        self._done(outcome, size_bytes)

    def _expect(self, sizes: Sequence[int]) -> None:
        seen = self._progress
        self._progress = replace(
            seen, total_files=seen.total_files + len(sizes), total_bytes=seen.total_bytes + sum(sizes)
        )

    def _done(self, outcome: Report, size_bytes: int) -> None:
        self._parts.append(outcome)
        seen = self._progress
        self._say(current=None, done_files=seen.done_files + 1, done_bytes=seen.done_bytes + size_bytes)

    def _waiting(self, reason: str | None, away_s: float | None) -> None:
        self._say(waiting=reason, away_s=away_s)

    def _say(self, **change: Any) -> None:
        self._progress = replace(self._progress, **change)
        self._on_progress(self._progress)


def _look_again(photo: Photo) -> Photo | Refused:
    return scan.look(replace(scan.find(photo.found.path), folder=photo.found.folder))
