"""Every noun that crosses a topic: one definition is the type, the JSON on the wire and the JSON Schema.

All are frozen. Ids come from content, so saying a thing twice changes nothing. Pixels never cross a topic:
a photo is named by the SHA-256 of its bytes and travels inline or as a `BlobRef`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Literal, TypeVar

import msgspec

from stream.errors import BadFrame, DeadReason

TOPICS = ("frames", "results", "alerts", "decisions", "dead-frames")
"""The topics this version writes. `results`, `alerts` and `decisions` have equal partition counts."""

SCHEMA_VERSION = "1.0"
"""Major.minor, carried in `ce_type`: a newer minor is read, a newer major is refused."""

HEADER_FRAME = "frame"
"""The header of a `frames` record that holds the Frame as JSON."""
HEADER_RETRY = "retry"
"""How often a person has sent this dead frame back; its attempts are counted anew each time."""


class Noun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all that is written to a topic: unknown fields of a newer minor version are ignored when read."""


N = TypeVar("N", bound=Noun)


class Position(Noun, frozen=True, kw_only=True):
    """Where the camera was: WGS 84."""

    latitude_deg: float
    longitude_deg: float
    altitude_m: float | None = None
    """Above the ellipsoid or mean sea level, as the camera wrote it."""


class PhotoFacts(Noun, frozen=True, kw_only=True):
    """What a photo says of itself, read from its header before any decode."""

    format: str | None = None
    """JPEG, PNG, TIFF … as the decoder names it."""
    make: str | None = None
    model: str | None = None
    orientation: int = 1
    """EXIF 1 to 8. Width and height of a Frame are those after it has been applied."""
    focal_length_mm: float | None = None
    focal_length_35mm: float | None = None
    relative_altitude_m: float | None = None
    """DJI XMP: height above the take-off point."""
    gimbal_yaw_deg: float | None = None
    gimbal_pitch_deg: float | None = None
    gimbal_roll_deg: float | None = None


class BlobRef(Noun, frozen=True, kw_only=True):
    """The name of bytes that lie elsewhere."""

    sha256: str
    size_bytes: int
    url: str
    """`blob:SHA256` in the transport's blob store, or `file:///…` for a photo referred to in place."""


class Frame(Noun, frozen=True, kw_only=True):
    """One photo of one flight. A producer fills the first block; the worker reads the rest from the photo itself."""

    frame_id: str
    """SHA-256 of the photo's bytes, hexadecimal."""
    asset: str
    """The structure that was photographed."""
    drone: str = "unknown"
    flight: str = "unknown"
    name: str | None = None
    """The file's name, for people."""
    sequence: int | None = None
    size_bytes: int | None = None
    blob: BlobRef | None = None
    """Absent when the bytes travel inline as the record's value."""
    correction: int = 0
    """The pass: counts a frame's corrections (another asset, another flight); part of the result's id."""

    captured_at: datetime | None = None
    width: int | None = None
    height: int | None = None
    position: Position | None = None
    photo: PhotoFacts = PhotoFacts()


class Grid(Noun, frozen=True, kw_only=True):
    """How a frame was cut: `rows` x `cols` whole tiles of `tile_px`, the last row and column snapped to the border."""

    tile_px: int
    overlap_px: int
    rows: int
    cols: int
    width: int
    height: int
    padded: bool = False
    """The photo is smaller than a tile in some direction and was padded with its own border."""


class Region(Noun, frozen=True, kw_only=True):
    """A connected set of tiles that show one defect."""

    defect: str
    score: float
    """The highest calibrated probability among its tiles."""
    cell: tuple[int, int]
    """Row and column of that tile: the region's identity inside its frame."""
    polygon: tuple[tuple[int, int], ...]
    """Outline in frame pixels as (x, y), clockwise on the screen, not closed; inside the frame."""
    tiles: int
    size_mm: float | None = None
    """Longest side of the bounding box, if the ground resolution is known."""


class NotInspectable(Noun, frozen=True, kw_only=True):
    """Tiles that say nothing about a defect; they are not clean."""

    defect: str
    reason: Literal["untrained", "blurred", "dark", "coarse"]
    tiles: tuple[int, ...] = ()
    """Row-major indices; empty means the whole frame."""


class Timings(Noun, frozen=True, kw_only=True):
    """Where the time of one attempt went, in seconds."""

    fetch: float = 0.0
    decode: float = 0.0
    queue: float = 0.0
    infer: float = 0.0
    total: float = 0.0


class Result(Noun, frozen=True, kw_only=True):
    """What one release says of one frame. Written once per frame; a repeat has the same `result_id`."""

    result_id: str
    frame: Frame
    grid: Grid
    classes: tuple[str, ...]
    scores: tuple[tuple[tuple[float, ...], ...], ...]
    """[rows][cols][classes], calibrated probabilities in the order of `classes`, four decimals."""
    regions: tuple[Region, ...]
    inspectable: float
    """Share of (tile, class) pairs that could be judged, untrained classes left out."""
    not_inspectable: tuple[NotInspectable, ...] = ()
    release: str
    precision: str
    mm_per_px: float | None = None
    timings: Timings = Timings()


