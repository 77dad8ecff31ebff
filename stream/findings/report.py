"""The page an inspection engineer hands in: what was found, where, what could not be judged, what was not read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from stream.findings.coverage import defect_rows
from stream.findings.geojson import best_position
from stream.findings.rules import instant
from stream.findings.words import SAID, SEVERITIES, WHY_DEAD, WHY_NOT_INSPECTABLE, count, length, percent, rank, stamp
from stream.messages import Alert, DeadFrame, Evidence, Position, Region, Result, Severity


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one report covers."""

    results: Sequence[Result]
    alerts: Sequence[Alert]
    dead: Sequence[DeadFrame]
    made_at: datetime
    titles: Mapping[str, str]
    """Defect -> how people call it, for every class of the taxonomy, learnt by the release or not."""
    severities: Mapping[str, Severity]
    unproven: Mapping[str, str] = field(default_factory=dict)
    """Defect -> why the release's thresholds promise nothing for it; until a person has decided, a finding says so."""
    overlays: Mapping[str, str | None] = field(default_factory=dict)
    """frame_id -> picture with the regions drawn in, a path relative to the report's folder; None: none was drawn."""


@dataclass(frozen=True, kw_only=True)
class _Card:
    """One finding, ready to print."""

    alert: Alert
    title: str
    photo: str
    also: int
    """Further photos that show it."""
    overlay: str | None
    frame: tuple[int, int]
    """Width and height in pixels."""
    view: tuple[int, int, int, int]
    """x, y, width, height of the part of the photo that is shown."""
    outlines: Sequence[str]
    facts: Sequence[tuple[str, str]]
    position: Position | None


@dataclass(frozen=True, kw_only=True)
class _Photo:
    """One line of the list of all photos."""

    name: str
    asset: str
    captured: str
    overlay: str | None
    found: str
    inspectable: str


