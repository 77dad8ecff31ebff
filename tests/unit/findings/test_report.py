"""What people read: the page says what was and was not assessed, loads nothing, and trusts no name it prints."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stream.findings.coverage import defect_rows
from stream.findings.geojson import feature_collection, write_geojson
from stream.findings.report import Survey, write_report
from stream.findings.rules import Alerts
from stream.findings.words import count, length, percent, rank, stamp
from stream.messages import Alert, DeadFrame, NotInspectable, RecordPosition, Region, Result
from tests.unit.findings.made import SEVERITIES, decision, region, replaced, result

TITLES = {"crack": "Crack", "spalling": "Spalling", "algae": "Algae and moss", "rebar": "Exposed reinforcement"}
VOID = {"meta", "br", "img", "image", "rect", "polygon", "link", "hr", "input"}


class Page(HTMLParser):
    """The page as a browser sees it: its text, its addresses; a tag that is never closed is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def alerts_of(*shots: Result) -> Alerts:
    alerts = Alerts()
    for shot in shots:
        alerts.apply_result(shot, SEVERITIES)
    return alerts


def page(folder: Path, shots: list[Result], alerts: list[Alert] | None = None, **changes: Any) -> Page:
    fields: dict[str, Any] = {
        "results": shots,
        "alerts": list(alerts_of(*shots)) if alerts is None else alerts,
        "dead": (),
        "made_at": datetime(2025, 5, 2, 14, tzinfo=UTC),
        "titles": TITLES,
        "severities": SEVERITIES,
    }
    write_report(folder / "report.html", Survey(**fields | changes))
    return Page(folder / "report.html")


def test_the_page_loads_nothing_and_links_only_pictures_and_places(tmp_path: Path) -> None:
    shots = [result(1, [region()]), result(2, [region("spalling")])]
    overlays = {shots[0].frame.frame_id: "overlays/DJI 1 #50%.jpg", shots[1].frame.frame_id: None}
    read = page(tmp_path, shots, overlays=overlays)
    assert "script" not in read.tags
    assert not re.search(r"https?:|//[a-z]|url\(|@import", read.source)
    kinds = {address.partition(":")[0] for address in read.addresses if not address.startswith(("#", "overlays/"))}
    assert kinds == {"geo"}
    pictures = {address for address in read.addresses if address.startswith("overlays/")}
    assert pictures == {"overlays/DJI%201%20%2350%25.jpg"}
    assert "geo:47.500010,8.250000" in read.addresses


def test_what_is_too_small_for_an_alert_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    shots = [result(1, [region(tiles=2)]), result(2, [region("spalling", tiles=2), region(tiles=1)]), result(3)]
    nothing = page(tmp_path, shots, alerts=[])
    assert "2 photos show a defect without an alert" in nothing.text
    assert "Nothing is large enough for an alert" in nothing.text
    assert "above the release's thresholds." not in nothing.text
    everything = page(tmp_path, shots)
    assert "without an alert" not in everything.text
    (spalling,) = [alert for alert in alerts_of(*shots) if alert.defect == "spalling"]
    assert "2 photos show a defect without an alert" in page(tmp_path, shots, alerts=[spalling]).text
    assert "large enough" not in page(tmp_path, [result(3)]).text


def test_a_finding_that_the_release_cannot_vouch_for_says_so_until_a_person_has_decided(tmp_path: Path) -> None:
    shots = [result(1, [region()]), result(2, [region("spalling")])]
    alerts, why = alerts_of(*shots), {"spalling": "2 photos show it"}
    assert "a person decides" not in page(tmp_path, shots, list(alerts)).text
    read = page(tmp_path, shots, list(alerts), unproven=why)
    assert read.text.count("a person decides") == 1 and "Spalling: 2 photos show it" in read.text
    assert "#unproven" in read.addresses
    (spalling,) = [alert for alert in alerts if alert.defect == "spalling"]
    alerts.apply_decision(decision(spalling.alert_id, "confirm"))
    assert "a person decides" not in page(tmp_path, shots, list(alerts), unproven=why).text


