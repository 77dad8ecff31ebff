"""How findings are said to people: their order, times, shares, sizes and reasons, the same on screen and on paper."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from stream.errors import DeadReason
from stream.findings.rules import instant
from stream.messages import Alert, Severity, Verb

SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")

SAID: Mapping[Verb, str] = {
    "ack": "Acknowledged",
    "confirm": "Confirmed",
    "dismiss": "Dismissed",
    "reopen": "Reopened",
}

NotInspectableReason = Literal["untrained", "blurred", "dark", "coarse"]

WHY_NOT_INSPECTABLE: Mapping[NotInspectableReason, str] = {
    "untrained": "not assessed by this release",
    "blurred": "too blurred",
    "dark": "too dark",
    "coarse": "taken from too far away",
}

WHY_DEAD: Mapping[DeadReason, str] = {
    "empty": "The file is empty",
    "not_a_photo": "Not a photo",
    "video": "A video, not a photo",
    "truncated": "The file ends early",
    "corrupt": "The file is damaged",
    "too_large": "Too many pixels",
    "sha256_mismatch": "Damaged on the way",
    "blob_missing": "The picture never arrived",
    "bad_header": "Its description cannot be read",
    "unknown_schema": "Sent by a newer version",
    "poison": "It brought the worker down twice",
}


def rank(alert: Alert) -> tuple[int, float, float, str]:
    """The order in which people read alerts: severity, then score, then the newest, then the id."""
    return SEVERITIES.index(alert.severity), -alert.score, -instant(alert.last_seen), alert.alert_id


def stamp(when: datetime | None) -> str:
    """ISO 8601 to the second, in the zone it was written with; empty if unknown."""
    return when.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z") if when else ""


def percent(share: float) -> str:
    """A share of 0 to 1 as whole percent that never rounds something to nothing, nor nearly all to all."""
    if 0.0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1.0:
        return "over 99 %"
    return f"{share:.0%}".replace("%", " %")


def length(size_mm: float) -> str:
    """Millimetres in the unit a person would say."""
    return f"{size_mm / 1000:.1f} m" if size_mm >= 1000 else f"{size_mm:.0f} mm"


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 photo`, `2 photos`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
