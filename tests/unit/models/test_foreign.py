"""A model made elsewhere is taken in only if it fits, and nothing is promised about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.engines.autopilot import open_engine, score_tiles
from models.engines.candidates import Conditions
from models.engines.openvino import Graph, Port
from models.release import ReleaseError
from models.releases.foreign import ForeignModel, architecture_of, default_id, fit, import_onnx
from models.releases.store import ReleaseStore, default_store, site_store
from models.taxonomy import Taxonomy, load_taxonomy
from tests.unit.models.made_releases import Site

FOREIGN = Path(__file__).parents[2] / "data" / "foreign"
MODEL = FOREIGN / "small.onnx"
TAXONOMY = load_taxonomy(FOREIGN / "taxonomy.toml")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def store(site: Site) -> ReleaseStore:
    return site_store(site.folder / "store", site.keys)


def test_it_becomes_a_release_whose_classes_all_go_to_people(site: Site, store: ReleaseStore) -> None:
    shipped = default_store().open()
    release = import_onnx(store, ForeignModel(MODEL, TAXONOMY), shipped, site.key)
    assert store.audit(release.id) == release
    assert release.id.startswith("small-")
    assert release.architecture.kind == "foreign"
    assert (release.tile_size, release.architecture.width, release.names) == (32, 3, ("dark", "red"))
    assert all((one.trained, one.people, one.high, one.low) == (True, True, 0.5, 0.5) for one in release.classes)
    assert [one.weight for one in release.classes] == [1.0, 0.5]
    assert release.metrics == {} and "never evaluated" in release.lineage.training["evaluation"]
    assert release.lineage.credits == shipped.lineage.credits  # whose golden tiles it carries
    assert "never evaluated" in release.path("MODEL_CARD.md").read_text()
    with np.load(release.path("golden.npz")) as golden, np.load(shipped.path("golden.npz")) as theirs:
        np.testing.assert_array_equal(golden["tiles"], theirs["tiles"][:, :32, :32])
        colour = golden["tiles"].mean(axis=(1, 2)) / 255
        np.testing.assert_allclose(golden["probabilities"][:, 0], 1 / (1 + np.exp(4 * colour.sum(1) - 4)), atol=1e-5)


def test_it_runs_without_embeddings_if_it_has_none(site: Site, store: ReleaseStore) -> None:
    bare = import_onnx(store, ForeignModel(FOREIGN / "bare.onnx", TAXONOMY), default_store().open(), site.key)
    both = import_onnx(store, ForeignModel(MODEL, TAXONOMY), default_store().open(), site.key)
    tiles = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    found = []
    for release in (bare, both):
        engine = open_engine(release, "f32", Conditions(threads=1))
        found.append(score_tiles(engine, tiles))
        engine.close()
    assert (found[0].embeddings.shape, found[1].embeddings.shape) == ((5, 0), (5, 3))
    np.testing.assert_allclose(found[0].probabilities, found[1].probabilities, atol=1e-6)
    np.testing.assert_allclose(found[1].embeddings, tiles.mean(axis=(1, 2)) / 255, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (ForeignModel(MODEL, Taxonomy(TAXONOMY.defects[:1])), "scores 2 classes, the taxonomy names 1"),
        (ForeignModel(MODEL, TAXONOMY, "champion"), "cannot be the id"),
        (ForeignModel(FOREIGN / "taxonomy.toml", TAXONOMY), r"no ONNX model that OpenVINO reads.*uint8\[n, side"),
        (ForeignModel(FOREIGN / "none.onnx", TAXONOMY), "No such file"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    model: ForeignModel, complaint: str, site: Site, store: ReleaseStore
) -> None:
    with pytest.raises(ReleaseError, match=complaint):
        import_onnx(store, model, default_store().open(), site.key)
    assert [path.name for path in store.folder.glob("*") if path.name != ".lock"] == []


TILES, SCORES, EMBEDDINGS = Port("t", "u8", (None, 64, 64, 3)), Port("p", "f32", (None, 2)), Port("e", "f32", (None, 7))


def test_the_sizes_of_a_graph_are_read_from_it() -> None:
    both = architecture_of(Graph((TILES,), (SCORES, EMBEDDINGS)), 2, MODEL)
    assert (both.tile_size, both.width, both.classes) == (64, 7, 2)
    assert architecture_of(Graph((TILES,), (SCORES,)), 2, MODEL).width == 0


WRONG = {
    "no input": Graph((), (SCORES,)),
    "two inputs": Graph((TILES, TILES), (SCORES,)),
    "no output": Graph((TILES,), ()),
    "three outputs": Graph((TILES,), (SCORES, EMBEDDINGS, EMBEDDINGS)),
    "a fixed number of tiles": Graph((Port("t", "u8", (1, 64, 64, 3)),), (SCORES,)),
    "channels first": Graph((Port("t", "f32", (None, 3, 64, 64)),), (SCORES,)),
    "float pixels": Graph((Port("t", "f32", (None, 64, 64, 3)),), (SCORES,)),
    "not square": Graph((Port("t", "u8", (None, 64, 32, 3)),), (SCORES,)),
    "any side": Graph((Port("t", "u8", (None, None, None, 3)),), (SCORES,)),
    "a map of scores": Graph((TILES,), (Port("p", "f32", (None, 2, 16, 16)),)),
    "half precision scores": Graph((TILES,), (Port("p", "f16", (None, 2)),)),
    "embeddings of any width": Graph((TILES,), (SCORES, Port("e", "f32", (None, None)))),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_graph_of_another_form_is_refused_with_what_it_has_and_what_is_expected(what: str) -> None:
    with pytest.raises(ReleaseError, match=r"it has inputs .* and outputs .*; expected is one input uint8\[n"):
        architecture_of(WRONG[what], 2, MODEL)


def test_an_id_is_made_of_the_files_name_and_content() -> None:
    assert default_id(Path("/models/Pier 7 (final).onnx"), "0123456789ab") == "Pier-7-final-01234567"
    assert default_id(Path("/models/…onnx"), "0123456789ab") == "onnx-01234567"


@pytest.mark.parametrize("side", [1, 3, 4, 5, 8])
def test_golden_tiles_of_another_size_keep_their_pixels(side: int) -> None:
    tiles = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    found = fit(tiles, side)
    assert found.shape == (2, side, side, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found[:, :4, :4], tiles[:, :side, :side])
