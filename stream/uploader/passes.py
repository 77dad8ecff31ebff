"""In which pass a photo must be sent, decided from what the outbox remembers of it."""

from __future__ import annotations

import msgspec

from stream.messages import Frame
from stream.uploader.outbox import Entry


class Elsewhere(Exception):
    """The destination has the photo, as part of another asset or flight."""

    def __init__(self, known: Frame) -> None:
        super().__init__(known)
        self.known = known


def next_pass(latest: Entry | None, wish: Frame, *, correcting: bool = False) -> Frame | None:
    """The frame to send so that the destination has `wish`; None: it has it.

    A frame that was recorded and never acknowledged may have been sent all the same. It goes out again as it was, or,
    if it is to belong elsewhere now, as a correction: two different frames of one pass would be taken for one.

    Args:
        latest: the photo's latest pass.
        wish: the photo as it should be; its `correction` is not looked at.
        correcting: whether an acknowledged frame may be moved.

    Raises:
        Elsewhere: it was acknowledged with another asset or flight, and this is no correction.
    """
    if latest is None:
        return wish
    known = latest.frame
    if (known.asset, known.flight) == (wish.asset, wish.flight):
        return known if latest.acknowledged is None else None
    if latest.acknowledged is not None and not correcting:
        raise Elsewhere(known)
    return msgspec.structs.replace(wish, correction=known.correction + 1)
