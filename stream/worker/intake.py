"""Intake turns a record into a frame and its verified bytes, or says why it cannot."""

from __future__ import annotations

import hashlib
from datetime import datetime

import msgspec

from stream.errors import BadFrame, DeadReason
from stream.messages import (
    HEADER_FRAME,
    HEADER_RETRY,
    BlobRef,
    DeadFrame,
    Frame,
    RecordPosition,
    check_version,
    decode,
)
from stream.photo.header import Header
from stream.transport.protocol import Record


def read_frame(record: Record) -> Frame:
    """Read the Frame from the record's header.

    Raises:
        BadFrame: `unknown_schema` or `bad_header`.
    """
    check_version(record.headers)
    text = record.headers.get(HEADER_FRAME)
    if text is None:
        raise BadFrame("bad_header", f"the record has no header {HEADER_FRAME!r}: it holds the Frame as JSON")
    try:
        frame = decode(text, Frame)
    except msgspec.DecodeError as error:
        raise BadFrame("bad_header", f"the header {HEADER_FRAME!r} is not a Frame: {error}") from error
    if not frame.asset or not frame.frame_id:
        raise BadFrame("bad_header", "frame_id and asset must not be empty")
    if not record.value and frame.blob is None:
        raise BadFrame("empty", "the record carries no bytes and names no blob")
    return frame


def verify(frame: Frame, data: bytes) -> None:
    """Compare the bytes with what was announced.

    Raises:
        BadFrame: `empty` or `sha256_mismatch`.
    """
    if not data:
        raise BadFrame("empty", "the file has no bytes; copy it from the card again")
    found = hashlib.sha256(data).hexdigest()
    if found != frame.frame_id:
        raise BadFrame(
            "sha256_mismatch",
            f"announced {frame.frame_id[:12]}…, got {found[:12]}… ({len(data)} bytes): the photo changed on its way",
        )


def attempt_key(record: Record) -> str:
    """What the attempt journal knows the frame by: a person's retry starts its count anew."""
    return f"{record.key}/{record.headers.get(HEADER_RETRY, '0')}"


def with_facts(frame: Frame, header: Header) -> Frame:
    """The frame, with what its photo says of itself; what the producer said of time and place stands if it does not."""
    return msgspec.structs.replace(
        frame,
        width=header.width,
        height=header.height,
        captured_at=header.captured_at or frame.captured_at,
        position=header.position or frame.position,
        photo=header.facts,
    )


def named_blob(record: Record) -> BlobRef | None:
    """The blob that a record names, if its header can be read at all."""
    frame = _frame_or_none(record)
    return frame.blob if frame is not None else None


def dead_frame(
    record: Record, reason: DeadReason, detail: str, kept: BlobRef | None, times: tuple[datetime, datetime]
) -> DeadFrame:
    """Describe a frame that gets no result; `times` are its first and last try."""
    frame = _frame_or_none(record)  # if it cannot be read, the headers below keep it as it came
    return DeadFrame(
        frame_id=frame.frame_id if frame else record.key,
        position=RecordPosition(topic=record.topic, partition=record.partition, offset=record.offset),
        reason=reason,
        detail=detail,
        sha256=kept.sha256 if kept else None,
        blob=kept,
        headers=dict(record.headers),
        inline=bool(record.value),
        first_try=times[0],
        last_try=times[1],
        frame=frame,
    )


def _frame_or_none(record: Record) -> Frame | None:
    try:
        return decode(record.headers[HEADER_FRAME], Frame)
    except (KeyError, msgspec.DecodeError):
        return None
