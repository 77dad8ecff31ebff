"""The curve of a run is a picture with a panel a stage, and its smoothing has no pull towards the start."""

from pathlib import Path

import cv2
import pytest

pytest.importorskip("matplotlib")

from models.training.curve import draw, smoothed


def test_every_stage_gets_a_panel(tmp_path: Path) -> None:
    draw({"teacher": [0.7, 0.5, 0.4]}, tmp_path / "one.png")
    draw({"teacher": [0.7, 0.5, 0.4], "train": [0.6]}, tmp_path / "two.png")
    one, two = (cv2.imread(str(tmp_path / name)) for name in ("one.png", "two.png"))
    assert two.shape[1] == 2 * one.shape[1] and two.std() > 0


def test_what_does_not_change_stays_as_it_is() -> None:
    assert smoothed([0.3] * 5) == pytest.approx([0.3] * 5)
    assert smoothed([1.0, 0.0])[-1] == pytest.approx(0.0475 / 0.0975)
