"""Every error says what happens next: there are three branches, one per answer, and one for a call that never began.

SpanwatchError
├── BadFrame       this frame cannot be answered: dead-letter it with its reason, go on with the next
├── Unavailable    something outside is away: retry with jittered back-off inside one deadline, then let it rise
│   ├── DiskLow        uploads are refused before a full disk hurts what is already accepted
│   └── BlobMissing    the record is there and its bytes are not (yet)
├── Broken         this process can no longer be trusted: stop; the supervisor restarts, uncommitted work is read again
│   ├── BreakerTripped too many dead frames: the fault is not in the frames
│   ├── Rejected       the broker understands and will not: a login, a right, a size; an operator has to act
│   └── PartitionLost  the group has given the partition to another member: drop its work, commit nothing, go on
└── Misuse         the command, the configuration or the call is wrong; nothing was begun
"""

from __future__ import annotations

from typing import Literal

DeadReason = Literal[
    "empty",  # no bytes at all
    "not_a_photo",  # no decoder knows these bytes
    "video",  # a moving picture; cut it into stills first
    "truncated",  # the file ends before the picture does
    "corrupt",  # the decoder warned or failed
    "too_large",  # more pixels than the limit
    "sha256_mismatch",  # the bytes are not the ones that were announced
    "blob_missing",  # the bytes never came within the deadline
    "bad_header",  # the frame header is not a Frame
    "unknown_schema",  # written by a newer major version
    "poison",  # it brought the process down more often than chance allows
]


class SpanwatchError(Exception):
    """The root: anything this project raises on purpose."""


class BadFrame(SpanwatchError):
    """This frame cannot be answered with a result; `reason` is for counting, the message is for a person."""

    def __init__(self, reason: DeadReason, message: str) -> None:
        super().__init__(message)
        self.reason: DeadReason = reason


class Unavailable(SpanwatchError):
    """Something outside this process is away; the same call may succeed later."""


class DiskLow(Unavailable):
    """The disk of the log is nearly full; free some or run `spanwatch gc`."""


class BlobMissing(Unavailable):
    """A record names bytes that the blob store does not have."""


class Broken(SpanwatchError):
    """This process must stop; what it has not committed is read again after the restart."""


class BreakerTripped(Broken):
    """Dead frames came so thick that the frames cannot be at fault."""


class Rejected(Broken):
    """The broker understands and will not have it: the login, a right, a record's size. No frame is at fault."""


class PartitionLost(Broken):
    """The partition is not held (any longer): what was not committed is the next owner's, and no frame is at fault."""


class Misuse(SpanwatchError, ValueError):
    """The command, configuration or call is wrong; the message says what to write instead."""