def test_names_and_reasons_of_strangers_are_text_and_never_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    shot = result(1, [region()], asset=evil, name=evil, flight=evil)
    alerts = alerts_of(shot)
    (alert,) = alerts
    alerts.apply_decision(replaced(decision(alert.alert_id, asset=evil), why=evil))
    read = page(
        tmp_path, [shot], list(alerts), unproven={"crack": evil}, overlays={shot.frame.frame_id: '"><script>.jpg'}
    )
    assert "script" not in read.tags
    assert read.text.count(evil) >= 6


def test_a_class_the_release_has_not_learnt_is_named_as_not_assessed(tmp_path: Path) -> None:
    shot = replaced(result(1), not_inspectable=(NotInspectable(defect="spalling", reason="untrained"),))
    read = page(tmp_path, [shot])
    # `rebar` is in the taxonomy and unknown to the release altogether.
    assert read.text.count("Not assessed by this release") == 2
    assert re.search(r"Spalling high Not assessed", read.text)
    assert re.search(r"Exposed reinforcement Not assessed", read.text)


def test_a_page_without_findings_does_not_say_that_all_is_well(tmp_path: Path) -> None:
    read = page(tmp_path, [result(1)])
    assert "No finding is not a proof of soundness." in read.text
    assert "Nothing stands above the release's thresholds" in read.text


def test_dismissed_alerts_are_left_out_and_counted(tmp_path: Path) -> None:
    shots = [result(1, [region()]), result(2, [region("spalling")])]
    alerts = alerts_of(*shots)
    (crack,) = (alert for alert in alerts if alert.defect == "crack")
    alerts.apply_decision(decision(crack.alert_id, "dismiss"))
    read = page(tmp_path, shots, list(alerts))
    assert "1 finding " in read.text
    assert "1 alert that people dismissed or that were closed is left out" in read.text
    assert crack.alert_id[:12] not in read.text


def test_a_dead_frame_is_listed_with_its_reason_and_what_to_do(tmp_path: Path) -> None:
    then = datetime(2025, 5, 1, tzinfo=UTC)
    dead = DeadFrame(
        frame_id="ab" * 32,
        position=RecordPosition(topic="frames", partition=1, offset=17),
        reason="truncated",
        detail="Copy it from the card again.",
        sha256=None,
        blob=None,
        headers={},
        inline=False,
        first_try=then,
        last_try=then,
    )
    read = page(tmp_path, [], dead=[dead])
    assert "No photo could be read" in read.text
    assert "1 photo not readable" in read.text
    for said in ("abababababab", "The file ends early", "Copy it from the card again.", "frames/1/17"):
        assert said in read.text


def test_the_severest_finding_comes_first(tmp_path: Path) -> None:
    shots = [
        result(1, [region("algae", 0.99)]),
        result(2, [region("spalling", 0.6)]),
        result(3, [region("crack", 0.9)]),
    ]
    headings = re.findall(r"<h3>(.*?)</h3>", page(tmp_path, shots).source)
    assert headings == ["Spalling", "Crack", "Algae and moss"]


def test_a_finding_at_the_border_is_shown_inside_the_photo(tmp_path: Path) -> None:
    shot = result(1, [region(cell=(2, 3))])
    read = page(tmp_path, [shot], overlays={shot.frame.frame_id: "a.jpg"})
    (view,) = re.findall(r'viewBox="(.*?)"', read.source)
    x, y, width, height = map(int, view.split())
    assert (x + width, y + height) == (1024, 768)
    assert x >= 0
    assert y >= 0


def test_without_an_overlay_the_whole_frame_is_drawn_with_the_outlines(tmp_path: Path) -> None:
    read = page(tmp_path, [result(1, [region(), region(cell=(2, 2))])])
    assert re.findall(r'viewBox="(.*?)"', read.source) == ["0 0 1024 768"]
    assert len(re.findall("<polygon", read.source)) == 2


def test_an_alert_whose_result_is_not_at_hand_is_still_listed(tmp_path: Path) -> None:
    read = page(tmp_path, [], list(alerts_of(result(1, [region()]))))
    assert "DJI_0001.JPG" in read.text
    assert "position unknown" in read.text


