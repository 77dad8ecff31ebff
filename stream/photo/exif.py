"""EXIF and XMP as cameras and drones really write them: each fact is read by itself, and nonsense reads as None."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar
from xml.etree.ElementTree import ParseError

from defusedxml.ElementTree import fromstring
from PIL.ExifTags import GPS, IFD, Base
from PIL.Image import Exif

from stream.messages import Position

_DJI = "{http://www.dji.com/drone-dji/1.0/}"
_MAX_TEXT = 80
_QUARTER_HOUR_S = 900
_MAX_ZONE = timedelta(hours=14)
_MAX_CLOCK_ERROR_S = 300

# What Pillow raises on broken bytes; warnings are among it where the caller has made them errors.
_BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, OSError, SyntaxError)
NONSENSE = (*_BROKEN, EOFError, struct.error, Warning)

T = TypeVar("T")


class Tags:
    """The EXIF of one picture: the three directories that matter, each empty if it cannot be read."""

    def __init__(self, exif: Callable[[], Exif]) -> None:
        root = attempt(exif)
        self.root: Mapping[int, Any] = attempt(lambda: dict(root or {})) or {}
        self.camera: Mapping[int, Any] = (attempt(lambda: dict(root.get_ifd(IFD.Exif))) if root else None) or {}
        self.gps: Mapping[int, Any] = (attempt(lambda: dict(root.get_ifd(IFD.GPSInfo))) if root else None) or {}


def attempt(read: Callable[[], T | None]) -> T | None:
    """The fact, or None if the bytes that should hold it are nonsense: a broken label does not make a broken photo."""
    try:
        return read()
    except NONSENSE:
        return None


def number(value: Any) -> float | None:
    """A finite float; a zero denominator reads as NaN in Pillow, and NaN is no fact."""
    if value is None or isinstance(value, bytes):
        return None
    found = attempt(lambda: float(value))
    return found if found is not None and math.isfinite(found) else None


def positive(value: Any) -> float | None:
    """A finite float above 0, for lengths: cameras write 0 for unknown."""
    found = number(value)
    return found if found is not None and found > 0 else None


def text(value: Any) -> str | None:
    """Printable text up to the first NUL: DJI pads its names with NULs, Canon with blanks."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if not isinstance(value, str):
        return None
    kept = value.split("\0")[0].strip()[:_MAX_TEXT]
    return kept if kept and kept.isprintable() else None


def orientation(tags: Tags) -> int:
    """EXIF 1 to 8; anything else is read as 1, upright as stored."""
    value = tags.root.get(Base.Orientation)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def position(tags: Tags) -> Position | None:
    """Where the camera was. None without a fix: status V, not on the globe, or exactly 0°/0°, which means no fix."""
    gps = tags.gps
    if text(gps.get(GPS.GPSStatus)) == "V":
        return None
    latitude = _degrees(gps.get(GPS.GPSLatitude), text(gps.get(GPS.GPSLatitudeRef)), {"N": 1, "S": -1}, 90.0)
    longitude = _degrees(gps.get(GPS.GPSLongitude), text(gps.get(GPS.GPSLongitudeRef)), {"E": 1, "W": -1}, 180.0)
    if latitude is None or longitude is None or (latitude == 0.0 and longitude == 0.0):
        return None
    altitude = number(gps.get(GPS.GPSAltitude))
    if altitude is not None and gps.get(GPS.GPSAltitudeRef) in (1, b"\x01"):
        altitude = -altitude
    return Position(latitude_deg=latitude, longitude_deg=longitude, altitude_m=altitude)


def _degrees(value: Any, ref: str | None, signs: Mapping[str, int], limit: float) -> float | None:
    if not isinstance(value, tuple) or len(value) != 3 or ref is None or ref not in signs:
        return None
    parts = [number(part) for part in value]
    if any(part is None or part < 0 for part in parts):
        return None
    degrees = sum(part / 60**power for power, part in enumerate(parts) if part is not None)
    return signs[ref] * degrees if degrees <= limit else None


def captured_at(tags: Tags) -> datetime | None:
    """When the shutter opened, in UTC.

    DateTimeOriginal with its OffsetTimeOriginal if there is one. Without, the GPS time (which is UTC) tells the zone
    the camera's clock is set to; a clock that fits no zone is wrong, and the GPS time itself is taken. With neither,
    the camera's clock is taken for UTC: within one flight the order is right, another camera may be hours off.
    """
    local = attempt(lambda: _camera_clock(tags.camera))
    gps = attempt(lambda: _gps_clock(tags.gps))
    zone = attempt(lambda: _zone(text(tags.camera.get(Base.OffsetTimeOriginal))))
    if local is None:
        return gps
    if zone is None and gps is not None:
        apart = local.replace(tzinfo=UTC) - gps
        quarters = round(apart.total_seconds() / _QUARTER_HOUR_S)
        error_s = abs(apart.total_seconds() - quarters * _QUARTER_HOUR_S)
        zone = timedelta(seconds=quarters * _QUARTER_HOUR_S)
        if abs(zone) > _MAX_ZONE or error_s > _MAX_CLOCK_ERROR_S:
            return gps
    return attempt(lambda: local.replace(tzinfo=timezone(zone or timedelta())).astimezone(UTC))


def _camera_clock(camera: Mapping[int, Any]) -> datetime | None:
    stamp = text(camera.get(Base.DateTimeOriginal))
    if stamp is None:
        return None
    fraction = text(camera.get(Base.SubsecTimeOriginal)) or ""
    micro = int(fraction.ljust(6, "0")[:6]) if fraction.isascii() and fraction.isdigit() else 0
    return datetime.strptime(stamp, "%Y:%m:%d %H:%M:%S").replace(microsecond=micro)


def _zone(offset: str | None) -> timedelta | None:
    if offset is None:
        return None
    return datetime.strptime(offset, "%z").utcoffset()


def _gps_clock(gps: Mapping[int, Any]) -> datetime | None:
    date, time = text(gps.get(GPS.GPSDateStamp)), gps.get(GPS.GPSTimeStamp)
    if date is None or not isinstance(time, tuple) or len(time) != 3:
        return None
    hours, minutes, seconds = (float(part) for part in time)
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds < 61):
        return None
    day = datetime.strptime(date, "%Y:%m:%d").replace(tzinfo=UTC)
    return day + timedelta(hours=hours, minutes=minutes, seconds=seconds)


def drone_facts(xmp: object) -> dict[str, float]:
    """The numbers of DJI's XMP packet by their names (`RelativeAltitude`, `GimbalPitchDegree` …).

    Both forms are read: attributes of rdf:Description and elements inside it. Missing or broken XMP, and XMP that
    declares entities (which could grow without bound), gives no facts.
    """
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if not isinstance(xmp, bytes):
        return {}
    try:
        root = fromstring(xmp.strip(b" \t\r\n\0"))
    except (ParseError, ValueError, LookupError):  # what defusedxml refuses is a ValueError
        return {}
    found: dict[str, float] = {}
    for element in root.iter():
        for name, value in [*element.attrib.items(), (element.tag, element.text)]:
            figure = number(value)
            if isinstance(name, str) and name.startswith(_DJI) and figure is not None:
                found.setdefault(name.removeprefix(_DJI), figure)
    return found
