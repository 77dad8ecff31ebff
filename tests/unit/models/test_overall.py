"""What all classes together say: means over what is defined, whole tiles, clean tiles and clean groups."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from sklearn import metrics

from models.evaluation.evaluate import Rule
from models.evaluation.overall import EXTENTS, Extent, Share, clean_alarms, evaluate, exact_match, extents

RULES = (Rule("crack", 0.6, 0.3, 1.0), Rule("spalling", 0.5, 0.2, 2.0), Rule("algae", None, None, 0.5))
NAN = float("nan")


def table(rows: list[list[float]]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


tiles = st.integers(1, 25).flatmap(
    lambda count: st.tuples(
        arrays.arrays(np.float32, (count, 3), elements=st.integers(0, 10).map(lambda value: value / 10)),
        arrays.arrays(np.float32, (count, 3), elements=st.sampled_from([0.0, 1.0, NAN])),
        st.lists(st.sampled_from("abcd"), min_size=count, max_size=count),
    )
)


@settings(deadline=None)
@given(tiles)
def test_exact_match_agrees_with_scikit_learn(
    drawn: tuple[NDArray[np.float32], NDArray[np.float32], list[str]],
) -> None:
    probabilities, labels, _ = drawn
    found = exact_match(probabilities, labels, RULES)
    called = probabilities[:, :2] >= np.array([0.6, 0.5])
    known = ~np.isnan(labels[:, :2])
    whole = known.all(axis=1)
    assert found.all_known.of == whole.sum() and found.known_only.of == known.any(axis=1).sum()
    if whole.any():
        assert found.all_known.share == pytest.approx(metrics.accuracy_score(labels[whole, :2] == 1, called[whole]))
    else:
        assert found.all_known.share is None


def test_known_labels_alone_are_easier_to_get_right_than_all_of_them() -> None:
    probabilities = table([[0.9, 0.9, 0], [0.9, 0.9, 0], [0.1, 0.1, 0]])
    labels = table([[1, 0, NAN], [1, NAN, NAN], [NAN, NAN, 1]])
    found = exact_match(probabilities, labels, RULES)
    assert found.all_known == Share(1, 0.0)  # the first tile, of which spalling is called wrongly
    assert found.known_only == Share(2, 0.5)  # the third has no label of a trained class


def test_the_groups_that_are_left_when_more_tiles_are_asked_for_are_counted_by_hand() -> None:
    rows = [  # group, crack (0.6 and 0.3), spalling (0.5 and 0.2), their labels
        ("clean, three, one of them certain", 0.3, 0.0, 0, NAN),
        ("clean, three, one of them certain", 0.4, 0.1, 0, NAN),
        ("clean, three, one of them certain", 0.9, 0.1, 0, NAN),
        ("clean, two of one and one of the other", 0.9, 0.0, 0, 0),
        ("clean, two of one and one of the other", 0.9, 0.9, 0, 0),
        ("clean, two of one and one of the other", 0.1, 0.1, 0, 0),
        ("clean, none certain", 0.5, 0.1, 0, NAN),
        ("cracked, found once", 0.9, 0.0, 1, 0),
        ("cracked, found once", 0.1, 0.0, 1, 0),
        ("cracked, a single tile", 0.9, 0.0, 1, 0),
        ("cracked, called spalled", 0.1, 0.9, 1, 0),
        ("nobody knows", 0.9, 0.9, NAN, NAN),
    ]
    probabilities = table([[crack, spalling, 1.0] for _, crack, spalling, _, _ in rows])
    labels = table([[crack, spalling, NAN] for *_, crack, spalling in rows])
    found = extents(probabilities, labels, [group for group, *_ in rows], RULES)
    assert [one.least_tiles for one in found] == list(EXTENTS)
    assert found[:3] == (
        Extent(least_tiles=1, clean=Share(3, 2 / 3), showing=Share(3, 2 / 3)),
        Extent(least_tiles=2, clean=Share(3, 2 / 3), showing=Share(3, 1 / 3)),
        Extent(least_tiles=3, clean=Share(3, 1 / 3), showing=Share(3, 1 / 3)),
    )
    # Three tiles are all that the first group has, and all of them show it.
    assert found[4] == Extent(least_tiles=10, clean=Share(3, 1 / 3), showing=Share(3, 1 / 3))


@settings(deadline=None)
@given(tiles)
def test_one_tile_is_what_the_alarms_of_clean_groups_count(
    drawn: tuple[NDArray[np.float32], NDArray[np.float32], list[str]],
) -> None:
    first, *others = extents(*drawn, RULES)
    assert first.clean == clean_alarms(*drawn, RULES).report_groups
    shares = [(one.clean.share or 0.0, one.showing.share or 0.0) for one in (first, *others)]
    assert shares == sorted(shares, reverse=True)


def test_the_alarms_of_clean_tiles_and_groups_are_counted_by_hand() -> None:
    probabilities = table([[0.9, 0, 1], [0.4, 0, 1], [0.1, 0.1, 1], [0.1, 0.9, 1], [0.1, 0.1, 1]])
    labels = table([[0, NAN, NAN], [0, 0, NAN], [NAN, 0, NAN], [NAN, NAN, NAN], [0, 1, NAN]])
    found = clean_alarms(probabilities, labels, ["a", "b", "b", "b", "c"], RULES)
    # Clean are the first three: the fourth has no label, the fifth shows spalling. Untrained algae never alarms.
    assert (found.report_tiles, found.review_tiles) == (Share(3, pytest.approx(1 / 3)), Share(3, pytest.approx(2 / 3)))
    # Groups a and b are clean; in b an unlabelled tile is called for a report.
    assert (found.report_groups, found.review_groups) == (Share(2, 1.0), Share(2, 1.0))
    assert found.by_class == {"crack": pytest.approx(2 / 3), "spalling": 0.0}


def test_without_a_clean_tile_there_is_no_share() -> None:
    found = clean_alarms(table([[0.9, 0, 0]]), table([[1, 0, NAN]]), ["a"], RULES)
    assert found.report_tiles == found.review_groups == Share(0, None)
    assert found.by_class == {}


@settings(deadline=None)
@given(tiles)
def test_a_review_never_alarms_less_than_a_report_and_shares_are_shares(
    drawn: tuple[NDArray[np.float32], NDArray[np.float32], list[str]],
) -> None:
    found = clean_alarms(*drawn, RULES)
    assume(found.report_tiles.share is not None)
    assert 0.0 <= (found.report_tiles.share or 0.0) <= (found.review_tiles.share or 0.0) <= 1.0
    assert (found.report_groups.share or 0.0) <= (found.review_groups.share or 0.0)


@settings(deadline=None)
@given(tiles)
def test_means_are_over_the_classes_that_have_the_figure(
    drawn: tuple[NDArray[np.float32], NDArray[np.float32], list[str]],
) -> None:
    found = evaluate(*drawn, RULES, rounds=10)
    judged = [found.classes[name] for name in ("crack", "spalling")]
    areas = [one.auroc for one in judged if one.auroc is not None]
    macro = found.overall.macro
    assert macro.classes == len(areas)
    assert macro.auroc == (pytest.approx(np.mean(areas)) if areas else None)
    weighed = [(weight, one.f2) for weight, one in zip((1.0, 2.0), judged, strict=True) if one.f2 is not None]
    expected = sum(w * f2 for w, f2 in weighed) / sum(w for w, _ in weighed) if weighed else None
    assert macro.weighted_f2 == (None if expected is None else pytest.approx(expected))


def test_an_untrained_class_has_counts_only_and_takes_part_in_nothing() -> None:
    random = np.random.default_rng(0)
    probabilities = random.random((40, 3)).astype(np.float32)
    labels = (random.random((40, 3)) < 0.5).astype(np.float32)
    groups = [f"g{i // 4}" for i in range(40)]
    found = evaluate(probabilities, labels, groups, RULES, rounds=10)
    algae = found.classes["algae"]
    assert algae.positives + algae.negatives == 40 and algae.auroc is None and algae.calibration_error is None
    assert "algae" not in found.reliability
    labels[:, 2], probabilities[:, 2] = 0.0, 1.0
    without = evaluate(probabilities, labels, groups, RULES, rounds=10)
    assert (without.overall.macro, without.overall.exact_match) == (found.overall.macro, found.overall.exact_match)
    assert (found.overall.tiles, found.overall.groups) == (40, 10)


def test_nothing_labelled_gives_no_number_and_no_crash() -> None:
    found = evaluate(table([[0.9, 0.9, 0.9]]), table([[NAN, NAN, NAN]]), ["a"], RULES)
    assert found.overall.macro.auroc is None and found.overall.macro.weighted_f2 is None
    assert found.overall.exact_match.known_only == Share(0, None)
    assert found.reliability == {}
