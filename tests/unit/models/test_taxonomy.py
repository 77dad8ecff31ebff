"""The taxonomy is read strictly, and the one that is shipped is whole."""

from pathlib import Path

import pytest

from models.taxonomy import TaxonomyError, load_taxonomy

SHIPPED = Path(__file__).parents[3] / "configs" / "taxonomy.toml"
ONE = """
[[class]]
name = "crack"
title = "Crack"
importance = 1.0
recall_floor = 0.8
min_width_px = 1.0
coarsest_mm_per_px = 2.0
severity = "low"
"""


def test_the_shipped_taxonomy_names_the_six_defects_in_the_order_of_the_outputs() -> None:
    assert load_taxonomy(SHIPPED).names == (
        "crack",
        "spalling",
        "exposed_rebar",
        "corrosion_stain",
        "efflorescence",
        "algae",
    )


def test_another_taxonomy_with_other_classes_is_as_good(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(ONE.replace("crack", "missing_bolt") + ONE)
    assert load_taxonomy(path).names == ("missing_bolt", "crack")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (ONE + "colour = 1\n", "colour"),
        (ONE.replace('severity = "low"', 'severity = "dire"'), "severity"),
        (ONE.replace("importance = 1.0\n", ""), "importance"),
        (ONE.replace("recall_floor = 0.8", "recall_floor = 1.8"), "recall_floor"),
        (ONE + ONE, "same name"),
        (ONE.replace('"crack"', '"a crack"'), "letters"),
        ("[[class]", "t.toml"),
        ("", "class"),
    ],
)
def test_a_wrong_taxonomy_is_refused_with_the_place_in_it(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(TaxonomyError, match=complaint):
        load_taxonomy(path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taxonomy.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(TaxonomyError, match=r"taxonomy\.toml"):
        load_taxonomy(tmp_path / "taxonomy.toml")