# ── what was looked at ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_share_that_could_not_be_judged_is_of_all_tiles_by_reason() -> None:
    half = NotInspectable(defect="crack", reason="blurred", tiles=(0, 1, 2, 3, 4, 5))
    whole = NotInspectable(defect="crack", reason="coarse")
    shots = [replaced(result(1), not_inspectable=(half,)), replaced(result(2), not_inspectable=(whole,))]
    rows = {row.defect: row for row in defect_rows(shots, [], TITLES)}
    assert list(rows) == ["crack", "spalling", "algae", "rebar"]
    assert list(rows["crack"].unjudged.items()) == [("coarse", 0.5), ("blurred", 0.25)]
    assert rows["crack"].assessed
    assert not rows["rebar"].assessed
    assert rows["algae"].unjudged == {}


def test_a_found_class_outside_the_taxonomy_has_its_row() -> None:
    (shot,) = shots = [result(1, [region("crack", 0.8)])]
    (row,) = defect_rows([replaced(shot, classes=("crack",))], list(alerts_of(*shots)), {})
    assert (row.title, row.findings, row.photos, row.highest) == ("crack", 1, 1, 0.8)


# ── the map layer ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_alert_is_a_point_at_the_camera_longitude_first(tmp_path: Path) -> None:
    shots = [result(1, [region()]), result(2, [region("spalling")], position=None)]
    write_geojson(tmp_path / "findings.geojson", alerts_of(*shots), shots)
    layer = json.loads((tmp_path / "findings.geojson").read_bytes())
    assert layer["type"] == "FeatureCollection"
    spalling, crack = layer["features"]
    assert crack["geometry"] == {"type": "Point", "coordinates": [8.25, 47.50001]}
    assert (crack["properties"]["position_of"], crack["properties"]["camera_altitude_m"]) == ("camera", 412.5)
    assert crack["properties"]["photos"] == ["DJI_0001.JPG"]
    assert spalling["geometry"] is None
    assert spalling["properties"]["position_of"] is None
    assert all(set(feature) == {"type", "id", "geometry", "properties"} for feature in layer["features"])


def test_the_point_is_that_of_the_strongest_evidence_that_knows_its_position() -> None:
    weak = result(1, [region(score=0.6)])
    strong = replaced(result(2, [region(score=0.9)], position=None), frame=replaced(weak.frame, position=None))
    alerts = alerts_of(weak, replaced(strong, result_id="0" * 32))
    (feature,) = feature_collection(alerts, [weak, replaced(strong, result_id="0" * 32)])["features"]
    assert feature["geometry"]["coordinates"] == [8.25, 47.50001]
    assert feature["properties"]["score"] == 0.9


# ── words ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0 %"), (0.004, "under 1 %"), (0.5, "50 %"), (0.994, "over 99 %"), (0.99, "99 %"), (1.0, "100 %")],
)
def test_a_share_is_never_rounded_to_nothing_or_to_all(share: float, said: str) -> None:
    assert percent(share) == said


def test_sizes_times_and_numbers_read_naturally() -> None:
    assert (length(340.4), length(1290)) == ("340 mm", "1.3 m")
    assert stamp(datetime(2025, 5, 1, 10, 0, 0, 123456, tzinfo=UTC)) == "2025-05-01 10:00:00Z"
    assert stamp(None) == ""
    assert (count(1, "photo"), count(2, "photo"), count(2, "shows", "show")) == ("1 photo", "2 photos", "2 show")


def test_alerts_are_read_by_severity_then_score_then_the_newest() -> None:
    shots = [
        result(1, [region("algae", 0.9)]),
        result(2, [region("spalling", 0.6)]),
        result(3, [region("crack", 0.7)], captured_at=None),
        result(4, [region("crack", 0.7)]),
        result(5, [region("crack", 0.7)]),
        result(6, [region("crack", 0.8)]),
    ]
    names = [alert.evidence[0].name for alert in sorted(alerts_of(*shots), key=rank)]
    assert names == [f"DJI_000{n}.JPG" for n in (2, 6, 5, 4, 3, 1)]


def test_the_size_on_the_map_is_the_largest_known() -> None:
    small, large = (replaced(region(cell=(0, n)), size_mm=size) for n, size in ((0, None), (1, 340.0)))
    assert isinstance(large, Region)
    shots = [result(1, [small, large])]
    (feature,) = feature_collection(alerts_of(*shots), shots)["features"]
    assert feature["properties"]["size_mm"] == 340.0
