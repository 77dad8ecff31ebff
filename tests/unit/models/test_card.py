"""The card says what was measured, who decides where too little was, and never more than the facts hold."""

import numpy as np
from msgspec.structs import replace

from models.evaluation.card import card
from models.evaluation.evaluate import Rule, photo_metrics
from models.evaluation.overall import evaluate
from models.release import Credit, Lineage, ReleaseFacts
from tests.unit.models.made_releases import made_class, made_facts

CLASSES = (
    made_class("crack", why="40 positives in 5 groups: review misses 7"),
    made_class("spalling", people=True, why="6 positives in 1 group: fewer than 20 positives"),
    made_class("algae", trained=False, high=None, low=None),
)
RULES = tuple(Rule(one.name, one.high, one.low) for one in CLASSES)


def measured() -> tuple[ReleaseFacts, dict[str, object]]:
    random = np.random.default_rng(0)
    labels = (random.random((80, 3)) < 0.4).astype(np.float32)
    labels[:, 2] = np.nan
    scores = np.where(labels == 1, 0.4, 0.1).astype(np.float32) + random.random((80, 3)).astype(np.float32) * 0.5
    groups = [f"walls/{i // 8}" for i in range(80)]
    labels[groups.index("walls/9") :, 0], scores[groups.index("walls/9") :, 0] = 0.0, 0.9  # a wall that fools it
    found = evaluate(scores, labels, groups, RULES, rounds=50)
    facts = made_facts(
        "a.1",
        CLASSES,
        metrics={"all": found.classes},
        photos={"crack": tuple(photo_metrics(scores[:, 0], labels[:, 0], groups, 0.6))},
        lineage=Lineage(
            origin="somewhere",
            training={"steps": "650"},
            data={"train.csv": "ab" * 32},
            seeds={"train": 1},
            versions={"numpy": "2.1"},
            credits=(Credit(name="SOME", licence="CC BY 4.0", credit="Some One 2018"),),
        ),
    )
    return facts, {"all": found.overall}


def test_the_card_opens_with_the_release_and_what_it_is_for() -> None:
    text = card(measured()[0])
    assert text.startswith("# a.1\n") and text.endswith("\n")
    assert "Triage" in text and "certifies nothing" in text


def test_figures_come_with_their_counts_and_intervals() -> None:
    facts, _ = measured()
    crack = facts.metrics["all"]["crack"]
    assert crack.auroc is not None and crack.auroc_interval is not None
    (row,) = [line for line in card(facts).splitlines() if line.startswith("| all | crack |")]
    assert f"| {crack.positives} / {crack.negatives} | {crack.photos_present} of {crack.photos} |" in row
    assert f"{crack.auroc:.3f} ({crack.auroc_interval.low:.3f} to {crack.auroc_interval.high:.3f})" in row


def test_a_class_that_goes_to_people_says_so_and_why() -> None:
    section = card(measured()[0]).partition("## A person decides")[2].partition("\n## ")[0]
    handed, _, kept = section.partition("The other thresholds")
    assert "Spalling: 6 positives in 1 group: fewer than 20 positives." in handed and "Crack" not in handed
    assert "Crack: 40 positives in 5 groups: review misses 7." in kept and "Spalling" not in kept
    assert "Algae" not in section


def test_an_untrained_class_and_one_with_few_photos_are_limits() -> None:
    text = card(measured()[0])
    assert "**no: untrained**" in text and "Algae: nobody had labels for it" in text
    few = made_facts("a.1", CLASSES[:1])
    assert "Crack: only 0 test photos show it" in card(few)


def test_a_photo_that_fools_a_class_is_named() -> None:
    assert "Fooled: crack is called on 8 of 8 tiles of walls/9" in card(measured()[0])


def test_a_release_that_was_never_evaluated_says_so() -> None:
    assert "Never evaluated" in card(made_facts("a.1")) and "Never evaluated" not in card(measured()[0])


def test_data_seeds_versions_and_credits_are_kept() -> None:
    text = card(measured()[0])
    assert all(word in text for word in ("steps: 650", "`train.csv`", "ab" * 32, "train 1", "numpy 2.1"))
    assert "SOME (CC BY 4.0): Some One 2018." in text


def test_the_share_of_clean_tiles_that_alarm_is_in_the_card_where_it_was_measured() -> None:
    facts, overall = measured()
    assert "clean tiles that alarm" not in card(facts)
    share = overall["all"].clean.review_tiles
    text = card(replace(facts, overall=overall))
    assert f"{share.share:.3f} of {share.of}" in text
    found = [one.showing for one in overall["all"].extents]
    assert f"| all: groups with a defect | {' | '.join(f'{one.share:.3f} of {one.of}' for one in found)} |" in text
    older = {"all": replace(overall["all"], extents=())}
    assert "groups with a defect" not in card(replace(facts, overall=older))


def test_every_line_of_a_table_has_as_many_cells_as_its_head() -> None:
    facts, overall = measured()
    tables = [
        block.splitlines() for block in card(replace(facts, overall=overall)).split("\n\n") if block.startswith("|")
    ]
    assert len(tables) == 5
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1