AlertState = Literal["open", "acknowledged", "confirmed", "dismissed", "closed"]
Verb = Literal["ack", "confirm", "dismiss", "reopen"]
Severity = Literal["low", "medium", "high"]


class Evidence(Noun, frozen=True, kw_only=True):
    """One result's support for an alert."""

    result_id: str
    frame_id: str
    name: str | None
    captured_at: datetime | None
    release: str
    score: float
    regions: tuple[Region, ...]


class Change(Noun, frozen=True, kw_only=True):
    """One step of an alert's history, by a person."""

    decision_id: str
    what: Verb
    who: str
    when: datetime
    why: str | None = None


class Alert(Noun, frozen=True, kw_only=True):
    """The whole latest state of one defect at one place of one structure; compacted by `alert_id`."""

    alert_id: str
    asset: str
    defect: str
    severity: Severity
    place: str
    """`frame:FRAME_ID` until poses tell which frames show the same spot."""
    state: AlertState
    score: float
    """The highest of its evidence."""
    first_seen: datetime | None
    last_seen: datetime | None
    evidence: tuple[Evidence, ...]
    history: tuple[Change, ...] = ()
    merged_into: str | None = None


class Decision(Noun, frozen=True, kw_only=True):
    """A person's word on an alert."""

    decision_id: str
    alert_id: str
    asset: str
    what: Verb
    who: str
    when: datetime
    why: str | None = None


class RecordPosition(Noun, frozen=True, kw_only=True):
    """Where a record lies in the log."""

    topic: str
    partition: int
    offset: int


class DeadFrame(Noun, frozen=True, kw_only=True):
    """A frame that got a reason instead of a result; its bytes are kept."""

    frame_id: str
    position: RecordPosition
    reason: DeadReason
    detail: str
    """One sentence for a person: what is wrong and what can be done."""
    sha256: str | None
    """Of the bytes that came, which need not be the announced ones; None if none came."""
    blob: BlobRef | None
    """Where those bytes are kept."""
    headers: dict[str, str]
    """The record's own headers, so that `dead retry` can send it back as it was."""
    inline: bool
    """Whether the bytes travelled in the record's value."""
    first_try: datetime
    last_try: datetime
    frame: Frame | None = None


def content_id(*parts: str | int) -> str:
    """Hash parts to 32 hexadecimal digits; parts cannot run into one another.

    Raises:
        ValueError: a part holds the separator, so that two different lists could look alike.
    """
    texts = [str(part) for part in parts]
    if any("\x1f" in text for text in texts):
        raise ValueError(f"an id part must not hold the unit separator: {texts!r}")
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:32]


def result_id(frame: Frame, grid: Grid) -> str:
    """The id of the live result of this frame under this grid and correction (promise 1)."""
    cut = f"{grid.tile_px}/{grid.overlap_px}/{grid.rows}x{grid.cols}"
    return content_id("result", frame.frame_id, cut, frame.correction)


def alert_id(asset: str, defect: str, frame_id: str, cell: tuple[int, int]) -> str:
    """The id of an alert, from its first accepted observation; stored and never derived again (promise 1)."""
    return content_id("alert", asset, defect, frame_id, f"{cell[0]},{cell[1]}")


def decision_id(alert: str, what: Verb, who: str, when: datetime) -> str:
    """The id of one person's one word on one alert."""
    return content_id("decision", alert, what, who, when.isoformat())


_encoder = msgspec.json.Encoder(order="deterministic")


def encode(noun: Noun) -> bytes:
    """JSON with a fixed field order: the same noun is the same bytes."""
    return _encoder.encode(noun)


def decode(data: bytes | str, kind: type[N]) -> N:
    """Read one noun from JSON.

    Raises:
        msgspec.ValidationError: with the path of the offending field.
        msgspec.DecodeError: not JSON, or not UTF-8.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"not UTF-8: {error}") from error


def envelope(kind: type[Noun], ident: str, source: str, now: datetime) -> dict[str, str]:
    """CloudEvents 1.0 headers in Kafka's binary content mode; the schema version is part of `ce_type`."""
    return {
        "ce_specversion": "1.0",
        "ce_id": ident,
        "ce_type": f"spanwatch.{kind.__name__}.v{SCHEMA_VERSION}",
        "ce_source": source,
        "ce_time": now.isoformat(),
    }


def check_version(headers: Mapping[str, str]) -> None:
    """Refuse what a newer major version wrote; a record without `ce_type` is taken for the current version.

    Raises:
        BadFrame: reason `unknown_schema`.
    """
    ce_type = headers.get("ce_type")
    if ce_type is None:
        return
    major = ce_type.rpartition(".v")[2].partition(".")[0]
    ours = SCHEMA_VERSION.partition(".")[0]
    if not major.isdigit() or int(major) > int(ours):
        raise BadFrame(
            "unknown_schema",
            f"the record says ce_type={ce_type!r}, this worker reads versions up to {ours}.x:"
            " update the worker, then `spanwatch dead retry` sends the frame back",
        )
