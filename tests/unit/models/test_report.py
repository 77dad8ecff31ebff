"""The JSON has the promised keys and no number where there is none; the page stands alone and shows what went wrong."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from models.dataset import Manifest
from models.evaluation.overall import evaluate
from models.evaluation.report import Report, figure, figures, percent, why_silent, write_page
from models.evaluation.scoring import rules_of
from tests.unit.models.made_releases import made_class

CLASSES = (
    made_class("crack", title="Crack <thin>"),
    made_class("spalling", people=True, why="few"),
    made_class("stain"),
    made_class("algae", trained=False, high=None, low=None),
)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Cracks with labels of both kinds, spalling on every labelled tile, no label of a stain, algae untrained."""
    random = np.random.default_rng(1)
    labels = np.full((24, 4), np.nan, np.float32)
    labels[:, 0], labels[:8, 1], labels[:, 3] = np.arange(24) % 3 == 0, 1.0, 0.0
    paths = []
    for number in range(24):
        paths.append(tmp_path / f"tile-{number}.png")
        cv2.imwrite(str(paths[-1]), random.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    groups = tuple(f"wall/{i // 4}" for i in range(24))
    scores = random.random((24, 4)).astype(np.float32)
    return Report(
        release="a.1",
        precision="f32",
        classes=CLASSES,
        manifest=Manifest(tuple(one.name for one in CLASSES), tuple(paths), groups, labels),
        source="test.csv",
        probabilities=scores,
        evaluation=evaluate(scores, labels, groups, rules_of(CLASSES), rounds=50),
        made_at=datetime(2026, 11, 1, tzinfo=UTC),
    )


def test_the_json_has_the_promised_keys(report: Report) -> None:
    told = json.loads(msgspec.json.encode(figures(report)))
    assert told["release"] == "a.1" and told["precision"] == "f32" and told["tiles"] == 24
    crack = told["classes"]["crack"]
    assert (crack["positives"], crack["negatives"], crack["unknown"]) == (8, 16, 0)
    assert (crack["groups"], crack["groups_present"]) == (6, 6)
    metrics = report.evaluation.classes["crack"]
    assert metrics.auroc_interval is not None
    assert crack["auroc"] == metrics.auroc and crack["ap"] == metrics.average_precision
    assert crack["auroc_interval"] == [metrics.auroc_interval.low, metrics.auroc_interval.high]
    assert crack["recall"] == metrics.recall and crack["precision"] == metrics.precision
    assert set(crack["review"]) >= {"threshold", "recall", "recall_interval", "precision", "false_alarm_share"}
    assert set(told["macro"]) >= {"auroc", "ap", "recall", "precision", "f2", "weighted_f2"}
    assert set(told["exact_match"]) == {"all_known", "known_only"} and "review_groups" in told["clean"]


def test_a_class_without_figures_has_null_and_its_counts(report: Report) -> None:
    told = json.loads(msgspec.json.encode(figures(report)))["classes"]
    for name, counts in {"spalling": (8, 0, 16), "stain": (0, 0, 24), "algae": (0, 24, 0)}.items():
        assert all(told[name][key] is None for key in ("auroc", "auroc_interval", "ap", "precision", "f2")), name
        assert (told[name]["positives"], told[name]["negatives"], told[name]["unknown"]) == counts
    assert told["algae"]["high"] is None and told["algae"]["review"] is None
    assert told["spalling"]["people"] and told["spalling"]["recall"] is not None


def test_each_silent_class_says_why(report: Report) -> None:
    said = [why_silent(one, report.evaluation.classes[one.name]) for one in CLASSES]
    assert said[0] == ""
    assert [words.split()[0] for words in said[1:]] == ["Every", "No", "Untrained:"]
    absent = evaluate(report.probabilities, np.zeros((24, 4), np.float32), report.manifest.groups, rules_of(CLASSES))
    assert why_silent(CLASSES[0], absent.classes["crack"]).startswith("No tile shows it")


def test_the_page_stands_alone_and_escapes_what_it_is_told(report: Report, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", report)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Crack &lt;thin&gt;" in page and "<thin>" not in page
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses and all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert "http" not in page and "<script" not in page


def test_the_page_shows_the_worst_mistakes_and_why_others_have_no_figure(report: Report, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", report)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    scores, labels = report.probabilities[:, 0], report.manifest.labels[:, 0]
    surest = int(np.argmax(np.where(labels == 0, scores, -1.0)))
    assert f'alt="tile-{surest}.png"' in page and f"<b>{scores[surest]:.3f}</b>" in page
    assert "a person decides" in page and "Untrained: this release has not learnt it" in page
    assert page.count('class="diagram"') == 1  # only cracks have labels of both kinds


def test_a_page_of_nothing_but_unknown_labels_can_be_read(report: Report, tmp_path: Path) -> None:
    unknown = np.full((24, 4), np.nan, np.float32)
    manifest = Manifest(report.manifest.classes, report.manifest.images, report.manifest.groups, unknown)
    evaluation = evaluate(report.probabilities, unknown, manifest.groups, rules_of(CLASSES))
    words = {name: getattr(report, name) for name in report.__dataclass_fields__}
    write_page(tmp_path / "page.html", Report(**{**words, "manifest": manifest, "evaluation": evaluation}))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "No label: nothing on these tiles says" in page and "No class has labels of both kinds" in page


@pytest.mark.parametrize(
    ("share", "words"), [(None, "–"), (0.0, "0.0 %"), (0.034, "3.4 %"), (0.254, "25 %"), (1.0, "100 %")]
)
def test_shares_are_said_in_percent(share: float | None, words: str) -> None:
    assert percent(share) == words


def test_a_figure_that_is_not_defined_is_a_dash() -> None:
    assert (figure(None), figure(0.12345)) == ("–", "0.123")
