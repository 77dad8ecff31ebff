"""The reducer: what opens an alert, what changes it, and that neither order, repeats nor crashes change the end."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import Broken
from stream.findings.rules import Alerts, UnknownAlert, instant
from stream.messages import Alert, Decision, Result, Verb, alert_id, decode, encode
from tests.unit.findings.made import GRID, SEVERITIES, decision, first_alert, region, replaced, result

# ── what opens an alert ────────────────────────────────────────────────────────────────────────────────────────────


def test_all_regions_of_one_defect_in_one_frame_are_one_alert() -> None:
    shot = result(1, [region(score=0.7, cell=(2, 1)), region(score=0.9, cell=(0, 3)), region("spalling", 0.8)])
    crack, spalling = Alerts().apply_result(shot, SEVERITIES)
    assert (crack.defect, spalling.defect) == ("crack", "spalling")
    assert crack.place == f"frame:{shot.frame.frame_id}"
    assert [one.cell for one in crack.evidence[0].regions] == [(0, 3), (2, 1)]
    assert (crack.score, crack.severity, crack.state) == (0.9, "medium", "open")
    assert crack.first_seen == crack.last_seen == shot.frame.captured_at


@pytest.mark.parametrize(
    ("regions", "cell"),
    [
        ([region(score=0.8, cell=(2, 2)), region(score=0.9, cell=(1, 1))], (1, 1)),
        ([region(score=0.9, cell=(2, 0)), region(score=0.9, cell=(0, 3))], (0, 3)),
        ([region(score=0.9, cell=(1, 2)), region(score=0.9, cell=(1, 0))], (1, 0)),
    ],
    ids=["the highest score", "ties: the upper row", "ties: the left column"],
)
def test_the_id_comes_from_the_first_region_by_score_then_cell(regions: list, cell: tuple[int, int]) -> None:
    shot = result(1, regions)
    (alert,) = Alerts().apply_result(shot, SEVERITIES)
    assert alert.alert_id == alert_id("pier-3", "crack", shot.frame.frame_id, cell)


def test_a_clean_result_opens_nothing() -> None:
    alerts = Alerts()
    assert alerts.apply_result(result(1), SEVERITIES) == []
    assert len(alerts) == 0


@pytest.mark.parametrize(
    ("least", "sizes", "opens"),
    [
        (1, [1], True),
        (3, [2], False),
        (3, [2, 1], True),
        (3, [3], True),
        (100, [11], False),
        (100, [12], True),
    ],
    ids=["one tile", "too small", "two that are enough together", "enough", "not the whole photo", "the whole photo"],
)
def test_what_shows_in_too_few_tiles_opens_no_alert(least: int, sizes: list[int], opens: bool) -> None:
    assert GRID.rows * GRID.cols == 12
    shot = result(1, [region(tiles=size, cell=(0, column)) for column, size in enumerate(sizes)])
    alerts = Alerts(least)
    assert [alert.defect for alert in alerts.apply_result(shot, SEVERITIES)] == ["crack"] * opens
    assert len(alerts) == opens


def test_each_defect_is_counted_by_itself() -> None:
    shot = result(1, [region(tiles=2), region("spalling", tiles=3)])
    assert [alert.defect for alert in Alerts(3).apply_result(shot, SEVERITIES)] == ["spalling"]


def test_a_defect_without_a_severity_stops_the_process_and_changes_nothing() -> None:
    alerts = Alerts()
    with pytest.raises(Broken, match="graffiti"):
        alerts.apply_result(result(1, [region(), region("graffiti")]), SEVERITIES)
    assert len(alerts) == 0


def test_a_second_judgement_of_a_frame_adds_evidence_and_keeps_the_id() -> None:
    alerts = Alerts()
    (opened,) = alerts.apply_result(result(1, [region(score=0.6, cell=(0, 0))]), SEVERITIES)
    finer = replaced(GRID, overlap_px=64)
    (grown,) = alerts.apply_result(result(1, [region(score=0.8, cell=(1, 1))], grid=finer), SEVERITIES)
    assert grown.alert_id == opened.alert_id
    assert (len(grown.evidence), grown.score) == (2, 0.8)


def test_a_correction_to_another_asset_opens_alerts_there_and_leaves_the_first() -> None:
    alerts = Alerts()
    (first,) = alerts.apply_result(result(1, [region()]), SEVERITIES)
    (moved,) = alerts.apply_result(result(1, [region()], asset="pier-4", correction=1), SEVERITIES)
    assert (moved.asset, moved.state) == ("pier-4", "open")
    assert {alert.alert_id for alert in alerts} == {first.alert_id, moved.alert_id}


def test_evidence_of_unknown_time_comes_first_and_does_not_date_the_alert() -> None:
    finer = replaced(GRID, overlap_px=64)
    alerts = Alerts()
    alerts.apply_result(result(1, [region()]), SEVERITIES)
    (alert,) = alerts.apply_result(result(1, [region()], grid=finer, captured_at=None), SEVERITIES)
    assert [one.captured_at is None for one in alert.evidence] == [True, False]
    assert alert.first_seen == alert.last_seen == result(1).frame.captured_at


def test_times_with_and_without_a_zone_are_ordered_together() -> None:
    noon = datetime(2025, 5, 1, 12)
    west = datetime(2025, 5, 1, 9, tzinfo=timezone(timedelta(hours=-4)))
    assert instant(None) < instant(noon) == instant(noon.replace(tzinfo=UTC)) < instant(west)


# ── what people say ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (["ack"], "acknowledged"),
        (["ack", "confirm"], "confirmed"),
        (["confirm", "dismiss"], "dismissed"),
        (["dismiss", "reopen"], "open"),
    ],
)
def test_the_latest_word_decides_in_whatever_order_words_arrive(words: list[Verb], state: str) -> None:
    shot = result(1, [region()])
    said = [decision(first_alert(shot), what, second=second) for second, what in enumerate(words)]
    for order in (said, said[::-1]):
        alerts = Alerts()
        alerts.apply_result(shot, SEVERITIES)
        for word in order:
            changed = alerts.apply_decision(word)
        assert changed is not None
        assert changed.state == state
        assert [step.what for step in changed.history] == words


@pytest.mark.parametrize("asset", ["pier-3", "pier-4"])
def test_a_decision_on_an_alert_that_is_not_there_is_refused(asset: str) -> None:
    alerts = Alerts()
    shot = result(1, [region()])
    alert = first_alert(shot) if asset != "pier-3" else "0" * 32
    alerts.apply_result(shot, SEVERITIES)
    before = snapshot(alerts)
    with pytest.raises(UnknownAlert):
        alerts.apply_decision(decision(alert, asset=asset))
    assert snapshot(alerts) == before


def test_a_merged_alert_stays_closed_whatever_is_said() -> None:
    shot = result(1, [region()])
    (opened,) = Alerts().apply_result(shot, SEVERITIES)
    alerts = Alerts()
    alerts.load(replaced(opened, state="closed", merged_into="f" * 32))
    changed = alerts.apply_decision(decision(opened.alert_id, "reopen"))
    assert changed is not None
    assert (changed.state, len(changed.history)) == ("closed", 1)


# ── order, repeats, crashes ────────────────────────────────────────────────────────────────────────────────────────

cells = st.tuples(st.integers(0, 2), st.integers(0, 3))
regions = st.lists(
    st.builds(region, st.sampled_from(sorted(SEVERITIES)), st.sampled_from([0.5, 0.7, 0.9]), cells), max_size=4
)
times = st.sampled_from([None, datetime(2025, 5, 1, 10), datetime(2025, 5, 1, 11, tzinfo=UTC)])
Said = tuple[int, int, Verb, int]


@st.composite
def results(draw: st.DrawFn, *, once_per_frame: bool) -> list[Result]:
    """Results over a few photos and two assets, every one with an id of its own."""
    made = {}
    for number in range(draw(st.integers(1, 5))):
        for overlap in (0,) if once_per_frame else draw(st.sampled_from([(0,), (0, 64)])):
            asset = draw(st.sampled_from(["pier-3", "pier-4"]))
            grid = replaced(GRID, overlap_px=overlap)
            one = result(number, draw(regions), grid=grid, asset=asset, captured_at=draw(times))
            made[one.result_id] = one
    return list(made.values())


leasts = st.integers(1, 3)
"""Of the tiles that a defect must show in; the regions drawn above have one each."""
words = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["ack", "confirm", "dismiss", "reopen"]), st.integers(0, 9)),
    max_size=6,
)


def decisions_on(alerts: Alerts, said: list[tuple[int, Verb, int]]) -> list[Decision]:
    known = sorted(alerts, key=lambda alert: alert.alert_id)
    return [
        decision(known[which % len(known)].alert_id, what, second=second, asset=known[which % len(known)].asset)
        for which, what, second in said
        if known
    ]


def apply(alerts: Alerts, events: list[Result | Decision]) -> list[Alert]:
    """Everything that was emitted, in its order."""
    emitted: list[Alert] = []
    for event in events:
        if isinstance(event, Result):
            emitted += alerts.apply_result(event, SEVERITIES)
        else:
            changed = alerts.apply_decision(event)
            emitted += [changed] if changed else []
    return emitted


def snapshot(alerts: Alerts) -> dict[str, bytes]:
    return {alert.alert_id: encode(alert) for alert in alerts}


def nameless(alerts: Alerts) -> list[bytes]:
    return sorted(encode(replaced(alert, alert_id="", history=())) for alert in alerts)


@given(results(once_per_frame=True), words, leasts, st.randoms(use_true_random=False))
def test_any_order_and_any_repeats_end_in_the_same_bytes(
    seen: list[Result], said: list[tuple[int, Verb, int]], least: int, dice: random.Random
) -> None:
    straight = Alerts(least)
    apply(straight, [*seen])
    spoken = decisions_on(straight, said)
    apply(straight, [*spoken])

    shuffled: list[Result] = dice.sample(seen * 2, len(seen) * 2)
    alerts = Alerts(least)
    pending = dice.sample(spoken * 2, len(spoken) * 2)
    for one in shuffled:
        apply(alerts, [one])
        # A decision may come as soon as its alert exists, between any two results.
        ready = [word for word in pending if any(alert.alert_id == word.alert_id for alert in alerts)]
        chosen = dice.sample(ready, dice.randint(0, len(ready)))
        apply(alerts, [*chosen])
        for word in chosen:
            pending.remove(word)
    apply(alerts, [*pending])
    assert snapshot(alerts) == snapshot(straight)


@given(results(once_per_frame=False), leasts, st.randoms(use_true_random=False))
def test_frames_judged_twice_end_in_the_same_alerts_up_to_ids_in_any_order(
    seen: list[Result], least: int, dice: random.Random
) -> None:
    straight, other = Alerts(least), Alerts(least)
    apply(straight, [*seen])
    apply(other, dice.sample(seen, len(seen)))
    assert nameless(other) == nameless(straight)


@given(results(once_per_frame=False), words, leasts)
def test_everything_said_twice_emits_nothing_the_second_time(
    seen: list[Result], said: list[tuple[int, Verb, int]], least: int
) -> None:
    alerts = Alerts(least)
    apply(alerts, [*seen])
    spoken = decisions_on(alerts, said)
    apply(alerts, [*spoken])
    before = snapshot(alerts)
    assert apply(alerts, [*seen, *spoken]) == []
    assert snapshot(alerts) == before


@given(results(once_per_frame=False), words, st.data())
def test_a_state_rebuilt_from_any_prefix_of_what_was_emitted_ends_in_the_same_bytes(
    seen: list[Result], said: list[tuple[int, Verb, int]], data: st.DataObject
) -> None:
    least = data.draw(leasts)
    undisturbed = Alerts(least)
    emitted = apply(undisturbed, [*seen])
    spoken = decisions_on(undisturbed, said)
    emitted += apply(undisturbed, [*spoken])

    survived = emitted[: data.draw(st.integers(0, len(emitted)), label="records that survived")]
    rebuilt = Alerts(least)
    for alert in survived:
        rebuilt.load(decode(encode(alert), Alert))
    again = apply(rebuilt, [*seen, *spoken])
    assert snapshot(rebuilt) == snapshot(undisturbed)
    # The topic itself, compacted, ends there too: this is what a consumer sees.
    topic = {alert.alert_id: encode(alert) for alert in [*survived, *again]}
    assert topic == snapshot(undisturbed)
