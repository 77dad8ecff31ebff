"""Every record of a partition once, in its order: what is left out between the fetch and the work is noticed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

TRIES = 5
"""How often one and the same record may get lost between fetch and work before that is an error."""


class Hole(Exception):
    """A record is not handed out, though the log has it and it was fetched again; the message says which."""


@dataclass(slots=True)
class _Line:
    """One partition."""

    taken: int
    """The offset after the last record taken."""
    fetched: int
    """The offset after the last record fetched."""
    asked: int | None = None
    """From this offset on records were asked for once more."""
    lost: bool = False
    """Whether what is due was fetched and then thrown away, so that no fetch will bring it by itself."""
    tries: int = 0
    """How often what is due has got lost."""
    bare: dict[int, int] = field(default_factory=dict)
    """Where the log itself has no records: first offset without -> next one with. A transaction's marker is such."""


class Order:
    """What is due next in each partition, at the fetch and at the work. It does no I/O.

    A library that fetches ahead and is interrupted by a rebalance may hand out what it fetched for an assignment that
    is over, or nothing for a stretch. An offset that is missing may also be missing in the log. The two are told apart
    by fetching once more from where the stretch begins: if the same record comes first again, the log has none before.
    What was fetched and did not reach the work is due again, and `lost` says where to fetch it.
    """

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line] = {}

    def begin(self, line: Hashable, offset: int) -> None:
        """A partition is ours, and this offset is the first that is due."""
        self._lines[line] = _Line(taken=offset, fetched=offset)

    def clear(self) -> None:
        """No partition is ours."""
        self._lines.clear()

    def __contains__(self, line: object) -> bool:
        return line in self._lines

    def rewind(self, line: Hashable) -> int:
        """Everything fetched and not taken was thrown away: where to fetch on."""
        known = self._lines[line]
        known.fetched, known.asked, known.lost = known.taken, None, False
        return known.fetched

    def emptied(self) -> None:
        """The queues between fetch and work were emptied; nobody has told the fetch to go back."""
        for line, known in self._lines.items():
            if known.fetched > known.taken:
                self._lose(line)

    def lost(self) -> dict[Hashable, int]:
        """Where to fetch on before anything else, for each partition that has lost something; until that has come."""
        return {line: known.taken for line, known in self._lines.items() if known.lost}

    def _lose(self, line: Hashable) -> None:
        self.rewind(line)
        self._lines[line].lost = True

    def fetched(self, line: Hashable, offsets: Sequence[int]) -> int | None:
        """Look at what one fetch brought, in its order, not empty: None to pass it on, or where to fetch instead."""
        known = self._lines[line]
        first, due = offsets[0], known.fetched
        if first > due and known.asked != due:
            known.asked = due
            return due
        for before, after in zip([due, *(offset + 1 for offset in offsets)], offsets, strict=False):
            if after > before:
                known.bare[before] = after
        known.fetched, known.asked, known.lost = max(due, offsets[-1] + 1), None, False
        return None

    def take(self, line: Hashable, offset: int) -> bool:
        """Whether this record is to be worked off; False: it was already, or its turn has not come, or it is not ours.

        Raises:
            Hole: the record before it has got lost TRIES times.
        """
        known = self._lines.get(line)
        if known is None or offset < known.taken:
            return False
        if offset != known.bare.get(known.taken, known.taken):
            if not known.lost:  # else it comes from the same queue as the one that told of the loss
                known.tries += 1
                if known.tries == TRIES:
                    raise Hole(f"offset {known.taken} was due, {offset} came, {TRIES} times")
                self._lose(line)
            return False
        known.bare.pop(known.taken, None)
        known.taken, known.tries = offset + 1, 0
        return True
