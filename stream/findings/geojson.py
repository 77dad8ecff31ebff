"""Alerts as a map layer: one GeoJSON point each (RFC 7946), where the camera was when it saw the defect best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from stream.findings.words import rank
from stream.messages import Alert, Position, Result


def write_geojson(out: Path, alerts: Iterable[Alert], results: Iterable[Result]) -> None:
    """Write `feature_collection` to the file `out`."""
    document = feature_collection(alerts, results)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def feature_collection(alerts: Iterable[Alert], results: Iterable[Result]) -> dict[str, Any]:
    """One feature per alert, the most severe first; `geometry` is null where no photo says where it was taken.

    The results supply the positions; an alert whose results are not among them has none.
    """
    positions = {result.result_id: result.frame.position for result in results if result.frame.position}
    return {"type": "FeatureCollection", "features": [_feature(alert, positions) for alert in sorted(alerts, key=rank)]}


def best_position(alert: Alert, positions: Mapping[str, Position]) -> Position | None:
    """Where the camera was for the most certain evidence that knows it; `positions` is by result_id."""
    placed = [one for one in alert.evidence if one.result_id in positions]
    best = max(placed, key=lambda one: one.score, default=None)
    return positions[best.result_id] if best else None


def _feature(alert: Alert, positions: Mapping[str, Position]) -> dict[str, Any]:
    position = best_position(alert, positions)
    # The height stays out of the coordinates: RFC 7946 means the ellipsoid's, and cameras do not say which theirs is.
    point = {"type": "Point", "coordinates": [position.longitude_deg, position.latitude_deg]} if position else None
    return {"type": "Feature", "id": alert.alert_id, "geometry": point, "properties": _properties(alert, position)}


def _properties(alert: Alert, position: Position | None) -> dict[str, Any]:
    return {
        "asset": alert.asset,
        "defect": alert.defect,
        "severity": alert.severity,
        "state": alert.state,
        "score": alert.score,
        "first_seen": _iso(alert.first_seen),
        "last_seen": _iso(alert.last_seen),
        "photos": _distinct([one.name or one.frame_id for one in alert.evidence]),
        "releases": _distinct([one.release for one in alert.evidence]),
        "size_mm": max((one.size_mm for e in alert.evidence for one in e.regions if one.size_mm), default=None),
        "position_of": "camera" if position else None,
        "camera_altitude_m": position.altitude_m if position else None,
    }


def _iso(when: datetime | None) -> str | None:
    return when.isoformat(timespec="seconds") if when else None


def _distinct(words: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(words))
