"""Which alert a person means by the first digits of its id."""

from __future__ import annotations

import pytest

from stream.cli.alerts import choose
from stream.errors import Misuse
from stream.findings.rules import Alerts
from stream.messages import Alert
from tests.unit.findings.made import SEVERITIES, region, replaced, result

(MADE,) = Alerts().apply_result(result(1, [region()]), SEVERITIES)
IDS = ("aaaaaa11" + "0" * 24, "aaaaaa22" + "0" * 24, "bbbbbb33" + "0" * 24)


def known() -> list[Alert]:
    return [replaced(MADE, alert_id=ident) for ident in IDS]


def test_ids_and_unique_beginnings_are_accepted_in_their_order_each_once() -> None:
    chosen = choose(known(), ["bbbbbb", IDS[0], "AAAAAA11", "aaaaaa2"])
    assert [alert.alert_id for alert in chosen] == [IDS[2], IDS[0], IDS[1]]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("aaaaa", "too short.*6 digits"),
        ("aaaaaa", f"several alerts: {IDS[0]}, {IDS[1]}"),
        ("cccccc", "no alert 'cccccc'; there are aaaaaa11, aaaaaa22"),
    ],
    ids=["too short", "ambiguous", "unknown"],
)
def test_what_fits_none_or_several_is_refused_with_the_candidates(given: str, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        choose(known(), [given])


def test_without_alerts_the_refusal_says_so() -> None:
    with pytest.raises(Misuse, match="there are no alerts yet"):
        choose([], ["cccccc"])
