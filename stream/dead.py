"""Dead frames as a person handles them: which there are, which have been answered since, and how one is sent back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from stream.errors import Misuse
from stream.messages import HEADER_FRAME, HEADER_RETRY, DeadFrame, Frame, Result, decode, encode, envelope
from stream.transport.protocol import Message, Transport

State = Literal["dead", "sent back", "answered"]
MIN_PREFIX = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """The latest word on one dead frame."""

    dead: DeadFrame
    state: State
    retries: int
    """How often it has been sent back."""


async def read(transport: Transport) -> list[Entry]:
    """All dead frames that the log still holds, one entry each, oldest first.

    `answered`: a result came after all. `sent back`: a retry is on its way.
    """
    latest: dict[str, DeadFrame] = {}
    async for record in transport.read("dead-frames"):
        dead = decode(record.value, DeadFrame)
        latest[dead.frame_id] = dead
    if not latest:
        return []
    sent: dict[str, int] = {}
    async for record in transport.read("frames"):
        if record.key in latest:
            sent[record.key] = max(sent.get(record.key, 0), _retries(record.headers))
    answered: set[str] = set()
    async for record in transport.read("results"):
        answered.add(decode(record.value, Result).frame.frame_id)
    entries = []
    for frame_id, dead in latest.items():
        retries = max(sent.get(frame_id, 0), _retries(dead.headers))
        on_its_way = retries > _retries(dead.headers)
        state: State = "answered" if frame_id in answered else "sent back" if on_its_way else "dead"
        entries.append(Entry(dead, state, retries))
    return sorted(entries, key=lambda entry: (entry.dead.last_try, entry.dead.frame_id))


def choose(entries: Sequence[Entry], ids: Sequence[str]) -> list[Entry]:
    """The entries whose ids begin with the given digits.

    Raises:
        Misuse: none or several begin so; the message names them.
    """
    chosen = []
    for wanted in ids:
        found = [entry for entry in entries if entry.dead.frame_id.startswith(wanted)]
        if len(wanted) < MIN_PREFIX or len(found) != 1:
            names = ", ".join(entry.dead.frame_id[:12] for entry in found) or "none"
            raise Misuse(f"{wanted!r} must name one dead frame by at least {MIN_PREFIX} digits; it names: {names}")
        chosen += found
    return chosen


async def send_back(transport: Transport, entry: Entry, *, source: str, now: datetime) -> None:
    """Send a dead frame's record again as it was, its bytes now from where they were kept.

    Raises:
        Misuse: no bytes came with it, so there is nothing to try again.
    """
    dead = entry.dead
    if dead.reason == "empty":
        raise Misuse(f"{dead.frame_id[:12]}: no bytes came with it; upload the photo again")
    headers = {name: value for name, value in dead.headers.items() if not name.startswith("ce_")}
    schema = {"ce_type": dead.headers["ce_type"]} if "ce_type" in dead.headers else {}
    headers |= envelope(Frame, dead.frame_id, source, now) | schema | {HEADER_RETRY: str(entry.retries + 1)}
    value = b""
    if dead.inline and dead.blob is not None:
        value = await transport.blobs.get(dead.blob)
    elif dead.blob is not None and dead.frame is not None:
        headers[HEADER_FRAME] = encode(msgspec.structs.replace(dead.frame, blob=dead.blob)).decode()
    await transport.send(Message(topic="frames", key=dead.frame_id, value=value, headers=headers))


def _retries(headers: Mapping[str, str]) -> int:
    text = headers.get(HEADER_RETRY, "0")
    return int(text) if text.isdigit() else 0
