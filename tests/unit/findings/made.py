"""Made-up results and decisions, small enough to read: one place builds them for every test of findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from stream.messages import (
    Decision,
    Frame,
    Grid,
    Position,
    Region,
    Result,
    Severity,
    Verb,
    alert_id,
    content_id,
    decision_id,
    result_id,
)

SEVERITIES: Mapping[str, Severity] = {"algae": "low", "crack": "medium", "spalling": "high"}
GRID = Grid(tile_px=256, overlap_px=0, rows=3, cols=4, width=1024, height=768)


def region(defect: str = "crack", score: float = 0.9, cell: tuple[int, int] = (0, 0), tiles: int = 1) -> Region:
    """One tile's region, or one that says it is of more."""
    y, x = cell[0] * 256, cell[1] * 256
    box = ((x, y), (x + 255, y), (x + 255, y + 255), (x, y + 255))
    return Region(defect=defect, score=score, cell=cell, polygon=box, tiles=tiles)


def result(number: int = 0, regions: Sequence[Region] = (), *, grid: Grid = GRID, **frame: Any) -> Result:
    """The result of photo `number`; other words go to its Frame."""
    shot = Frame(
        **{
            "frame_id": content_id("photo", number),
            "asset": "pier-3",
            "flight": "f1",
            "name": f"DJI_{number:04}.JPG",
            "captured_at": datetime(2025, 5, 1, 10, 0, number % 60, tzinfo=UTC),
            "position": Position(latitude_deg=47.5 + number / 1e5, longitude_deg=8.25, altitude_m=412.5),
            **frame,
        }
    )
    return Result(
        result_id=result_id(shot, grid),
        frame=shot,
        grid=grid,
        classes=tuple(SEVERITIES),
        scores=(),
        regions=tuple(regions),
        inspectable=1.0,
        release="r-1",
        precision="f32",
    )


def first_alert(of: Result, defect: str = "crack") -> str:
    """The id of the alert that this result opens for a defect."""
    best = max((one for one in of.regions if one.defect == defect), key=lambda one: (one.score, -one.cell[0]))
    return alert_id(of.frame.asset, defect, of.frame.frame_id, best.cell)


def decision(
    alert: str, what: Verb = "confirm", *, second: int = 0, asset: str = "pier-3", who: str = "ada"
) -> Decision:
    """A person's word, `second` seconds after noon."""
    when = datetime(2025, 5, 2, 12, 0, second, tzinfo=UTC)
    return Decision(
        decision_id=decision_id(alert, what, who, when), alert_id=alert, asset=asset, what=what, who=who, when=when
    )


def replaced(noun: Any, **changes: Any) -> Any:
    """The same noun with other fields."""
    return msgspec.structs.replace(noun, **changes)
