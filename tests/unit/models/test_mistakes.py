"""The mistakes that are shown are mistakes, the surest first, and not all of one photo."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation.evaluate import Rule
from models.evaluation.mistakes import PER_GROUP, Mistakes, worst_mistakes

RULE = Rule("crack", 0.6, 0.3)
rows = st.lists(
    st.tuples(st.floats(0, 1, width=32), st.sampled_from([1.0, 0.0, np.nan]), st.sampled_from("abcd")), max_size=40
)


@settings(deadline=None)
@given(rows)
def test_only_mistakes_are_shown_in_order_and_few_of_a_group(drawn: list[tuple[float, float, str]]) -> None:
    scores, labels = (np.array([row[i] for row in drawn], np.float32) for i in (0, 1))
    groups = [row[2] for row in drawn]
    found = worst_mistakes(scores, labels, groups, RULE, count=5)
    assert all(labels[row] == 0 and scores[row] >= np.float32(0.3) for row in found.false_alarms)
    assert all(labels[row] == 1 and scores[row] < np.float32(0.6) for row in found.misses)
    assert list(scores[list(found.false_alarms)]) == sorted(scores[list(found.false_alarms)], reverse=True)
    assert list(scores[list(found.misses)]) == sorted(scores[list(found.misses)])
    for shown in (found.false_alarms, found.misses):
        assert len(shown) <= 5
        assert all([groups[row] for row in shown].count(group) <= PER_GROUP for group in "abcd")


def test_a_bad_photo_does_not_hide_the_others() -> None:
    scores = np.array([0.9, 0.9, 0.9, 0.9, 0.7], np.float32)
    found = worst_mistakes(scores, np.zeros(5, np.float32), ["bad"] * 4 + ["other"], RULE)
    assert found == Mistakes((0, 1, 4), ())


def test_an_untrained_class_makes_no_mistakes() -> None:
    found = worst_mistakes(np.ones(1, np.float32), np.zeros(1, np.float32), ["a"], Rule("algae", None, None))
    assert found == Mistakes((), ())
