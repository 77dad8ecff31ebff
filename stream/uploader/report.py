"""What an upload is asked for, what it says on the way, and what it says at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from stream.errors import Misuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """What the photos of one upload have in common."""

    asset: str
    """The structure that was photographed."""
    drone: str | None = None
    flight: str | None = None
    """None: each photo's is the name of its folder and the day it was taken, `bridge-3-2024-05-17`."""

    def __post_init__(self) -> None:
        for what, name in (("asset", self.asset), ("drone", self.drone), ("flight", self.flight)):
            if name is not None and (not name.strip() or not name.isprintable()):
                raise Misuse(f"{name!r} is no name for the {what}: write some printable characters")

    def name(self, folder: str, taken: datetime) -> str:
        """The flight of a photo; by its day, so that a card that is used again starts a new flight each day."""
        return self.flight if self.flight is not None else f"{folder}-{taken:%Y-%m-%d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an upload goes about it."""

    in_place: bool = False
    """Send a `file:` reference instead of the bytes: worker and photos share a disk, and the photos stay where they
    are until they are answered."""
    max_bytes_per_s: float = 0.0
    """0: as fast as it goes."""
    deadline_s: float | None = None
    """Seconds of one outage after which it gives up; None: never."""
    settle_s: float = 2.0
    """A watched file is taken when it has not changed for this long."""
    poll_s: float = 1.0
    """Between two looks at watched folders."""
    again: bool = False
    """Send also what the destination has acknowledged before; a repeat changes nothing there."""
    recheck_s: float = 7 * 24 * 3600.0
    """A photo acknowledged less long ago is looked up at the destination, and sent again if it is gone: somebody has
    started a new log there. Older ones may have been cleared away after their answer; the outbox is believed."""
    source: str = "uploader"
    """`ce_source` of what is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One event on the way; what has been sent, found there or refused counts as done."""

    done_files: int
    total_files: int
    done_bytes: int
    total_bytes: int
    current: str | None = None
    """The photo being sent."""
    waiting: str | None = None
    """What it waits for, one sentence; None: nothing."""
    away_s: float | None = None
    """For how long the destination has been away, if that is what it waits for; 0: it has come back."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A photo whose record the destination has acknowledged during this call."""

    path: str
    frame_id: str
    flight: str
    size_bytes: int
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was not sent, and why; the sentence says what to do."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How an upload ended; every file found is in exactly one of the four."""

    sent: tuple[Sent, ...] = ()
    already_there: tuple[str, ...] = ()
    """Paths whose content the destination had acknowledged before, under this or another name."""
    refused: tuple[Refused, ...] = ()
    left: tuple[str, ...] = ()
    """Not begun, because it was told to stop; the same call goes on with them."""

    @staticmethod
    def of(parts: Iterable[Report]) -> Report:
        """One report of several, in their order."""
        parts = list(parts)
        return Report(
            sent=tuple(chain.from_iterable(part.sent for part in parts)),
            already_there=tuple(chain.from_iterable(part.already_there for part in parts)),
            refused=tuple(chain.from_iterable(part.refused for part in parts)),
            left=tuple(chain.from_iterable(part.left for part in parts)),
        )


def span(seconds: float) -> str:
    """A length of time as a person says it: `40 s`, `12 min`, `2 h 5 min`."""
    minutes = int(seconds) // 60
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
