"""From results and people's decisions to alerts: a reducer that holds no clock and does no I/O.

What holds, and the property tests check it (tests/unit/findings):

- A repeated result or decision changes nothing and returns nothing.
- Any order of the same results, and of the same decisions each after its alert exists, ends in the same alerts, up to
  the ids of alerts whose frame was judged more than once for one asset (two grids, two passes): there the id is that
  of whichever result came first and is large enough. While every frame has one result per asset the ids are the same
  too.
- A state rebuilt from any prefix of the alerts that were returned, with everything applied again in its order, ends in
  the same bytes. This is why a crash between two sends costs nothing.

All of it for one `least_tiles`: members of a group that disagree on it make different alerts of one log.

Until poses tell which frames show the same spot, a place is a frame: all regions of one defect in one frame are the
evidence of one alert. A correction that moves a frame to another asset opens alerts there; those of the first asset
stay until somebody dismisses them, because two processes may hold the two assets, and an outcome that hangs
on who holds what would break the promise that one log gives one set of alerts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import msgspec

from stream.errors import Broken
from stream.messages import Alert, AlertState, Change, Decision, Evidence, Region, Result, Severity, Verb, alert_id

STATE_AFTER: Mapping[Verb, AlertState] = {
    "ack": "acknowledged",
    "confirm": "confirmed",
    "dismiss": "dismissed",
    "reopen": "open",
}
"""What an alert is after a person's word; the latest word by its own time counts, however late it arrives."""


class UnknownAlert(LookupError):
    """A decision names an alert that this asset does not have."""


class Alerts:
    """All alerts of a set of assets."""

    def __init__(self, least_tiles: int = 1) -> None:
        """
        Args:
            least_tiles: so many tiles of a frame have to show a defect, or it opens no alert and adds to none; all
                tiles of a frame that has fewer are always enough.
        """
        self._least_tiles = least_tiles
        self._alerts: dict[str, Alert] = {}
        self._at_place: dict[tuple[str, str, str], str] = {}
        """(asset, defect, place) -> alert_id."""

    def __iter__(self) -> Iterator[Alert]:
        return iter(self._alerts.values())

    def __len__(self) -> int:
        return len(self._alerts)

    def load(self, alert: Alert) -> None:
        """Take an alert as it was last written; a later version of the same alert replaces the earlier."""
        self._alerts[alert.alert_id] = alert
        if alert.merged_into is None:
            self._at_place[alert.asset, alert.defect, alert.place] = alert.alert_id

    def apply_result(self, result: Result, severities: Mapping[str, Severity]) -> list[Alert]:
        """Return the alerts that this result opens or adds evidence to, ordered by defect; `[]` for a repeat.

        Its regions have passed the release's thresholds already, so each of them is a finding, if it is large enough.

        Raises:
            Broken: a region's defect is not in `severities`; nothing was changed.
        """
        found = by_defect(result)
        unknown = sorted(found.keys() - severities.keys())
        if unknown:
            raise Broken(
                f"result {result.result_id} of release {result.release} reports {', '.join(unknown)}, for which the"
                " taxonomy of this process has no severity: start it with that release, or with its taxonomy"
            )
        changed = []
        for defect in sorted(found.keys() - too_small(result, self._least_tiles)):
            alert = self._observe(result, _evidence(result, found[defect]), severities[defect])
            if alert is not None:
                self.load(alert)
                changed.append(alert)
        return changed

    def apply_decision(self, decision: Decision) -> Alert | None:
        """Return the alert as this decision leaves it, or None if it was known already.

        Raises:
            UnknownAlert: the asset has no such alert (yet).
        """
        alert = self._alerts.get(decision.alert_id)
        # An asset that is not the alert's own would be accepted or not by the chance of who holds which partition.
        if alert is None or alert.asset != decision.asset:
            raise UnknownAlert(decision.alert_id)
        if any(change.decision_id == decision.decision_id for change in alert.history):
            return None
        change = Change(
            decision_id=decision.decision_id,
            what=decision.what,
            who=decision.who,
            when=decision.when,
            why=decision.why,
        )
        alert = _derive(alert, alert.evidence, (*alert.history, change))
        self.load(alert)
        return alert

    def _observe(self, result: Result, evidence: Evidence, severity: Severity) -> Alert | None:
        """The alert of this defect in this frame with the evidence added; None if it has it already.

        The question is asked alert by alert, not once for the result: after a crash between two sends the first
        defect's alert is there and the second's is not.
        """
        first = evidence.regions[0]
        asset, place = result.frame.asset, f"frame:{result.frame.frame_id}"
        known = self._at_place.get((asset, first.defect, place))
        if known is None:
            opened = Alert(
                alert_id=alert_id(asset, first.defect, result.frame.frame_id, first.cell),
                asset=asset,
                defect=first.defect,
                severity=severity,
                place=place,
                state="open",
                score=evidence.score,
                first_seen=None,
                last_seen=None,
                evidence=(),
            )
            return _derive(opened, (evidence,), ())
        alert = self._alerts[known]
        if any(held.result_id == evidence.result_id for held in alert.evidence):
            return None
        return _derive(alert, (*alert.evidence, evidence), alert.history)


def by_defect(result: Result) -> dict[str, list[Region]]:
    """The regions of each defect that the result has any of."""
    found: dict[str, list[Region]] = {}
    for region in result.regions:
        found.setdefault(region.defect, []).append(region)
    return found


def too_small(result: Result, least_tiles: int) -> set[str]:
    """The defects of a result that too few of its tiles show for an alert."""
    needed = min(least_tiles, result.grid.rows * result.grid.cols)
    found = by_defect(result)
    return {defect for defect, regions in found.items() if sum(region.tiles for region in regions) < needed}


def instant(when: datetime | None) -> float:
    """Seconds since 1970 to order by; a time without a zone counts as UTC, and no time comes before every time.

    A camera writes local time without a zone, another one with it, and Python refuses to compare the two.
    """
    if when is None:
        return float("-inf")
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _evidence(result: Result, regions: list[Region]) -> Evidence:
    """One defect's regions of one result, the most certain first, ties by cell."""
    ranked = sorted(regions, key=lambda region: (-region.score, region.cell, region.polygon))
    return Evidence(
        result_id=result.result_id,
        frame_id=result.frame.frame_id,
        name=result.frame.name,
        captured_at=result.frame.captured_at,
        release=result.release,
        score=ranked[0].score,
        regions=tuple(ranked),
    )


def _derive(alert: Alert, evidence: tuple[Evidence, ...], history: tuple[Change, ...]) -> Alert:
    """The alert with this evidence and history: sorted, and everything that follows from them worked out anew."""
    seen = tuple(sorted(evidence, key=lambda one: (instant(one.captured_at), one.frame_id, one.result_id)))
    said = tuple(sorted(history, key=lambda change: (instant(change.when), change.decision_id)))
    dated = [one.captured_at for one in seen if one.captured_at is not None]
    state: AlertState = STATE_AFTER[said[-1].what] if said else "open"
    return msgspec.structs.replace(
        alert,
        state="closed" if alert.merged_into else state,
        score=max(one.score for one in seen),
        first_seen=dated[0] if dated else None,
        last_seen=dated[-1] if dated else None,
        evidence=seen,
        history=said,
    )