def write_report(out: Path, survey: Survey) -> None:
    """Write one self-contained HTML page to the file `out`; only the overlay pictures lie beside it."""
    environment = Environment(
        loader=PackageLoader("stream.findings"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"stamp": stamp, "percent": percent}
    environment.globals |= {"count": count, "SAID": SAID, "WHY_NOT_INSPECTABLE": WHY_NOT_INSPECTABLE}
    page = environment.get_template("report.html.j2").render(_context(survey))
    out.write_text(page, encoding="utf-8")


def _context(survey: Survey) -> dict[str, object]:
    """Everything the template prints; it decides nothing but the looks."""
    results = sorted(survey.results, key=lambda one: (instant(one.frame.captured_at), one.frame.name or ""))
    standing = sorted((alert for alert in survey.alerts if alert.state not in ("dismissed", "closed")), key=rank)
    by_id = {result.result_id: result for result in results}
    frames = [result.frame for result in results]
    return {
        "survey": survey,
        "assets": _names(frame.asset for frame in frames),
        "flights": _names(frame.flight for frame in frames),
        "captured": _span([frame.captured_at for frame in frames]),
        "releases": _names(f"{result.release} ({result.precision})" for result in results),
        "photos_read": len(results),
        "photos_with": len({one.frame_id for alert in standing for one in alert.evidence}),
        "cards": [_card(alert, survey, by_id) for alert in standing],
        "small": _without_alert(results, survey.alerts),
        "dropped": len(survey.alerts) - len(standing),
        "confirmed": sum(alert.state == "confirmed" for alert in standing),
        "by_severity": [(level, sum(a.severity == level for a in standing)) for level in SEVERITIES],
        "rows": defect_rows(results, standing, survey.titles),
        "row_severity": _row_severity(survey),
        "unsized": sum(result.mm_per_px is None for result in results),
        "photos": [_photo(result, survey) for result in results],
        "dead": [(frame, _dead_name(frame), WHY_DEAD[frame.reason]) for frame in survey.dead],
    }


def _without_alert(results: Sequence[Result], alerts: Sequence[Alert]) -> int:
    """How many photos show a defect that no alert speaks of: too little of it, or findings has not come so far."""
    spoken = {(one.result_id, alert.defect) for alert in alerts for one in alert.evidence}
    return len(
        {
            result.frame.frame_id
            for result in results
            if any((result.result_id, region.defect) not in spoken for region in result.regions)
        }
    )


def _row_severity(survey: Survey) -> Mapping[str, Severity]:
    """An alert keeps the severity it was opened with, so it wins over today's taxonomy for defects the latter lacks."""
    return {alert.defect: alert.severity for alert in survey.alerts} | dict(survey.severities)


def _card(alert: Alert, survey: Survey, results: Mapping[str, Result]) -> _Card:
    best = max(alert.evidence, key=lambda one: one.score)
    result = results.get(best.result_id)
    frame = (result.grid.width, result.grid.height) if result else _extent(best.regions)
    overlay = _href(survey.overlays.get(best.frame_id))
    positions = {ident: one.frame.position for ident, one in results.items() if one.frame.position}
    return _Card(
        alert=alert,
        title=survey.titles.get(alert.defect, alert.defect),
        photo=best.name or best.frame_id[:12],
        also=len({one.frame_id for one in alert.evidence}) - 1,
        overlay=overlay,
        frame=frame,
        # Without a picture the whole frame is drawn, so that the outlines say where to look.
        view=_closeup(best.regions[0], frame) if overlay else (0, 0, *frame),
        outlines=[] if overlay else [_points(region) for region in best.regions],
        facts=_facts(best, result),
        position=best_position(alert, positions),
    )


def _facts(best: Evidence, result: Result | None) -> list[tuple[str, str]]:
    xs, ys = zip(*best.regions[0].polygon, strict=True)
    place = f"around x {(min(xs) + max(xs)) // 2}, y {(min(ys) + max(ys)) // 2} px"
    if len(best.regions) > 1:
        place += f", and {count(len(best.regions) - 1, 'more region')}"
    sizes = [region.size_mm for region in best.regions if region.size_mm is not None]
    facts = [("In the photo", place)]
    facts.append(("Size", f"up to {length(max(sizes))}" if sizes else "unknown: no ground resolution"))
    facts.append(("Taken", stamp(best.captured_at) or "unknown"))
    if result is not None:
        facts.append(("Flight", f"{result.frame.flight}, drone {result.frame.drone}"))
    return facts


def _closeup(region: Region, frame: tuple[int, int]) -> tuple[int, int, int, int]:
    """A 4:3 window around a region with some surroundings, inside the frame where the frame is large enough."""
    xs, ys = zip(*region.polygon, strict=True)
    width = max(640, int((max(xs) - min(xs)) * 1.5), int((max(ys) - min(ys)) * 1.5 * 4 / 3))
    width = min(width, frame[0], frame[1] * 4 // 3)
    height = width * 3 // 4
    x = (min(xs) + max(xs) - width) // 2
    y = (min(ys) + max(ys) - height) // 2
    return max(0, min(x, frame[0] - width)), max(0, min(y, frame[1] - height)), width, height


def _extent(regions: Sequence[Region]) -> tuple[int, int]:
    """A frame size that holds the regions, for evidence whose result is not at hand."""
    corners = [corner for region in regions for corner in region.polygon]
    return max(x for x, _ in corners) + 1, max(y for _, y in corners) + 1


def _points(region: Region) -> str:
    return " ".join(f"{x},{y}" for x, y in region.polygon)


def _photo(result: Result, survey: Survey) -> _Photo:
    defects: dict[str, int] = {}
    for region in result.regions:
        defects[region.defect] = defects.get(region.defect, 0) + 1
    found = [f"{survey.titles.get(name, name)} ({number})" for name, number in sorted(defects.items())]
    return _Photo(
        name=result.frame.name or result.frame.frame_id[:12],
        asset=result.frame.asset,
        captured=stamp(result.frame.captured_at),
        overlay=_href(survey.overlays.get(result.frame.frame_id)),
        found=", ".join(found),
        inspectable=percent(result.inspectable),
    )


def _dead_name(frame: DeadFrame) -> str:
    return (frame.frame.name if frame.frame else None) or frame.frame_id[:12]


def _href(name: str | None) -> str | None:
    """A relative address: a file's name may hold spaces, `#` or `%`, which mean something else there."""
    return quote(name) if name else None


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))


def _span(times: Sequence[datetime | None]) -> str:
    known = sorted((when for when in times if when is not None), key=instant)
    if not known:
        return ""
    first, last = stamp(known[0]), stamp(known[-1])
    return first if first == last else f"{first} to {last}"
