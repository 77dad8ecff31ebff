"""The probe sees what is in an embedding, and is not taken in by what only tells one photo from another."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("sklearn")

from models.training.probe import read

GROUPS = np.array([f"photo/{number // 15}" for number in range(300)])


def test_a_defect_that_the_embedding_shows_is_found_by_both_readers() -> None:
    random = np.random.default_rng(0)
    present = random.random(300) < 0.3
    embeddings = random.normal(size=(300, 16)).astype(np.float32)
    embeddings[:, 0] += 6.0 * present
    probe = read(embeddings, present, GROUPS)
    assert probe.linear > 0.95 and probe.neighbours > 0.8 and probe.chance == pytest.approx(present.mean())


def test_an_embedding_that_only_knows_the_photo_is_worth_no_more_than_chance() -> None:
    random = np.random.default_rng(0)
    photos = np.unique(GROUPS, return_inverse=True)[1]
    present = (random.random(20) < 0.4)[photos]  # a whole photo shows it or does not
    embeddings = (5.0 * random.normal(size=(20, 16)))[photos] + random.normal(size=(300, 16))
    probe = read(embeddings.astype(np.float32), present, GROUPS)
    assert max(probe.linear, probe.neighbours) < probe.chance + 0.25
