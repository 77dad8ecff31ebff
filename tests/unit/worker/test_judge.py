""" "Clean" means inspected: what could not be judged is said, class by class, and never hides a finding."""

from __future__ import annotations

import numpy as np
import pytest

from stream.messages import Frame, NotInspectable, Result, Timings
from stream.worker.judge import ClassRule, Judge, Sight
from stream.worker.regions import Threshold
from stream.worker.tiling import tile

RULES = (
    ClassRule(Threshold("algae", 1.0, 1.0), trained=False, coarsest_mm_per_px=None),
    ClassRule(Threshold("crack", 0.8, 0.5), trained=True, coarsest_mm_per_px=1.0),
    ClassRule(Threshold("spalling", 0.8, 0.5), trained=True, coarsest_mm_per_px=5.0),
)
JUDGE = Judge("release.1", "f32", RULES)
FRAME = Frame(frame_id="f" * 64, asset="bridge")
NONE = np.zeros((2, 2), np.bool_)


def judged(scores: np.ndarray | None = None, **sight: object) -> Result:
    seen = Sight(**({"dark": NONE, "blurred": NONE, "mm_per_px": None} | sight))  # type: ignore[arg-type]
    values = np.zeros((2, 2, 3), np.float32) if scores is None else scores
    return JUDGE.result(FRAME, tile(20, 20, 10), values, seen, Timings())


def test_a_class_without_labels_is_said_to_be_untrained_and_none_of_its_scores_is_shown() -> None:
    result = judged(np.ones((2, 2, 3), np.float32))
    assert result.classes == ("crack", "spalling")
    assert NotInspectable(defect="algae", reason="untrained") in result.not_inspectable
    assert {region.defect for region in result.regions} == {"crack", "spalling"}
    assert result.inspectable == 1.0


def test_dark_and_blurred_tiles_are_not_clean() -> None:
    dark, blurred = NONE.copy(), NONE.copy()
    dark[0, 0] = blurred[0, 0] = blurred[1, 1] = True
    result = judged(dark=dark, blurred=blurred)
    said = {(n.defect, n.reason): n.tiles for n in result.not_inspectable if n.reason != "untrained"}
    assert said == {
        ("crack", "dark"): (0,),
        ("crack", "blurred"): (3,),
        ("spalling", "dark"): (0,),
        ("spalling", "blurred"): (3,),
    }
    assert result.inspectable == 0.5


@pytest.mark.parametrize(
    ("mm_per_px", "coarse", "share"),
    [(None, set(), 1.0), (1.0, set(), 1.0), (1.1, {"crack"}, 0.5), (9.0, {"crack", "spalling"}, 0.0)],
)
def test_a_coarse_photo_says_nothing_about_fine_defects(
    mm_per_px: float | None, coarse: set[str], share: float
) -> None:
    result = judged(mm_per_px=mm_per_px)
    assert {n.defect for n in result.not_inspectable if n.reason == "coarse"} == coarse
    assert result.inspectable == share


def test_blur_is_no_reason_to_hide_a_finding() -> None:
    scores = np.zeros((2, 2, 3), np.float32)
    scores[1, 1, 1] = 0.9
    result = judged(scores, blurred=~NONE)
    assert [region.defect for region in result.regions] == ["crack"]
    assert result.inspectable == 0.0


def test_what_cannot_be_seen_at_this_distance_is_no_finding_and_its_scores_are_kept() -> None:
    scores = np.full((2, 2, 3), 0.9, np.float32)
    result = judged(scores, mm_per_px=2.0)
    assert {region.defect for region in result.regions} == {"spalling"}
    assert result.scores[0][0] == (0.9, 0.9)


def test_a_result_names_one_release_and_its_precision() -> None:
    assert (judged().release, judged().precision) == ("release.1", "f32")
