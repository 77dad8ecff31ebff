"""What was looked at: per defect, what was found and which share of the tiles could not be judged, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stream.findings.words import NotInspectableReason
from stream.messages import Alert, Result


@dataclass(frozen=True, kw_only=True)
class DefectRow:
    """One line of the summary."""

    defect: str
    title: str
    findings: int
    confirmed: int
    photos: int
    """Photos with a finding of this defect."""
    highest: float | None
    """The highest score; None without a finding."""
    unjudged: Mapping[NotInspectableReason, float]
    """Reason -> share of all tiles, the largest first; reasons may overlap. `untrained` 1.0: never assessed."""

    @property
    def assessed(self) -> bool:
        """Whether any release looked for it at all."""
        return self.unjudged.get("untrained", 0.0) < 1.0


def defect_rows(results: Sequence[Result], alerts: Sequence[Alert], titles: Mapping[str, str]) -> list[DefectRow]:
    """One row per defect that is in the taxonomy, known to a release, or found; in the order of the taxonomy."""
    names = [*titles, *(name for result in results for name in result.classes), *(alert.defect for alert in alerts)]
    return [_row(name, titles.get(name, name), results, alerts) for name in dict.fromkeys(names)]


def _row(defect: str, title: str, results: Sequence[Result], alerts: Sequence[Alert]) -> DefectRow:
    found = [alert for alert in alerts if alert.defect == defect]
    return DefectRow(
        defect=defect,
        title=title,
        findings=len(found),
        confirmed=sum(alert.state == "confirmed" for alert in found),
        photos=len({one.frame_id for alert in found for one in alert.evidence}),
        highest=max((alert.score for alert in found), default=None),
        unjudged=_unjudged(defect, results),
    )


def _unjudged(defect: str, results: Sequence[Result]) -> dict[NotInspectableReason, float]:
    tiles: dict[NotInspectableReason, int] = {}
    total = 0
    for result in results:
        size = result.grid.rows * result.grid.cols
        total += size
        if defect not in result.classes:
            tiles["untrained"] = tiles.get("untrained", 0) + size
        for note in result.not_inspectable:
            if note.defect == defect:
                tiles[note.reason] = tiles.get(note.reason, 0) + (len(note.tiles) or size)
    ranked = sorted(tiles.items(), key=lambda item: (-item[1], item[0]))
    return {reason: number / total for reason, number in ranked}
